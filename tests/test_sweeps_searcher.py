"""The search algorithm, driven by hand as Tune drives it."""

import json
import time

import pytest
from ray.tune.search import Searcher

from sweeps import searcher
from sweeps.jobs import Jobs
from sweeps.retention import Retention
from sweeps.searcher import JobSearcher, Stop
from trainable import recipes, strategies
from trainable.config import Cycle, key
from trainable.store import Store, write

DENSE = recipes.digits(0)
RETRAINING = strategies.lr_rewinding(DENSE)
FIRST, SECOND, LAST, OTHER = (
    Cycle(dense=DENSE, densities=densities, retraining=RETRAINING)
    for densities in ((0.5,), (0.5, 0.25), (0.5, 0.25, 0.125), (0.2,))
)

REPORT = {"error": "", "foreign": False, "fault": ""}
"""What is in every result of a trial."""


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "storage")


class Driven:
    """A searcher with Tune's part played: trials are named 0, 1, …; a trial that ends well leaves what it must."""

    def __init__(self, store, *cells, keep_states=True, **options):
        self.store, self.jobs, self.stop = store, Jobs(store), Stop()
        self.jobs.add([("iterative", cell) for cell in cells])
        retention = None if keep_states else Retention(store, self.jobs.cells.values())
        self.searcher = JobSearcher(self.jobs, lambda job: {"job": job}, self.stop, retention, retries=2, **options)
        self.trials = 0

    def ask(self):
        """The cell of the next trial, or what suggest said instead."""
        self.trials += 1
        said = self.searcher.suggest(str(self.trials - 1))
        return said["job"].cell if isinstance(said, dict) else said

    def end(self, trial, cell, **result):
        if not result:
            finish(self.store, cell)
        self.searcher.on_trial_complete(trial_id=str(trial), result={**REPORT, **result})


def finish(store, cell):
    write(store.begin(cell) / f"state-{cell.budget}.safetensors", b"")
    store.write_result(cell, {"test_accuracy": 0.5}, {})


def claim(store, cell, age):
    words = {"launch": "another", "host": "elsewhere", "pid": 1, "time": time.time() - age, "step": 0, "starts": 1}
    write(store.begin(cell) / "claim.json", json.dumps(words | {"reached": 0}).encode())


def test_a_study_from_beginning_to_end(store):
    driven = Driven(store, SECOND, OTHER)
    assert driven.ask() == DENSE
    assert [driven.ask() for _ in range(3)] == [None] * 3
    driven.end(0, DENSE)
    assert [driven.ask(), driven.ask()] == [FIRST, OTHER]
    assert driven.ask() is None
    driven.end(4, FIRST)
    assert driven.ask() == SECOND
    driven.end(5, OTHER)
    assert driven.ask() is None
    driven.end(7, SECOND)
    assert driven.ask() == driven.ask() == Searcher.FINISHED


def test_nothing_to_do(store):
    for cell in (DENSE, FIRST):
        finish(store, cell)
    assert Driven(store, FIRST).ask() == Searcher.FINISHED


def test_slots(store, monkeypatch):
    """As many trials as there are places, and more when machines have come."""
    monkeypatch.setattr(searcher, "LOOK_SECONDS", -1.0)
    places = 2
    cells = [Cycle(dense=DENSE, densities=(d,), retraining=RETRAINING) for d in (0.9, 0.8, 0.7)]
    driven = Driven(store, *cells, places=lambda: places)
    assert driven.searcher.set_max_concurrency(1) is True
    finish(store, driven.ask())
    driven.searcher.on_trial_complete("0", REPORT)
    assert [isinstance(driven.ask(), Cycle) for _ in range(4)] == [True, True, False, False]
    places = 3
    assert isinstance(driven.ask(), Cycle)


def test_a_failure(store):
    driven = Driven(store, LAST, OTHER)
    driven.ask()
    driven.end(0, DENSE)
    assert driven.ask() == FIRST
    driven.end(1, FIRST, error="diverged")
    assert driven.jobs.failed.keys() == {key(FIRST), key(SECOND), key(LAST)}
    assert driven.ask() == OTHER
    driven.end(2, OTHER)
    assert driven.ask() == Searcher.FINISHED


def test_a_trial_that_leaves_nothing(store):
    driven = Driven(store, DENSE)
    driven.ask()
    driven.end(0, DENSE, error="")
    assert driven.jobs.failed == {key(DENSE): "its trial ended without a result"}


def test_a_trial_that_dies_before_it_begins(store):
    """Tune reports it without a result: it is tried again twice, and is then a failed row with its reason."""
    driven = Driven(store, FIRST)
    for trial in range(3):
        assert driven.jobs.failed == {}
        assert driven.ask() == DENSE
        driven.searcher.on_trial_complete(trial_id=str(trial), result=None, error=True)
    assert driven.jobs.failed[key(DENSE)] == "its trial died 3 times before it began"
    assert driven.ask() == Searcher.FINISHED
    failures = {path.parent.name: json.loads(path.read_text()) for path in store.root.glob("runs/*/failure.json")}
    assert failures.keys() == {key(DENSE), key(FIRST)}
    assert failures[key(DENSE)] == {"error": "its trial died 3 times before it began"}


