"""The released CSVs as a table: a small made-up pair of files by hand, the real pair against plain pandas."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.load import SCHEMA, check
from analysis.renda2020 import best_budget, load_renda2020

DATA = Path(__file__).parent / "data"
PRUNED, DENSE = DATA / "renda_pruned.csv", DATA / "renda_dense.csv"
REAL = Path(__file__).parents[2] / "shared" / "data"
needs_real = pytest.mark.skipif(not (REAL / "renda2020_pruned.csv").exists(), reason="../shared/data is not here")


def framed(rows):
    return pd.DataFrame(rows).reindex(columns=list(SCHEMA)).astype(SCHEMA)


@pytest.fixture
def real():
    return load_renda2020(REAL / "renda2020_pruned.csv", REAL / "renda2020_dense.csv")


def test_the_whole_table():
    """Every column of every row, by hand: the median of the dense rows is 0.92."""
    same = {
        "study": "renda2020",
        "status": "done",
        "dataset": "cifar10",
        "architecture": "resnet20",
        "protocol": "renda2020",
        "protocol_name": "renda2020",
        "dense_schedule": "step",
        "batch_size": 128,
        "dense_steps": 71108,
        "dense_test_accuracy": 0.92,
    }
    dense = [
        same
        | {"unit": f"resnet20/dense/{number}", "key": f"renda2020/resnet20/dense/{number}", "iteration": 0}
        | {"schedule": "dense", "strategy": "dense", "sparsity_target": 0.0, "sparsity": 0.0, "compression_ratio": 1.0}
        | {"theoretical_speedup": 1.0, "total_steps": 71108, "test_accuracy": test, "val_accuracy": val}
        | {"delta_test_accuracy": test - 0.92}
        for number, test, val in [(1, 0.91, 0.9), (2, 0.92, 0.91), (3, 0.925, 0.905)]
    ]
    pruned = {"structure": "unstructured", "mask": "magnitude", "shape": "replay", "momentum": "with_weights"}

    def one_shot(strategy, budget, seed, test, val, unit="resnet20/unstructured/0.1074", **rest):
        place = f"renda2020/resnet20/unstructured/one-shot/{strategy}/0.1074/{budget}/{seed}"
        return (
            same
            | pruned
            | {"unit": f"{unit}/{seed}", "key": place, "schedule": "one-shot", "iteration": 1, "strategy": strategy}
            | {"budget": budget, "seed": seed, "sparsity_target": 0.8926, "sparsity": 1 - 0.1074}
            | {"compression_ratio": 1 / 0.1074, "total_steps": 71108 + budget, "test_accuracy": test}
            | {"val_accuracy": val, "delta_test_accuracy": test - 0.92, **rest}
        )

    def iterative(iteration, density, flops, test, val):
        place = f"renda2020/resnet20/unstructured/iterative/lr-rewinding/{density:g}/35157/1"
        return (
            same
            | pruned
            | {"unit": "resnet20/unstructured/lr-rewinding/35157/1", "key": place, "schedule": "iterative"}
            | {"iteration": iteration, "prune_fraction": 0.2, "strategy": "lr-rewinding", "lr_from": 35951}
            | {"budget": 35157, "seed": 1, "sparsity_target": round(1 - density, 6), "sparsity": 1 - density}
            | {"compression_ratio": 1 / density, "theoretical_speedup": 40e6 / flops}
            | {"total_steps": 71108 + iteration * 35157, "test_accuracy": test, "val_accuracy": val}
            | {"delta_test_accuracy": test - 0.92}
        )

    expected = framed(
        [
            *dense,
            one_shot("fine-tuning", 3907, 1, 0.84, 0.83, lr_from=71108),
            one_shot("weight-rewinding", 3907, 1, 0.85, 0.86, weights_from="67201", lr_from=67201),
            one_shot("weight-rewinding-to-init", 71108, 1, 0.86, 0.85, weights_from="0", lr_from=0),
            one_shot("lr-rewinding", 35157, 2, 0.88, 0.87, lr_from=35951),
            one_shot("low-lr-weight-rewinding", 11719, 2, 0.83, 0.82, weights_from="59389", lr_from=71108),
            one_shot("reinit", 11719, 2, 0.82, 0.81, unit="resnet20/unstructured/reinit/0.1074", weights_from="fresh"),
            iterative(1, 0.8, 20e6, 0.9, 0.89),
            iterative(2, 0.6400000000000001, 10e6, 0.89, 0.88),
        ]
    )
    frame = load_renda2020(str(PRUNED), DENSE)
    pd.testing.assert_frame_equal(frame, expected)
    check(frame)


def changed(tmp_path, old, new, source=PRUNED):
    """A copy of a file with its first occurrence of a text replaced; the two paths to load."""
    text = source.read_text()
    assert old in text
    path = tmp_path / "changed.csv"
    path.write_text(text.replace(old, new, 1))
    return (path, DENSE) if source == PRUNED else (PRUNED, path)


BAD = {
    "a column less": ("flops\n", "macs\n", r"must have the columns network, prune_method, .*, flops, got .*, macs$"),
    "network": ("resnet20,", "resnet50,", r", line 2: network must be of resnet20, .*resnet110, got resnet50$"),
    "structure": ("Unstructured", "Odd", r", line 2: prune_method must be of Unstructured, Structured, got Odd$"),
    "schedule": ("True", "Maybe", r", line 8: is_iterative must be True or False, got Maybe$"),
    "strategy": ("lottery", "ticket", r", line 3: retrain_method must be of finetune, lottery, .*reinit, got ticket$"),
    "density": ("0.1074", "10.74", r", line 2: density must be in \(0, 1\], got 10.74$"),
    "density 0": ("0.8,", "0.0,", r", line 8: density must be in \(0, 1\], got 0.0$"),
    "passes": ("182.0", "183.0", r", line 4: retrain_time must be passes, of 10, 30, .*, 170, 182, got 183.0$"),
    "trial": ("trial_2", "second", r", line 5: trial must be trial_<number>, got second$"),
    "percent": ("0.84", "84", r", line 2: test_acc must be a fraction in \[0, 1\], got 84.0$"),
    "no accuracy": ("0.84,0.83", "0.84,", r", line 2: val_acc must be a fraction in \[0, 1\], got nan$"),
    "no number": ("0.84,", "good,", r", line 2: test_acc must be a fraction in \[0, 1\], got good$"),
    "flops": ("20000000.0", "-1", r", line 8: flops must be above 0, or missing, got -1.0$"),
    "twice": (
        "0.6400000000000001",
        "0.8",
        r", line 9: density must not stand twice with the same network, .*trial, got",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_named_with_their_line(tmp_path, name):
    old, new, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        load_renda2020(*changed(tmp_path, old, new))


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match=r"^there is no file .*nowhere.csv$"):
        load_renda2020(tmp_path / "nowhere.csv", DENSE)
    for content, message in [
        (b"", r"empty.csv is no CSV file: No columns"),
        (b"a,b\n1,2,3\n1,2,3,4\n", r"empty.csv is no CSV file: Error tokenizing"),
        (b"\xff\xfe\x00", r"empty.csv is no CSV file: "),
        (PRUNED.read_bytes().splitlines()[0], r"empty.csv has no row$"),
    ]:
        (tmp_path / "empty.csv").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_renda2020(tmp_path / "empty.csv", DENSE)


def test_dense_networks_that_do_not_fit(tmp_path):
    lines = DENSE.read_text().splitlines(keepends=True)
    for content in (lines[:-1], [*lines[:-1], "resnet20,0.5,0.91,40000000.0\n"]):
        (tmp_path / "dense.csv").write_text("".join(content))
        with pytest.raises(
            ValueError, match=r"dense.csv must list every dense resnet20 twice, one half after the other"
        ):
            load_renda2020(PRUNED, tmp_path / "dense.csv")
    (tmp_path / "dense.csv").write_text(DENSE.read_text().replace("resnet20", "resnet56"))
    with pytest.raises(ValueError, match=r"dense.csv has no dense network resnet20: it has resnet56$"):
        load_renda2020(PRUNED, tmp_path / "dense.csv")


def test_a_chain_of_other_steps_has_no_iteration(tmp_path):
    frame = load_renda2020(*changed(tmp_path, "0.6400000000000001", "0.63"))
    assert frame["iteration"].iloc[-1] is pd.NA
    assert frame["total_steps"].iloc[-1] is pd.NA
    assert frame["prune_fraction"].iloc[-1] == 0.2


def cell(budget, val, *, schedule="one-shot", seed=0, study="mine", sparsity=0.5):
    return {
        "study": study,
        "unit": f"unit {seed}",
        "key": f"{schedule} {budget} {seed} {sparsity}",
        "status": "done",
        "dataset": "cifar10",
        "architecture": "resnet20",
        "structure": "unstructured",
        "schedule": schedule,
        "strategy": "lr-rewinding",
        "sparsity_target": sparsity,
        "budget": budget,
        "seed": seed,
        "val_accuracy": val,
        "test_accuracy": 0.5,
    }


def test_the_budget_of_the_best_median_validation_accuracy():
    """Medians at budgets 10, 20, 30: 0.8, 0.85, 0.85; the mean would choose 30, the best network 10."""
    dense = {**cell(None, 0.9), "schedule": "dense", "strategy": "dense", "budget": None, "structure": None}
    rows = [dense]
    rows += [cell(10, val, seed=seed) for seed, val in enumerate((0.7, 0.8, 0.99))]
    rows += [cell(30, val, seed=seed) for seed, val in enumerate((0.84, 0.85, 0.9))]
    rows += [cell(20, val, seed=seed) for seed, val in enumerate((0.5, 0.85, 0.86))]
    rows += [cell(10, 0.1, sparsity=0.9)]
    expected = framed([rows[0], *rows[7:]])
    pd.testing.assert_frame_equal(best_budget(framed(rows)), expected)


def test_units_of_released_chains():
    """Each density's cell may come from another chain; a study's own units stay."""
    for study, unit in (("renda2020", "resnet20/unstructured/lr-rewinding/2"), ("mine", "unit 2")):
        frame = framed([cell(10, 0.5, schedule="iterative", seed=2, study=study)])
        pd.testing.assert_frame_equal(best_budget(frame), frame.assign(unit=frame["unit"].replace("unit 2", unit)))
    frame = framed([cell(10, 0.5, seed=2, study="renda2020")])
    pd.testing.assert_frame_equal(best_budget(frame), frame)


def test_a_budget_needs_validation_accuracy():
    frame = framed([cell(10, 0.5), cell(20, None), {**cell(30, None), "status": "failed"}])
    with pytest.raises(ValueError, match=r"and 1 of 2 finished rows have none: hold out training images"):
        best_budget(frame)


@needs_real
def test_released_medians_equal_plain_pandas(real):
    """Per (network, schedule, strategy, density, retrain time), to the last digit."""
    plain = pd.read_csv(REAL / "renda2020_pruned.csv")
    by = ["network", "is_iterative", "retrain_method", "density", "retrain_time"]
    expected = plain.groupby(by)[["test_acc", "val_acc"]].median().sort_values(by)
    ours = real[real["schedule"] != "dense"]
    names = {
        "fine-tuning": "finetune",
        "weight-rewinding": "lottery",
        "weight-rewinding-to-init": "lottery",
        "lr-rewinding": "lr_finetune",
        "low-lr-weight-rewinding": "lr_lottery",
        "reinit": "reinit",
    }
    steps = [3907, 11719, 19532, 27344, 35157, 42969, 50782, 58594, 66407, 71108]
    passes = dict(zip(steps, [10.0, 30.0, 50.0, 70.0, 90.0, 110.0, 130.0, 150.0, 170.0, 182.0], strict=True))
    mapped = pd.DataFrame(
        {
            "network": ours["architecture"].astype(str),
            "is_iterative": (ours["schedule"] == "iterative").astype(bool),
            "retrain_method": ours["strategy"].map(names).astype(str),
            "sparsity": ours["sparsity_target"],
            "retrain_time": ours["budget"].map(passes).astype(float),
            "test_acc": ours["test_accuracy"],
            "val_acc": ours["val_accuracy"],
        }
    )
    found = mapped.groupby(["network", "is_iterative", "retrain_method", "sparsity", "retrain_time"]).median()
    assert len(found) == len(expected) == 2080
    expected = (
        expected.reset_index().assign(sparsity=lambda rows: (1 - rows["density"]).round(6)).drop(columns="density")
    )
    expected = expected.set_index(found.index.names).sort_index()
    pd.testing.assert_frame_equal(found.sort_index(), expected, check_exact=True)


@needs_real
def test_released_rows(real):
    check(real)
    assert len(real) == 2 * 123 + 6240
    assert real["key"].is_unique
    dense = real[real["schedule"] == "dense"].groupby("architecture")["test_accuracy"].agg(["size", "median"])
    assert dense.to_dict() == {
        "size": {"resnet20": 123, "resnet56": 123},
        "median": {"resnet20": 0.91725, "resnet56": 0.9345},
    }
    shared = real[(real["schedule"] == "one-shot") & (real["strategy"] != "reinit")].groupby("unit").size()
    assert set(shared) == {40}, "ten retrain times of four strategies"
    assert shared.index.nunique() == 2 * 10 * 3
    chains = real[real["schedule"] == "iterative"].groupby("unit").size()
    assert chains.value_counts().to_dict() == {10: 120, 17: 120}
    assert set(real.loc[real["budget"] == 71108, "strategy"]) >= {"weight-rewinding-to-init", "lr-rewinding"}
    assert "weight-rewinding" not in set(real.loc[real["budget"] == 71108, "strategy"])


@needs_real
def test_released_best_budgets_against_plain_arithmetic(real):
    chosen = best_budget(real)
    for by, rows in real[real["schedule"] != "dense"].groupby(
        ["architecture", "schedule", "strategy", "sparsity_target"], sort=False
    ):
        medians = {budget: group["val_accuracy"].median() for budget, group in rows.groupby("budget")}
        budget = max(sorted(medians), key=lambda choice: medians[choice])
        kept = chosen[
            (chosen[["architecture", "schedule", "strategy", "sparsity_target"]] == list(by)).all(axis=1).fillna(False)
        ]
        assert set(kept["budget"]) == {budget}
        assert len(kept) == 3
    assert (chosen["schedule"] == "dense").sum() == 246
