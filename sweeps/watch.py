"""TensorBoard on a study: of a folder as it stands, of a remote storage by a copy that follows it."""

import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from trainable.events import PUT_SECONDS
from trainable.remote import S3Path, Stat
from trainable.store import Store, each


def show(store: Store, study: str, *, host: str, port: int) -> int:
    """Run TensorBoard until Ctrl-C or SIGTERM. Raises ValueError when the study has no event file."""
    folder = store.study(study) / "tensorboard"
    if isinstance(folder, Path):
        if not folder.is_dir():
            raise ValueError(f"there is no {folder}: has the study begun?")
        return _run(folder, host, port)
    with tempfile.TemporaryDirectory(prefix="rewind-tensorboard-", ignore_cleanup_errors=True) as scratch:
        mirror = Mirror(folder, Path(scratch))
        if not mirror.update():
            raise ValueError(f"there is no event file in {folder}: has the study begun?")
        ended = threading.Event()
        follower = threading.Thread(target=_follow, args=(mirror, ended), daemon=True)
        follower.start()
        try:
            return _run(Path(scratch), host, port)
        finally:
            ended.set()
            follower.join(5)  # a network that is gone would be waited for


class Mirror:
    """A local copy of the event files below a place."""

    def __init__(self, source: S3Path, target: Path) -> None:
        self._source, self._target = source, target
        self._copied: dict[str, Stat] = {}

    def update(self) -> int:
        """Copy what is new or has grown; how many files that was."""
        there = self._source.below()
        changed = [name for name, stat in there.items() if self._copied.get(name) != stat]
        each(self._copy, changed)
        self._copied |= {name: there[name] for name in changed}
        return len(changed)

    def _copy(self, name: str) -> None:
        path, content = self._target / name, (self._source / name).read_bytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads on from where it was: a file only grows.
        with path.open("r+b" if path.exists() else "wb") as file:
            size = file.seek(0, 2)
            file.write(content[size:])


def _follow(mirror: Mirror, ended: threading.Event) -> None:
    while not ended.wait(PUT_SECONDS):
        try:
            mirror.update()
        except OSError as error:
            print(f"storage error: {error}: what is shown is not new", file=sys.stderr)


def _run(folder: Path, host: str, port: int) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):  # also where the shell that started this ignores the first
        signal.signal(number, signal.default_int_handler)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", host, "--port", str(port)]
    with subprocess.Popen(command) as server:
        try:
            return server.wait()
        except KeyboardInterrupt:
            server.terminate()
            server.wait()
            return 0
