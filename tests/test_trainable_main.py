"""python -m trainable: one cell without Ray, what stops it and how it says so."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from trainable import __main__ as command
from trainable import cycle, strategies
from trainable.config import Cycle, DenseRun, describe, from_description, key
from trainable.store import Store, write

RUN = [sys.executable, "-m", "trainable"]


def children_seconds() -> float:
    """CPU seconds that finished children have taken: unlike the clock's, nearly the same on a busy machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture(autouse=True)
def _handlers():
    """main() takes SIGINT and SIGTERM: pytest gets them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def cell(tiny) -> Cycle:
    return Cycle(dense=tiny, densities=(0.5,), retraining=strategies.weight_rewinding(tiny, 10))


@pytest.fixture
def write_cell(tmp_path):
    def made(description) -> str:
        path = tmp_path / "cell.json"
        path.write_text(json.dumps(describe(description) if isinstance(description, DenseRun | Cycle) else description))
        return str(path)

    return made


def npz(path, **changed) -> str:
    """Forty 8 × 8 images in two classes."""
    chance = np.random.default_rng(0)
    arrays = {
        "train_images": chance.integers(0, 255, (40, 8, 8), dtype=np.uint8),
        "train_labels": np.arange(40) % 2,
        "test_images": chance.integers(0, 255, (10, 8, 8), dtype=np.uint8),
        "test_labels": np.arange(10) % 2,
    }
    np.savez(path, **(arrays | changed))
    return str(path)


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Examples and checks


def test_the_example_comes_back():
    shown = subprocess.run([*RUN, "--example"], capture_output=True, text=True, check=True, timeout=60)
    found = from_description(json.loads(shown.stdout))
    assert found == command.example()
    assert found.densities == (0.8, 0.64, 0.512, 0.41, 0.328, 0.262, 0.21)
    assert (found.dense.architecture, found.dense.steps, shown.stderr) == ("resnet8-8", 400, "")


def test_check_writes_nothing_and_is_quick(tmp_path, cell, write_cell):
    argv = [*RUN, write_cell(cell), "--check", "--storage", "here"]
    began = children_seconds()
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert children_seconds() - began < 3
    name = f"digits/resnet8-4/one-shot/weight-rewinding/s0.5/seed3-{key(cell)[:6]}"
    assert done.stdout == f"{name}: a valid cell, key {key(cell)}\n"
    assert everything(tmp_path) == ["cell.json"]


def test_check_of_an_npz_writes_nothing(tmp_path, tiny, write_cell, capsys):
    path = npz(tmp_path / "mine.npz")
    description = write_cell(describe(tiny) | {"dataset": path})
    assert command.main([description, "--check", "--storage", str(tmp_path / "s")]) == 0
    assert capsys.readouterr().out.startswith("mine@")
    assert everything(tmp_path) == ["cell.json", "mine.npz"]


# Bad input

DENSE = {
    "architecture": ("resnet9", r"architecture 'resnet9': a CIFAR ResNet's depth is 6n \+ 2 \(8, 14, 20, .*\), got 9"),
    "dataset": ("mnist", r"unknown data set 'mnist': choose from digits, cifar10, cifar100, or the path of an npz"),
    "drops": ([24, 15], r"drops must be increasing steps within 1 … steps − 1 = 29, got \[24, 15\]"),
    "val_examples": (1437, r"val_examples must be fewer than the 1437 training images of digits, got 1437"),
    "steps": (0, r"steps must be 1 or more, got 0"),
    "seed": ("three", r"seed must be a whole number, got 'three'"),
    "colour": ("blue", r"unknown field colour of dense"),
}
DENSITIES = {
    "percent": ([80], r"density must be in \(0, 1\], got 80: is it a percentage\?"),
    "zero": ([0], r"density must be in \(0, 1\], got 0$"),
    "decimals": ([0.1234567], r"density must have at most 6 decimals .*, got 0.1234567"),
    "increasing": ([0.2, 0.5], r"densities of a chain must never increase, got \[0.2, 0.5\]"),
    "none": ([], r"densities must name one density or more, got \[\]"),
}
RETRAINING = {
    "budget": ({"budget": 0}, r"retraining budget must be 1 step or more, got 0"),
    "clock": ({"lr_from": -5}, r"a learning-rate clock cannot start before step 0 .*, got lr_from = -5"),
    "rewind point": ({"weights_from": 31}, r"weights_from must be a step of the dense run, 0 … 30, got 31"),
}
CONTENTS = {
    "not json": ("{", r"cell.json is not JSON: Expecting"),
    "no text": (b"\xff\xfe\x00", r"cell.json is not JSON: .*decode"),
    "a list": ("[1]", r"a cell's description must be a JSON object, got list"),
    "no kind": ("{}", r"a cell's kind must be 'dense' or 'cycle', got None"),
}
NPZ = {
    "NaN": ({"train_images": np.full((40, 8, 8), np.nan)}, r"train_images must be uint8, got float64 with NaN"),
    "shape": ({"test_images": np.zeros((10, 5, 8), np.uint8)}, r"test_images must be \[N, H, W, C\] .*got \[10, 5, 8"),
    "labels": ({"test_labels": np.full(10, 7)}, r"test_labels must be 0 … 1 as in training, got 7"),
    "label type": ({"train_labels": np.zeros(40)}, r"train_labels must be integers, got float64"),
    "too few labels": ({"train_labels": np.arange(39) % 2}, r"one label an image, \[40\], got \[39\]"),
    "pickles": ({"train_labels": np.array([None] * 40)}, r"not a readable npz file of plain arrays"),
}


def refused(folder, *arguments) -> str:
    """The one line of complaint of a command line that must write nothing, from a process of its own."""
    before, began = everything(folder), children_seconds()
    done = subprocess.run([*RUN, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert children_seconds() - began < 3
    assert everything(folder) == before
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr.removeprefix("error: ").strip()


def test_bad_dense_runs(tmp_path, tiny, write_cell):
    for field, (value, message) in DENSE.items():
        said = refused(tmp_path, write_cell(describe(tiny) | {field: value}), "--storage", "here")
        assert re.search(message, said), said


def test_bad_densities(tmp_path, cell, write_cell):
    for value, message in DENSITIES.values():
        said = refused(tmp_path, write_cell(describe(cell) | {"densities": value}), "--storage", "here")
        assert re.search(message, said), said


def test_bad_retraining(tmp_path, cell, write_cell):
    for fields, message in RETRAINING.values():
        description = describe(cell) | {"retraining": describe(cell)["retraining"] | fields}
        said = refused(tmp_path, write_cell(description), "--storage", "here")
        assert re.search(message, said), said


def test_bad_files(tmp_path):
    for content, message in CONTENTS.values():
        (tmp_path / "cell.json").write_bytes(content if isinstance(content, bytes) else content.encode())
        said = refused(tmp_path, "cell.json", "--storage", "here")
        assert re.search(message, said), said
    assert refused(tmp_path, "none.json", "--storage", "here").startswith("CELL.json can't be read: ")
    assert "'.'" in refused(tmp_path, ".", "--storage", "here")
    assert refused(tmp_path).startswith("CELL.json is missing: python -m trainable --example prints one")
    assert refused(tmp_path, "cell.json").startswith("--storage WHERE is missing")


def test_a_storage_that_cannot_be_written(tmp_path, cell, write_cell):
    path = write_cell(cell)
    assert "'cell.json' can't be written" in refused(tmp_path, path, "--storage", "cell.json")
    assert "must be a folder or s3://bucket/prefix" in refused(tmp_path, path, "--storage", "gs://bucket/x")
    if os.path.isdir("/proc/self"):
        assert "storage '/proc/x' can't be written: no permission in /proc" in refused(
            tmp_path, path, "--storage", "/proc/x"
        )


def test_bad_npz(tmp_path, tiny, write_cell):
    for changed, message in NPZ.values():
        path = npz(tmp_path / "mine.npz", **changed)
        description = write_cell(describe(tiny) | {"dataset": path})
        said = refused(tmp_path, description, "--storage", "here")
        assert re.search(message, said), said
    (tmp_path / "mine.npz").unlink()
    said = refused(tmp_path, write_cell(describe(tiny) | {"dataset": "mine.npz"}), "--storage", "here")
    assert said.startswith("mine.npz is not a readable npz file of plain arrays ([Errno 2]")


def test_a_good_npz_is_not_registered_for_a_bad_cycle(tmp_path, cell, write_cell):
    """The cycle's own fields are checked before the data set of its dense run is put into the storage."""
    description = describe(cell)
    description["dense"]["dataset"] = npz(tmp_path / "mine.npz")
    description["densities"] = [80]
    assert "is it a percentage?" in refused(tmp_path, write_cell(description), "--storage", "here")