def test_a_trial_that_dies_with_its_machine(store):
    driven = Driven(store, FIRST, lost=lambda: True)
    for trial in range(9):
        assert driven.ask() == DENSE
        driven.searcher.on_trial_complete(trial_id=str(trial), result=None, error=True)
    assert driven.jobs.failed == {}


def test_a_storage_that_fails_under_the_searcher(store, monkeypatch):
    driven = Driven(store, FIRST)
    driven.ask()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "kept_steps", full)
    driven.end(0, DENSE)
    assert driven.stop.reason == "storage error: [Errno 28] No space left on device"


def test_a_storage_error_ends_the_launch_and_fails_nothing(store):
    driven = Driven(store, FIRST)
    driven.ask()
    driven.end(0, DENSE, fault="storage error: No space left on device")
    assert driven.stop.stop_all()
    assert driven.stop.reason == "storage error: No space left on device"
    assert driven.jobs.failed == {}
    assert driven.ask() == Searcher.FINISHED


def test_after_a_signal_no_trial_starts_and_what_ended_is_no_failure(store):
    driven = Driven(store, FIRST)
    driven.ask()
    driven.stop.signalled = True
    assert driven.ask() == Searcher.FINISHED
    driven.end(0, DENSE, error="")
    assert driven.jobs.failed == {}


def test_the_first_reason_counts():
    stop = Stop()
    assert not stop.stop_all()
    stop.give_up("first")
    stop.give_up("second")
    assert (stop.reason, stop.stop_all(), stop("trial", {})) == ("first", True, False)


def test_another_launchs_cell_is_waited_for(store, monkeypatch):
    monkeypatch.setattr(searcher, "LOOK_SECONDS", 0.0)
    driven = Driven(store, FIRST)
    claim(store, DENSE, age=10)
    driven.ask()
    driven.end(0, DENSE, foreign=True)
    assert driven.ask() is None
    assert driven.jobs.failed == {}
    finish(store, DENSE)
    assert driven.ask() == FIRST


def test_another_launchs_cell_is_taken_when_it_is_given_up(store, monkeypatch):
    monkeypatch.setattr(searcher, "LOOK_SECONDS", 0.0)
    driven = Driven(store, FIRST)
    claim(store, DENSE, age=10)
    driven.ask()
    driven.end(0, DENSE, foreign=True)
    assert driven.ask() is None
    claim(store, DENSE, age=121)
    assert driven.ask() == DENSE


def test_what_another_launch_finished_meanwhile_is_not_asked_for(store, monkeypatch):
    """It finished the whole chain, and removed the State that was needed on the way."""
    monkeypatch.setattr(searcher, "LOOK_SECONDS", 0.0)
    driven = Driven(store, SECOND)
    claim(store, DENSE, age=10)
    driven.ask()
    driven.end(0, DENSE, foreign=True)
    for cell in (DENSE, FIRST, SECOND):
        finish(store, cell)
    store.state_path(FIRST, 400).unlink()
    driven.ask()
    assert driven.ask() == Searcher.FINISHED
    assert driven.jobs.running == {}


def test_looking_abroad_is_rare(store):
    """Every look reads the store: not ten times a second."""
    driven = Driven(store, FIRST)
    claim(store, DENSE, age=10)
    driven.ask()
    driven.end(0, DENSE, foreign=True)
    driven.ask()
    finish(store, DENSE)
    assert driven.ask() is None


def test_a_deadlock_is_an_error_of_ours(store):
    driven = Driven(store, FIRST)
    driven.ask()
    driven.searcher._trials.clear()
    with pytest.raises(AssertionError, match="cells are left, none is ready and none is running"):
        driven.ask()


@pytest.mark.parametrize("keep_states", [True, False])
def test_states_that_nobody_needs_any_more(store, keep_states):
    driven = Driven(store, SECOND, keep_states=keep_states)
    for trial, cell in ((0, DENSE), (1, FIRST), (2, SECOND)):
        assert driven.ask() == cell
        driven.end(trial, cell)
    assert store.kept_steps(FIRST) == ([400] if keep_states else [])
    assert store.kept_steps(DENSE) == store.kept_steps(SECOND) == [400]


def test_tune_keeps_nothing_of_it(store, tmp_path):
    driven = Driven(store, FIRST)
    assert driven.searcher.__getstate__() == {}
    driven.searcher.save(str(tmp_path / "state"))
    assert (tmp_path / "state").read_bytes() == b""
    with pytest.raises(NotImplementedError, match="running the same command again"):
        driven.searcher.restore(str(tmp_path / "state"))


# A source of further jobs


def test_jobs_that_are_asked_for_on_the_way(store):
    """FINISHED is Tune's last question: whoever asks for more is heard before."""
    driven = Driven(store, FIRST)
    more = [("one-shot", OTHER)]

    def grow():
        if key(FIRST) in driven.jobs.done and more:
            driven.jobs.add([more.pop()])

    driven.searcher._grow = grow
    for trial, cell in enumerate((DENSE, FIRST, OTHER)):
        assert driven.ask() == cell
        driven.end(trial, cell)
    assert driven.ask() == Searcher.FINISHED


def test_a_source_that_can_not_write_ends_the_launch(store):
    driven = Driven(store, FIRST)

    def grow():
        raise OSError(28, "No space left on device")

    driven.searcher._grow = grow
    assert driven.ask() == Searcher.FINISHED
    assert driven.stop.reason == "storage error: [Errno 28] No space left on device"
