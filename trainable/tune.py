"""The Ray Tune trainable around cycle.run, and what a cell asks of a machine. Torch is imported in its first step."""

import json
import math
import platform
import socket
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import ray
from ray import tune

from trainable import architectures, claims, datasets, preflight, recipes
from trainable.claims import Superseded
from trainable.config import Cell, DenseRun, dense_run, from_description
from trainable.events import Events
from trainable.store import Store, spelled

STEP_SECONDS = 2.0
"""Training in one Tune step, at most: Tune waits for it before it stops a trial."""
REACH_SECONDS = 2.0
"""For a machine to take a connection; one that does not has left."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What all trials of one launch share. None of it is part of a cell's identity."""

    storage: str
    data_root: str
    study: str
    threads: int
    """CPUs of a trial, and its torch threads."""
    compile: bool
    resume_every: float
    """Seconds between resume States."""
    retries: int
    """Times that a cell is tried again."""
    id: str
    """Tells this launch's claims from those of others."""
    driver: preflight.Driver
    """What every machine is compared with before its first cell."""
    data: dict[str, str]
    """Digests of the data sets, by name."""

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Launch":
        """From the plain values of a trial's config."""
        return cls(**(config | {"driver": preflight.Driver(**config["driver"])}))


def gpu_share(architecture: str) -> float:
    """The part of one GPU that a cell asks for: small networks cannot fill one, so several share it."""
    spec = architectures.parse(architecture)
    if spec.family == "resnet" and spec.width <= 16:
        return 0.25 if spec.depth <= 56 else 0.5
    return 0.5 if spec.family == "vgg" else 1.0


def resources(architecture: str, *, threads: int, share: float | None, gpus: bool) -> dict[str, float]:
    """What one trial asks Ray for: CPUs, and a share of a GPU (None: by architecture) where the cluster has GPUs."""
    if not gpus:
        return {"CPU": float(threads)}
    return {"CPU": float(threads), "GPU": gpu_share(architecture) if share is None else share}


class Vanished(RuntimeError):
    """The processes that train a run die without a Python exception."""


