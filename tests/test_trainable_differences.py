"""How two cells differ, in words."""

import json
from dataclasses import replace

import pytest

from trainable import __main__ as command
from trainable import recipes, strategies
from trainable.config import Cycle, describe, key
from trainable.differences import as_text, differences

DENSE = recipes.digits(0)
CELL = Cycle(dense=DENSE, densities=(0.2,), retraining=strategies.weight_rewinding(DENSE, 44))


def test_one_cell():
    name = f"digits/resnet8-8/one-shot/weight-rewinding/s0.8/seed0-{key(CELL)[:6]}"
    assert as_text(CELL, replace(CELL)) == f"A: {name}\nB: {name}\nThey are one cell, key {key(CELL)}."


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        (
            {"retraining": strategies.fine_tuning(DENSE, 1_000)},
            [
                "weights from of the retraining: step 44 of the dense run in A, the parent's, kept in B",
                "lr from of the retraining: step 44 of the dense run in A, step 400 of the dense run in B",
                "budget of the retraining: 356 in A, 1,000 in B",
            ],
        ),
        (
            {"retraining": replace(CELL.retraining, weights_from="fresh", gradual=())},
            ["weights from of the retraining: step 44 of the dense run in A, fresh in B"],
        ),
        (
            {"retraining": replace(CELL.retraining, gradual=(0, 100, 5))},
            ["gradual of the retraining: none in A, from step 0 to 100 every 5 in B"],
        ),
        ({"parent_step": 360}, ["parent step of the cycle: the last in A, step 360 of the dense run in B"]),
        ({"structure": "structured"}, ["structure of the cycle: unstructured in A, structured in B"]),
        (
            {"dense": replace(DENSE, learning_rate=0.2, nesterov=False, padding="reflect")},
            [
                "learning rate of the dense run: 0.1 in A, 0.2 in B",
                "nesterov of the dense run: yes in A, no in B",
                "padding of the dense run: the data set's own in A, reflect in B",
            ],
        ),
    ],
)
def test_in_words(changes, sentences):
    assert list(differences(CELL, replace(CELL, **changes))) == sentences


def test_a_dense_run_and_a_cycle():
    assert list(differences(DENSE, CELL)) == ["A is the dense run itself, B is pruned and retrained"]
    assert list(differences(replace(CELL, dense=replace(DENSE, seed=1)), DENSE)) == [
        "seed of the dense run: 1 in A, 0 in B",
        "A is pruned and retrained, B is the dense run itself",
    ]


def test_every_field_is_said():
    """None has a meaning wherever it can stand."""
    restart = strategies.restart(DENSE, "cosine")
    for cell in (replace(CELL, retraining=restart), replace(CELL, parent_step=1)):
        assert all("None" not in sentence for sentence in differences(CELL, cell))


def test_the_command(tmp_path, capsys):
    for name, cell in (("a", CELL), ("b", replace(CELL, mask="random"))):
        (tmp_path / f"{name}.json").write_text(json.dumps(describe(cell)))
    assert command.main(["--diff", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["mask of the cycle: magnitude in A, random in B"]
    assert command.main(["--diff", str(tmp_path / "a.json"), str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err
