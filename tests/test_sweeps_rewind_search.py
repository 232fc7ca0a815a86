"""The search's script: its input, a tiny search through a real Ray Tuner, and one that is killed five times."""

import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from analysis import search
from analysis.load import SCHEMA, load
from sweeps import rewind_search
from sweeps import rounds as rounds_on_disk
from trainable.config import from_description
from trainable.store import Store

TINY = [
    *(sys.executable, "-m", "sweeps.rewind_search", "--groups", "digits/resnet8-4/unstructured/0.9"),
    *("--scale", "0.1", "--grid", "10", "--seeds", "0", "1", "--fresh-seeds", "2", "3", "--val-examples", "100"),
    *("--trials", "9", "--round-size", "3"),
]
"""Dense runs of 40 steps, a plane of 5 × 5 points."""


def said(capsys, tmp_path, *arguments) -> str:
    assert rewind_search.main(["--storage", str(tmp_path / "s"), *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, list(tmp_path.iterdir())) == ("", [])
    return err


# Input


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            ["--val-examples", "0"],
            "val_examples must be above 0: the search maximises validation accuracy, since a point",
        ),
        (["--grid", "30"], "the grid must divide T = 400 steps, got 30: choose 16, 20, 25, 40"),
        (["--scale", "0.9925"], "T = 397 steps has no divisor near its tenth (1 makes 398 rewind points): give --grid"),
        (["--between", "0", "500"], "rewind points k must be within 0 … T = 400 steps, got 0 … 500"),
        (["--between", "50", "70"], "the space has no point: no multiple of the grid 40 is within 50 … 70"),
        (["--budget", "410"], "the budget must be a multiple of the grid 40 within 40 … T = 400 steps"),
        (["--trials", "32"], "--trials must be whole rounds of 6, got 32: choose 30 or 36"),
        (["--trials", "2"], "--trials must be whole rounds of 6, got 2: choose 6 or 12"),
        (["--fresh-seeds", "2"], "fresh seeds must be none of the search's [0, 1, 2], got [2] among them"),
        (["--journal", "/tmp"], "--journal must be a file, got the folder /tmp"),
        (["--groups", "digits/resnet8-8/0.9"], "a group must be DATASET/ARCHITECTURE/STRUCTURE/SPARSITY"),
        (["--groups", "digits/resnet8-8/unstructured/90"], "sparsity must be in [0, 1), got 90.0: is it a percentage?"),
        (["--scale", "2"], "scale must be in (0, 1], got 2.0"),
        (["--storage", "/proc/x"], "storage '/proc/x' can't be written"),
        (["--name", "a b"], "a study's name must be"),
    ],
)
def test_bad_input(tmp_path, capsys, options, error):
    assert said(capsys, tmp_path, *options).startswith(f"error: {error}")


def test_one_seed_is_warned_of(tmp_path, capsys):
    assert rewind_search.main(["--storage", str(tmp_path / "s"), "--seeds", "7", "--dry-run"]) == 0
    assert capsys.readouterr().err.startswith(
        "warning: one seed: the best point may be best by that seed's luck alone\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("group", "steps", "grid", "rewind_point", "val_examples"),
    [
        ("digits/resnet8-8/unstructured/0.95", 400, 40, 40, 200),
        ("cifar10/resnet20/unstructured/0.893", 72_000, 7_200, 7_200, 5_000),
        ("cifar100/resnet56/structured/0.5", 72_000, 7_200, 7_200, 5_000),
        ("cifar10/wrn16-8/unstructured/0.95", 80_000, 8_000, 8_000, 5_000),
    ],
)
def test_defaults(group, steps, grid, rewind_point, val_examples):
    options = rewind_search.parser().parse_args(["--groups", group])
    (found,) = rewind_search.searches(options)
    assert (found.space.steps, found.space.grid, found.space.budget) == (steps, grid, steps)
    assert (found.rewind_point, found.dense.val_examples) == (rewind_point, val_examples)
    assert all(point in found.space.points for point in found.named.values())


