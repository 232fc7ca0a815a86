"""Which job comes next, without Ray: jobs are ended by writing into a real store what a trial would leave there."""

import json
import time

import pytest

from sweeps.jobs import Job, Jobs
from sweeps.retention import Retention
from trainable import recipes, strategies
from trainable.config import Cell, Cycle, DenseRun, describe, key
from trainable.store import Store, write

DENSE = recipes.digits(0)
OTHER = recipes.digits(1)


def cycle(*densities: float, dense: DenseRun = DENSE, rewind: int | None = None) -> Cycle:
    retraining = strategies.lr_rewinding(dense) if rewind is None else strategies.weight_rewinding(dense, rewind)
    return Cycle(dense=dense, densities=densities, retraining=retraining)


def finish(store: Store, cell: Cell, steps: set[int]) -> None:
    """What a trial leaves behind, States empty."""
    folder = store.begin(cell)
    for step in {*steps, cell.budget}:
        write(folder / f"state-{step}.safetensors", b"")
    store.write_result(cell, {"test_accuracy": 0.5}, {})


def end(jobs: Jobs, store: Store, job: Job) -> None:
    finish(store, job.cell, set(job.keep) if job.replay is None else {job.replay})
    jobs.ended(job)


def jobs_of(store: Store, *cells: Cell) -> Jobs:
    jobs = Jobs(store)
    jobs.add([("iterative", cell) for cell in cells])
    return jobs


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "storage")


@pytest.fixture(autouse=True)
def _steps_left_add_up(monkeypatch):
    """What is counted as jobs end is the sum over the cells, after every test."""
    made, init = [], Jobs.__init__
    monkeypatch.setattr(Jobs, "__init__", lambda self, store: (made.append(self), init(self, store))[1])
    yield
    for jobs in made:
        ended = {*jobs.done, *jobs.failed}
        assert jobs.steps_left == sum(cell.budget for run_key, cell in jobs.cells.items() if run_key not in ended)


def test_parents_come_first_and_once(store):
    jobs = jobs_of(store, cycle(0.5, 0.25), cycle(0.5, 0.25, 0.1), cycle(0.2))
    assert len(jobs.cells) == 5
    order = []
    while (job := jobs.next()) is not None:
        order.append(job.cell)
        end(jobs, store, job)
    assert order[0] == DENSE
    # 400 steps each: after the dense run three cycles of the chain are left on one side, one cell on the other.
    assert order[1:] == [cycle(0.5), cycle(0.5, 0.25), cycle(0.5, 0.25, 0.1), cycle(0.2)] or order[1:] == [
        cycle(0.5),
        cycle(0.5, 0.25),
        cycle(0.2),
        cycle(0.5, 0.25, 0.1),
    ]
    assert jobs.left() == 0


def test_a_cell_waits_for_its_parent_and_nothing_else(store):
    jobs = jobs_of(store, cycle(0.5), cycle(0.5, dense=OTHER))
    first, second = jobs.next(), jobs.next()
    assert {first.cell, second.cell} == {DENSE, OTHER}
    assert jobs.next() is None
    end(jobs, store, second)
    assert jobs.next().cell == cycle(0.5, dense=second.cell)
    assert jobs.next() is None


def test_the_longest_remaining_chain_first(store):
    jobs = jobs_of(store, cycle(0.9, dense=OTHER), cycle(0.5, 0.25, 0.1))
    assert jobs.next().cell == DENSE
    assert jobs.next().cell == OTHER


def test_the_dense_run_is_told_which_states_to_keep(store):
    job = jobs_of(store, cycle(0.5, rewind=44), cycle(0.2, rewind=7)).next()
    assert job.cell == DENSE
    assert job.keep == {7, 44, 400}


def test_what_is_done_is_not_done_again(store):
    finish(store, DENSE, {44})
    finish(store, cycle(0.5), set())
    jobs = jobs_of(store, cycle(0.5), cycle(0.5, 0.25))
    assert jobs.left() == 1
    assert jobs.next().cell == cycle(0.5, 0.25)


def test_a_state_that_was_not_kept_is_replayed_once_for_all_that_need_it(store):
    finish(store, DENSE, set())
    jobs = jobs_of(store, cycle(0.5, rewind=44), cycle(0.2, rewind=44))
    replay = jobs.next()
    assert (replay.cell, replay.replay) == (DENSE, 44)
    assert jobs.next() is None
    end(jobs, store, replay)
    assert {jobs.next().cell, jobs.next().cell} == {cycle(0.5, rewind=44), cycle(0.2, rewind=44)}


def test_replays_of_a_chain_whose_states_are_all_gone(store):
    finish(store, DENSE, set())
    for member in (cycle(0.5), cycle(0.5, 0.25)):
        finish(store, member, set())
        store.state_path(member, 400).unlink()
    jobs = jobs_of(store, cycle(0.5, 0.25, 0.1))
    seen = []
    while (job := jobs.next()) is not None:
        seen.append((job.cell, job.replay))
        end(jobs, store, job)
    assert seen == [(cycle(0.5), 400), (cycle(0.5, 0.25), 400), (cycle(0.5, 0.25, 0.1), None)]


