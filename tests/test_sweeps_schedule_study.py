"""Learning-rate rewinding under other dense schedules, as declared."""

from collections import Counter

import pytest

from sweeps import schedule_study
from trainable import recipes
from trainable.columns import columns
from trainable.config import dense_run, key


def rows(**options):
    found = list(schedule_study.cells([recipes.digits(seed) for seed in (0, 1)], 44, **options))
    return [columns(cell, schedule) for schedule, cell in found]


def test_every_schedule_has_every_strategy_at_one_budget():
    pruned = [row for row in rows() if row["schedule"] == "one-shot"]
    assert {row["budget"] for row in pruned} == {356}
    counts = Counter((row["dense_schedule"], row["strategy"], row["shape"]) for row in pruned)
    expected = {}
    for name in ("step", "linear", "cosine", "one-cycle"):
        for strategy in ("fine-tuning", "weight-rewinding", "lr-rewinding"):
            expected[name, strategy, "replay"] = 10
        if name != "step":
            expected[name, "fine-tuning", "constant(peak 0.001, warm-up 0)"] = 10
    assert counts == expected


def test_step_is_the_quick_studys_dense_run():
    dense = [cell for schedule, cell in schedule_study.cells([recipes.digits(0)], 44) if schedule == "dense"]
    assert [run.schedule for run in dense] == ["step", "linear", "cosine", "one-cycle"]
    assert key(dense[0]) == key(recipes.digits(0))


def test_on_cifar(capsys, tmp_path):
    options = ["--cifar10", "resnet20", "--scale", "0.0125", "--seeds", "0", "--dry-run", "--storage", str(tmp_path)]
    assert schedule_study.main(options) == 0
    assert "dense runs      4" in capsys.readouterr().out
    whole = [recipes.scaled(recipes.cifar("resnet20", 0), 0.0125)]
    assert {dense_run(cell).steps for _, cell in schedule_study.cells(whole, 100)} == {900}


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--cifar10", "lenet"], "unknown architecture 'lenet'"), (["--scale", "0.001"], "scale must leave one step")],
)
def test_bad_input(capsys, tmp_path, options, message):
    assert schedule_study.main([*options, "--dry-run", "--storage", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
