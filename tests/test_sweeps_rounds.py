"""Finished rounds on disk: whole, in order, of one search; and what was trained before it."""

import dataclasses
import json
import re

import pytest

from sweeps import rounds
from sweeps.search import Search, Space, Trial, group
from trainable import recipes
from trainable.config import key
from trainable.store import Store

DENSE = dataclasses.replace(recipes.digits(0), val_examples=200)
SEARCH = Search(
    group=group("digits/resnet8-8/unstructured/0.95"),
    dense=DENSE,
    space=Space(kind="plane", steps=400, learning_rate=0.1, grid=40, between=(0, 400), budget=400),
    seeds=(0, 1),
    rewind_point=40,
    sampler="tpe",
    sampler_seed=0,
    round_size=4,
)
TOLD = [
    Trial(number=n, params={"weights_from": 40 * n, "lr_from": 80}, val_accuracy=(0.1 * n, 0.2 + 0.1 * n))
    for n in range(8)
]
ROUNDS = [(), tuple(TOLD[:4]), tuple(TOLD[4:])]


def space(**changes) -> Space:
    return dataclasses.replace(SEARCH.space, **changes)


@pytest.fixture
def folder(tmp_path):
    rounds.write(SEARCH, tmp_path / "rounds", ROUNDS)
    return tmp_path / "rounds"


def test_what_is_written_is_read(folder):
    assert sorted(path.name for path in folder.iterdir()) == [f"round-000{n}.json" for n in range(3)]
    assert rounds.read(SEARCH, folder) == ROUNDS
    assert rounds.read(SEARCH, folder / "nothing") == []


def test_a_file_says_everything(folder):
    content = json.loads((folder / "round-0001.json").read_text())
    assert (content["round"], content["search"]["space"], content["search"]["seeds"]) == (1, "plane", [0, 1])
    trial = content["trials"][0]
    assert trial["keys"] == [key(cell) for cell in SEARCH.cells(TOLD[0].params)]
    assert trial["value"] == pytest.approx(sum(TOLD[0].val_accuracy) / 2)


def test_a_round_is_never_written_again(folder):
    before = (folder / "round-0002.json").read_bytes()
    changed = [(), ROUNDS[1], tuple(dataclasses.replace(trial, error="other") for trial in TOLD[4:])]
    rounds.write(SEARCH, folder, changed)
    assert (folder / "round-0002.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": space(grid=20)}, "(grid 40 there, 20 here)"),
        ({"space": space(kind="line")}, "(space plane there, line here)"),
        ({"seeds": (0, 1, 2)}, "(seeds [0, 1] there, [0, 1, 2] here)"),
        ({"round_size": 5, "sampler_seed": 3}, "(sampler_seed 0 there, 3 here, round_size 4 there, 5 here)"),
    ],
)
def test_rounds_of_another_search(folder, changes, said):
    with pytest.raises(
        ValueError, match=re.escape(f"{folder} has rounds of another search {said}: choose another --name")
    ):
        rounds.read(dataclasses.replace(SEARCH, **changes), folder)


def test_a_damaged_round(folder):
    (folder / "round-0001.json").write_text("{")
    with pytest.raises(ValueError, match=r"round-0001\.json is damaged \(.*\): delete it and the later rounds"):
        rounds.read(SEARCH, folder)


def test_a_missing_round(folder):
    (folder / "round-0001.json").unlink()
    with pytest.raises(ValueError, match=r"has round-0002\.json, but no round-0001\.json: delete the later rounds"):
        rounds.read(SEARCH, folder)


def done(store, search, params, *accuracies):
    dense = [search.dense_run(seed) for seed in search.seeds]
    for cell, accuracy in zip((*dense, *search.cells(params)), (0.9,) * len(dense) + accuracies, strict=False):
        store.begin(cell)
        store.write_result(cell, {"val_accuracy": accuracy}, {})


def test_a_warm_start_takes_points_that_all_seeds_have(tmp_path):
    store = Store(tmp_path)
    done(store, SEARCH, {"weights_from": 80, "lr_from": 40}, 0.8, 0.9)
    done(store, SEARCH, {"weights_from": 120, "lr_from": 40}, 0.7)
    expected = Trial(number=None, params={"weights_from": 80, "lr_from": 40}, val_accuracy=(0.8, 0.9))
    assert rounds.warm_start(SEARCH, store) == (expected,)


@pytest.mark.parametrize(
    "changes",
    [
        {"dense": dataclasses.replace(DENSE, val_examples=300)},
        {"group": dataclasses.replace(SEARCH.group, density=0.1)},
        {"group": dataclasses.replace(SEARCH.group, structure="structured")},
        {"space": space(budget=200)},
    ],
)
def test_a_warm_start_takes_nothing_else(tmp_path, changes):
    store = Store(tmp_path)
    done(store, dataclasses.replace(SEARCH, **changes), {"weights_from": 80, "lr_from": 40}, 0.8, 0.9)
    assert rounds.warm_start(SEARCH, store) == ()


def test_a_warm_start_without_dense_runs_looks_at_no_point(tmp_path, monkeypatch):
    """A grid of every step has 160,801 points."""
    monkeypatch.setattr(Space, "points", property(lambda space: pytest.fail("every point was made")))
    assert rounds.warm_start(dataclasses.replace(SEARCH, space=space(grid=1)), Store(tmp_path)) == ()
