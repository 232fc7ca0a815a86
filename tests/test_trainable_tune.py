"""The Tune trainable, driven by hand as Tune drives it, and what cells ask of a machine."""

import json
import platform
import socket
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import ray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainable import claims, cycle, preflight, strategies, tune
from trainable.config import Cycle, describe, key
from trainable.store import write
from trainable.tune import CellTrainable, Launch, gpu_share, resources

LAUNCH = Launch(
    storage="",
    data_root="nowhere",
    study="s",
    threads=1,
    compile=False,
    resume_every=1000.0,
    retries=2,
    id="ours",
    driver=preflight.Driver(token="", versions={}, source=""),
    data={"digits": "38405805f515424d"},
)


@pytest.fixture
def machines():
    """As ray.nodes() tells of them: one that is up, one known to be gone, one that died and is not yet."""
    with socket.create_server(("127.0.0.1", 0)) as raylet, socket.create_server(("127.0.0.1", 0)) as dead:
        ports = raylet.getsockname()[1], dead.getsockname()[1]
        dead.close()
        up, died = ({"Alive": True, "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port} for port in ports)
        yield [{"NodeID": "this", **up}, {"NodeID": "gone", "Alive": False}, {"NodeID": "silent", **died}]


@pytest.fixture
def trial(store, machines, monkeypatch):
    """Makes a trial over the storage in which the tiny dense run is done."""
    monkeypatch.setattr(ray, "get_gpu_ids", list)  # these would start a Ray
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "this"))
    monkeypatch.setattr(ray, "nodes", lambda: machines)

    def made(cell, *, replay=None, keep=(), **options) -> CellTrainable:
        return CellTrainable(config(cell, replay, keep, options))

    def config(cell, replay, keep, options):
        launch = replace(LAUNCH, **({"storage": str(store.root), "driver": driver} | options))
        return {
            "key": key(cell),
            "name": f"name-of-{key(cell)[:6]}",
            "hparams": {"seed": 3, "strategy": "x"},
            "cell": json.dumps(describe(cell)),
            "replay": replay,
            "keep": list(keep),
            "launch": asdict(launch),
        }

    made.config = lambda cell: config(cell, None, (), {})
    with preflight.mark(store) as driver:
        yield made


@pytest.fixture
def cell(tiny):
    return Cycle(dense=tiny, densities=(0.5,), retraining=strategies.weight_rewinding(tiny, 10))


def reports(trial) -> list[dict]:
    """Every result of a trial to its end."""
    found = [trial.step()]
    while not found[-1]["done"]:
        found.append(trial.step())
    trial.cleanup()
    return found


# What a cell asks for


@pytest.mark.parametrize(
    ("architecture", "share"),
    [("resnet8-8", 0.25), ("resnet20", 0.25), ("resnet56", 0.25), ("resnet110", 0.5), ("vgg16", 0.5), ("wrn16-8", 1.0)],
)
def test_shares_of_a_gpu(architecture, share):
    assert gpu_share(architecture) == share


def test_resources():
    assert resources("resnet8-4", threads=2, share=None, gpus=False) == {"CPU": 2.0}
    assert resources("resnet8-4", threads=2, share=0.125, gpus=False) == {"CPU": 2.0}
    assert resources("resnet8-4", threads=2, share=None, gpus=True) == {"CPU": 2.0, "GPU": 0.25}
    assert resources("resnet8-4", threads=2, share=0.125, gpus=True) == {"CPU": 2.0, "GPU": 0.125}
    assert resources("wrn16-8", threads=1, share=None, gpus=True) == {"CPU": 1.0, "GPU": 1.0}


# A trial to its end


def test_a_cell_is_trained(store, trial, cell, digits, numerics):
    found = reports(trial(cell))
    assert [result["step"] for result in found] == [*range(2, 21, 2)]
    assert [result["done"] for result in found] == [False] * 9 + [True]
    assert {frozenset(result) for result in found} == {frozenset(found[0])}
    assert {(result["key"], result["error"], result["foreign"], result["fault"]) for result in found} == {
        (key(cell), "", False, "")
    }
    assert {result["resumed_at"] for result in found} == {0}
    assert [result["timesteps_total"] for result in found] == [result["step"] for result in found]
    numbers = store.result(cell)["numbers"]
    assert found[-1]["test_accuracy"] == numbers["test_accuracy"]
    assert not list(store.root.glob("runs/*/claim.json"))
    history = {record["step"]: record["test_accuracy"] for record in numbers["history"]}
    folder = store.study("s") / "tensorboard" / f"name-of-{key(cell)[:6]}"
    seen = EventAccumulator(str(folder)).Reload()
    assert {event.step: pytest.approx(event.value) for event in seen.Scalars("accuracy/test")} == history
    assert sorted(seen.Tags()["scalars"]) == [
        "accuracy/test",
        "loss/test",
        "loss/train",
        "training/density",
        "training/images_per_second",
        "training/learning_rate",
    ]


