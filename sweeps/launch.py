"""One launch of a study on Ray Tune: a new Tuner over the store, thrown away at its end."""

import argparse
import contextlib
import io
import json
import logging
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ |= {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the event files are our own: Tune's cost the driver 0.47 GB
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Stop serves SIGTERM too, and works while Tune waits for its searcher
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # Tune's snapshots are for Tuner.restore: the store is what a study goes on from
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pandas as pd
import ray
from ray import tune
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray._private.services import canonicalize_bootstrap_address

from sweeps.jobs import Job, Jobs
from sweeps.live import Display
from sweeps.retention import Retention
from sweeps.searcher import JobSearcher, Stop
from trainable import claims
from trainable.columns import columns, schedule_of
from trainable.config import describe, key
from trainable.events import Events
from trainable.store import Store
from trainable.tune import CellTrainable, Launch, cell_of, resources

HPARAMS = (
    "dataset",
    "architecture",
    "structure",
    "schedule",
    "strategy",
    "sparsity_target",
    "seed",
    "weights_from",
    "lr_from",
    "budget",
    "shape",
    "momentum",
    "precision",
    "total_steps",
)
"""Columns of TensorBoard's HParams, the same for every trial."""


def train(
    study: str,
    jobs: Jobs,
    store: Store,
    options: argparse.Namespace,
    declare: Callable[[], None],
    write_table: Callable[[], pd.DataFrame],
    grow: Callable[[], None] = lambda: None,
) -> tuple[Stop, tune.ResultGrid]:
    """Run the jobs, each as one trial; why it ended early, if it did, and Tune's own account of its trials.

    declare: writes down what the study is, once it is known that the cluster can run it. write_table: writes the
    study's table as it is, and returns it; called now and then. grow: adds the jobs that a search asks for by now.
    Raises ValueError when a cell fits no machine: before Ray starts, if it would start on this one.
    """
    launch = Launch(
        storage=str(store.root),
        data_root=str(Path(options.data_root).absolute()),
        study=study,
        threads=options.threads,
        gpus_per_trial=options.gpus_per_trial,
        compile=options.compile,
        resume_every=options.resume_every,
        retries=options.retries,
        id=secrets.token_hex(8),
    )
    # Without a cluster to join, Ray starts here, with what this finds.
    if canonicalize_bootstrap_address(None) is None:  # type: ignore[arg-type]
        _slots(jobs, launch, [ResourceAndLabelSpec().resolve(is_head=True).to_resource_dict()])
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    try:
        slots, gpus = _slots(jobs, launch, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        declare()
        print(f"{slots} trials at a time; tensorboard --logdir {store.study(study) / 'tensorboard'}", file=sys.stderr)
        with tempfile.TemporaryDirectory() as scratch, _stop_signals() as stop:
            retention = None if options.keep_states else Retention(store, jobs.cells.values())
            display = Display(jobs, Events(store.study(study) / "tensorboard" / "study"), stop, write_table)
            tuner = tune.Tuner(
                tune.with_resources(
                    CellTrainable,
                    lambda config: tune.PlacementGroupFactory([resources(cell_of(config), launch, gpus=gpus)]),
                ),
                tune_config=tune.TuneConfig(
                    search_alg=JobSearcher(
                        jobs, lambda job: _trial_config(job, launch), stop, retention, options.retries, grow
                    ),
                    num_samples=-1,
                    max_concurrent_trials=slots,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    name=study,
                    storage_path=scratch,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=-1),
                    stop=stop,
                    callbacks=[display, BrokenEnvironment(store, launch.id, stop), Forget()],
                    verbose=0,
                ),
            )
            try:
                # At the end Tune reads its loggers' files, and warns of each that is not there.
                logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
                with contextlib.redirect_stdout(io.StringIO()):  # Tune's headers; the table is what stdout is for
                    results = tuner.fit()
                display.publish()
            finally:
                display.close()
        return stop, results
    finally:
        ray.shutdown()


def _plain(value: Any) -> str | float:
    """A column's value for HParams, which knows no None."""
    return "" if value is None else value


def _trial_config(job: Job, launch: Launch) -> dict[str, Any]:
    """The config of one trial: plain values."""
    described = columns(job.cell, schedule_of(job.cell))
    return {
        "key": key(job.cell),
        "name": job.name,
        "hparams": {name: _plain(described.get(name)) for name in HPARAMS},
        "cell": json.dumps(describe(job.cell)),
        "replay": job.replay,
        "keep": sorted(job.keep),
        "launch": asdict(launch),
    }


class BrokenEnvironment(tune.Callback):
    """Ends the study when three trials in a row die before they reach our code: Tune would restart them for ever."""

    def __init__(self, store: Store, launch: str, stop: Stop) -> None:
        self._store, self._launch, self._stop = store, launch, stop
        self._deaths = 0

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        self._deaths = 0

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.on_trial_recover(iteration, trials, trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        claim = claims.read(self._store.run(trial.config["key"]))
        reached = claim is not None and claim["launch"] == self._launch
        self._deaths = 0 if reached else self._deaths + 1
        if self._deaths == 3:
            self._stop.give_up(f"trials die before they begin, three in a row; the last one's words:\n{_words(trial)}")


class Forget(tune.Callback):
    """Drops the statistics and last values that Tune keeps of every metric for ever: 37 kB a finished trial."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial.metric_n_steps.clear()
        trial.metric_analysis.clear()


def _words(trial: Any) -> str:
    """What a trial's death left behind."""
    path = trial.error_file
    return Path(path).read_text().strip() if path and Path(path).exists() else str(trial.get_error())


@contextlib.contextmanager
def _stop_signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM ask for a stop; a second one has its usual effect. After ray.init, which sets its own."""
    stop = Stop()
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, _frame: Any) -> None:
        stop.signalled = True
        signal.signal(number, before[number])
        print("stopping: running cells save first", file=sys.stderr, flush=True)

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _slots(jobs: Jobs, launch: Launch, machines: list[dict[str, float]]) -> tuple[int, bool]:
    """Trials that run at once, if all ask as the least demanding; whether they ask for GPUs.

    Raises ValueError when one fits no machine at all.
    """
    gpus = launch.gpus_per_trial is not None or any(machine.get("GPU", 0) > 0 for machine in machines)
    fits = []
    for request in (resources(cell, launch, gpus=gpus) for cell in jobs.cells.values()):
        places = [int(min(machine.get(kind, 0) / amount for kind, amount in request.items())) for machine in machines]
        if max(places) < 1:
            have = "; ".join(f"{m.get('CPU', 0):g} CPU, {m.get('GPU', 0):g} GPU" for m in machines)
            raise ValueError(
                f"a trial asks for {request}, more than any machine has ({have}): lower --threads or --gpus-per-trial"
            )
        fits.append(sum(places))
    return max(fits), gpus
