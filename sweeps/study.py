"""A study: a named set of cells; what is missing of it, training just that, its table; the shared command line."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pandas as pd

import sweeps.plan as plan
from analysis import aggregate, plots, report, tables
from analysis.load import load, save
from analysis.subject import of_study
from sweeps.jobs import Jobs
from trainable import datasets
from trainable.arguments import gpu_share, not_negative, positive, seconds
from trainable.columns import Schedule, columns
from trainable.config import Cell, dense_run, describe, from_description, key
from trainable.datasets import Dataset
from trainable.remote import Place
from trainable.store import Store, as_folder, locked, write


class Source(Protocol):
    """What asks for cells while a study runs, by the results of earlier ones: a search."""

    def begin(self, jobs: Jobs) -> None:
        """Add the jobs that are known before anything is trained."""

    def advance(self, jobs: Jobs) -> bool:
        """Add the jobs that are known by now; whether anything changed."""

    def rows(self) -> Sequence[tuple[Schedule, Cell]]:
        """Every row that was asked for so far."""

    def save(self) -> None:
        """Write down what further cells depend on."""

    def show(self, frame: pd.DataFrame) -> None:
        """Say and draw what was found, given the study's table."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Rows of a table: cells, each under its schedule. A chain's first cycle may stand under two, with one key."""

    name: str
    protocol_name: str
    """What its way of training is called in the table."""
    rows: tuple[tuple[Schedule, Cell], ...]
    source: Source | None = None
    """Of further rows; None: these are all."""

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError(f"study {self.name!r} has no cell: the options select nothing")

    def every_row(self) -> tuple[tuple[Schedule, Cell], ...]:
        """The rows, and those that the source has asked for so far."""
        return self.rows if self.source is None else (*self.rows, *self.source.rows())


def add_options(parser: argparse.ArgumentParser, *, name: str | None) -> None:
    """The options that every study's script has. name: the default of --name; None: the script makes it."""
    where = parser.add_argument_group("where")
    where.add_argument(
        "--storage", default="results", metavar="WHERE", help="a folder, or s3://bucket/prefix (default: results)"
    )
    where.add_argument("--name", default=name, help=f"of the study in the storage (default: {name or 'the protocol'})")
    where.add_argument("--data-root", default="data", metavar="DIR", help="folder of <data set>.npz (default: data)")
    how = parser.add_argument_group("how")
    how.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    how.add_argument("--json", action="store_true", help="print the plan of --dry-run as JSON")
    how.add_argument(
        "--threads", type=positive, default=1, metavar="N", help="CPUs and torch threads a trial (default: 1)"
    )
    how.add_argument(
        "--gpus-per-trial",
        type=gpu_share,
        metavar="SHARE",
        help="0.25, 0.5, 1, 2 … (default: by architecture, where there are GPUs)",
    )
    how.add_argument("--retries", type=not_negative, default=2, metavar="N", help="of a cell that fails (default: 2)")
    how.add_argument(
        "--resume-every", type=seconds, default=60.0, metavar="SECONDS", help="between resume States (default: 60)"
    )
    how.add_argument("--keep-states", action="store_true", help="keep States that no cell needs any more")
    how.add_argument("--compile", action="store_true", help="torch.compile: pays on long runs, needs a C++ compiler")


def command(options: argparse.Namespace, declare: Callable[[argparse.Namespace], Study]) -> int:
    """A script's main: the exit status of run(), and 2 for bad input, 3 when the storage gave up."""
    try:
        return run(declare(options), options)
    except ValueError as error:
        _say(f"error: {error}")
        return 2
    except OSError as error:
        _say(f"storage error: {error}: what was saved stands; the same command goes on")
        return 3
    except KeyboardInterrupt:
        _say("stopped")
        return 130


def run(study: Study, options: argparse.Namespace) -> int:
    """Say the plan, train what is missing, write the table and the figure, print the table.

    Returns the exit status. 0: every cell is done; 1: some failed; 3: storage or cluster gave up; 130: stopped.
    """
    if options.json and not options.dry_run:
        raise ValueError("--json prints the plan of --dry-run: give both")
    store = Store(options.storage)
    folder = store.study(study.name)
    rows = _grown(study, folder)
    jobs = Jobs(store)
    jobs.add(study.rows)
    if study.source is not None:
        study.source.begin(jobs)
    planned = plan.plan(jobs, store, study.every_row(), [from_description(row["cell"]) for row in rows])
    if options.dry_run:
        print(json.dumps(plan.as_json(planned), indent=1) if options.json else plan.as_text(planned))
        return 0
    if jobs.left():
        from sweeps import launch  # Ray takes a second

        _say(f"runs {launch.where()}, with storage {store.root}")
    _say(plan.as_text(planned))
    there, chosen = {_place(row) for row in rows}, {(schedule, key(cell)) for schedule, cell in study.every_row()}
    if left_out := len(there - chosen):
        _say(f"{left_out} rows declared earlier are not selected now: they stay in the table")

    def grow() -> None:
        if study.source is not None and study.source.advance(jobs):
            _declare(study, folder)

    finished: dict[str, dict[str, Any]] = {}

    def write_table() -> pd.DataFrame:
        frame = store.patiently(lambda: load(str(store.root), study.name, finished=finished))
        with as_folder(folder) as out:
            save(frame, out)
        return frame

    stop = None
    if jobs.left():
        data = _checked_data(jobs, store, options)
        stop, _ = launch.train(
            study.name, jobs, store, data, options, lambda: _declare(study, folder), write_table, grow
        )
    _declare(study, folder)
    frame = write_table()
    if study.source is not None:
        study.source.show(frame)
    elif (frame["status"] == "done").any():
        with as_folder(folder) as out:
            plots.save(plots.accuracy_against_compression(frame), out / "accuracy")
        print(tables.as_text(aggregate.accuracy(frame)))
        _say(f"figure: {folder / 'accuracy.png'}, .svg and .pdf")
        _report(store, study.name, frame)
    _say(f"table: {folder / 'results.parquet'} and .csv")
    failed = frame[(frame["status"] == "failed") & frame["key"].isin(list(jobs.cells))]
    for error in failed["error"].unique():
        _say(f"failed: {error}")
    if stop is not None and stop.stop_all():
        _say(f"{stop.reason or 'stopped'}\nto go on: {shlex.join([sys.executable, *sys.argv])}")
        return 3 if stop.reason else 130
    return 0 if failed.empty else 1


