"""The Tune search algorithm: it hands out the jobs that are ready, as trials."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Stopper
from ray.tune.search import Searcher

from sweeps.jobs import Job, Jobs
from sweeps.retention import Retention

LOOK_SECONDS = 5.0
"""Between looks at the runs that other launches train, and at how many trials the cluster can hold."""


class Stop(Stopper):
    """Ends the launch, by a signal or for a reason: Tune then stops every trial, and each saves."""

    def __init__(self) -> None:
        self.signalled = False
        self.reason = ""
        """Why the launch gave up; empty when it did not."""

    def give_up(self, reason: str) -> None:
        """The first reason counts: others follow from it."""
        self.reason = self.reason or reason

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.signalled or bool(self.reason)


class JobSearcher(Searcher):
    """Suggests the config of the next ready job; decides by the store what a finished trial has left."""

    def __init__(
        self,
        jobs: Jobs,
        config: Callable[[Job], dict[str, Any]],
        stop: Stop,
        retention: Retention | None,
        retries: int,
        grow: Callable[[], None] = lambda: None,
        places: Callable[[], int] = lambda: sys.maxsize,
        lost: Callable[[], bool] = lambda: False,
    ) -> None:
        """config: makes a job's trial config; retention: None to keep every State; retries: of a trial that dies.

        grow: adds the jobs that a search asks for by now; called before every suggestion. places: trials that may run
        at once, those for which machines are still to come included: their waiting is what brings the machines. lost:
        whether a machine has left lately; what died with it is no fault of a job.
        """
        super().__init__()
        self._jobs, self._config, self._stop, self._retention = jobs, config, stop, retention
        self._retries, self._deaths = retries, Counter[str]()
        self._grow, self._places, self._lost = grow, places, lost
        self._looked = self._counted = -LOOK_SECONDS
        self._slots = 0
        self._trials: dict[str, Job] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next trial's config, None while nothing is ready, FINISHED at the end. Asked ten times a second."""
        if not self._stop.stop_all():
            self._guarded(self._grow)
        if self._stop.stop_all() or not self._jobs.left():
            return Searcher.FINISHED
        if time.monotonic() - self._counted > LOOK_SECONDS:
            self._slots, self._counted = self._places(), time.monotonic()
        if len(self._trials) >= self._slots:
            return None
        if self._jobs.waits_abroad() and time.monotonic() - self._looked > LOOK_SECONDS:
            self._guarded(self._jobs.look_abroad)
            self._looked = time.monotonic()
        job = self._jobs.next()
        if job is None:
            waiting = self._trials or self._jobs.waits_abroad() or not self._jobs.left()
            assert waiting, "cells are left, none is ready and none is running"
            return None
        self._trials[trial_id] = job
        return self._config(job)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tune's call at a trial's end; the parameter's name is Tune's."""
        job = self._trials.pop(trial_id)
        self._guarded(lambda: self._ended(job, result))

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do what touches the storage: its failure ends the launch."""
        try:
            action()
        except (OSError, ValueError) as storage_error:
            self._stop.give_up(f"storage error: {storage_error}")

    def _ended(self, job: Job, result: dict[str, Any] | None) -> None:
        if result is None:  # the process died between two trials: Tune gives such a trial up at once
            self._deaths[job.id] += not self._lost()
            if self._deaths[job.id] <= self._retries:
                self._jobs.postpone(job)
            else:
                self._jobs.ended(job, f"its trial died {self._deaths[job.id]} times before it began")
        elif result["fault"]:
            self._stop.give_up(result["fault"])
        elif result["foreign"]:
            self._jobs.foreign(job)
        elif not self._stop.stop_all():
            self._jobs.ended(job, result["error"] or None)
            if self._retention is not None and job.replay is None:
                self._retention.ended(job.cell)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """The limit is held here: Tune's own limiter would swallow completions."""
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Nothing for Tune to keep: the store is the truth, and every launch makes a new searcher."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """An empty file, which Tune moves to its place."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a study goes on by running the same command again")