def test_a_failure_fails_its_descendants_by_name_and_nothing_else(store):
    jobs = jobs_of(store, cycle(0.5, 0.25), cycle(0.2), cycle(0.5, dense=OTHER))
    dense = jobs.next()
    dense = dense if dense.cell == DENSE else jobs.next()
    end(jobs, store, dense)
    broken = next(job for job in iter(jobs.next, None) if job.cell == cycle(0.5))
    jobs.ended(broken, "Diverged: diverged")
    assert set(jobs.failed) == {key(cycle(0.5)), key(cycle(0.5, 0.25))}
    failure = json.loads((store.run(key(cycle(0.5, 0.25))) / "failure.json").read_text())
    assert failure["error"] == f"its parent {broken.name} failed: Diverged: diverged"
    assert not (store.run(key(cycle(0.2))) / "failure.json").exists()


def test_a_failed_replay_fails_those_that_need_it(store):
    finish(store, DENSE, set())
    jobs = jobs_of(store, cycle(0.5, rewind=44), cycle(0.2))
    replay = next(job for job in iter(jobs.next, None) if job.replay is not None)
    jobs.ended(replay, "ValueError: other numerics")
    assert list(jobs.failed) == [key(cycle(0.5, rewind=44))]
    assert store.done(DENSE)


def test_a_trial_that_leaves_nothing_is_a_failure(store):
    jobs = jobs_of(store, cycle(0.5))
    jobs.ended(jobs.next())
    assert jobs.failed[key(DENSE)] == "its trial ended without a result"


def rewound(*densities: float) -> Cycle:
    """A chain that reads its parent's last State and the dense run's at 44."""
    return cycle(*densities, rewind=44)


@pytest.fixture
def two_blockers(store) -> Store:
    """The chain's first cycle is done, without its State; to compute that again takes two replays of the dense run."""
    finish(store, DENSE, {44})
    finish(store, rewound(0.5), set())
    for cell, step in ((DENSE, 44), (DENSE, 400), (rewound(0.5), 356)):
        store.state_path(cell, step).unlink()
    return store


@pytest.mark.parametrize("failing", [44, 400])
@pytest.mark.parametrize("order", ["failure first", "failure last"])
def test_a_replay_of_two_blockers_of_which_one_fails(two_blockers, failing, order):
    """It fails once, with the cell that waits for it; the other blocker's end finds nobody waiting."""
    store = two_blockers
    jobs = jobs_of(store, rewound(0.5, 0.25))
    replays = {job.replay: job for job in iter(jobs.next, None)}
    assert {step: job.cell for step, job in replays.items()} == {44: DENSE, 400: DENSE}
    steps = sorted(replays, key=lambda step: (step == failing) is (order == "failure last"))
    for step in steps:
        if step == failing:
            jobs.ended(replays[step], "ValueError: other numerics")
        else:
            end(jobs, store, replays[step])
    error = f"its parent {replays[failing].name} failed: ValueError: other numerics"
    assert jobs.failed == {key(rewound(0.5, 0.25)): error}
    assert (jobs.next(), jobs.left(), jobs.running) == (None, 0, {})


def test_a_replay_of_two_blockers_that_both_fail(two_blockers):
    jobs = jobs_of(two_blockers, rewound(0.5, 0.25))
    for replay in list(iter(jobs.next, None)):
        jobs.ended(replay, "ValueError: other numerics")
    assert list(jobs.failed) == [key(rewound(0.5, 0.25))]
    assert (jobs.next(), jobs.left()) == (None, 0)


def test_a_cell_without_a_failure_of_its_own_is_given_one(store):
    """Its process died: the reason is known to the driver only."""
    jobs = jobs_of(store, cycle(0.5))
    jobs.ended(jobs.next(), "its trial died 3 times before it began")
    failures = {path.parent.name: json.loads(path.read_text()) for path in store.root.glob("runs/*/failure.json")}
    assert failures.keys() == {key(DENSE), key(cycle(0.5))}
    assert failures[key(DENSE)] == {"error": "its trial died 3 times before it began"}


def test_a_failure_of_a_run_with_a_damaged_cell_json_is_a_failure(store):
    """The trial can't begin such a run, nor can the driver: it fails, and the study goes on."""
    jobs = jobs_of(store, cycle(0.5), OTHER)
    running = {job.cell: job for job in iter(jobs.next, None)}
    write(store.run(key(DENSE)) / "cell.json", b"{")
    jobs.ended(running[DENSE], "ValueError: cell.json is damaged")
    assert jobs.failed.keys() == {key(DENSE), key(cycle(0.5))}
    end(jobs, store, running[OTHER])
    assert jobs.left() == 0


def test_a_cell_whose_state_went_while_it_waited_waits_for_a_replay(store):
    """Another launch's retention removed it; any other failure of the cell is its own."""
    finish(store, DENSE, {44})
    jobs = jobs_of(store, rewound(0.5))
    job = jobs.next()
    store.state_path(DENSE, 44).unlink()
    jobs.ended(job, "ValueError: state-44.safetensors is damaged (it is missing)")
    assert jobs.failed == {}
    assert not (store.run(key(rewound(0.5))) / "failure.json").exists()
    replay = jobs.next()
    assert (replay.cell, replay.replay) == (DENSE, 44)
    assert jobs.next() is None
    end(jobs, store, replay)
    again = jobs.next()
    assert (again.cell, again.replay) == (rewound(0.5), None)
    jobs.ended(again, "diverged")
    assert jobs.failed == {key(rewound(0.5)): "diverged"}


