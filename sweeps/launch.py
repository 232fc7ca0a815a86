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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ |= {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the event files are our own: Tune's cost the driver 0.47 GB
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Stop serves SIGTERM too, and works while Tune waits for its searcher
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # Tune's snapshots are for Tuner.restore: the store is what a study goes on from
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_WARN_THRESHOLD_S": "30",  # writing the table takes a second now and then, never more than 2 % of the time
}
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pandas as pd
import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps import machines
from sweeps.jobs import Job, Jobs
from sweeps.live import Display
from sweeps.machines import Machines
from sweeps.retention import Retention
from sweeps.searcher import JobSearcher, Stop
from trainable import claims, datasets, preflight
from trainable.columns import columns, schedule_of
from trainable.config import dense_run, describe, key
from trainable.datasets import Dataset
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


MOST_TRIALS = 10_000
"""That Tune may hold waiting: the searcher knows how many there should be."""


def where() -> str:
    """Says where a launch would run."""
    address = machines.cluster_address()
    return "on this machine" if address is None else f"on the Ray cluster at {address}"


def train(
    study: str,
    jobs: Jobs,
    store: Store,
    data: Mapping[str, Dataset],
    options: argparse.Namespace,
    declare: Callable[[], None],
    write_table: Callable[[], pd.DataFrame],
    grow: Callable[[], None] = lambda: None,
) -> tuple[Stop, tune.ResultGrid]:
    """Run the jobs, each as one trial; why it ended early, if it did, and Tune's own account of its trials.

    data: the data sets, by name. declare: writes down what the study is, once it is known that the cluster can run it.
    write_table: writes the study's table as it is, and returns it; called now and then. grow: adds the jobs that a
    search asks for by now. Raises ValueError when a cell fits no machine (before Ray starts, if it would start on this
    one), and when a machine lacks what the driver has.
    """
    here = machines.cluster_address() is None
    if here:
        _requests(jobs, options, machines.this_machine())
    elif "runtime_resources" in Path(str(store.root)).parts:
        raise ValueError(f"storage {store.root} lies in a copy that Ray removes: give an absolute path, or s3://…")
    with preflight.mark(store) as driver, _ray():
        found = machines.of_cluster(joined=False) if here else machines.wait_for_one()
        requests = _requests(jobs, options, found)
        if found.unknown and not any("GPU" in request for request in requests.values()):
            print(
                "no machine that is up has a GPU: all cells of this launch train on CPUs. If machines with GPUs are "
                "still to come, stop and give --gpus-per-trial",
                file=sys.stderr,
            )
        if not here or store.remote:
            for name, dataset in data.items():
                datasets.provide(name, dataset, store.datasets)
        if not here:
            _check_machines(store, driver)
        launch = Launch(
            storage=str(store.root),
            data_root=str(Path(options.data_root).absolute()),
            study=study,
            threads=options.threads,
            compile=options.compile,
            resume_every=options.resume_every,
            retries=options.retries,
            id=secrets.token_hex(8),
            driver=driver,
            data={name: dataset.digest for name, dataset in data.items()},
        )
        declare()
        print(f"{machines.places(found, requests.values())} trials at a time; {watch(store, study)}", file=sys.stderr)
        losses = machines.Losses()
        with _stop_signals() as stop:
            searcher = JobSearcher(
                jobs,
                lambda job: _trial_config(job, launch),
                stop,
                None if options.keep_states else Retention(store, jobs.cells.values()),
                options.retries,
                grow,
                places=lambda: max(1, machines.places(machines.of_cluster(joined=not here), requests.values())),
                lost=losses.lately,
            )
            display = Display(jobs, Events(store.study(study) / "tensorboard" / "study"), stop, write_table)
            try:
                broken = BrokenEnvironment(store, launch.id, stop, losses.lately)
                results = _fit(study, searcher, stop, [display, broken, Forget()], requests)
                display.publish()
            finally:
                display.close()
        return stop, results


def _fit(
    study: str,
    searcher: JobSearcher,
    stop: Stop,
    callbacks: list[tune.Callback],
    requests: Mapping[str, machines.Resources],
) -> tune.ResultGrid:
    """Tune's part: trials for what the searcher suggests, until it has no more."""
    with tempfile.TemporaryDirectory() as scratch:
        tuner = tune.Tuner(
            tune.with_resources(
                CellTrainable,
                lambda config: tune.PlacementGroupFactory([requests[dense_run(cell_of(config)).architecture]]),
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                max_concurrent_trials=MOST_TRIALS,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name=study,
                storage_path=scratch,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=-1),
                stop=stop,
                callbacks=callbacks,
                verbose=0,
            ),
        )
        # At the end Tune reads its loggers' files, and warns of each that is not there.
        logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()):  # Tune's headers; the table is what stdout is for
            return tuner.fit()


@contextlib.contextmanager
def _ray() -> Iterator[None]:
    """Join the running cluster, or start one here."""
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints what becomes of machines; stdout is for the table
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        try:
            yield
        finally:
            ray.shutdown()


def watch(store: Store, study: str) -> str:
    """The command that shows a running study."""
    if store.remote:
        return f"python -m sweeps tensorboard {store.root} {study}"
    return f"tensorboard --logdir {store.study(study) / 'tensorboard'}"


def _check_machines(store: Store, driver: preflight.Driver) -> None:
    """See that every machine that is up has what the driver has. Raises ValueError when one has not."""
    check = ray.remote(num_cpus=0)(preflight.check)
    asked = [
        (
            node["NodeManagerAddress"],  # which several nodes may share
            check.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                str(store.root), driver
            ),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    for address, answer in asked:
        try:
            ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            raise ValueError(f"at {address}: {error.cause}") from error
        except ray.exceptions.RayError:  # the machine is gone: it does not matter
            continue


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

    def __init__(self, store: Store, launch: str, stop: Stop, lost: Callable[[], bool]) -> None:
        """lost: whether a machine has left lately."""
        self._store, self._launch, self._stop, self._lost = store, launch, stop, lost
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
        self._deaths = 0 if reached or self._lost() else self._deaths + 1
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
    """SIGINT, SIGTERM and a closed terminal ask for a stop; a second SIGINT or SIGTERM has its usual effect.

    After ray.init, which sets its own. nohup's wish to ignore the terminal is respected.
    """
    stop = Stop()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]

    terminals = [stream for stream in (1, 2) if os.isatty(stream)]  # sys.stdout is led to stderr while Ray runs

    def request(number: int, _frame: Any) -> None:
        stop.signalled = True
        if number == signal.SIGHUP:  # more of them follow, and what is written to a closed terminal is an error
            signal.signal(number, signal.SIG_IGN)
            for stream in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            return
        signal.signal(number, before[number])
        print("stopping: running cells save first", file=sys.stderr, flush=True)

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _requests(jobs: Jobs, options: argparse.Namespace, found: Machines) -> dict[str, machines.Resources]:
    """What a trial asks for, by architecture. Raises ValueError when one fits no machine at all."""
    gpus = options.gpus_per_trial is not None or found.gpus
    requests = {
        name: resources(name, threads=options.threads, share=options.gpus_per_trial, gpus=gpus)
        for name in dict.fromkeys(dense_run(cell).architecture for cell in jobs.cells.values())
    }
    machines.require(found, requests.values())
    return requests