def test_a_trial_trains_what_a_plain_run_trains(store, trial, cell, digits, numerics):
    reports(trial(cell))
    content, numbers = store.state_path(cell, 20).read_bytes(), store.result(cell)["numbers"]
    store.forget(key(cell))
    for _ in cycle.run(cell, store, digits, numerics):
        pass
    assert store.result(cell)["numbers"] == numbers
    assert store.state_path(cell, 20).read_bytes() == content


def test_states_to_keep(store, trial, tiny):
    other = replace(tiny, seed=4)
    reports(trial(other, keep=[0, 7]))
    assert store.kept_steps(other) == [0, 7, 30]


def test_a_replay(store, trial, tiny):
    found = reports(trial(tiny, replay=12))
    assert {result["resumed_at"] for result in found} == {10}
    assert store.kept_steps(tiny) == [0, 10, 12, 30]
    assert found[-1]["done"]
    assert not list(store.root.glob("runs/*/claim.json"))


def test_a_replay_of_a_last_state(store, trial, cell):
    """An inner cycle's last State goes when nobody needs it; a study that grows may need it again."""
    reports(trial(cell))
    content = store.state_path(cell, 20).read_bytes()
    store.state_path(cell, 20).unlink()
    assert reports(trial(cell, replay=20, retries=0))[-1]["error"] == ""
    assert store.state_path(cell, 20).read_bytes() == content


def test_a_setup_leaves_nothing(store, trial, cell):
    before = sorted(store.root.rglob("*"))
    trial(cell).cleanup()
    assert sorted(store.root.rglob("*")) == before


def test_actors_are_used_again(store, trial, tiny, cell):
    reused = trial(cell)
    reports(reused)
    other = replace(tiny, seed=4)
    assert reused.reset_config(trial.config(other)) is True
    assert reports(reused)[-1]["key"] == key(other)
    assert store.done(other)


# Stopped, superseded, failed


def test_a_trial_that_is_stopped_saves_and_goes_on(store, trial, cell):
    stopped = trial(cell)
    assert stopped.step()["step"] == 2
    stopped.cleanup()
    assert store.resume_step(cell) == 2
    assert claims.read(store.run(key(cell))) is None
    assert {result["resumed_at"] for result in reports(trial(cell))} == {2}
    provenance = store.result(cell)["provenance"]
    assert (provenance["resumed_at"], provenance["steps_run"]) == ([2], 20)


def test_a_new_config_saves_what_is_under_way(store, trial, tiny, cell):
    reused = trial(cell)
    reused.step()
    reused.reset_config(trial.config(replace(tiny, seed=4)))
    assert store.resume_step(cell) == 2


def test_a_run_of_another_launch(store, trial, cell):
    claims.take(store.begin(cell), "theirs", 0)
    (result,) = reports(trial(cell))
    assert (result["foreign"], result["done"], result["error"], result["resumed_at"]) == (True, True, "", None)
    assert claims.read(store.run(key(cell)))["launch"] == "theirs"
    assert not (store.run(key(cell)) / "failure.json").exists()


def test_a_run_that_is_taken_over_is_not_written(store, trial, cell):
    superseded = trial(cell)
    superseded.step()
    claims.Claim(store.run(key(cell)), "theirs", machines=["m"], step=0, lost=0)
    found = reports(superseded)
    assert found[-1]["foreign"]
    assert not store.done(cell)
    assert store.kept_steps(cell) == []
    assert claims.read(store.run(key(cell)))["launch"] == "theirs"


def test_an_exception_is_tried_again_in_place(store, trial, cell, monkeypatch):
    real, calls = cycle.run, []

    def flaky(*arguments, **options):
        calls.append(options["claim"])
        if len(calls) < 3:
            raise RuntimeError("out of luck")
        return real(*arguments, **options)

    monkeypatch.setattr(cycle, "run", flaky)
    assert reports(trial(cell))[-1]["error"] == ""
    assert len(calls) == 3
    assert calls[0] is calls[1] is calls[2]  # one start of the run, however often it is tried in place
    assert calls[0].starts == 1
    assert store.done(cell)