def test_the_plan_says_what_may_come(tmp_path, capsys):
    assert rewind_search.main(["--storage", str(tmp_path / "s"), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "to come at most 90 retrainings of 400 steps, and then 5 fresh seeds" in err
    assert out.startswith("cells           21: 0 done, 21 missing\n")  # 3 dense runs, 6 points on 3 seeds


def test_a_fresh_seed_named_twice_counts_once(tmp_path, capsys):
    options = ["--storage", str(tmp_path / "s"), "--fresh-seeds", "7", "8", "7", "--dry-run"]
    assert rewind_search.main(options) == 0
    assert "and then 2 fresh seeds" in capsys.readouterr().err


def test_a_search_that_was_stopped_in_its_first_round_has_nothing_to_show(tmp_path, capsys):
    (one,) = rewind_search.searches(rewind_search.parser().parse_args([]))
    store = Store(tmp_path / "s")
    rounds_on_disk.write(one, rounds_on_disk.folder_of(one, store.study("search")), [()])
    rewind_search.show(store, "search", pd.DataFrame(columns=list(SCHEMA)).astype(SCHEMA))
    assert capsys.readouterr() == ("", "")


# Trained


def run(storage: Path, *options: str) -> subprocess.CompletedProcess:
    command = [*TINY, "--storage", str(storage), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def rounds(storage: Path) -> dict[str, dict]:
    paths = sorted((storage / "studies/search/search").rglob("round-*.json"))
    return {path.name: json.loads(path.read_text()) for path in paths}


def results(storage: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_bytes()) for path in storage.glob("runs/*/result.json")}


def stamps(storage: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in storage.glob("runs/*/result.json")}


def budgets(storage: Path) -> int:
    """Steps of every distinct cell."""
    return sum(from_description(json.loads(path.read_bytes())).budget for path in storage.glob("runs/*/cell.json"))


def steps_run(storage: Path) -> int:
    return sum(result["provenance"]["steps_run"] for result in results(storage).values())


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The storage of a whole search, and what its script said."""
    storage = tmp_path_factory.mktemp("searched") / "storage"
    done = run(storage, "--journal", str(storage / "journal.log"))
    assert done.returncode == 0, done.stderr
    return storage, done


@pytest.mark.slow
def test_a_search(searched):
    storage, done = searched
    assert [len(found["trials"]) for found in rounds(storage).values()] == [0, 3, 3, 3]
    frame = load(storage, "search")
    assert (frame["status"] == "done").all()
    assert set(frame["seed"]) == {0, 1, 2, 3}
    (one,) = search.load(storage, "search")
    values = frame.set_index("key")["val_accuracy"]
    assert all(
        values[list(row.keys)].mean() == pytest.approx(row.value) for row in map(_Row, one.trials.to_dict("records"))
    )
    assert f"validation accuracy {100 * one.best['value']:.2f} %" in done.stdout
    assert re.search(r"gain over .*, the best named strategy: .* by luck alone the best of 9 equal points", done.stdout)
    folder = storage / "studies/search/search"
    figures = {path.name for path in folder.glob("*.png")}
    assert figures == {f"{n}.png" for n in ("response_surface", "accuracy_against_k", "expected_best", "importance")}
    assert (storage / "journal.log").exists()


class _Row:
    def __init__(self, row):
        self.keys, self.value = row["keys"], row["value"]


@pytest.mark.slow
def test_no_step_is_trained_that_no_cell_needs(searched):
    storage, _ = searched
    assert steps_run(storage) == budgets(storage)


@pytest.mark.slow
def test_a_finished_search_says_it_again_without_ray(searched):
    storage, done = searched
    before = stamps(storage)
    again = run(storage)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "trials at a time" not in again.stderr
    assert stamps(storage) == before


@pytest.mark.slow
def test_another_space_under_the_same_name(searched):
    storage, _ = searched
    again = run(storage, "--space", "line")
    assert again.returncode == 2
    assert "has rounds of another search (space plane there, line here): choose another --name" in again.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_five_kills_change_nothing_and_nothing_is_trained_twice(searched, tmp_path):
    whole, _ = searched
    storage, chance = tmp_path / "storage", random.Random(0)
    before: dict[str, int] = {}
    for done_before in (1, 5, 10, 15, 22):
        with (tmp_path / "log").open("ab") as log:
            options = ["--storage", str(storage), "--resume-every", "0.1"]
            process = subprocess.Popen([*TINY, *options], stdout=log, stderr=log)
        until = time.monotonic() + 120
        while len(results(storage)) < done_before and process.poll() is None:
            assert time.monotonic() < until, "waited in vain"
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.7))
        process.kill()
        process.wait()
        now = stamps(storage)
        assert {run_key: now[run_key] for run_key in before} == before
        before = now
    last = run(storage)
    assert last.returncode == 0, last.stderr
    now = stamps(storage)
    assert {run_key: now[run_key] for run_key in before} == before
    assert rounds(storage) == rounds(whole)
    numbers = {run_key: result["numbers"] for run_key, result in results(storage).items()}
    assert numbers == {run_key: result["numbers"] for run_key, result in results(whole).items()}
    (ours,), (theirs,) = search.load(storage, "search"), search.load(whole, "search")
    assert ours.best["keys"] == theirs.best["keys"]
    # Beyond every cell once: at most what two trials had made since their last State, at each of five kills.
    assert budgets(whole) <= steps_run(storage) <= budgets(whole) + 5 * 2 * 40
