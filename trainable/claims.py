"""One run, one trainer: a claim says who trains a run now. Nothing here needs torch."""

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from trainable.store import write

FOREIGN_SECONDS = 120.0
"""A foreign claim younger than this is left alone."""
RENEW_SECONDS = 30.0


class Superseded(Exception):
    """Another launch trains this run now."""


class Claim:
    """This process's hold on a run's folder: renewed while it trains, required before it writes."""

    def __init__(self, folder: Path, launch: str, *, starts: int, step: int, lost: int) -> None:
        self.starts = starts
        """Times that this launch has started the run without its resume State moving on; 1 at first."""
        self.lost = lost
        """Steps that the trainers before are known to have made after that State."""
        self._path, self._launch, self._step = folder / "claim.json", launch, step
        self._write(step)

    def renew(self, reached: int) -> None:
        """Renew when it is due, at the step reached: cheap enough for every step. Raises Superseded."""
        if time.monotonic() - self._renewed >= RENEW_SECONDS:
            self.require()
            self._write(reached)

    def require(self) -> None:
        """Raises Superseded when another launch has a claim in force: what this process computed is not written."""
        found = read(self._path.parent)
        if found is not None and found["launch"] != self._launch and in_force(found):
            raise Superseded(f"process {found['pid']} on {found['host']} trains run {self._path.parent.name} now")

    def release(self) -> None:
        """Give the run up, when the claim is still ours."""
        release(self._path.parent, self._launch)

    def _write(self, reached: int) -> None:
        claim = {
            "launch": self._launch,
            "host": platform.node(),
            "pid": os.getpid(),
            "time": time.time(),
            "starts": self.starts,
            "step": self._step,
            "reached": reached,
            "lost": self.lost,
        }
        write(self._path, json.dumps(claim).encode())
        self._renewed = time.monotonic()


def take(folder: Path, launch: str, step: int) -> Claim | None:
    """The claim on a run, whose resume State is at a step; None while another launch's is in force."""
    found = read(folder)
    if found is not None and found["launch"] != launch and in_force(found):
        return None
    if found is None:
        return Claim(folder, launch, starts=1, step=step, lost=0)
    starts = found["starts"] + 1 if found["launch"] == launch and found["step"] == step else 1
    before = found.get("lost", 0) if found["step"] == step else 0  # a later State has counted it
    return Claim(folder, launch, starts=starts, step=step, lost=before + max(0, found["reached"] - step))


def release(folder: Path, launch: str) -> None:
    """Give up a launch's claim on a run, when it is still its own."""
    found = read(folder)
    if found is not None and found["launch"] == launch:
        (folder / "claim.json").unlink(missing_ok=True)


def read(folder: Path) -> dict[str, Any] | None:
    """The claim on a run, or None; a torn one counts as none."""
    try:
        found = json.loads((folder / "claim.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found


def in_force(claim: dict[str, Any]) -> bool:
    """Whether a claim is to be respected: young, and not of a dead process on this host."""
    return time.time() - claim["time"] < FOREIGN_SECONDS and not _is_dead(claim)


def held(folder: Path) -> bool:
    """Whether somebody trains the run of a folder now."""
    claim = read(folder)
    return claim is not None and in_force(claim)


def _is_dead(claim: dict[str, Any]) -> bool:
    if claim["host"] != platform.node():
        return False
    try:
        os.kill(claim["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
