"""The storage, a folder or a place in a bucket: who lies where, written whole or not at all, never unpickled.

No torch here. What it says of a run is never overwritten.

runs/<key>/cell.json                 complete description; compared on every hit
runs/<key>/state-<step>.safetensors  States worth keeping
runs/<key>/resume.safetensors        the rolling State of a run in progress
runs/<key>/result.json               {"numbers", "provenance"}, written last: its presence means done
runs/<key>/correct.bits              per test image, right or wrong, packed
runs/<key>/failure.json              the error of a run that gave up
runs/<key>/claim.json                who trains it now (trainable.claims)
studies/<name>/…                     cells.json (cells.lock), results.parquet, results.csv, figures, tensorboard/
probes/<token>                       the mark of a study that runs (trainable.preflight)
datasets/<name>.npz                  users' data sets
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from trainable.config import Cell, describe, key
from trainable.remote import Place, S3Path, patiently

T = TypeVar("T")
R = TypeVar("R")
READERS = 32
"""Threads that look at a storage: each answer of a remote one takes tens of milliseconds."""


class Found(frozenset[str]):
    """The names of what lies in a run's folder."""

    @property
    def done(self) -> bool:
        return "result.json" in self

    @property
    def failed(self) -> bool:
        return "failure.json" in self

    @property
    def resumable(self) -> bool:
        return "resume.safetensors" in self

    @property
    def kept_steps(self) -> list[int]:
        """Steps whose States are kept, increasing."""
        matches = (re.fullmatch(r"state-(\d+)\.safetensors", name) for name in self)
        return sorted(int(match[1]) for match in matches if match)


