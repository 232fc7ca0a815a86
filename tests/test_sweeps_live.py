"""What a running study shows, without Ray: results are given to the display as Tune gives them."""

import io
import math
from types import SimpleNamespace

import pandas as pd
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from analysis.load import SCHEMA
from sweeps import live
from sweeps.jobs import Jobs
from sweeps.live import Display, steps_saved
from sweeps.searcher import Stop
from trainable import recipes, strategies
from trainable.config import Cycle
from trainable.events import Events
from trainable.store import Store

DENSE = recipes.digits(0)
FIRST, SECOND = (
    Cycle(dense=DENSE, densities=d, retraining=strategies.weight_rewinding(DENSE, 44)) for d in ((0.5,), (0.5, 0.25))
)


def table(accuracy=None):
    """A study's frame with one row."""
    row = {"status": "missing"} if accuracy is None else {"status": "done", "test_accuracy": accuracy}
    rest = {"dataset": "digits", "architecture": "resnet8-8", "schedule": "dense", "strategy": "dense"}
    rest |= {"sparsity_target": 0.0, "compression_ratio": 1.0}
    return pd.DataFrame([row | rest]).reindex(columns=list(SCHEMA)).astype(SCHEMA)


@pytest.fixture
def jobs(tmp_path):
    """A dense run that is done and a chain of two cycles that is not."""
    store = Store(tmp_path / "storage")
    store.begin(DENSE)
    store.write_result(DENSE, {}, {})
    store.state_path(DENSE, 44).touch()
    store.state_path(DENSE, 400).touch()
    jobs = Jobs(store)
    jobs.add([("iterative", SECOND)])
    return jobs


@pytest.fixture
def display(jobs, tmp_path):
    made = Display(jobs, Events(tmp_path / "tensorboard"), Stop(), table)
    yield made
    made.close()


def trial(name="a/b", replay=None, **last_result):
    return SimpleNamespace(trial_id=name, config={"name": name, "replay": replay}, last_result=last_result)


def result(step, steps=356, accuracy=0.5, **rest):
    made = {"step": step, "steps": steps, "test_accuracy": accuracy, "error": "", "foreign": False}
    return made | {"resumed_at": None if step == 0 else 0, **rest}


def shown(display) -> str:
    text = io.StringIO()
    Console(file=text, width=200).print(display.render())
    return text.getvalue()


def test_counts_and_running_cells(display):
    assert shown(display).splitlines()[0].startswith("1 done, 0 running, 0 failed, 2 left of 3 cells; 0.0 steps/s; ")
    display.on_trial_result(1, [], trial(), result(89))
    first, second = shown(display).splitlines()
    assert "1 done, 1 running, 0 failed, 2 left of 3 cells" in first
    assert second.split() == ["a/b", "89/356", "25", "%", "test", "accuracy", "0.5000"]


def test_pace_and_time_left(jobs, tmp_path, monkeypatch):
    """Forty steps in ten seconds, 2 × 356 − 40 left: 168 s."""
    now = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    display = Display(jobs, Events(tmp_path / "tensorboard"), Stop(), table)
    for step in (10, 40):
        now[0] += 5
        display.on_trial_result(1, [], trial(), result(step))
    assert display.steps_per_second() == 4.0
    assert "4.0 steps/s; time left 2 min 48 s" in shown(display)
    now[0] += 100
    display.on_trial_result(1, [], trial(), result(45))
    display.on_trial_result(1, [], trial(), result(45))
    assert display.steps_per_second() < 4.0


