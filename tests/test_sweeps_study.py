"""A study's declaration, its files and its command line, where nothing has to be trained; training: quick_study's."""

import argparse
import dataclasses
import json
import subprocess
import sys

import pandas as pd
import pytest

from analysis.load import load
from sweeps import study
from sweeps.study import Study
from trainable import recipes, strategies
from trainable.arguments import Parser
from trainable.config import Cycle, DenseRun, key
from trainable.store import Store

DENSE = recipes.digits(0)
CYCLES = [Cycle(dense=DENSE, densities=(d,), retraining=strategies.lr_rewinding(DENSE)) for d in (0.5, 0.2)]
ROWS = (("dense", DENSE), ("one-shot", CYCLES[0]), ("iterative", CYCLES[0]), ("one-shot", CYCLES[1]))


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch):
    """A launch would be an ImportError."""
    monkeypatch.setitem(sys.modules, "sweeps.launch", None)


@pytest.fixture
def store(tmp_path) -> Store:
    """A storage in which all cells of ROWS are done."""
    store = Store(tmp_path / "storage")
    for accuracy, cell in zip((0.9, 0.8, 0.7), (DENSE, *CYCLES), strict=True):
        finish(store, cell, accuracy)
    return store


def finish(store, cell, accuracy):
    density = 1.0 if isinstance(cell, DenseRun) else cell.density
    same = {
        "val_accuracy": None,
        "test_loss": 0.1,
        "max_test_accuracy": accuracy,
        "macs": 10,
        "dense_macs": 10,
        "history": [],
    }
    names = ("train_seconds", "numerics_mixed", "git_commit", "finished_at")
    provenance = dict.fromkeys(names) | {
        "images_per_second": 1000.0,
        "numerics": {"device": "cpu", "threads": 1, "compile": False},
        "resumed_at": [],
        "versions": {},
    }
    store.begin(cell)
    store.write_result(cell, {"test_accuracy": accuracy, "density": density, **same}, provenance)


def options_of(*arguments, storage) -> argparse.Namespace:
    parser = Parser()
    study.add_options(parser, name="quick")
    return parser.parse_args(["--storage", str(storage), *arguments])


def command(store, rows=ROWS, *arguments) -> int:
    def declare(options):
        return Study(name=options.name, protocol_name="digits", rows=tuple(rows))

    return study.command(options_of(*arguments, storage=store.root if isinstance(store, Store) else store), declare)


def declared(store) -> list[tuple[str, str]]:
    rows = json.loads((store.study("quick") / "cells.json").read_text())
    return [(row["schedule"], row["key"]) for row in rows]


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Nothing left to train


def test_a_finished_study_needs_no_ray(store, capsys):
    assert command(store) == 0
    out, err = capsys.readouterr()
    assert out.startswith("digits, resnet8-8, dense: test accuracy, %, by sparsity\n")
    assert err.startswith("cells           3: 3 done, 0 missing\n")
    folder = store.study("quick")
    written = [name for name in files(folder) if not name.startswith("report")]
    figure = ["accuracy.pdf", "accuracy.png", "accuracy.svg"]
    assert written == [*figure, "cells.json", "cells.lock", "looks.json", "results.csv", "results.parquet"]
    frame = load(store.root, "quick")
    assert list(zip(frame["schedule"], frame["key"], strict=True)) == [(name, key(cell)) for name, cell in ROWS]
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "results.parquet"), frame)
    for name in ("results.parquet", "accuracy.png", "report/index.html"):
        assert str(folder / name) in err
        assert (folder / name).is_file()


def test_it_ends_with_verdicts(store, capsys):
    command(store)
    said = capsys.readouterr().out.partition("\nverdicts\n")[2].splitlines()
    assert said[0].split() == ["claim", "verdict", "effect,", "points", "bounds", "p", "n", "scope"]
    assert said[1].split()[:3] == ["1", "no", "data"]


def test_without_a_report_what_was_trained_stands(store, capsys):
    command(store)
    (store.study("quick") / "looks.json").write_text("{")
    assert command(store) == 0
    err = capsys.readouterr().err
    assert f"no report: {store.study('quick') / 'looks.json'} is damaged (" in err
    assert str(store.study("quick") / "results.parquet") in err.splitlines()[-1]


