"""A run in progress: what it has so far, how it is saved, and what is written when it ends."""

import dataclasses
import math
import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainable import models, provenance, pruning, state
from trainable import store as storage
from trainable.claims import Claim
from trainable.config import Cell, Cycle, dense_run, key
from trainable.data import Data
from trainable.numerics import Numerics
from trainable.randomness import generator
from trainable.remote import Place
from trainable.schedules import schedule
from trainable.state import State
from trainable.store import Store
from trainable.training import build_network, evaluate

CHECK_EVERY = 10
"""Steps between looks at the loss: each look waits for the device."""


class Diverged(ArithmeticError):
    """The training loss is not finite."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One evaluation."""

    step: int
    """Updates made."""
    lr: float
    """Of the last update."""
    train_loss: float
    """Mean over the steps since the last evaluation, nats."""
    val_accuracy: float | None
    val_loss: float | None
    test_accuracy: float
    test_loss: float
    density: float
    """Kept / prunable weights, as reached."""
    images_per_second: float
    """Of training since the last evaluation, evaluation left out."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is, after each step."""

    step: int
    steps: int
    record: Record | None
    """When an evaluation followed this step."""


class Stopwatch:
    """Seconds of wall time while it runs."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = time.perf_counter()

    def read(self) -> float:
        return self._seconds if self._since is None else self._seconds + time.perf_counter() - self._since

    def stop(self) -> None:
        self._seconds, self._since = self.read(), None

    def start(self) -> None:
        self._since = time.perf_counter()


class RunInProgress:
    """The mutable side of one run, from a State at its start or from its resume State."""

    def __init__(
        self,
        cell: Cell,
        store: Store,
        data: Data,
        numerics: Numerics,
        begun: State,
        *,
        mixed: bool,
        claim: Claim | None = None,
    ) -> None:
        """mixed: whether a State that the run starts from was computed under other numerics."""
        self._claim = claim
        tally = begun.notes.get("tally", {})
        self.cell, self.store, self.data, self.numerics = cell, store, data, numerics
        self.step, self.masks = begun.step, begun.masks
        self._norm_drop = begun.notes.get("norm_drop")
        self.schedule = schedule(cell, self._norm_drop)
        self.network = build_network(dense_run(cell), data, numerics, 0, "init")
        state.restore(begun, self.network.model, self.network.optimizer)
        self.records = [Record(**record) for record in tally.get("records", [])]
        self.correct: Tensor | None = None
        self.loss_sum = torch.tensor(tally.get("loss_sum", 0.0), device=data.device)
        self.resumed_at: list[int] = [*tally.get("resumed_at", []), *([begun.step] if tally else [])]
        self.mixed = mixed
        self.steps_run: int = tally.get("steps_run", 0) + (0 if claim is None else claim.lost)
        self.watch = Stopwatch(tally.get("seconds", 0.0))
        self.evaluated_at = tally.get("evaluated_at", 0.0)
        self.saved_at = self.watch.read()

    def advance(self, loss: Tensor) -> None:
        """Count a step and its loss. Raises Diverged, at most CHECK_EVERY steps late, when a loss was not finite."""
        self.step += 1
        self.steps_run += 1
        self.loss_sum += loss
        if self.step % CHECK_EVERY == 0:
            self.require_finite()

    def evaluate(self) -> Record:
        """Evaluate, and begin a new sum of losses. Raises Diverged."""
        self.require_finite()
        steps = self.step - (self.records[-1].step if self.records else 0)
        train_loss, seconds = float(self.loss_sum) / steps, self.watch.read() - self.evaluated_at
        test = evaluate(self.network, self.data, self.data.test)
        val = None if self.data.val is None else evaluate(self.network, self.data, self.data.val)
        self.require_finite(test.loss, 0.0 if val is None else val.loss)
        record = Record(
            step=self.step,
            lr=self.schedule(self.step - 1),
            train_loss=train_loss,
            val_accuracy=None if val is None else val.accuracy,
            val_loss=None if val is None else val.loss,
            test_accuracy=test.accuracy,
            test_loss=test.loss,
            density=self._kept() / self._prunable(),
            images_per_second=steps * dense_run(self.cell).batch_size / seconds,
        )
        self.records.append(record)
        self.correct = test.correct
        self.loss_sum.zero_()
        self.evaluated_at = self.watch.read()
        return record

    def state(self) -> State:
        """A copy of the network as it is now."""
        now = state.snapshot(self.network.model, self.network.optimizer, self.masks, self.step)
        return dataclasses.replace(now, notes=self._notes())

    def _notes(self) -> dict[str, Any]:
        notes = {"numerics": self.numerics.as_dict(), "data": self.data.digest, "numerics_mixed": self.mixed}
        return notes if self._norm_drop is None else notes | {"norm_drop": self._norm_drop}

    def prune(self, density: float) -> None:
        """Narrow the masks, in gradual pruning: what they cut is 0 from here on."""
        assert isinstance(self.cell, Cycle)
        # The same chances each time: drawn anew, small channels, which fit sooner, would go before large ones.
        now, chance = self.state(), generator(self.cell.seed, self.cell.iteration, "mask")
        self.masks = pruning.prune(now.prunable, self.masks, density, self.cell.structure, self.cell.mask, chance)
        state.restore(state.masked(now, self.masks), self.network.model, self.network.optimizer)

    def keep_state(self) -> None:
        """Write the State at this step, for cells that start from it. Raises Diverged."""
        self.require_finite()
        self._write(self.store.state_path(self.cell, self.step), self.state())

    def save_resume(self) -> None:
        """Write the rolling State, from which the run goes on. Raises Diverged."""
        self.require_finite()
        tally = {
            "records": [dataclasses.asdict(record) for record in self.records],
            "loss_sum": float(self.loss_sum),
            "resumed_at": self.resumed_at,
            "steps_run": self.steps_run,
            "seconds": self.watch.read(),
            "evaluated_at": self.evaluated_at,
        }
        now = self.state()
        rolling = dataclasses.replace(now, notes=now.notes | {"tally": tally})
        self._write(self.store.resume_path(self.cell), rolling)
        self.saved_at = self.watch.read()

    def finish(self) -> None:
        """Write the result, after the last evaluation: the cell is done."""
        assert self.correct is not None
        assert self.records[-1].step == self.step
        if self._claim is not None:
            self._claim.require()
        storage.write(self.store.run(key(self.cell)) / "correct.bits", np.packbits(self.correct.numpy()).tobytes())
        self.store.write_result(self.cell, self._numbers(), self._provenance())

    def _numbers(self) -> dict[str, Any]:
        """What is the same, bit for bit, wherever and however often interrupted a cell is trained (and evaluated)."""
        positions = models.output_positions(self.network.model, self.data.image_shape)
        last, history = self.records[-1], [dataclasses.asdict(record) for record in self.records]
        for record in history:
            del record["images_per_second"]
        return {
            "steps": self.step,
            "prunable": self._prunable(),
            "kept": self._kept(),
            "density": last.density,
            "macs": sum(int(mask.sum()) * positions[name] for name, mask in self.masks.items()),
            "dense_macs": sum(mask.numel() * positions[name] for name, mask in self.masks.items()),
            "val_accuracy": last.val_accuracy,
            "val_loss": last.val_loss,
            "test_accuracy": last.test_accuracy,
            "test_loss": last.test_loss,
            "max_test_accuracy": max(record.test_accuracy for record in self.records),
            "data": self.data.digest,
            "state_digest": self.state().digest(),
            "history": history,
        }

    def _provenance(self) -> dict[str, Any]:
        batch, before = dense_run(self.cell).batch_size, 0
        step_seconds = 0.0
        for record in self.records:
            step_seconds += (record.step - before) * batch / record.images_per_second
            before = record.step
        return {
            "numerics": self.numerics.as_dict(),
            "numerics_mixed": self.mixed,
            "train_seconds": self.watch.read(),
            "images_per_second": self.step * batch / step_seconds,
            "images_per_second_history": [record.images_per_second for record in self.records],
            "resumed_at": self.resumed_at,
            "steps_run": self.steps_run,
            "host": platform.node(),
            "git_commit": provenance.git_commit(),
            "versions": provenance.versions(),
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _write(self, path: Place, content: State) -> None:
        if self._claim is not None:
            self._claim.require()
        storage.write(path, state.to_bytes(content))

    def require_finite(self, *evaluated: float) -> None:
        """Raise Diverged when a loss, in training or in evaluation, is not finite."""
        for name, losses in (("training", (self.loss_sum,)), ("test or validation", evaluated)):
            if not all(math.isfinite(loss) for loss in losses):
                where = f"step {self.step} of {self.cell.budget}, learning rate {self.schedule(self.step - 1)}"
                raise Diverged(f"diverged: the {name} loss is not finite ({where})")

    def _kept(self) -> int:
        return pruning.count_kept(self.masks)

    def _prunable(self) -> int:
        return sum(mask.numel() for mask in self.masks.values())
