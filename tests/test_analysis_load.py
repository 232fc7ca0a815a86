"""From files of a storage to a table, whole frames compared with plain pandas."""

import json
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

from analysis.load import SCHEMA, _numbers_digest, check, load, save
from trainable import recipes, strategies
from trainable.columns import columns
from trainable.config import Cycle, describe, key
from trainable.store import Store, numbers_digest, write

DENSE = recipes.digits(0)
RETRAINING = strategies.lr_rewinding(DENSE)
FIRST, SECOND, OTHER = (
    Cycle(dense=DENSE, densities=densities, retraining=RETRAINING) for densities in ((0.5,), (0.5, 0.25), (0.1,))
)
ROWS = [("dense", DENSE), ("one-shot", FIRST), ("iterative", FIRST), ("iterative", SECOND), ("one-shot", OTHER)]


def declare(store, rows, name="quick"):
    declared = [
        {"study": name, "protocol_name": "digits", **columns(cell, schedule), "cell": describe(cell)}
        for schedule, cell in rows
    ]
    write(store.study(name) / "cells.json", json.dumps(declared).encode())


def finish(store, cell, accuracy, density=1.0):
    """A result as a run writes it, with numbers that are easy to follow."""
    store.begin(cell)
    numbers = {
        "density": density,
        "macs": int(1000 * density),
        "dense_macs": 1000,
        "val_accuracy": None,
        "test_accuracy": accuracy,
        "test_loss": 0.25,
        "max_test_accuracy": accuracy + 0.01,
    }
    provenance = {
        "numerics": {"device": "cpu", "threads": 1, "compile": False, "layout": "channels-last", "torch": "2"},
        "numerics_mixed": False,
        "train_seconds": 3.5,
        "images_per_second": 1000.0,
        "resumed_at": [7, 9],
        "git_commit": "abc",
        "versions": {"torch": "2.6", "numpy": "2.0"},
        "finished_at": "2026-11-23T08:00:00+00:00",
    }
    store.write_result(cell, numbers, provenance)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "storage")


@pytest.fixture
def study(store) -> Store:
    """A dense run, a chain's first cycle under both schedules, its second (failed) and another cell (missing)."""
    declare(store, ROWS)
    finish(store, DENSE, 0.9)
    finish(store, FIRST, 0.8, density=0.5)
    store.begin(SECOND)
    store.write_failure(SECOND, "diverged: the training loss is not finite")
    return store


def test_the_whole_table(study):
    """Every column of every row, by hand."""
    same = {
        "study": "quick",
        "unit": key(DENSE),
        "dataset": "digits",
        "architecture": "resnet8-8",
        "protocol": columns(DENSE, "dense")["protocol"],
        "protocol_name": "digits",
        "dense_schedule": "step",
        "batch_size": 64,
        "val_examples": 0,
        "precision": "fp32",
        "seed": 0,
        "dense_steps": 400,
        "dense_test_accuracy": 0.9,
    }
    done = {
        "status": "done",
        "test_loss": 0.25,
        "train_seconds": 3.5,
        "resumes": 2,
        "images_per_second": 1000.0,
        "device": "cpu",
        "threads": 1,
        "compile": False,
        "numerics_mixed": False,
        "git_commit": "abc",
        "versions": "numpy=2.0 torch=2.6",
        "finished_at": "2026-11-23T08:00:00+00:00",
    }
    pruned = {
        "structure": "unstructured",
        "mask": "magnitude",
        "strategy": "lr-rewinding",
        "lr_from": 0,
        "budget": 400,
        "shape": "replay",
        "momentum": "fresh",
    }
    half = {
        **done,
        **pruned,
        "key": key(FIRST),
        "parent": key(DENSE),
        "iteration": 1,
        "sparsity_target": 0.5,
        "sparsity": 0.5,
        "compression_ratio": 2.0,
        "macs": 500,
        "theoretical_speedup": 2.0,
        "total_steps": 800,
        "test_accuracy": 0.8,
        "max_test_accuracy": 0.81,
        "delta_test_accuracy": 0.8 - 0.9,
    }
    rows = [
        done
        | {"key": key(DENSE), "schedule": "dense", "iteration": 0, "strategy": "dense", "total_steps": 400}
        | {"sparsity_target": 0.0, "sparsity": 0.0, "compression_ratio": 1.0, "macs": 1000, "theoretical_speedup": 1.0}
        | {"test_accuracy": 0.9, "max_test_accuracy": 0.91, "delta_test_accuracy": 0.0},
        half | {"schedule": "one-shot"},
        half | {"schedule": "iterative", "prune_fraction": 0.5},
        pruned
        | {"status": "failed", "error": "diverged: the training loss is not finite", "key": key(SECOND)}
        | {"schedule": "iterative", "parent": key(FIRST), "iteration": 2, "prune_fraction": 0.5}
        | {"sparsity_target": 0.75, "total_steps": 1200},
        pruned
        | {"status": "missing", "key": key(OTHER), "schedule": "one-shot", "parent": key(DENSE), "iteration": 1}
        | {"sparsity_target": 0.9, "total_steps": 800},
    ]
    expected = pd.DataFrame([same | row for row in rows]).reindex(columns=list(SCHEMA)).astype(SCHEMA)
    pd.testing.assert_frame_equal(load(study.root, "quick"), expected)