def test_a_damaged_result_is_no_success(store, capsys):
    """Exit status 0 says that every cell is done."""
    folder = store.run(key(CYCLES[0]))
    (folder / "result.json").write_text("{")
    assert command(store) == 1
    assert f"failed: a file in {folder} is damaged (" in capsys.readouterr().err
    assert list(load(store.root, "quick")["status"]) == ["done", "failed", "failed", "done"]


def test_cells_only_grow(store, capsys):
    assert command(store, ROWS[:2]) == 0
    assert command(store, ROWS[1:]) == 0
    everything = [(name, key(cell)) for name, cell in ROWS]
    assert declared(store) == everything
    assert "1 rows declared earlier are not selected now: they stay in the table" in capsys.readouterr().err
    assert command(store, ROWS[:1]) == 0
    assert declared(store) == everything


def test_two_launches_extend_one_study_at_once(tmp_path):
    """Two processes, 20 seeds each, one by one: no row is lost."""
    script = (
        "import pathlib, sys\n"
        "from sweeps import study\n"
        "from trainable import recipes\n"
        "print(flush=True)\n"
        "input()\n"
        "for seed in range(int(sys.argv[2]), 40, 2):\n"
        "    extended = study.Study(name='quick', protocol_name='digits', rows=(('dense', recipes.digits(seed)),))\n"
        "    study._declare(extended, pathlib.Path(sys.argv[1]))\n"
    )
    store, pipe = Store(tmp_path), subprocess.PIPE
    commands = [[sys.executable, "-c", script, str(store.study("quick")), first] for first in "01"]
    launches = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for command in commands]
    for launch in launches:
        launch.stdout.readline()
    for launch in launches:
        launch.stdin.write("\n")
        launch.stdin.flush()
    for launch in launches:
        launch.communicate(timeout=60)
    assert [launch.returncode for launch in launches] == [0, 0]
    assert sorted(declared(store)) == sorted(("dense", key(recipes.digits(seed))) for seed in range(40))


def test_a_row_declared_twice_is_one_row(store):
    """--seeds 0 0: a median over the same cell twice would say n = 2."""
    assert command(store, (*ROWS, *ROWS)) == 0
    assert declared(store) == [(name, key(cell)) for name, cell in ROWS]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("steps", 401, "steps 400 there, 401 here"), ("precision", "bf16", "precision fp32 there, bf16 here")],
)
def test_another_protocol_under_one_name(store, capsys, field, value, said):
    assert command(store) == 0
    before, content = files(store.root), (store.study("quick") / "cells.json").read_bytes()
    capsys.readouterr()
    other = dataclasses.replace(DENSE, **{field: value})
    for dry in ((), ("--dry-run",)):
        assert command(store, [("dense", other)], *dry) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"error: study 'quick' in {store.root} trains resnet8-8 on digits by another protocol (")
        assert f"({said}): choose another --name" in err
    assert (files(store.root), (store.study("quick") / "cells.json").read_bytes()) == (before, content)


def test_two_protocols_share_a_study_when_one_is_there_already(store, capsys):
    """Declared together they are welcome, and each alone from then on; a third alone is not."""
    longer, longest = (dataclasses.replace(DENSE, steps=steps) for steps in (500, 600))
    for cell in (longer, longest):
        finish(store, cell, 0.9)
    assert command(store, [("dense", longer), *ROWS]) == 0
    assert command(store, ROWS) == 0
    assert command(store, [("dense", longer)]) == 0
    both = [("dense", key(longer)), *((name, key(cell)) for name, cell in ROWS)]
    assert declared(store) == both
    capsys.readouterr()
    assert command(store, [("dense", longest)]) == 2
    assert "trains resnet8-8 on digits by another protocol (steps 500 there, 600 here)" in capsys.readouterr().err
    assert command(store, [("dense", longest), ("dense", DENSE)]) == 0
    assert declared(store) == [*both, ("dense", key(longest))]
    assert "digits, resnet8-8, dense, protocol " in capsys.readouterr().out
    for protocol in load(store.root, "quick")["protocol"].unique():
        assert (store.study("quick") / f"report-{protocol}" / "index.html").is_file()


