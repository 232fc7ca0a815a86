"""What a running study shows: the terminal, TensorBoard's run of the whole study, and the table as it fills."""

import io
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pandas as pd
from ray import tune
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from analysis import plots
from sweeps.jobs import Jobs
from sweeps.searcher import Stop
from trainable.config import lineage
from trainable.events import Events

TABLE_SECONDS = 10.0
"""Least time between two writings of the table, and at least 50 times what a writing takes."""
RATE_SECONDS = 60.0
"""Over which steps per second are measured."""


class Display(tune.Callback):
    """Follows a launch: a display on the terminal, plain lines where there is none, and the study's own event file."""

    def __init__(self, jobs: Jobs, events: Events, stop: Stop, write_table: Callable[[], pd.DataFrame]) -> None:
        """write_table: writes the study's table as it is now, and returns it."""
        self._jobs, self._events, self._stop, self._write_table = jobs, events, stop, write_table
        self._at: dict[str, tuple[str, int, int, float]] = {}
        """Name, step, steps and test accuracy of each running trial."""
        self._trained = 0
        self._pace: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._table_due = time.monotonic() + TABLE_SECONDS
        console = Console(stderr=True)
        self._live = (
            Live(console=console, refresh_per_second=2, get_renderable=self.render) if console.is_terminal else None
        )
        if self._live is not None:
            self._live.start()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing for Tune to keep."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        first = ("", result["resumed_at"] or 0, 0, 0.0)
        before = self._at.get(trial.trial_id, first)[1]
        self._at[trial.trial_id] = (trial.config["name"], result["step"], result["steps"], result["test_accuracy"])
        self._trained += max(0, result["step"] - before)
        self._pace.append((time.monotonic(), self._trained))
        while len(self._pace) > 2 and self._pace[0][0] < time.monotonic() - RATE_SECONDS:
            self._pace.popleft()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.on_trial_result(iteration, trials, trial, trial.last_result)
        name, _, _, accuracy = self._at.pop(trial.trial_id)
        if self._live is None and not self._stop.stop_all() and not trial.last_result["foreign"]:
            finished = "State computed again" if trial.config["replay"] is not None else f"test accuracy {accuracy:.4f}"
            outcome = trial.last_result["error"] or finished
            ended = len(self._jobs.cells) - self._jobs.left()
            print(f"[{ended}/{len(self._jobs.cells)}] {name}  {outcome}", file=sys.stderr, flush=True)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() >= self._table_due:
            self.publish()

    def publish(self) -> None:
        """Write the table, and the study's picture and counts for TensorBoard. A storage that fails ends the launch."""
        began = time.monotonic()
        try:
            frame = self._write_table()
            done = len(self._jobs.done)
            self._events.scalars(
                {
                    "study/cells_done": done,
                    "study/cells_failed": len(self._jobs.failed),
                    "study/steps_saved_by_sharing": steps_saved(self._jobs),
                },
                done,
            )
            if (frame["status"] == "done").any():
                picture = io.BytesIO()
                plots.accuracy_against_compression(frame).savefig(picture, dpi=110)
                self._events.image("study/accuracy_against_compression", picture.getvalue(), done)
        except (OSError, ValueError) as error:
            self._stop.give_up(f"storage error: {error}")
        self._table_due = time.monotonic() + max(TABLE_SECONDS, 50 * (time.monotonic() - began))

    def close(self) -> None:
        """Give the terminal back, and close the event file."""
        if self._live is not None:
            self._live.stop()
        self._events.close()

    def render(self) -> Group:
        """The display as it is now."""
        jobs, rate = self._jobs, self.steps_per_second()
        left = max(0, jobs.steps_left - sum(step for _, step, _, _ in self._at.values()))
        eta = _duration(left / rate) if rate > 0 else "unknown"
        counts = f"{len(jobs.done)} done, {len(self._at)} running, {len(jobs.failed)} failed, {jobs.left()} left"
        summary = Text(f"{counts} of {len(jobs.cells)} cells; {rate:.1f} steps/s; time left {eta}")
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, step, steps, accuracy in self._at.values():
            table.add_row(name, f"{step:,}/{steps:,}", f"{100 * step / steps:.0f} %", f"test accuracy {accuracy:.4f}")
        return Group(summary, table)

    def steps_per_second(self) -> float:
        """Of all trials together, over the last minute."""
        (since, before), (_, now) = self._pace[0], self._pace[-1]
        seconds = time.monotonic() - since
        return (now - before) / seconds if seconds > 0 else 0.0


def steps_saved(jobs: Jobs) -> int:
    """Steps that separate trials would have trained for the finished cells, beyond one training of each."""
    separate = sum(sum(member.budget for member in lineage(jobs.cells[run_key])) for run_key in jobs.done)
    return separate - sum(jobs.cells[run_key].budget for run_key in jobs.done)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