def _declare(study: Study, folder: Place) -> None:
    """Let cells.json grow by a study's rows, while no other launch does; what its source depends on comes first.

    On S3, where nothing can be locked, a launch that declares at the same moment may undo it: the next one repairs it,
    and every launch declares at its end too.
    """
    if study.source is not None:
        study.source.save()
    with locked(folder / "cells.lock"):
        write(folder / "cells.json", (json.dumps(_grown(study, folder), indent=1) + "\n").encode())


def _report(store: Store, name: str, frame: pd.DataFrame) -> None:
    """Print the verdicts and write the report, one a protocol where a network has several (verdicts do not mix them).

    What was trained stands when there can be none.
    """
    several = frame.groupby(["dataset", "architecture"])["protocol"].nunique().max() > 1
    for protocol in frame["protocol"].unique() if several else [None]:
        try:
            subject = store.patiently(lambda: of_study(str(store.root), name, frame=frame, protocol=protocol))  # noqa: B023
            print(f"\n{'' if protocol is None else f'protocol {protocol}: '}{tables.headlines(subject.verdicts())}")
            folder = store.study(name) / ("report" if protocol is None else f"report-{protocol}")
            with as_folder(folder) as out:
                page = report.write(subject, out)
            _say(f"report: {folder / page.name}")
        except ValueError as error:
            _say(f"no report: {error}")


def _grown(study: Study, folder: Place) -> list[dict[str, Any]]:
    """The rows of cells.json: those that are there already, then the new ones, each once. It only grows.

    A row has the descriptive columns and, under "cell", the complete description. Raises ValueError when the study of
    this name trains a network by other protocols than all that it is declared with now.
    """
    path = folder / "cells.json"
    try:
        before = json.loads(path.read_bytes()) if path.exists() else []
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and it is written again") from error
    declared = [
        {"study": study.name, "protocol_name": study.protocol_name, **columns(cell, schedule), "cell": describe(cell)}
        for schedule, cell in study.every_row()
    ]
    recorded, wanted = _protocols(before), _protocols(declared)
    for network in recorded.keys() & wanted.keys():
        theirs, ours = recorded[network], wanted[network]
        if not theirs.keys() & ours.keys():
            there, here = next(iter(theirs.values())), next(iter(ours.values()))
            raise ValueError(
                f"study {study.name!r} in {folder.parent.parent} trains {network[1]} on {network[0]} by another "
                f"protocol ({_differences(there['cell'], here['cell'])}): choose another --name"
            )
    grown = {_place(row): row for row in before}
    for row in declared:
        grown.setdefault(_place(row), row)
    return list(grown.values())


def _place(row: dict[str, Any]) -> tuple[str, str]:
    """What tells a study's rows apart: a chain's first cycle may be there twice."""
    return row["schedule"], row["key"]


def _protocols(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """A row by protocol by network (data set, architecture)."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["dataset"], row["architecture"]), {}).setdefault(row["protocol"], row)
    return found


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """The fields of the dense runs of two descriptions that differ, the seed apart."""
    a, b = theirs.get("dense", theirs), ours.get("dense", ours)
    names = sorted((a.keys() | b.keys()) - {"seed", "kind"})
    return ", ".join(f"{name} {a.get(name)} there, {b.get(name)} here" for name in names if a.get(name) != b.get(name))


def _checked_data(jobs: Jobs, store: Store, options: argparse.Namespace) -> dict[str, Dataset]:
    """The data sets by name. Raises ValueError, before Ray starts, for one that can't be had or split."""
    found: dict[str, Dataset] = {}
    for name, part, count in {
        (run.dataset, run.val_from, run.val_examples) for run in map(dense_run, jobs.cells.values())
    }:
        found[name] = found.get(name) or datasets.load(name, options.data_root, store.datasets)
        datasets.validation_split(found[name].labels_of(part), count)
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