def test_the_last_exception_is_the_failure(store, trial, cell, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(cycle, "run", broken)
    (result,) = reports(trial(cell))
    assert (result["done"], result["error"]) == (True, "RuntimeError: out of luck")
    failure = json.loads((store.run(key(cell)) / "failure.json").read_text())
    assert failure == {"error": "RuntimeError: out of luck"}
    assert claims.read(store.run(key(cell))) is None


def test_a_loss_that_is_not_finite_is_not_tried_again(store, trial, tiny, monkeypatch):
    real, calls = cycle.run, []
    monkeypatch.setattr(cycle, "run", lambda *a, **o: calls.append(None) or real(*a, **o))
    hot = Cycle(dense=tiny, densities=(0.5,), retraining=strategies.restart(tiny, "linear", peak_lr=1e30))
    result = reports(trial(hot))[-1]
    assert result["error"].startswith("diverged: the training loss is not finite (step ")
    assert len(calls) == 1


def test_a_storage_error_is_no_failure_of_the_cell(store, trial, cell):
    (store.begin(cell) / "state-20.safetensors").mkdir()
    result = reports(trial(cell))[-1]
    assert "state-20.safetensors" in result["fault"]
    assert result["error"] == ""
    assert not (store.run(key(cell)) / "failure.json").exists()


@pytest.mark.parametrize(("starts", "vanished"), [(2, False), (3, True)])
def test_processes_that_vanish(store, trial, cell, starts, vanished):
    """Two retries: started three times without the resume State moving on is not too often, four times is."""
    for _ in range(starts):
        claims.take(store.begin(cell), LAUNCH.id, 0, machine="this")
    result = reports(trial(cell))[-1]
    words = "Vanished: its process vanished 3 times at or after step 0, with no word why"
    assert result["error"] == (words if vanished else "")
    assert store.done(cell) is not vanished


@pytest.mark.parametrize("machine", ["gone", "silent", "forgotten"])
def test_machines_that_are_lost_are_no_fault_of_a_cell(store, trial, cell, machine):
    for _ in range(9):
        claims.take(store.begin(cell), LAUNCH.id, 0, machine=machine)
    assert reports(trial(cell))[-1]["error"] == ""
    assert store.done(cell)


def test_a_machine_without_the_drivers_storage_ends_the_launch(store, trial, cell, tmp_path):
    elsewhere = trial(cell, storage=str(tmp_path / "elsewhere"))
    (result,) = reports(elsewhere)
    assert result["fault"].startswith(
        f"machine {platform.node()} does not see the storage {tmp_path / 'elsewhere'} that the study was started with"
    )
    assert not (tmp_path / "elsewhere").exists()


def test_a_machine_with_another_data_set_ends_the_launch(store, trial, cell):
    (result,) = reports(trial(cell, data={"digits": "0123456789abcdef"}))
    assert result["fault"] == (
        f"machine {platform.node()} has another digits (38405805f515424d) than the driver (0123456789abcdef): "
        "remove it from nowhere there"
    )
    assert result["error"] == ""


def test_a_damaged_parent_is_the_failure(store, trial, tiny, cell):
    write(store.state_path(tiny, 10), b"nonsense")
    result = reports(trial(cell, retries=0))[-1]
    assert "state-10.safetensors is damaged (it does not parse" in result["error"]


def test_event_files_of_a_failed_cell_are_whole(store, trial, cell, monkeypatch):
    """Its last values are in the file when the trial ends, not seconds later or never."""
    real = cycle.run

    def diverging(*arguments, **options):
        for progress in real(*arguments, **options):
            yield progress
            if progress.step == 6:
                raise ArithmeticError("diverged")

    monkeypatch.setattr(cycle, "run", diverging)
    failed = trial(cell)  # held: its actor lives on
    assert reports(failed)[-1]["error"] == "diverged"
    seen = EventAccumulator(str(store.study("s") / "tensorboard" / f"name-of-{key(cell)[:6]}")).Reload()
    assert [event.step for event in seen.Scalars("accuracy/test")] == [2, 4, 6]


def test_steps_of_tune_are_short(store, trial, tiny, monkeypatch):
    """Without an evaluation a step ends after STEP_SECONDS."""
    monkeypatch.setattr(tune, "STEP_SECONDS", 0.0)
    other = replace(tiny, seed=4)
    short = trial(other)
    assert [short.step()["step"] for _ in range(4)] == [1, 2, 3, 4]
    short.cleanup()


def test_images_are_prepared_once_for_runs_that_see_the_same(tiny):
    """Actors are reused: the number of steps is nothing to the images, their border is."""
    same = tune._as_seen(replace(tiny, steps=31, seed=4, architecture="wrn10-1", momentum=0.5))
    assert same == tune._as_seen(tiny)
    for fields in ({"padding": "reflect"}, {"standardisation": "image"}, {"val_examples": 20}):
        assert tune._as_seen(replace(tiny, **fields)) != same