def test_a_first_cycle_is_two_rows_with_one_key(study):
    frame = load(str(study.root), "quick")
    assert list(frame["key"]) == [key(DENSE), key(FIRST), key(FIRST), key(SECOND), key(OTHER)]


def test_status_of_what_is_under_way(store):
    declare(store, ROWS[:1])
    claim = {"launch": "a", "host": "elsewhere", "pid": 1, "time": time.time()}
    write(store.begin(DENSE) / "claim.json", json.dumps(claim).encode())
    assert list(load(store.root, "quick")["status"]) == ["running"]
    write(store.begin(DENSE) / "claim.json", json.dumps(claim | {"time": time.time() - 121}).encode())
    assert list(load(store.root, "quick")["status"]) == ["missing"]


def test_the_dense_accuracy_of_a_dense_run_outside_the_study(store):
    declare(store, ROWS[1:2])
    finish(store, FIRST, 0.8)
    frame = load(store.root, "quick")
    assert frame["dense_test_accuracy"].isna().all()
    assert frame["delta_test_accuracy"].isna().all()
    finish(store, DENSE, 0.7)
    frame = load(store.root, "quick")
    assert list(frame["dense_test_accuracy"]) == [0.7]
    assert list(frame["delta_test_accuracy"]) == [pytest.approx(0.1)]


def test_a_network_without_macs(store):
    declare(store, ROWS[1:2])
    finish(store, FIRST, 0.1, density=0.0004)
    assert load(store.root, "quick")["theoretical_speedup"].isna().all()


def test_an_empty_study(store):
    declare(store, [])
    frame = load(store.root, "quick")
    assert frame.empty
    assert dict(frame.dtypes.astype(str)) == dict(pd.DataFrame(columns=list(SCHEMA)).astype(SCHEMA).dtypes.astype(str))


def test_what_there_is(study, tmp_path):
    with pytest.raises(ValueError, match=r"there is no storage at .*nowhere"):
        load(tmp_path / "nowhere", "quick")
    with pytest.raises(ValueError, match=r"there is no study 'full' in .*storage: it has quick$"):
        load(study.root, "full")
    declare(study, ROWS[:1], name="another")
    with pytest.raises(ValueError, match=r"it has another, quick$"):
        load(study.root, "full")
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match=r"it has none$"):
        load(tmp_path / "bare", "full")


def test_a_damaged_cells_json_is_named(study):
    path = study.study("quick") / "cells.json"
    path.write_bytes(path.read_bytes()[:-10])
    way_on = "delete it, and the study's script writes it again"
    with pytest.raises(ValueError, match=rf"^{path} is damaged \(.*\): {way_on}$"):
        load(study.root, "quick")


def test_the_digest_of_numbers_is_the_writers():
    numbers = {"b": [1, 0.1, 1e-30, None, True], "a": {"z": "−", "y": -0.0}, "test_accuracy": 1 / 3}
    assert _numbers_digest(numbers) == numbers_digest(numbers)
    assert _numbers_digest(numbers) != _numbers_digest(numbers | {"test_accuracy": 0.5})


def without(name):
    """A damage: JSON that lacks a part."""

    def damage(content: bytes) -> bytes:
        return json.dumps({part: value for part, value in json.loads(content).items() if part != name}).encode()

    return damage


def without_provenance_of(name):
    def damage(content: bytes) -> bytes:
        result = json.loads(content)
        del result["provenance"][name]
        return json.dumps(result).encode()

    return damage


