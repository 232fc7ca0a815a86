"""python -m analysis COMMAND, in text and as JSON, from a storage and from what was released."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import __main__ as command
from analysis import aggregate, report
from analysis.load import load
from trainable import recipes, strategies
from trainable.columns import columns
from trainable.config import Cycle, describe, key
from trainable.store import Store, write

DENSE = recipes.digits(0)
DATA = Path(__file__).parent / "data"
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
    same = {
        "val_accuracy": None,
        "history": [],
        "test_loss": 0.1,
        "max_test_accuracy": accuracy,
        "macs": 10,
        "dense_macs": 10,
    }
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
    expected = aggregate.accuracy(load(store.root, "quick"))
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
    assert "required: COMMAND" in capsys.readouterr().err


def run(capsys, *arguments):
    """What a command that succeeds prints; with --json, its rows."""
    assert command.main([*map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out) if "--json" in arguments else out


def refused(capsys, *arguments, status=2) -> str:
    """What a command that fails says; it prints nothing else."""
    assert command.main([*map(str, arguments)]) == status
    out, err = capsys.readouterr()
    assert out == ""
    return err


@pytest.fixture
def undrawn(monkeypatch):
    """Reports of text: figures are tested elsewhere and take seconds."""
    monkeypatch.setattr(report, "_figures", lambda subject: iter(()))


@pytest.fixture
def study(tmp_path):
    """Two seeds of a dense run and two strategies at sparsity 0.5, learning-rate rewinding 4 and 6 points ahead."""
    store, rows = Store(tmp_path / "storage"), []
    for seed, ahead in ((0, 0.04), (1, 0.06)):
        dense = recipes.digits(seed)
        tuned, rewound = (
            Cycle(dense=dense, densities=(0.5,), retraining=retraining)
            for retraining in (strategies.fine_tuning(dense), strategies.lr_rewinding(dense))
        )
        for cell, accuracy in ((dense, 0.97), (tuned, 0.9), (rewound, 0.9 + ahead)):
            finish(store, cell, accuracy)
            rows.append(("dense" if cell is dense else "one-shot", cell))
    declare(store, rows)
    return store.root, "quick"


def declare(store, rows):
    written = [
        {"study": "quick", "protocol_name": "digits", **columns(cell, schedule), "cell": describe(cell)}
        for schedule, cell in rows
    ]
    write(store.study("quick") / "cells.json", json.dumps(written).encode())


@pytest.fixture
def renda2020(tmp_path):
    for name in ("pruned", "dense"):
        shutil.copy(DATA / f"renda_{name}.csv", tmp_path / f"renda2020_{name}.csv")
    return "--renda2020", tmp_path


CLAIM = ["claim", "scope", "verdict", "effect", "low", "high", "p", "p_adjusted", "n"]


def test_claims(study, capsys):
    rows = run(capsys, "claims", *study, "--json")
    assert all(set(CLAIM) <= row.keys() for row in rows)
    assert [row["claim"] for row in rows] == ["1", "1", "1", "2", "2", "3a", "3b", "4", "5"]
    (row,) = (row for row in rows if row["part"] == "lr-rewinding > fine-tuning")
    assert (row["scope"], row["verdict"], row["n"]) == ("digits/resnet8-8/unstructured/one-shot/low", "undecided", 2)
    assert row["effect"] == pytest.approx(0.05)
    half_width = 0.01 * 7.915815  # of Student's t with 1 degree of freedom, 1 − 0.04
    assert [row["low"], row["high"]] == pytest.approx([0.05 - half_width, 0.05 + half_width], abs=1e-6)
    assert row["margin"] == 0.006
    assert rows[-1]["verdict"] == "no data"
    assert [rows[-1][name] for name in ("effect", "low", "high", "p", "p_adjusted")] == [None] * 5
    text = run(capsys, "claims", *study)
    assert text.startswith("Claim 1. Fine-tuning is worse than weight rewinding and than learning-rate rewinding.\n")
    assert [line.split(".")[0] for line in text.splitlines() if line.startswith("Claim ")] == [
        *("Claim 1", "Claim 2", "Claim 3a", "Claim 3b", "Claim 4", "Claim 5"),
    ]
    assert "+5.00" in text


def test_claims_note_the_look_and_other_commands_do_not(study, capsys):
    noted = study[0] / "studies" / "quick" / "looks.json"
    for name in ("table", "scorecard"):
        run(capsys, name, *study)
    refused(capsys, "claims", *study, "--margin", "0.1")
    assert not noted.exists()
    run(capsys, "claims", *study)
    assert json.loads(noted.read_text()) == {"digits/resnet8-8": [[0, 1]]}


def test_power(study, capsys):
    rows = run(capsys, "power", *study, "--json")
    assert list(rows[0]) == ["claim", "scope", "part", "effect", "n", "look", "level", "note", "needs"]
    assert [(row["claim"], row["part"]) for row in rows] == [
        *(("1", "all of it"), ("1", "lr-rewinding > fine-tuning"), ("3a", "dense > lr-rewinding")),
    ]
    assert all("more seeds" in row["needs"] for row in rows)
    assert rows[0]["needs"] in run(capsys, "power", *study)


def test_nothing_undecided_is_no_verdict(store, capsys):
    finish(store, DENSE, 0.9)
    assert run(capsys, "power", store.root, "quick") == "no verdict is undecided: 9 no data\n"
    assert run(capsys, "power", store.root, "quick", "--json") == []


def test_scorecard(study, renda2020, capsys):
    assert run(capsys, "scorecard", *study) == "no published point has a finished cell here\n"
    assert run(capsys, "scorecard", *study, "--json") == []
    rows = run(capsys, "scorecard", *renda2020, "--json")
    assert len(rows) == 5
    assert (rows[0]["source"], rows[0]["strategy"], rows[0]["ours"]) == (
        *("Mikler 2021, figure 1 left", "weight-rewinding", 0.85),
    )
    text = run(capsys, "scorecard", *renda2020)
    assert "not comparable: dense_steps 71108, theirs 72000" in text
    assert text.endswith("Ours are medians of the last step.\n")


def test_export(study, tmp_path, capsys):
    out = tmp_path / "out" / "here"
    assert run(capsys, "export", *study, "--out", out) == f"wrote {out}/results.parquet, results.csv and tables/\n"
    pd.testing.assert_frame_equal(pd.read_parquet(out / "results.parquet"), load(*study))
    assert (out / "results.csv").read_text().count("\n") == 7
    assert {path.suffix for path in (out / "tables").iterdir()} == {".csv", ".md", ".tex"}
    rows = run(capsys, "export", *study, "--out", tmp_path / "none", "--json")
    assert [row["key"] for row in rows] == load(*study)["key"].tolist()
    assert not (tmp_path / "none").exists(), "JSON goes to the terminal, nothing to a folder"


def test_report(study, tmp_path, undrawn, capsys):
    out = tmp_path / "out"
    assert run(capsys, "report", *study, "--out", out) == f"wrote {out / 'index.html'}, figures/ and tables/\n"
    assert sorted(path.name for path in out.iterdir()) == ["index.html", "tables"]
    assert run(capsys, "report", *study, "--out", out, "--json") == [{"report": str(out / "index.html")}]


def test_mcnemar(store, capsys):
    """Of eight images one is right for the first network only, three for the second only: p = 2 · 5/16."""
    for cell, bits in ((DENSE, "11110000"), (HALF, "11101110")):
        finish(store, cell, 0.5)
        content = np.packbits(np.array([bit == "1" for bit in bits])).tobytes()
        write(store.run(key(cell)) / "correct.bits", content)
    expected = {"a": key(DENSE), "b": key(HALF), "only_a": 1, "only_b": 3, "p": 0.625}
    assert run(capsys, "mcnemar", store.root, key(DENSE), key(HALF), "--json") == [expected]
    assert run(capsys, "mcnemar", store.root, key(DENSE), key(HALF)).split()[5:] == list(map(str, expected.values()))
    write(store.run(key(HALF)) / "correct.bits", b"12")
    said = refused(capsys, "mcnemar", store.root, key(DENSE), key(HALF))
    assert said == "error: two networks on the same images are compared, got (8,) and (16,)\n"


def test_mcnemar_needs_finished_runs(store, capsys):
    finish(store, DENSE, 0.5)
    for first, second in ((key(HALF), key(DENSE)), (key(DENSE), "nothing"), ("../..", key(DENSE))):
        said = refused(capsys, "mcnemar", store.root, first, second)
        assert "is no finished run of" in said
        assert said.endswith("a key stands in the table's column `key`\n")


@pytest.mark.parametrize("name", ["table", "claims", "scorecard", "power", "report", "export"])
def test_released_networks_stand_in_for_a_study(renda2020, undrawn, name, tmp_path, capsys):
    out = ["--out", tmp_path / "out"] if name in ("report", "export") else []
    assert run(capsys, name, *renda2020, *out) != ""
    assert run(capsys, name, *renda2020, *out, "--json") != []
    assert refused(capsys, name, tmp_path, "quick", *renda2020) == (
        f"error: --renda2020 stands in place of STORAGE STUDY, got {str(tmp_path)!r} too: give one\n"
    )
    assert refused(capsys, name) == "error: STORAGE and STUDY are needed, or --renda2020 DIR\n"
    assert refused(capsys, name, tmp_path) == "error: STORAGE and STUDY are needed, or --renda2020 DIR\n"
    (tmp_path / "renda2020_dense.csv").unlink()
    missing = f"error: there is no file {tmp_path}/renda2020_dense.csv\n"
    assert refused(capsys, name, *renda2020, *out) == missing


@pytest.mark.parametrize("name", ["claims", "power", "report"])
def test_margins(study, name, capsys):
    said = refused(capsys, name, *study, "--margin", "0.5")
    assert said == (
        "error: a margin of 0.5 points is below two of the 360 test images of digits (0.56 points): 0.6 would do\n"
    )
    for margin in ("0", "-1", "nan", "inf", "100"):
        said = refused(capsys, name, *study, "--margin", margin)
        assert said == f"error: --margin must be points between 0 and 100, got {margin}\n"


def test_a_margin_is_in_points(study, capsys):
    assert {row["margin"] for row in run(capsys, "claims", *study, "--json", "--margin", "0.7")} == {0.007}


def test_two_protocols_need_a_word(study, capsys):
    longer = dataclasses.replace(DENSE, steps=420)
    cells = json.loads((study[0] / "studies" / "quick" / "cells.json").read_text())
    cells.append({"study": "quick", "protocol_name": "longer", **columns(longer, "dense"), "cell": describe(longer)})
    write(study[0] / "studies" / "quick" / "cells.json", json.dumps(cells).encode())
    for name in ("claims", "power", "report"):
        said = refused(capsys, name, *study)
        assert said.startswith("error: resnet8-8 on digits was trained by 2 protocols: ")
        assert "(digits, 400 steps); " in said
        assert "(longer, 420 steps)" in said
    assert len(run(capsys, "claims", *study, "--json", "--allow-mixed")) == 9
    assert len(run(capsys, "table", *study, "--json")) == 3


@pytest.mark.parametrize("name", ["claims", "scorecard", "power", "export", "report"])
def test_no_finished_cell(store, name, tmp_path, capsys):
    out = ["--out", tmp_path / "out"] if name in ("report", "export") else []
    said = refused(capsys, name, store.root, "quick", *out)
    assert said == "error: no cell is finished (2 missing): nothing to show\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["export", "report"])
def test_a_folder_that_cannot_be_written(study, name, tmp_path, undrawn, capsys):
    (tmp_path / "file").write_text("mine")
    said = refused(capsys, name, *study, "--out", tmp_path / "file", status=3)
    assert said.startswith("storage error: ")
    assert str(tmp_path / "file") in said
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("content", ["3", "{}", "null", "[3]", '[{"key": "a"}]', "[null]"])
def test_a_list_of_cells_that_is_none(store, content, capsys):
    path = store.study("quick") / "cells.json"
    path.write_text(content)
    said = refused(capsys, "claims", store.root, "quick")
    assert said.startswith(f"error: {path} is damaged (")
    assert said.endswith("): delete it, and the study's script writes it again\n")


@pytest.mark.parametrize("arguments", [["--help"], ["claims"], ["report", "--out"]])
def test_no_command_loads_torch_or_ray(study, arguments, tmp_path):
    rest = [] if arguments == ["--help"] else [*([tmp_path / "out"] if "--out" in arguments else []), *study]
    script = (
        "import sys; from analysis import report, __main__\n"
        "report._figures = lambda subject: iter(())\n"
        "try: __main__.main(sys.argv[1:])\n"
        "finally: print(*sorted({'torch', 'ray', 'trainable', 'sweeps'} & set(sys.modules)), file=sys.stderr)"
    )
    line = [sys.executable, "-c", script, *map(str, [*arguments, *rest])]
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout != ""
    assert done.stderr == "\n"
