"""python -m trainable CELL.json --storage DIR: train one cell, and what it depends on, without Ray."""

import argparse
import json
import secrets
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

from trainable import claims, datasets, differences, recipes, strategies
from trainable.architectures import parameters
from trainable.arguments import Parser, positive, seconds
from trainable.columns import run_name, schedule_of
from trainable.config import Cell, Cycle, chain, dense_run, describe, from_description, key, lineage
from trainable.store import Store, spelled


def main(argv: list[str] | None = None) -> int:
    """The command line. Exit status 0: done; 1: the run failed; 2: bad input; 3: the storage gave up; 130: stopped."""
    options = _parser().parse_args(argv)
    try:
        if options.example:
            print(json.dumps(describe(example()), indent=2))
            return 0
        if options.diff is not None:
            print(differences.as_text(*(_read_cell(path)[0] for path in options.diff)))
            return 0
        cell, store = _read_input(options)
        if options.check:
            print(f"{run_name(cell, schedule_of(cell))}: a valid cell, key {key(cell)}")
            return 0
        assert store is not None
        return _train(cell, store, options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ArithmeticError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except claims.Superseded as error:
        print(f"not trained: {error}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"storage error: {error}: what was saved stands; run the same command again to go on", file=sys.stderr)
        return 3


def example() -> Cycle:
    """An iterative cell on the digits: a dense run and seven cycles of learning-rate rewinding."""
    dense = recipes.digits(seed=0)
    return Cycle(dense=dense, densities=chain(0.2, 7), retraining=strategies.lr_rewinding(dense))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m trainable", description=__doc__)
    parser.add_argument("cell", metavar="CELL.json", nargs="?", type=Path, help="a cell's description (see --example)")
    parser.add_argument(
        "--storage", metavar="WHERE", help="for States and results: a folder, made when missing, or s3://bucket/prefix"
    )
    parser.add_argument("--data-root", metavar="DIR", default="data", help="folder of <data set>.npz (default: data)")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps (default: cuda where there is one)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads (default: torch's own choice)")
    parser.add_argument(
        "--resume-every", type=seconds, default=60.0, metavar="SECONDS", help="between resume States (default: 60)"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile: pays on long runs, needs a C++ compiler")
    parser.add_argument("--example", action="store_true", help="print a CELL.json to start from, and stop")
    parser.add_argument(
        "--diff", nargs=2, type=Path, metavar=("A.json", "B.json"), help="say how two cells differ, and stop"
    )
    parser.add_argument("--check", action="store_true", help="check CELL.json and the storage, and stop")
    return parser


def _read_input(options: argparse.Namespace) -> tuple[Cell, Store | None]:
    """Everything that can be wrong, before torch is imported."""
    if options.cell is None:
        raise ValueError("CELL.json is missing: python -m trainable --example prints one to start from")
    if options.storage is None and not options.check:
        raise ValueError("--storage WHERE is missing: the folder, or s3://bucket/prefix, for States and results")
    store = None if options.storage is None else Store(options.storage)
    cell, path = _read_cell(options.cell)
    if path is not None:
        dataset = datasets.read(path)
        datasets.validation_split(dataset.labels_of(dense_run(cell).val_from), dense_run(cell).val_examples)
        if store is not None and not options.check:
            datasets.register(path, store.datasets)
    _require_something_left(cell)
    return cell, store


def _read_cell(path: Path) -> tuple[Cell, Path | None]:
    """The cell that a file describes, and the npz that it names by its path."""
    try:
        description = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"CELL.json can't be read: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    description, npz = _with_named_dataset(description)
    return from_description(description), npz


def _with_named_dataset(description: Any) -> tuple[Any, Path | None]:
    """The description with the path of an npz replaced by its name, and that path."""
    if not isinstance(description, dict):
        return description, None
    if isinstance(description.get("dense"), dict):
        dense, path = _with_named_dataset(description["dense"])
        return description | {"dense": dense}, path
    given = description.get("dataset")
    if not isinstance(given, str) or not given.endswith(".npz"):
        return description, None
    return description | {"dataset": datasets.name_of(given, datasets.read(Path(given)))}, Path(given)


def _require_something_left(cell: Cell) -> None:
    """Raise ValueError for a density that keeps not one weight; of a user's images the channels are taken as 3."""
    if isinstance(cell, Cycle):
        channels = 1 if cell.dense.dataset == "digits" else 3
        prunable = parameters(cell.dense.architecture, channels=channels, classes=10).prunable
        if round(cell.density * prunable) < 1:
            raise ValueError(f"density {cell.density} keeps not one of {prunable:,} prunable weights")


def _train(cell: Cell, store: Store, options: argparse.Namespace) -> int:
    missing = [member for member in lineage(cell) if not store.done(member)]
    if missing:
        stopped = _train_missing(cell, missing, store, options)
        if stopped:
            print("stopped: what was trained is saved; run the same command again to go on", file=sys.stderr)
            return 130
    for member in lineage(cell):
        numbers = store.result(member)["numbers"]
        accuracy, density = numbers["test_accuracy"], numbers["density"]
        print(f"{run_name(member, schedule_of(member))}  density {density:.6f}  test accuracy {accuracy:.4f}")
    print(store.run(key(cell)) / "result.json")
    return 0


def _train_missing(cell: Cell, missing: list[Cell], store: Store, options: argparse.Namespace) -> bool:
    """Train the cells in order, with a progress bar; True when stopped by Ctrl-C or SIGTERM."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    from trainable import cycle, data, numerics

    device = numerics.choose_device(options.device)
    settings = numerics.configure(device, options.threads, options.compile)
    dense = dense_run(cell)
    dataset = datasets.load(dense.dataset, options.data_root, store.datasets)
    prepared = data.prepare_for(dense, dataset, device)
    cycle.check(cell, prepared)
    points = cycle.rewind_points(lineage(cell))

    launch = secrets.token_hex(8)

    def work(member: Cell) -> Generator[Any]:
        for above, step in cycle.missing_states(member, store):
            yield from cycle.replay(above, step, store, prepared, settings)
        claim = claims.take(store.begin(member), launch, store.resume_step(member) or 0)
        if claim is None:
            raise claims.Superseded(f"run {key(member)} is being trained by another process: wait for it, or stop it")
        keep = points.get(key(member), frozenset())
        yield from cycle.run(
            member,
            store,
            prepared,
            settings,
            keep=keep,
            resume_every=options.resume_every,
            claim=claim,
        )
        claim.release()

    stop = _stop_signals()
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[accuracy]}"),
        console=Console(stderr=True),
    )
    with bars:
        for member in missing:
            bar = bars.add_task(run_name(member, schedule_of(member)), total=member.budget, accuracy="")
            steps = work(member)
            try:
                for progress in steps:
                    bars.update(bar, completed=progress.step, total=progress.steps)
                    if progress.record is not None:
                        bars.update(bar, accuracy=f"test accuracy {progress.record.test_accuracy:.4f}")
                    if stop:
                        steps.close()
                        claims.release(store.run(key(member)), launch)
                        return not store.done(cell)
            except (claims.Superseded, OSError):
                raise
            except Exception as error:
                store.write_failure(member, spelled(error))
                raise
    return False


def _stop_signals() -> list[int]:
    """A list that fills when SIGINT or SIGTERM comes: a step is never torn."""
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda signum, _frame: received.append(signum))
    return received


if __name__ == "__main__":
    sys.exit(main())
