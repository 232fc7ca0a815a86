"""python -m analysis table."""

import json

import pandas as pd
import pytest

from analysis import __main__ as command
from analysis import tables
from analysis.load import load
from trainable import recipes, strategies
from trainable.columns import columns
from trainable.config import Cycle, describe
from trainable.store import Store, write

DENSE = recipes.digits(0)
HALF = Cycle(dense=DENSE, densities=(0.5,), retraining=strategies.lr_rewinding(DENSE))


@pytest.fixture
def store(tmp_path) -> Store:
    """A study of a dense run, done, and a cycle, missing."""
    store = Store(tmp_path / "storage")
    rows = [
        {"study": "quick", "protocol_name": "digits", **columns(cell, schedule), "cell": describe(cell)}
        for schedule, cell in (("dense", DENSE), ("one-shot", HALF))
    ]
    write(store.study("quick") / "cells.json", json.dumps(rows).encode())
    return store


def finish(store, cell, accuracy):
    same = {"val_accuracy": None, "test_loss": 0.1, "max_test_accuracy": accuracy, "macs": 10, "dense_macs": 10}
    names = ("train_seconds", "images_per_second", "numerics_mixed", "git_commit", "finished_at")
    provenance = dict.fromkeys(names) | {
        "numerics": {"device": "cpu", "threads": 1, "compile": False},
        "resumed_at": [],
        "versions": {},
    }
    store.begin(cell)
    store.write_result(cell, {"test_accuracy": accuracy, "density": 1.0, **same}, provenance)


def error(capsys, *arguments) -> str:
    assert command.main(["table", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_table(store, capsys):
    finish(store, DENSE, 0.975)
    assert command.main(["table", str(store.root), "quick"]) == 0
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()] == [
        ["digits,", "resnet8-8,", "dense:", "test", "accuracy,", "%,", "by", "sparsity"],
        ["0"],
        ["dense", "97.5", "[97.5,", "97.5]", "n=1"],
    ]
    assert err == ""


def test_json(store, capsys):
    finish(store, DENSE, 0.975)
    finish(store, HALF, 0.5)
    assert command.main(["table", str(store.root), "quick", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    expected = tables.accuracy(load(store.root, "quick"))
    assert [list(row) for row in rows] == [list(expected.columns)] * 2
    assert [(row["strategy"], row["median"], row["n"]) for row in rows] == [
        ("dense", 0.975, 1),
        ("lr-rewinding", 0.5, 1),
    ]
    assert rows[0]["structure"] is None
    assert pd.DataFrame(rows)["compression_ratio"].tolist() == [1.0, 1.0]


def test_bad_input(store, tmp_path, capsys):
    assert error(capsys, str(tmp_path / "none"), "quick") == f"error: there is no storage at {tmp_path / 'none'}\n"
    said = error(capsys, str(store.root), "slow")
    assert said == f"error: there is no study 'slow' in {store.root}: it has quick\n"
    assert error(capsys, str(store.root), "quick") == "error: no cell is finished (2 missing): nothing to show\n"
    path = store.study("quick") / "cells.json"
    path.write_text("[")
    said = error(capsys, str(store.root), "quick")
    assert said.startswith(f"error: {path} is damaged (")
    assert said.endswith("): delete it, and the study's script writes it again\n")


def test_no_command(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main([])
    assert "required: command" in capsys.readouterr().err