def test_a_good_npz_is_not_registered_for_too_large_a_validation_set(tmp_path, tiny, write_cell):
    description = describe(tiny) | {"dataset": npz(tmp_path / "mine.npz"), "val_examples": 40}
    said = refused(tmp_path, write_cell(description), "--storage", "here")
    assert "val_examples must be fewer than the 40 training images" in said


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--threads", "0"], "argument --threads: must be a whole number, 1 or more, got 0"),
        (["--threads", "two"], "argument --threads: must be a whole number, 1 or more, got two"),
        (["--resume-every", "soon"], "argument --resume-every: must be a number of seconds above 0, got soon"),
        (["--resume-every", "0"], "argument --resume-every: must be a number of seconds above 0, got 0"),
        (["--resume-every", "inf"], "argument --resume-every: must be a number of seconds above 0, got inf"),
        (["--eval-every", "10"], "unrecognized arguments: --eval-every 10"),
    ],
)
def test_bad_options(option, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["x.json", "--storage", "s", *option])
    assert capsys.readouterr() == ("", f"error: {said} (see --help)\n")


# Training


def test_a_users_npz_by_path(tmp_path, tiny, write_cell, capsys):
    path = npz(tmp_path / "my images.npz")
    dense = describe(replace(tiny, steps=4, drops=(2,), batch_size=8)) | {"dataset": path}
    storage = tmp_path / "storage"
    argv = [write_cell(dense), "--storage", str(storage), "--threads", "1", "--device", "cpu"]
    assert command.main(argv) == 0
    (registered,) = (storage / "datasets").iterdir()
    name = registered.stem
    assert name.startswith("my-images@")
    assert len(name) == len("my-images@") + 16
    trained = from_description(dense | {"dataset": name})
    numbers = Store(storage).result(trained)["numbers"]
    assert numbers["steps"] == 4
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        f"{name}/resnet8-4/dense/seed3-{key(trained)[:6]}  density 1.000000  "
        f"test accuracy {numbers['test_accuracy']:.4f}",
        str(storage / "runs" / key(trained) / "result.json"),
    ]
    result = storage / "runs" / key(trained) / "result.json"
    before = result.stat().st_mtime_ns
    assert command.main(argv) == 0
    assert capsys.readouterr().out.splitlines() == shown
    assert result.stat().st_mtime_ns == before