class Store:
    """A storage: a folder, or a place in a bucket. Making one checks that it can be used, and writes nothing."""

    root: Place

    def __init__(self, root: str | Place, *, patient: bool = False) -> None:
        """Raises ValueError for what can't be a folder, can't be written, or is a bucket that can't be had.

        patient: a server that does not answer now is asked again for minutes; it is known to be right.
        """
        if "://" in str(root):
            self.root = S3Path(str(root))
            try:
                self.root.require_bucket(patient=patient)
            except OSError as error:
                raise ValueError(
                    f"storage {str(root)!r} can't be used: {error}; the bucket must exist, and AWS_… variables (or the "
                    "machine's role) must open it; another service than AWS: AWS_ENDPOINT_URL"
                ) from error
            return
        try:
            folder = Path(str(root)).expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(f"storage {str(root)!r} can't be found: {error}") from error
        self.root = nearest = folder
        while not nearest.exists() and not nearest.is_symlink():
            nearest = nearest.parent
        if not nearest.is_dir():
            raise ValueError(
                f"storage {str(root)!r} can't be written: {nearest} is not a folder; choose another with --storage"
            )
        if not os.access(nearest, os.W_OK | os.X_OK) or _is_virtual(nearest):
            raise ValueError(
                f"storage {str(root)!r} can't be written: no permission in {nearest}; choose another with --storage"
            )

    @property
    def remote(self) -> bool:
        """Whether it lies behind a network protocol, not in a folder."""
        return isinstance(self.root, S3Path)

    @property
    def datasets(self) -> Place:
        return self.root / "datasets"

    def patiently(self, action: Callable[[], T]) -> T:
        """Do what reads or writes the storage by other means than this: a remote one's errors are waited out."""
        return patiently(action) if self.remote else action()

    def run(self, run_key: str) -> Place:
        """The folder of a run."""
        return self.root / "runs" / run_key

    def study(self, name: str) -> Place:
        """The folder of a study. Raises ValueError for a name that is not one plain path component."""
        if not re.fullmatch(r"[\w][\w.-]*", name):
            raise ValueError(f"a study's name must be letters, digits, '.', '_' or '-', got {name!r}")
        return self.root / "studies" / name

    def look(self, keys: Iterable[str]) -> dict[str, Found]:
        """What lies in the folders of runs, by key: nothing for a run that was never begun."""
        keys = list(keys)
        there = set(self.run_keys()) if self.remote else set(keys)  # one answer instead of one a run
        found = each(lambda run_key: _found(self.run(run_key)) if run_key in there else Found(), keys)
        return dict(zip(keys, found, strict=True))

    def run_keys(self) -> list[str]:
        """The keys of all runs that were ever begun."""
        return names_in(self.root / "runs")

    def declarations(self) -> dict[Place, tuple[int, int]]:
        """The cells.json of every study, and what tells whether it has changed: when it was written, its size."""
        found: dict[Place, tuple[int, int]] = {}
        for name in names_in(self.root / "studies"):
            path = self.root / "studies" / name / "cells.json"
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                stat = path.stat()
                found[path] = stat.st_mtime_ns, stat.st_size
        return found

    def begin(self, cell: Cell) -> Place:
        """Make a run's folder, or check that it is this cell's; forget an earlier failure."""
        folder = self.run(key(cell))
        written = self._read_json(folder, "cell.json")
        if written is None:
            write(folder / "cell.json", _json(describe(cell)))
        elif written != describe(cell):
            raise _damaged(folder, "cell.json", "it describes another cell than the one with this key")
        (folder / "failure.json").unlink(missing_ok=True)
        return folder

    def done(self, cell: Cell) -> bool:
        """Whether a cell has its result."""
        return (self.run(key(cell)) / "result.json").exists()

    def result(self, cell: Cell) -> dict[str, Any]:
        """A finished cell's {"numbers", "provenance"}. Raises ValueError for a damaged file or another cell's."""
        folder = self.run(key(cell))
        if self._read_json(folder, "cell.json") != describe(cell):
            raise _damaged(folder, "cell.json", "it is missing or describes another cell than the one with this key")
        result = self._read_json(folder, "result.json")
        try:
            whole = result["provenance"]["numbers_digest"] == numbers_digest(result["numbers"])
        except (KeyError, TypeError) as error:
            raise _damaged(folder, "result.json", f"it lacks its parts: {error!r}") from error
        if not whole:
            raise _damaged(folder, "result.json", "its checksum is off")
        return result

    def write_result(self, cell: Cell, numbers: dict[str, Any], provenance: dict[str, Any]) -> None:
        """Write result.json, which says that the run is done; the rolling State goes."""
        folder = self.run(key(cell))
        provenance = {**provenance, "numbers_digest": numbers_digest(numbers)}
        write_once(folder / "result.json", _json({"numbers": numbers, "provenance": provenance}))
        for name in ("resume.safetensors", "claim.json"):
            (folder / name).unlink(missing_ok=True)

    def write_failure(self, cell: Cell, error: str) -> None:
        """Write why a run gave up; trying it again forgets it."""
        write(self.run(key(cell)) / "failure.json", _json({"error": error}))

    def forget(self, run_key: str) -> None:
        """Remove a run, the proof of being done first."""
        folder = self.run(run_key)
        (folder / "result.json").unlink(missing_ok=True)
        if isinstance(folder, S3Path):
            folder.remove_all()
        else:
            shutil.rmtree(folder)

    def kept_steps(self, cell: Cell) -> list[int]:
        """Steps whose States are kept, increasing."""
        return _found(self.run(key(cell))).kept_steps

    def state_path(self, cell: Cell, step: int) -> Place:
        return self.run(key(cell)) / f"state-{step}.safetensors"

    def resume_path(self, cell: Cell) -> Place:
        return self.run(key(cell)) / "resume.safetensors"

    def resume_step(self, cell: Cell) -> int | None:
        """The step of a run's resume State, by its header; 0 when that can't be read, None when there is none."""
        try:
            path = self.resume_path(cell)
            length = int.from_bytes(_start(path, 8), "little")
            header = json.loads(_start(path, 8 + min(length, 100_000_000))[8:])  # safetensors itself allows no longer
            return int(json.loads(header["__metadata__"]["state"])["step"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return 0

    def _read_json(self, folder: Place, name: str) -> Any:
        try:
            return json.loads((folder / name).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise _damaged(folder, name, f"it does not parse: {error}") from error


def spelled(error: BaseException) -> str:
    """An exception as failure.json and the table say it; a diverged run in its own words."""
    return str(error) if isinstance(error, ArithmeticError) else f"{type(error).__name__}: {error}"


def damaged_state(path: Place, reason: str) -> ValueError:
    """The error for a State that can't be used: it names the file and the way on."""
    if path.name == "resume.safetensors":
        return ValueError(f"{path} is damaged ({reason}): delete this file, and its run starts again from step 0")
    return _damaged(path.parent, path.name, reason)


def write(path: Place, content: bytes) -> None:
    """Write a file whole or not at all: locally a temporary one, fsync, rename."""
    if isinstance(path, S3Path):
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_once(path: Place, content: bytes) -> None:
    """Write a file that is never changed: if it is there already, leave it."""
    if not path.exists():
        write(path, content)


@contextlib.contextmanager
def as_folder(place: Place) -> Iterator[Path]:
    """A local folder to write files into: the place itself, or one whose files are put there at the end."""
    if isinstance(place, Path):
        place.mkdir(parents=True, exist_ok=True)
        yield place
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)
        files = [path for path in Path(scratch).rglob("*") if path.is_file()]
        each(lambda path: write(place / path.relative_to(scratch), path.read_bytes()), files)


@contextlib.contextmanager
def locked(path: Place) -> Iterator[None]:
    """Hold a lock file, one process at a time. It stays there: removing it would be a race. S3 has none: no lock."""
    if isinstance(path, S3Path):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:  # opened to write: NFS asks for that
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed, or its process is gone
        yield


def each(action: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What an action returns for each item, many at a time: for what waits for a storage."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(action, items))


def numbers_digest(numbers: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a result's numbers, hexadecimal."""
    return hashlib.sha256(
        json.dumps(numbers, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def _damaged(folder: Place, name: str, reason: str) -> ValueError:
    command = f"python -m sweeps forget {folder.parent.parent} {folder.name}"
    return ValueError(
        f"{folder / name} is damaged ({reason}): delete the folder {folder}, and its cell is trained again ({command})"
    )


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _is_virtual(path: Path) -> bool:
    """Whether a folder offers no room at all, as /proc and /sys do, whatever their permissions say."""
    return shutil.disk_usage(path).total == 0


def _found(folder: Place) -> Found:
    return Found(names_in(folder))


def names_in(folder: Place) -> list[str]:
    """The names of what lies in a folder, sorted; none when there is no folder."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _start(path: Place, count: int) -> bytes:
    """The first bytes of a file."""
    if isinstance(path, S3Path):
        return path.read_start(count)
    with path.open("rb") as file:
        return file.read(count)