def test_steps_of_a_resumed_trial_are_not_new(jobs, tmp_path, monkeypatch):
    """A trial that goes on from step 300 has not made 300 steps in its first second."""
    now = [1000.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    display = Display(jobs, Events(tmp_path / "tensorboard"), Stop(), table)
    now[0] += 1
    display.on_trial_result(1, [], trial(), result(310, resumed_at=300))
    now[0] += 1
    display.on_trial_result(1, [], trial(), result(320, resumed_at=300))
    assert display.steps_per_second() == 10.0


def test_plain_lines(display, capsys):
    display.on_trial_complete(1, [], trial(**result(356, accuracy=0.91234)))
    display.on_trial_complete(2, [], trial("c/d", **result(3, accuracy=math.nan, error="diverged: …")))
    assert capsys.readouterr().err.splitlines() == ["[1/3] a/b  test accuracy 0.9123", "[1/3] c/d  diverged: …"]


def test_lines_of_what_trained_nothing_name_no_accuracy(display, capsys):
    """A replay, and a cell that another launch trains."""
    display.on_trial_complete(1, [], trial("replay/a", 44, **result(44, accuracy=math.nan)))
    display.on_trial_complete(2, [], trial("c/d", **result(0, accuracy=math.nan, foreign=True)))
    display.on_trial_complete(3, [], trial("replay/a", 7, **result(3, accuracy=math.nan, error="other numerics")))
    assert capsys.readouterr().err.splitlines() == [
        "[1/3] replay/a  State computed again",
        "[1/3] replay/a  other numerics",
    ]


def test_no_lines_while_stopping(display, capsys):
    display._stop.signalled = True
    display.on_trial_complete(1, [], trial(**result(12)))
    assert capsys.readouterr().err == ""


def test_the_studys_own_run(jobs, tmp_path):
    display = Display(jobs, Events(tmp_path / "tensorboard"), Stop(), lambda: table(0.97))
    display.publish()
    display.close()
    display._events.close()
    seen = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = {tag: [(e.step, e.value) for e in seen.Scalars(tag)] for tag in seen.Tags()["scalars"]}
    assert scalars == {
        "study/cells_done": [(1, 1.0)],
        "study/cells_failed": [(1, 0.0)],
        "study/steps_saved_by_sharing": [(1, 0.0)],
    }
    (picture,) = seen.Images("study/accuracy_against_compression")
    assert picture.encoded_image_string.startswith(b"\x89PNG")


def test_no_picture_before_the_first_cell(jobs, tmp_path):
    display = Display(jobs, Events(tmp_path / "tensorboard"), Stop(), table)
    display.publish()
    display._events.close()
    assert EventAccumulator(str(tmp_path / "tensorboard")).Reload().Tags()["images"] == []


def test_a_storage_that_fails_ends_the_launch(jobs, tmp_path):
    def full():
        raise OSError(28, "No space left on device")

    stop = Stop()
    display = Display(jobs, Events(tmp_path / "tensorboard"), stop, full)
    display.publish()
    assert stop.reason == "storage error: [Errno 28] No space left on device"


def test_the_table_is_written_now_and_then(jobs, tmp_path, monkeypatch):
    """Every ten seconds, or fifty times what a writing takes."""
    now, written = [1000.0], []
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])

    def write():
        written.append(now[0] - 1000)
        now[0] += 0.4
        return table()

    display = Display(jobs, Events(tmp_path / "tensorboard"), Stop(), write)
    for _ in range(400):
        now[0] += 0.1
        display.on_step_end(1, [])
    assert written == pytest.approx([10.0, 30.4], abs=0.21)


def test_steps_saved(jobs):
    """Separate trials would have trained the dense run thrice and the first cycle twice."""
    assert steps_saved(jobs) == 0
    for _ in range(2):
        job = jobs.next()
        jobs._store.begin(job.cell)
        jobs._store.write_result(job.cell, {}, {})
        jobs._store.state_path(job.cell, 356).touch()
        jobs.ended(job)
    assert steps_saved(jobs) == 2 * 400 + 356


@pytest.mark.parametrize(("seconds", "text"), [(59.6, "1 min 00 s"), (0, "0 min 00 s"), (3725, "1 h 02 min")])
def test_durations(seconds, text):
    assert live._duration(seconds) == text
