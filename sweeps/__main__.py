"""python -m sweeps: run the studies that come with the project, and look after a storage."""

import contextlib
import sys
from fnmatch import fnmatch

from sweeps import full_study, quick_study, rewind_search, watch
from sweeps.retention import Retention, declared
from trainable import claims
from trainable.arguments import Parser, positive
from trainable.columns import run_name, schedule_of
from trainable.config import key as key_of
from trainable.config import lineage
from trainable.store import Store

SCRIPTS = {"quick_study": quick_study.main, "full_study": full_study.main, "rewind_search": rewind_search.main}


def main(argv: list[str] | None = None) -> int:
    """The command line. Exit status as the scripts', or 0, and 2 for bad input."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in SCRIPTS:
        return SCRIPTS[arguments[0]](arguments[1:])
    parser = Parser(prog="python -m sweeps", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in SCRIPTS:
        commands.add_parser(name, help=f"as python sweeps/{name}.py", add_help=False)
    collect = commands.add_parser("gc", help="remove States that no cell of any study needs any more")
    collect.add_argument("storage", metavar="STORAGE")
    collect.add_argument("--dry-run", action="store_true", help="only list them")
    drop = commands.add_parser("forget", help="remove a run that is damaged or unwanted")
    drop.add_argument("storage", metavar="STORAGE")
    drop.add_argument("key", metavar="KEY", help="the run's key, or the beginning of it")
    shown = commands.add_parser("tensorboard", help="show a study, wherever its storage is, while it runs or later")
    shown.add_argument("storage", metavar="STORAGE")
    shown.add_argument("study", metavar="STUDY")
    shown.add_argument("--host", default="localhost", help="that it listens on (default: localhost)")
    shown.add_argument("--port", type=positive, default=6006, help="(default: 6006)")
    options = parser.parse_args(arguments)
    try:
        if options.command == "tensorboard":
            return watch.show(Store(options.storage), options.study, host=options.host, port=options.port)
        store = _existing(options.storage)
        return gc(store, dry_run=options.dry_run) if options.command == "gc" else forget(store, options.key)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"storage error: {error}", file=sys.stderr)
        return 3


def gc(store: Store, *, dry_run: bool) -> int:
    """Remove the States of inner cycles whose readers are all done, and what writers that were killed left behind."""
    retention = Retention(store, ())
    paths = [path for cycle in retention.cycles.values() for path in retention.removable(cycle)]
    for run_key, found in store.look(store.run_keys()).items():
        folder = store.run(run_key)
        if found.done and found.resumable:
            paths.append(folder / "resume.safetensors")
        if torn := [name for name in found if fnmatch(name, ".*.tmp")]:
            paths += [] if claims.held(folder) else [folder / name for name in torn]
    size = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # a running study may be quicker
            size += path.stat().st_size
        print(path)
        if not dry_run:
            path.unlink(missing_ok=True)
    print(f"{len(paths)} files, {size / 1e6:.1f} MB {'would go' if dry_run else 'removed'}")
    return 0


def forget(store: Store, beginning: str) -> int:
    """Remove a run; says which cells stand on it. Raises ValueError for no such run, or one that is trained now."""
    found = [run_key for run_key in store.run_keys() if beginning and run_key.startswith(beginning)]
    if len(found) != 1:
        names = ", ".join(found[:5])
        raise ValueError(f"{len(found)} runs of {store.root} begin with {beginning!r}{': ' if names else ''}{names}")
    run_key = found[0]
    if claims.held(store.run(run_key)):
        raise ValueError(f"run {run_key} is being trained: stop its study first")
    standing = [cell for cell in declared(store) if run_key in map(key_of, lineage(cell)[:-1])]
    store.forget(run_key)
    for path in store.declarations():  # what a table says of it is no longer so; the next launch writes it anew
        if run_key.encode() in path.read_bytes():
            (path.parent / "results.parquet").unlink(missing_ok=True)
    print(f"forgotten: {store.run(run_key)}")
    for cell in standing:
        state = (
            "done, and stays as it is" if store.done(cell) else "not done: the next launch trains this run again for it"
        )
        print(f"stands on it: {run_name(cell, schedule_of(cell))} ({state})")
    return 0


def _existing(storage: str) -> Store:
    store = Store(storage)
    if not store.run_keys() and not store.declarations():
        raise ValueError(f"there is no storage at {store.root}")
    return store


if __name__ == "__main__":
    sys.exit(main())
