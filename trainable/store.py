"""The storage folder: who lies where, written whole or not at all, never overwritten, never unpickled. No torch here.

runs/<key>/cell.json                 complete description; compared on every hit
runs/<key>/state-<step>.safetensors  States worth keeping
runs/<key>/resume.safetensors        the rolling State of a run in progress
runs/<key>/result.json               {"numbers", "provenance"}, written last: its presence means done
runs/<key>/correct.bits              per test image, right or wrong, packed
runs/<key>/failure.json              the error of a run that gave up
runs/<key>/claim.json                who trains it now (trainable.claims)
studies/<name>/…                     cells.json (cells.lock), results.parquet, results.csv, figures, tensorboard/
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainable.config import Cell, describe, key


class Store:
    """A storage folder. Making one checks that it can be written, and writes nothing."""

    def __init__(self, root: str | Path) -> None:
        """Raises ValueError for a path that can't be a folder or can't be written."""
        if "://" in str(root):
            raise ValueError(f"storage must be a local folder or a shared file system, got {str(root)!r}")
        try:
            self.root = Path(root).expanduser().absolute()
        except RuntimeError as error:
            raise ValueError(f"storage {str(root)!r} can't be found: {error}") from error
        nearest = self.root
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
    def datasets(self) -> Path:
        return self.root / "datasets"

    def run(self, run_key: str) -> Path:
        """The folder of a run."""
        return self.root / "runs" / run_key

    def study(self, name: str) -> Path:
        """The folder of a study. Raises ValueError for a name that is not one plain path component."""
        if not re.fullmatch(r"[\w][\w.-]*", name):
            raise ValueError(f"a study's name must be letters, digits, '.', '_' or '-', got {name!r}")
        return self.root / "studies" / name

    def begin(self, cell: Cell) -> Path:
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
        (self.run(run_key) / "result.json").unlink(missing_ok=True)
        shutil.rmtree(self.run(run_key))

    def kept_steps(self, cell: Cell) -> list[int]:
        """Steps whose States are kept, increasing."""
        found = (re.fullmatch(r"state-(\d+)\.safetensors", path.name) for path in self.run(key(cell)).glob("state-*"))
        return sorted(int(match[1]) for match in found if match)

    def state_path(self, cell: Cell, step: int) -> Path:
        return self.run(key(cell)) / f"state-{step}.safetensors"

    def resume_path(self, cell: Cell) -> Path:
        return self.run(key(cell)) / "resume.safetensors"

    def resume_step(self, cell: Cell) -> int | None:
        """The step of a run's resume State, by its header; 0 when that can't be read, None when there is none."""
        try:
            with self.resume_path(cell).open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(length, 100_000_000)))  # safetensors itself allows no longer one
                return int(json.loads(header["__metadata__"]["state"])["step"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return 0

    def _read_json(self, folder: Path, name: str) -> Any:
        try:
            return json.loads((folder / name).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise _damaged(folder, name, f"it does not parse: {error}") from error


def spelled(error: BaseException) -> str:
    """An exception as failure.json and the table say it; a diverged run in its own words."""
    return str(error) if isinstance(error, ArithmeticError) else f"{type(error).__name__}: {error}"


def damaged_state(path: Path, reason: str) -> ValueError:
    """The error for a State that can't be used: it names the file and the way on."""
    if path.name == "resume.safetensors":
        return ValueError(f"{path} is damaged ({reason}): delete this file, and its run starts again from step 0")
    return _damaged(path.parent, path.name, reason)


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a temporary one, fsync, rename."""
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


def write_once(path: Path, content: bytes) -> None:
    """Write a file that is never changed: if it is there already, leave it."""
    if not path.exists():
        write(path, content)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, one process at a time. It stays there: removing it would be a race."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:  # opened to write: NFS asks for that
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed, or its process is gone
        yield


def numbers_digest(numbers: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a result's numbers, hexadecimal."""
    return hashlib.sha256(
        json.dumps(numbers, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    ).hexdigest()


def _damaged(folder: Path, name: str, reason: str) -> ValueError:
    command = f"python -m sweeps forget {folder.parent.parent} {folder.name}"
    return ValueError(
        f"{folder / name} is damaged ({reason}): delete the folder {folder}, and its cell is trained again ({command})"
    )


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _is_virtual(path: Path) -> bool:
    """Whether a folder offers no room at all, as /proc and /sys do, whatever their permissions say."""
    return shutil.disk_usage(path).total == 0