def test_waiting_cells_that_another_launch_finished_are_done(store):
    jobs = jobs_of(store, cycle(0.5, 0.25, 0.1))
    dense = jobs.next()
    for member in (cycle(0.5), cycle(0.5, 0.25)):
        finish(store, member, set())
    end(jobs, store, dense)
    assert jobs.done == {key(DENSE), key(cycle(0.5)), key(cycle(0.5, 0.25))}
    assert jobs.next().cell == cycle(0.5, 0.25, 0.1)
    assert jobs.next() is None


def test_a_cell_that_another_launch_finished_does_not_fail_with_its_second_blocker(store):
    """It is counted once: as done."""
    finish(store, DENSE, set())
    store.state_path(DENSE, 400).unlink()
    jobs = jobs_of(store, rewound(0.5), cycle(0.5, dense=OTHER))
    running = {job.id: job for job in iter(jobs.next, None)}
    replays = {job.replay: job for job in running.values() if job.replay is not None}
    assert set(replays) == {44, 400}
    finish(store, rewound(0.5), set())
    end(jobs, store, replays[44])
    assert key(rewound(0.5)) in jobs.done
    jobs.ended(replays[400], "ValueError: other numerics")
    assert jobs.failed == {}
    assert jobs.left() == 2


def claim(store: Store, cell: Cell, age: float) -> None:
    claim = {"launch": "another", "host": "elsewhere", "pid": 1, "time": time.time() - age, "step": 0, "starts": 1}
    write(store.begin(cell) / "claim.json", json.dumps(claim).encode())


def test_a_cell_of_another_launch_is_waited_for(store):
    jobs = jobs_of(store, cycle(0.5))
    claim(store, DENSE, age=10)
    jobs.foreign(jobs.next())
    jobs.look_abroad()
    assert jobs.next() is None
    assert jobs.waits_abroad()
    finish(store, DENSE, set())
    jobs.look_abroad()
    assert jobs.next().cell == cycle(0.5)


def test_a_cell_that_another_launch_gave_up_is_taken_over(store):
    jobs = jobs_of(store, cycle(0.5))
    claim(store, DENSE, age=121)
    jobs.foreign(jobs.next())
    jobs.look_abroad()
    assert jobs.next().cell == DENSE


def test_an_inner_state_goes_when_its_last_reader_is_done(store):
    chain = cycle(0.5, 0.25)
    for member in (DENSE, cycle(0.5), chain):
        finish(store, member, {44} if member == DENSE else set())
    retention = Retention(store, [chain, cycle(0.5, 0.1)])
    assert retention.ended(chain) == []  # (0.5, 0.1) still needs it
    finish(store, cycle(0.5, 0.1), set())
    assert retention.ended(cycle(0.5, 0.1)) == [store.state_path(cycle(0.5), 400)]
    assert store.kept_steps(cycle(0.5)) == []
    assert store.kept_steps(DENSE) == [44, 400]
    assert store.kept_steps(chain) == [400]


def declare(store: Store, study: str, *cells: Cell) -> None:
    rows = [{"key": key(cell), "cell": describe(cell)} for cell in cells]
    write(store.study(study) / "cells.json", json.dumps(rows).encode())


def test_other_studies_of_the_storage_are_heard_before_a_state_goes(store):
    for member in (DENSE, cycle(0.5), cycle(0.5, 0.25)):
        finish(store, member, set())
    declare(store, "other", cycle(0.5, 0.1))
    assert Retention(store, [cycle(0.5, 0.25)]).ended(cycle(0.5, 0.25)) == []


def test_a_study_declared_after_retention_was_made_is_heard(store):
    """Another launch's: it may need a State that this one's study does not."""
    for member in (DENSE, cycle(0.5), cycle(0.5, 0.25)):
        finish(store, member, set())
    retention = Retention(store, [cycle(0.5, 0.25)])
    declare(store, "other", cycle(0.5, 0.1))
    assert retention.ended(cycle(0.5, 0.25)) == []
    assert store.kept_steps(cycle(0.5)) == [400]
    finish(store, cycle(0.5, 0.1), set())
    assert retention.ended(cycle(0.5, 0.25)) == [store.state_path(cycle(0.5), 400)]


def test_a_study_extended_after_retention_was_made_is_heard(store):
    for member in (DENSE, cycle(0.5), cycle(0.5, 0.25)):
        finish(store, member, set())
    declare(store, "other", DENSE)
    retention = Retention(store, [cycle(0.5, 0.25)])
    time.sleep(0.02)
    declare(store, "other", DENSE, cycle(0.5, 0.1))
    assert retention.ended(cycle(0.5, 0.25)) == []
    assert store.kept_steps(cycle(0.5)) == [400]
