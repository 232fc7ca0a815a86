"""The published points as a table."""

import pandas as pd
import pytest

from analysis.load import SCHEMA, check
from analysis.mikler2021 import PROTOCOLS, load_published
from sweeps import full_study
from trainable.columns import columns


@pytest.fixture(scope="module")
def published():
    return load_published("mikler2021")


def test_one_point_in_every_column(published):
    """Figure 5 right: the third cycle of a chain that keeps 0.7."""
    row = {
        "study": "mikler2021",
        "unit": "Mikler 2021, figure 5 right",
        "key": "Mikler 2021, figure 5 right: weight-rewinding at sparsity 0.657",
        "status": "done",
        "dataset": "cifar10",
        "architecture": "wrn16-8",
        "structure": "unstructured",
        "schedule": "iterative",
        "iteration": 3,
        "prune_fraction": 0.3,
        "mask": "magnitude",
        "protocol": "cdeb7b9964bb",
        "protocol_name": "mikler2021",
        "dense_schedule": "step",
        "batch_size": 128,
        "val_examples": 0,
        "strategy": "weight-rewinding",
        "weights_from": "8000",
        "lr_from": 8000,
        "budget": 72000,
        "shape": "replay",
        "momentum": "fresh",
        "sparsity_target": 0.657,
        "sparsity": 0.657,
        "compression_ratio": 1 / (1 - 0.657),
        "dense_steps": 80000,
        "total_steps": 80000 + 3 * 72000,
        "precision": "fp32",
    }
    found = published[published["key"] == row["key"]].reset_index(drop=True)
    accuracies = ["test_accuracy", "dense_test_accuracy", "delta_test_accuracy"]
    expected = pd.DataFrame([row]).reindex(columns=list(SCHEMA)).astype(SCHEMA)
    pd.testing.assert_frame_equal(found.drop(columns=accuracies), expected.drop(columns=accuracies))
    assert found["dense_test_accuracy"].iloc[0] == pytest.approx(0.9572)
    assert found["delta_test_accuracy"].iloc[0] == found["test_accuracy"].iloc[0] - found["dense_test_accuracy"].iloc[0]


def test_all_points(published):
    check(published)
    assert len(published) == 243
    assert published["key"].is_unique
    assert published["seed"].isna().all()
    first = published[published["unit"] == "Mikler 2021, figure 1 left"].iloc[0]
    assert (first["strategy"], first["sparsity"], first["test_accuracy"]) == ("weight-rewinding", 0.2, 0.92645)
    distinct = ["dataset", "architecture", "structure", "strategy", "sparsity", "iteration"]
    repeated = published[published["iteration"] == 1].duplicated(distinct)
    assert repeated.sum() == 6, "a chain's first cycle, printed as one-shot too"


def test_points_are_described_as_the_study_declares_them(published):
    """Every column that tells how a network was trained, of every point, is what the full study would write."""
    described = ["dataset", "architecture", "structure", "schedule", "prune_fraction", "strategy", "sparsity_target"]
    described += ["iteration", "mask", "protocol", "dense_schedule", "batch_size", "val_examples", "weights_from"]
    described += ["lr_from", "budget", "shape", "momentum", "dense_steps", "total_steps", "precision"]
    rows = [columns(cell, schedule) for schedule, cell in full_study.cells(seeds=[0]) if schedule != "dense"]
    declared = pd.DataFrame(rows).reindex(columns=list(SCHEMA)).astype(SCHEMA)[described]
    order = ["dataset", "architecture", "structure", "schedule", "prune_fraction", "strategy", "sparsity_target"]
    pd.testing.assert_frame_equal(
        published[described].sort_values(order, ignore_index=True), declared.sort_values(order, ignore_index=True)
    )
    assert set(PROTOCOLS.values()) == set(declared["protocol"])


def test_another_name():
    with pytest.raises(ValueError, match=r"^nothing published goes by the name 'renda': choose from mikler2021$"):
        load_published("renda")