def test_only_what_is_missing_is_trained(store, cell, write_cell, capsys):
    """The dense run is done in this storage, with the State at 10 that the cell rewinds to."""
    dense = store.run(key(cell.dense)) / "result.json"
    before = dense.stat().st_mtime_ns
    argv = [write_cell(cell), "--storage", str(store.root), "--threads", "1", "--device", "cpu"]
    assert command.main(argv) == 0
    assert dense.stat().st_mtime_ns == before
    assert store.result(cell)["numbers"]["steps"] == 20
    assert "density 0.500000" in capsys.readouterr().out
    assert not list(store.root.glob("runs/*/claim.json"))


def test_a_state_that_was_not_kept_is_replayed(store, tiny, write_cell):
    cell = Cycle(dense=tiny, densities=(0.5,), retraining=strategies.weight_rewinding(tiny, 12))
    argv = [write_cell(cell), "--storage", str(store.root), "--threads", "1", "--device", "cpu"]
    assert command.main(argv) == 0
    assert store.kept_steps(tiny) == [0, 10, 12, 30]


def test_a_loss_that_is_not_finite(store, tiny, write_cell, capsys):
    peak = strategies.restart(tiny, "linear", peak_lr=1e30)
    cell = Cycle(dense=tiny, densities=(0.5,), retraining=peak)
    assert command.main([write_cell(cell), "--storage", str(store.root), "--threads", "1", "--device", "cpu"]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(said) == 1
    assert said[0].startswith("failed: diverged: the training loss is not finite (step ")
    failure = json.loads((store.run(key(cell)) / "failure.json").read_text())
    assert f"failed: {failure['error']}" == said[0]


def test_a_run_of_another_process_is_left_alone(store, cell, write_cell, capsys):
    claim = {"launch": "a", "host": "elsewhere", "pid": 1, "time": time.time()}
    claim |= {"starts": 1, "step": 0, "reached": 0, "lost": 0}
    write(store.begin(cell) / "claim.json", json.dumps(claim).encode())
    assert command.main([write_cell(cell), "--storage", str(store.root), "--threads", "1"]) == 3
    assert f"not trained: run {key(cell)} is being trained by another process" in capsys.readouterr().err
    assert not (store.run(key(cell)) / "failure.json").exists()
    assert json.loads((store.run(key(cell)) / "claim.json").read_text()) == claim


def test_a_storage_that_gives_up_is_no_fault_of_the_cell(store, cell, write_cell, capsys):
    """A folder stands where the State should go."""
    (store.begin(cell) / "state-20.safetensors").mkdir()
    assert command.main([write_cell(cell), "--storage", str(store.root), "--threads", "1"]) == 3
    assert "storage error: " in capsys.readouterr().err
    assert not (store.run(key(cell)) / "failure.json").exists()


def test_a_damaged_state_is_named(store, cell, write_cell, capsys):
    state = store.state_path(cell.dense, 30)
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    assert command.main([write_cell(cell), "--storage", str(store.root), "--threads", "1"]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert said[0].startswith(f"error: {state} is damaged (its checksum is off): delete the folder {state.parent}")


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path, tiny, write_cell, digits, numerics):
    dense = replace(tiny, steps=400, drops=(200,))
    cell = Cycle(dense=dense, densities=(0.5,), retraining=strategies.weight_rewinding(dense, 390))
    storage = Store(tmp_path / "storage")
    argv = [*RUN, write_cell(cell), "--storage", str(storage.root), "--threads", "1", "--device", "cpu"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    claim = storage.run(key(dense)) / "claim.json"
    until = time.monotonic() + 60
    while not claim.exists() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert "stopped: what was trained is saved; run the same command again to go on" in err
    assert sorted(path.name for path in claim.parent.iterdir()) == ["cell.json", "resume.safetensors"]
    assert command.main(argv[3:]) == 0
    provenance = storage.result(dense)["provenance"]
    assert len(provenance["resumed_at"]) == 1
    assert 0 < provenance["resumed_at"][0] < 400
    assert provenance["steps_run"] == 400
    whole = Store(tmp_path / "whole")
    for member, keep in ((dense, frozenset({390})), (cell, frozenset())):
        for _ in cycle.run(member, whole, digits, numerics, keep=keep):
            pass
        assert storage.result(member)["numbers"] == whole.result(member)["numbers"]
        last = member.budget
        assert storage.state_path(member, last).read_bytes() == whole.state_path(member, last).read_bytes()
