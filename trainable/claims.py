"""One run, one trainer: a claim says who trains a run now. Nothing here needs torch."""

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

from trainable.remote import Place
from trainable.store import write

FOREIGN_SECONDS = 120.0
"""A foreign claim younger than this is left alone."""
RENEW_SECONDS = 30.0


class Superseded(Exception):
    """Somebody else trains this run now."""


class Claim:
    """This process's hold on a run's folder: renewed while it trains, required before it writes."""

    def __init__(self, folder: Place, launch: str, *, machines: Sequence[str], step: int, lost: int) -> None:
        """machines: on which this launch has started the run without its resume State moving on; the last is this one.

        Those that are gone are left out: that a run ended with them is no fault of its own.
        """
        self.starts = len(machines)
        """Times that this launch has started the run without its resume State moving on; 1 at first."""
        self.lost = lost
        """Steps that the trainers before are known to have made after that State."""
        self._path, self._launch, self._step, self._machines = folder / "claim.json", launch, step, [*machines]
        self._write(step)

    def renew(self, reached: int) -> None:
        """Renew when it is due, at the step reached: cheap enough for every step. Raises Superseded."""
        if time.monotonic() - self._renewed >= RENEW_SECONDS:
            self.require()
            self._write(reached)

    def require(self) -> None:
        """Raises Superseded when another process has a claim in force: what this one computed is not written.

        In the same launch it is one on another machine, after this one was given up for dead.
        """
        found = read(self._path.parent)
        if found is not None and not self._wrote(found) and (found["launch"] == self._launch or in_force(found)):
            raise Superseded(f"process {found['pid']} on {found['host']} trains run {self._path.parent.name} now")

    def release(self) -> None:
        """Give the run up, when the claim is still this process's."""
        found = read(self._path.parent)
        if found is not None and self._wrote(found):
            self._path.unlink(missing_ok=True)

    def _wrote(self, claim: dict[str, Any]) -> bool:
        return (claim["launch"], claim["host"], claim["pid"]) == self._trainer()

    def _trainer(self) -> tuple[str, str, int]:
        return self._launch, platform.node(), os.getpid()

    def _write(self, reached: int) -> None:
        claim = {
            **dict(zip(("launch", "host", "pid"), self._trainer(), strict=True)),
            "time": time.time(),
            "machines": self._machines,
            "step": self._step,
            "reached": reached,
            "lost": self.lost,
        }
        write(self._path, json.dumps(claim).encode())
        self._renewed = time.monotonic()


def take(
    folder: Place, launch: str, step: int, *, machine: str = "", gone: Callable[[str], bool] = lambda machine: False
) -> Claim | None:
    """The claim on a run, whose resume State is at a step; None while another launch's is in force.

    machine: what this one is called; gone: whether another is lost.
    """
    found = read(folder)
    if found is not None and found["launch"] != launch and in_force(found):
        return None
    if found is None:
        return Claim(folder, launch, machines=[machine], step=step, lost=0)
    again = found["launch"] == launch and found["step"] == step
    machines = [*(before for before in found.get("machines", ()) if again and not gone(before)), machine]
    before = found.get("lost", 0) if found["step"] == step else 0  # a later State has counted it
    return Claim(folder, launch, machines=machines, step=step, lost=before + max(0, found["reached"] - step))


def release(folder: Place, launch: str) -> None:
    """Give up a launch's claim on a run, when it is still its own."""
    found = read(folder)
    if found is not None and found["launch"] == launch:
        (folder / "claim.json").unlink(missing_ok=True)


def read(folder: Place) -> dict[str, Any] | None:
    """The claim on a run, or None; a torn one counts as none."""
    try:
        return dict(json.loads((folder / "claim.json").read_bytes()))
    except (FileNotFoundError, ValueError):
        return None


def in_force(claim: dict[str, Any]) -> bool:
    """Whether a claim is to be respected: young, and not of a dead process on this host."""
    return time.time() - claim["time"] < FOREIGN_SECONDS and not _is_dead(claim)


def held(folder: Place) -> bool:
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
