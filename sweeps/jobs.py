"""Which job comes next: a job is released when every State that it reads exists, the longest remaining chain first."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from trainable import claims
from trainable.columns import Schedule, run_name, schedule_of
from trainable.config import Cell, key, lineage, states_read
from trainable.store import Store


@dataclass(frozen=True, kw_only=True)
class Job:
    """A cell to train, or a replay: bring a finished run to a step whose State was not kept."""

    cell: Cell
    name: str
    replay: int | None = None
    """The step to replay to; None: train the cell."""
    keep: frozenset[int] = frozenset()
    """Steps whose States the run keeps."""

    @property
    def id(self) -> str:
        return key(self.cell) if self.replay is None else f"{key(self.cell)}@{self.replay}"


class Jobs:
    """The cells asked for, with all that they stand on: done, waiting, ready, running or failed. Knows nothing of Ray.

    What is done is read from the store when a cell is added and when a job ends, never in between.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.cells: dict[str, Cell] = {}
        """Every cell and all that it stands on, by key, parents first."""
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        """Errors by key: of cells that failed in this launch, and of their descendants."""
        self.running: dict[str, Job] = {}
        self.steps_left = 0
        """Steps of the cells that are neither done nor failed, what running ones have made not counted."""
        self._names: dict[str, str] = {}
        self._keep: dict[str, set[int]] = {}
        self._kept: dict[str, frozenset[int]] = {}
        self._remaining: dict[str, int] = {}
        self._waits_for: dict[str, set[str]] = {}
        self._waiting: dict[str, list[str]] = {}
        """Ids of the jobs that wait for a job, by its id."""
        self._replays: dict[str, tuple[Cell, int]] = {}
        self._ready: list[tuple[int, int, str]] = []
        self._released = 0
        self._foreign: dict[str, Job] = {}

    def add(self, rows: Iterable[tuple[Schedule, Cell]]) -> None:
        """Add cells; those that are there already stay as they are."""
        rows, new = list(rows), []
        for schedule, cell in rows:
            for member in lineage(cell):
                run_key = key(member)
                if run_key not in self.cells:
                    self.cells[run_key] = member
                    self._names[run_key] = run_name(member, schedule if member == cell else schedule_of(member))
                    new.append(run_key)
                    for run, step in states_read(member):
                        self._keep.setdefault(key(run), set()).add(step)
        for run_key, found in self._store.look(new).items():
            if found.done:
                self.done.add(run_key)
                self._kept[run_key] = frozenset(found.kept_steps)
            else:
                self.steps_left += self.cells[run_key].budget
        for _, cell in rows:
            self._lengthen(cell)
        for run_key in new:
            if run_key not in self.done:
                self._wait(run_key, states_read(self.cells[run_key]))

    def keep(self, run: Cell, steps: Iterable[int]) -> None:
        """Let a run, when it is trained, keep more States than its cells read: those that later ones may."""
        self._keep.setdefault(key(run), set()).update(steps)

    def next(self) -> Job | None:
        """The job to start now, from here on running; None when none is ready."""
        while self._ready:
            _, _, job_id = heapq.heappop(self._ready)
            if job_id in self._replays:
                cell, step = self._replays[job_id]
                job = Job(cell=cell, name=f"replay/{self._names[key(cell)]}", replay=step)
            elif job_id in self.failed:
                continue
            else:
                keep = frozenset(self._keep.get(job_id, ()))
                job = Job(cell=self.cells[job_id], name=self._names[job_id], keep=keep)
            self.running[job_id] = job
            return job
        return None

    def left(self) -> int:
        """Cells that are neither done nor failed."""
        return len(self.cells) - len(self.done) - len(self.failed)

    def ended(self, job: Job, error: str | None = None) -> None:
        """Take note of what a job left in the store; with an error, of its failure, which fails its descendants.

        A cell that failed because a State it reads has gone meanwhile waits for a replay instead.
        """
        del self.running[job.id]
        if error is None and not self._store.done(job.cell):
            error = "its trial ended without a result"
        if error is None:
            self._done(job.id, job.cell)
        elif job.replay is None and self._states_gone(job.cell):
            self._wait(job.id, states_read(job.cell))
        else:
            self._fail(job, error)

    def _done(self, job_id: str, cell: Cell) -> None:
        """A cell is done, or a State is back: those that waited for it wait no more, or are done themselves."""
        if key(cell) not in self.done:
            self.done.add(key(cell))
            self.steps_left -= cell.budget
        self._kept[key(cell)] = frozenset(self._store.kept_steps(cell))
        self._replays.pop(job_id, None)
        for waiting in self._waiting.pop(job_id, ()):
            self._waits_for[waiting].discard(job_id)
            if waiting in self._replays:
                reads = self._replays[waiting][0]
            elif waiting not in self.cells or waiting in self.failed:
                continue
            elif self._store.done(self.cells[waiting]):  # by another launch
                self._done(waiting, self.cells[waiting])
                continue
            else:
                reads = self.cells[waiting]
            if not self._waits_for[waiting]:
                self._wait(waiting, states_read(reads))

    def _states_gone(self, cell: Cell) -> bool:
        """Whether a State that a cell reads was removed after it was seen; what is kept is looked up again."""
        reads = states_read(cell)
        seen = {(run, step) for run, step in reads if step in self._kept[key(run)]}
        self._kept |= {key(run): frozenset(self._store.kept_steps(run)) for run, _ in reads}
        return any(step not in self._kept[key(run)] for run, step in seen)

    def postpone(self, job: Job) -> None:
        """A running job's trial died: the job is ready again."""
        del self.running[job.id]
        self._release(job.id)

    def foreign(self, job: Job) -> None:
        """A running job turned out to be another launch's: wait until that is done, or gives it up."""
        del self.running[job.id]
        self._foreign[job.id] = job

    def look_abroad(self) -> None:
        """See what has become of the jobs of other launches. Reads the store for each."""
        for job in list(self._foreign.values()):
            claim = claims.read(self._store.run(key(job.cell)))
            if self._store.done(job.cell):
                self.running[job.id] = self._foreign.pop(job.id)
                self.ended(job)
            elif claim is None or not claims.in_force(claim):
                del self._foreign[job.id]
                self._release(job.id)

    def waits_abroad(self) -> bool:
        """Whether some jobs are another launch's."""
        return bool(self._foreign)

    def _wait(self, job_id: str, reads: tuple[tuple[Cell, int], ...]) -> None:
        blockers = set()
        for run, step in reads:
            run_key = key(run)
            if run_key not in self.done:
                blockers.add(run_key)
            elif step not in self._kept[run_key]:
                blockers.add(self._replay(run, step))
        self._waits_for[job_id] = blockers
        for blocker in blockers:
            self._waiting.setdefault(blocker, []).append(job_id)
        if not blockers:
            self._release(job_id)

    def _replay(self, run: Cell, step: int) -> str:
        job_id = f"{key(run)}@{step}"
        if job_id not in self._replays:
            self._replays[job_id] = (run, step)
            self._remaining[job_id] = self._remaining[key(run)]
            earlier = any(kept <= step for kept in self._kept[key(run)])
            self._wait(job_id, () if earlier else states_read(run))
        return job_id

    def _release(self, job_id: str) -> None:
        self._released += 1
        heapq.heappush(self._ready, (-self._remaining[job_id], self._released, job_id))

    def _fail(self, job: Job, error: str) -> None:
        if job.replay is None:
            self.failed[job.id] = error
            self.steps_left -= job.cell.budget
            self._store.write_failure(job.cell, error)
        self._replays.pop(job.id, None)
        for waiting in self._waiting.pop(job.id, ()):
            inherited = error if error.startswith("its parent ") else f"its parent {job.name} failed: {error}"
            if waiting in self._replays:
                cell, step = self._replays[waiting]
                self._fail(Job(cell=cell, name=job.name, replay=step), inherited)
            elif waiting in self.cells and waiting not in self.failed and waiting not in self.done:
                self._fail(Job(cell=self.cells[waiting], name=job.name), inherited)

    def _lengthen(self, cell: Cell) -> None:
        """Let a cell's ancestors know of the steps that wait behind them."""
        steps = 0
        for member in reversed(lineage(cell)):
            run_key = key(member)
            steps += 0 if run_key in self.done else member.budget
            self._remaining[run_key] = max(self._remaining.get(run_key, 0), steps)