class CellTrainable(tune.Trainable):
    """One trial trains one cell, or replays a run to a State. What is computed lies in the store; Tune sees metrics.

    A failure becomes the run's failure.json and the metric `error`; the trial itself ends as any other.
    """

    _store: Store
    _steps: Generator[Any] | None
    _events: Events | None
    _claim: claims.Claim | None
    _fit: bool
    """Whether this machine was found to have what it needs."""

    def setup(self, config: dict[str, Any]) -> None:
        """Only remember: a setup may run in a process that is then thrown away."""
        self._fit = False
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train for STEP_SECONDS, to the next evaluation, or to the end."""
        try:
            return self._report(done=not self._advance())
        except Superseded:
            self._metrics["foreign"] = True
        except preflight.Unfit as error:
            self._metrics["fault"] = str(error)
        except OSError as error:  # the storage's, or this machine's own disk's: no fault of the cell
            self._metrics["fault"] = f"storage error on machine {platform.node()}: {error}"
        return self._report(done=True)

    def _advance(self) -> bool:
        """Whether there is more to do. An exception is tried again in place; the last one is the run's failure."""
        began = time.monotonic()
        while True:
            try:
                if self._steps is None:
                    self._steps = self._open()
                for progress in self._steps:
                    if self._metrics["resumed_at"] is None:
                        self._metrics["resumed_at"] = progress.step - 1
                    self._metrics |= {"step": progress.step, "steps": progress.steps}
                    if progress.record is not None and self._events is not None:
                        self._metrics |= asdict(progress.record)
                        self._events.scalars(_tags(progress.record), progress.step)
                    due = progress.record is not None or time.monotonic() - began > STEP_SECONDS
                    if due and progress.step < progress.steps:  # the last report says done too
                        return True
                return False
            except (Superseded, preflight.Unfit, OSError):
                raise
            except Exception as error:
                self._steps = None
                self._attempts += 1
                # A loss that is not finite would not be finite again.
                if self._attempts > self._launch.retries or isinstance(error, ArithmeticError | Vanished):
                    self._metrics["error"] = spelled(error)
                    if self._config["replay"] is None:
                        self._store.write_failure(self._cell, self._metrics["error"])
                    return False

    def cleanup(self) -> None:
        """Save what is under way, when the trial is stopped before its end."""
        try:
            if self._steps is not None:
                self._steps.close()
            self._close_events()
            if self._claim is not None:
                self._claim.release()
        except (Superseded, OSError, ArithmeticError) as error:
            print(f"{self._config['name']} could not save: {error}", file=sys.stderr)
        self._steps = self._claim = None

    def _close_events(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def _begin(self, config: dict[str, Any]) -> None:
        self._config, self._launch = config, Launch.of(config["launch"])
        self._cell = cell_of(config)
        self._steps = self._claim = None
        self._events = None
        self._attempts = 0
        unknown = ("lr", "train_loss", "val_accuracy", "val_loss", "test_accuracy", "test_loss", "density")
        self._metrics: dict[str, Any] = {
            "key": config["key"],
            "error": "",
            "foreign": False,
            "fault": "",  # why the launch can't go on, where that is none of the cell's
            "resumed_at": None,
            "step": 0,
            "steps": self._cell.budget,
            "images_per_second": math.nan,
            **dict.fromkeys(unknown, math.nan),
        }

    def _report(self, *, done: bool) -> dict[str, Any]:
        """The same keys every time; the training step is the x axis. resumed_at: the step this trial went on from."""
        return {**self._metrics, "timesteps_total": self._metrics["step"], "done": done}

    def _open(self) -> Generator[Any]:
        from trainable import cycle, numerics

        launch, dense = self._launch, dense_run(self._cell)
        if not self._fit:
            preflight.check(launch.storage, launch.driver)
            self._fit = True
        try:
            self._store = Store(launch.storage, patient=True)
        except ValueError as error:  # it could be written when the launch began
            raise OSError(str(error)) from error
        on_gpu = bool(ray.get_gpu_ids())  # a trial that asked for no GPU may still see them all
        device = numerics.choose_device(None if on_gpu else "cpu")
        settings = numerics.configure(device, launch.threads, launch.compile)
        data = _data(_as_seen(dense), launch.data_root, launch.storage, str(device))
        if data.digest != launch.data[dense.dataset]:
            raise preflight.Unfit(
                f"machine {platform.node()} has another {dense.dataset} ({data.digest}) than the driver "
                f"({launch.data[dense.dataset]}): remove it from {launch.data_root} there"
            )
        self._close_events()  # of the attempt before
        self._events = Events(self._store.study(launch.study) / "tensorboard" / self._config["name"])
        self._events.hparams(self._config["name"], self._config["hparams"])
        if self._config["replay"] is not None:
            return cycle.replay(self._cell, self._config["replay"], self._store, data, settings)
        claim = self._claim = self._claim or self._claimed()
        keep = frozenset(self._config["keep"])
        return cycle.run(
            self._cell, self._store, data, settings, keep=keep, resume_every=launch.resume_every, claim=claim
        )

    def _claimed(self) -> claims.Claim:
        """This launch's claim on the run. Raises Superseded, or Vanished when its trainers die again and again."""
        step = self._store.resume_step(self._cell) or 0
        machine = ray.get_runtime_context().get_node_id()
        claim = claims.take(self._store.begin(self._cell), self._launch.id, step, machine=machine, gone=_is_gone)
        if claim is None:
            raise Superseded("another launch trains this run")
        if claim.starts > self._launch.retries + 1:
            raise Vanished(f"its process vanished {claim.starts - 1} times at or after step {step}, with no word why")
        return claim


def has_left(node: Mapping[str, Any]) -> bool:
    """Whether a machine of ray.nodes() has left the cluster: Ray says so of a dead one ten seconds late, or more."""
    if not node["Alive"]:
        return True
    try:
        socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), REACH_SECONDS).close()
    except OSError:
        return True
    return False


def _is_gone(machine: str) -> bool:
    """Whether a machine has left the cluster, by its Ray id."""
    return all(node["NodeID"] != machine or has_left(node) for node in ray.nodes())


def cell_of(config: dict[str, Any]) -> Cell:
    """The cell of a trial's config."""
    return from_description(json.loads(config["cell"]))


def _as_seen(run: DenseRun) -> DenseRun:
    """A run that sees the same images: one for all that differ in how they are trained only."""
    return replace(
        recipes.digits(seed=0),
        dataset=run.dataset,
        val_examples=run.val_examples,
        val_from=run.val_from,
        padding=run.padding,
        standardisation=run.standardisation,
    )


@lru_cache(maxsize=1)
def _data(run: DenseRun, data_root: str, storage: str, device: str) -> Any:
    """The data set on the device, once a process: actors are reused."""
    import torch

    from trainable import data

    dataset = datasets.load(run.dataset, data_root, Store(storage, patient=True).datasets)
    return data.prepare_for(run, dataset, torch.device(device))


def _tags(record: Any) -> dict[str, float | None]:
    """Values of a Record by TensorBoard tag."""
    return {
        "accuracy/test": record.test_accuracy,
        "accuracy/validation": record.val_accuracy,
        "loss/train": record.train_loss,
        "loss/test": record.test_loss,
        "loss/validation": record.val_loss,
        "training/learning_rate": record.lr,
        "training/density": record.density,
        "training/images_per_second": record.images_per_second,
    }