DAMAGES = {
    "result.json cut": (FIRST, "result.json", lambda content: content[:-10]),
    "result.json empty": (FIRST, "result.json", lambda content: b""),
    "result.json no text": (FIRST, "result.json", lambda content: b"\xff" + content),
    "result.json a list": (FIRST, "result.json", lambda content: b"[]"),
    "result.json without numbers": (FIRST, "result.json", without("numbers")),
    "result.json without provenance": (FIRST, "result.json", without("provenance")),
    "result.json without a digest": (FIRST, "result.json", without_provenance_of("numbers_digest")),
    "result.json without a part of provenance": (FIRST, "result.json", without_provenance_of("resumed_at")),
    "result.json another number": (FIRST, "result.json", lambda content: content.replace(b"0.81", b"0.91")),
    "failure.json cut": (SECOND, "failure.json", lambda content: content[:-10]),
    "failure.json without error": (SECOND, "failure.json", without("error")),
    "claim.json cut": (OTHER, "claim.json", lambda content: content[:-1]),
    "claim.json without time": (OTHER, "claim.json", without("time")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_with_a_damaged_file_is_a_failed_row(study, damage):
    """It says which folder to delete; every other row is as it was."""
    write(study.begin(OTHER) / "claim.json", json.dumps({"time": time.time()}).encode())
    before = load(study.root, "quick")
    cell, name, change = DAMAGES[damage]
    folder = study.run(key(cell))
    content = (folder / name).read_bytes()
    damaged = change(content)
    assert damaged != content
    (folder / name).write_bytes(damaged)
    frame = load(study.root, "quick")
    hit = frame["key"] == key(cell)
    assert set(frame[hit]["status"]) == {"failed"}
    (error,) = set(frame[hit]["error"])
    assert error.startswith(f"a file in {folder} is damaged (")
    assert error.endswith(f"): delete the folder {folder}")
    assert frame[hit]["test_accuracy"].isna().all()
    pd.testing.assert_frame_equal(frame[~hit], before[~hit])


def test_a_damaged_dense_run_is_no_reference(study):
    """The rows that stand on it stay; what they are compared with is unknown."""
    path = study.run(key(DENSE)) / "result.json"
    path.write_bytes(path.read_bytes()[:-10])
    frame = load(study.root, "quick")
    assert list(frame["status"]) == ["failed", "done", "done", "failed", "missing"]
    assert frame["dense_test_accuracy"].isna().all()
    assert frame["delta_test_accuracy"].isna().all()


def test_a_claim_that_goes_while_the_table_is_read(store):
    """Trials end while the table of their study is made."""
    declare(store, ROWS[:1])
    path, stop = store.begin(DENSE) / "claim.json", threading.Event()
    aside = path.with_name("aside")
    write(path, json.dumps({"time": time.time()}).encode())

    def come_and_go():
        while not stop.is_set():
            path.rename(aside)
            aside.rename(path)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        seen = {load(store.root, "quick")["status"].iloc[0] for _ in range(200)}
    finally:
        stop.set()
        thread.join()
    assert seen <= {"running", "missing"}


def test_saving(study, tmp_path):
    frame = load(study.root, "quick")
    folder = study.study("quick")
    for _ in range(2):
        save(frame, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["cells.json", "results.csv", "results.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "results.parquet"), frame)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "results.csv", dtype=SCHEMA), frame)


def test_checking(study):
    frame = load(study.root, "quick")
    assert check(frame) is None
    assert check(frame[frame["status"] == "missing"]) is None
    with pytest.raises(
        ValueError, match=r"^unknown column accuracy, n: the columns are study, unit, key, .*finished_at$"
    ):
        check(frame.assign(n=3, accuracy=0.5))
    with pytest.raises(
        ValueError, match=r"^the table lacks the column key, seed: it needs every one of analysis.load.S"
    ):
        check(frame.drop(columns=["seed", "key"]))
    with pytest.raises(ValueError, match=r"^the table has no row: nothing to show$"):
        check(frame.iloc[:0])
    with pytest.raises(ValueError, match=r"^5 rows stand twice \(study, schedule and key are the same\): .* …$"):
        check(pd.concat([frame, frame]))
    message = rf"^1 rows are done and have no test_accuracy \(NaN\): {key(DENSE)}$"
    with pytest.raises(ValueError, match=message):
        check(frame.assign(test_accuracy=frame["test_accuracy"].where(frame.index > 0)))


def test_analysis_names_its_three_loaders():
    import analysis

    assert (analysis.load.__module__, analysis.load_published.__module__, analysis.load_renda2020.__module__) == (
        "analysis.load",
        "analysis.mikler2021",
        "analysis.renda2020",
    )


def test_analysis_needs_neither_torch_nor_ray():
    modules = "analysis.load, analysis.published, analysis.tables, analysis.plots, analysis.__main__"
    script = f"import sys, {modules}; print(*sorted({{'torch', 'ray'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "\n"