def test_another_network_and_another_seed_are_welcome(store, capsys):
    assert command(store) == 0
    capsys.readouterr()
    rows = [("dense", dataclasses.replace(DENSE, **change)) for change in ({"architecture": "resnet8-4"}, {"seed": 9})]
    assert command(store, rows, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["cells_missing"] == 2


# Bad input


def test_no_cell(store, capsys):
    assert command(store, []) == 2
    assert capsys.readouterr().err == "error: study 'quick' has no cell: the options select nothing\n"


def test_a_damaged_cells_json(store, capsys):
    assert command(store) == 0
    path = store.study("quick") / "cells.json"
    path.write_text("[")
    capsys.readouterr()
    assert command(store) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {path} is damaged (")
    assert err.endswith("delete it, and it is written again\n")


def test_a_missing_data_set_is_an_error_before_ray(tmp_path, capsys):
    """And nothing is written."""
    name = "mine@0123456789abcdef"
    rows = [("dense", dataclasses.replace(DENSE, dataset=name))]
    assert command(tmp_path / "s", rows, "--data-root", str(tmp_path / "data")) == 2
    err = capsys.readouterr().err
    assert f"error: data set '{name}' (file stem @ digest of its content) is not at {tmp_path / 'data'}/mine.npz" in err
    assert files(tmp_path) == []


def test_a_storage_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command(tmp_path / "file", ROWS) == 2
    assert "can't be written: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../x", "", "a/b"])
def test_a_name_that_is_no_folder(store, capsys, name):
    assert command(store, ROWS, "--name", name) == 2
    assert "a study's name must be letters, digits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--threads", "0"], "must be a whole number, 1 or more, got 0"),
        (["--gpus-per-trial", "0"], "must be a share in (0, 1] or a whole number of GPUs, got 0"),
        (["--gpus-per-trial", "1.5"], "must be a share in (0, 1] or a whole number of GPUs, got 1.5"),
        (["--retries", "-1"], "must be a whole number, 0 or more, got -1"),
        (["--retries", "two"], "must be a whole number, 0 or more, got two"),
        (["--resume-every", "0"], "must be a number of seconds above 0, got 0"),
        (["--resume-every", "inf"], "must be a number of seconds above 0, got inf"),
    ],
)
def test_bad_options(tmp_path, capsys, option, said):
    with pytest.raises(SystemExit, match="2"):
        options_of(*option, storage=tmp_path)
    assert capsys.readouterr() == ("", f"error: argument {option[0]}: {said} (see --help)\n")


def test_json_is_of_a_dry_run(tmp_path, capsys):
    assert command(tmp_path / "s", ROWS, "--json") == 2
    assert capsys.readouterr() == ("", "error: --json prints the plan of --dry-run: give both\n")
    assert files(tmp_path) == []


# Plans


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    assert command(tmp_path / "s", ROWS, "--dry-run") == 0
    out, err = capsys.readouterr()
    assert out.startswith("cells           3: 0 done, 3 missing\n")
    assert err == ""
    assert command(tmp_path / "s", ROWS, "--dry-run", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    promised = {"cells": 3, "cells_done": 0, "cells_missing": 3, "dense_runs": 1, "steps_to_train": 1200}
    assert {name: found[name] for name in promised} == promised
    assert found["steps_if_separate"] == 400 + 800 + 800
    assert files(tmp_path) == []


def test_seeds_declared_earlier_count_for_the_verdicts(store, capsys):
    """Three seeds are there, two are added: by themselves these would decide nothing."""
    runs = [dataclasses.replace(DENSE, seed=seed) for seed in range(5)]
    for run in runs[1:3]:
        finish(store, run, 0.9)
    assert command(store, [("dense", run) for run in runs[:3]]) == 0
    assert "verdicts        3 seeds: no verdict per architecture can be reached" in capsys.readouterr().err
    assert command(store, [("dense", run) for run in runs[3:]], "--dry-run") == 0
    out = capsys.readouterr().out
    assert out.startswith("cells           2: 0 done, 2 missing\n")
    assert "verdicts        5 seeds: a verdict per architecture can be reached, but not under Holm over three" in out


LIGHT = ("study", "quick_study", "full_study", "plan", "jobs", "retention", "__main__")


def test_declaring_and_planning_need_neither_torch_nor_ray():
    imports = "; ".join(f"import sweeps.{name}" for name in LIGHT)
    script = f"import sys; {imports}; print(*sorted({{'torch', 'ray'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "\n"
