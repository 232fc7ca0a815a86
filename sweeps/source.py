"""The cells that searches ask for, beside a study's own: round after round, and at last what judges the best point."""

from collections.abc import Callable, Iterable, Sequence
from typing import final

import pandas as pd

from analysis.search import Params
from sweeps import rounds
from sweeps.jobs import Jobs
from sweeps.search import Search, Trial, best, next_round
from trainable.columns import Schedule
from trainable.config import Cell, key
from trainable.remote import Place
from trainable.store import Store

Row = tuple[Schedule, Cell]
DIVERGED = "diverged:"
"""How the error of a loss that is not finite begins: a result, where every other error is a fault to be mended."""


@final
class GroupSearch:
    """One search under way: what has been told, and the round that is open."""

    def __init__(self, search: Search, store: Store, folder: Place, trials: int, fresh: Sequence[int], *, warm: bool):
        """folder: of the search's rounds; fresh: seeds that judge the best point; warm: begin with what is done.

        Raises ValueError as rounds.read() does, and when a seed would judge what it has chosen.
        """
        if seen := sorted({*fresh} & {*search.seeds}):
            raise ValueError(f"fresh seeds must be none of the search's {list(search.seeds)}, got {seen} among them")
        self.search = search
        self._store, self._folder, self._trials, self._fresh = store, folder, trials, fresh
        self._rounds = rounds.read(search, folder)
        if not self._rounds:
            self._rounds = [rounds.warm_start(search, store) if warm else ()]
        self._open = next_round(search, self.told, trials)

    @property
    def told(self) -> list[Trial]:
        """Every trial of the finished rounds, in order."""
        return [trial for finished in self._rounds for trial in finished]

    def outlook(self) -> str:
        """How far the search is, and what it costs at most: a plan knows no more than the open round."""
        search, told = self.search, self.told
        done = sum(trial.number is not None for trial in told)
        trials = max(done, self._trials)
        warm, most = len(told) - done, (trials - done) * len(search.seeds)
        return (
            f"{search.group.name}: {done} of {trials} trials done, {warm} points trained before; to come at most "
            f"{most:,} retrainings of {search.space.budget:,} steps, and then {len(self._fresh)} fresh seeds"
        )

    def begin(self, jobs: Jobs) -> None:
        """Ask for the open round; dense runs that are still to be trained keep their States on the grid."""
        steps = self.search.space.rewind_points if self.search.space.kind != "schedule" else ()
        for seed in self.search.seeds:
            jobs.keep(self.search.dense_run(seed), steps)
        jobs.add(self._asked())

    def advance(self, jobs: Jobs) -> bool:
        """Tell the open round when its cells have all ended, and ask for the next; whether anything changed.

        A round with a cell that failed, other than by a loss that is not finite, stays open: the next launch tries it
        again.
        """
        if not self._open:
            return False
        keys = {key(cell) for params in self._open for cell in self.search.cells(params)}
        ended = all(k in jobs.done or jobs.failed.get(k, "").startswith(DIVERGED) for k in keys)
        if not ended:
            return False
        self._rounds.append(self._told(jobs))
        self._open = next_round(self.search, self.told, self._trials)
        jobs.add(self._asked())
        return True

    def rows(self) -> list[Row]:
        """The rows of every trial so far, and at the end of what judges the best."""
        tried = [row for trial in self.told for row in self._rows(trial.params)]
        return [*tried, *self._asked()]

    def compared(self) -> list[Row]:
        """What the best point is compared with on the search's own seeds: dense runs and named strategies."""
        return self._compared(self.search.seeds)

    def save(self) -> None:
        """Write the finished rounds that are not written yet."""
        rounds.write(self.search, self._folder, self._rounds)

    def _told(self, jobs: Jobs) -> tuple[Trial, ...]:
        first = sum(trial.number is not None for trial in self.told)
        trials = []
        for number, params in enumerate(self._open, first):
            errors = [jobs.failed[k] for k in map(key, self.search.cells(params)) if k in jobs.failed]
            reached = None if errors else tuple(rounds.val_accuracy(self._store, self.search, params))
            error = errors[0] if errors else None
            trials.append(Trial(number=number, params=params, val_accuracy=reached, error=error))
        return tuple(trials)

    def _asked(self) -> list[Row]:
        """What is to be trained now: the open round, at the end the best point and the named ones on fresh seeds."""
        if self._open:
            return [row for params in self._open for row in self._rows(params)]
        judged = self._compared(self._fresh)
        if (found := best(self.told)) is not None:
            point = self.search.space.retraining(found.params)
            judged += [("one-shot", self.search.cell(point, seed)) for seed in self._fresh]
        return judged

    def _rows(self, params: Params) -> list[Row]:
        return [("one-shot", cell) for cell in self.search.cells(params)]

    def _compared(self, seeds: Iterable[int]) -> list[Row]:
        """The dense runs and the named strategies of some seeds."""
        found: list[Row] = []
        for seed in seeds:
            found.append(("dense", self.search.dense_run(seed)))
            found += [("one-shot", self.search.cell(point, seed)) for point in self.search.named.values()]
        return found


@final
class Searches:
    """The searches of several groups, side by side: the source of a study's cells (sweeps.study.Source)."""

    def __init__(self, groups: Sequence[GroupSearch], show: Callable[[pd.DataFrame], None]) -> None:
        """show: says what was found and draws it, given the study's table."""
        self._groups, self._show = groups, show

    def begin(self, jobs: Jobs) -> None:
        """Ask for every group's open round, as far as its cells are not done."""
        for group in self._groups:
            group.begin(jobs)
        self.advance(jobs)

    def advance(self, jobs: Jobs) -> bool:
        """Tell the rounds that have ended, and ask for more; whether anything changed.

        A round whose cells are all done already ends at once: else the launch would end there, with nothing to train.
        """
        changed = False
        while sum(group.advance(jobs) for group in self._groups):
            changed = True
        return changed

    def rows(self) -> list[Row]:
        return [row for group in self._groups for row in group.rows()]

    def save(self) -> None:
        for group in self._groups:
            group.save()

    def show(self, frame: pd.DataFrame) -> None:
        self._show(frame)
