"""What a report says of how networks were trained, what they cost and where they come from, word by word."""

import math

import pandas as pd
import pytest

from analysis import methods
from analysis.load import SCHEMA
from trainable import recipes, strategies
from trainable.columns import columns
from trainable.config import Cycle, describe

DENSE = recipes.digits(0)


def framed(rows) -> pd.DataFrame:
    return pd.DataFrame(rows).reindex(columns=list(SCHEMA)).astype(SCHEMA)


def cycle(retraining, *densities, dense=DENSE, structure="unstructured"):
    return Cycle(dense=dense, densities=densities, retraining=retraining, structure=structure)


def row(schedule, cell, **rest):
    return {"study": "quick", "protocol_name": "digits", "status": "done", **columns(cell, schedule), **rest}


def said(*cells, declare=True):
    """The paragraphs of (schedule, cell) pairs."""
    declared = [{"key": columns(cell, schedule)["key"], "cell": describe(cell)} for schedule, cell in cells]
    return methods.paragraphs(framed([row(*pair) for pair in cells]), declared if declare else ())


NETWORK = (
    "resnet8-8 on digits (360 test images), 1 seed: dense runs of 400 steps of 64 images (Nesterov SGD, learning rate "
    "0.1, dropped at steps 200, 300, times 0.1 at each drop, momentum 0.9, weight decay 0.0002, batch norm's momentum "
    "0.1, its epsilon 1e-05); protocol digits, precision fp32. No training image was held out for validation. "
)
LAST = "Accuracies are on the test set after the last step, never the best over steps."


def test_a_study_in_words():
    tuned, rewound = strategies.fine_tuning(DENSE), strategies.weight_rewinding(DENSE, 44)
    found = said(
        ("dense", DENSE),
        ("one-shot", cycle(tuned, 0.5)),
        ("one-shot", cycle(tuned, 0.107)),
        ("iterative", cycle(rewound, 0.8)),
        ("iterative", cycle(rewound, 0.8, 0.64)),
        ("iterative", cycle(rewound, 0.5, structure="structured")),
    )
    assert found == [
        NETWORK
        + "Pruned one-shot: single weights, ranked by magnitude over all layers together, to sparsities 0.5, 0.893. "
        "Pruned iterative: single weights, ranked by magnitude over all layers together, 20 % of what is left a cycle, "
        "to sparsities 0.2, 0.36. "
        "Pruned iterative: whole channels, ranked by mean magnitude over all layers together, 50 % of what is left a "
        "cycle, to sparsities 0.5. "
        "fine-tuning: weights kept, the learning rate's clock from step 400, fresh momentum, 400 steps a cycle. "
        "weight-rewinding: weights of step 44, the learning rate's clock from step 44, fresh momentum, 356 steps a "
        "cycle. " + LAST
    ]


def test_a_shape_of_its_own_has_no_clock():
    restart = strategies.restart(DENSE, "cosine", 100, peak_lr=0.05, warmup=10)
    (found,) = said(("one-shot", cycle(restart, 0.5)))
    assert "cosine-restart: weights kept, cosine(peak 0.05, warm-up 10), fresh momentum, 100 steps a cycle." in found


def test_several_settings_of_one_strategy_are_counted():
    (found,) = said(*(("one-shot", cycle(strategies.lr_rewinding(DENSE, t), 0.5)) for t in (100, 200, 400)))
    assert "lr-rewinding: 3 settings, budgets 100 to 400 steps a cycle." in found


def test_the_control_is_described_and_not_called_pruned():
    (found,) = said(("dense", DENSE), ("one-shot", cycle(strategies.lr_rewinding(DENSE), 1.0)))
    assert "Pruned" not in found
    assert "dense-extra-budget: weights kept, the learning rate's clock from step 0, fresh momentum" in found


def test_a_paragraph_a_network_and_protocol():
    wide = recipes.wide_resnet("wrn16-8", 0, precision="bf16")
    found = said(("dense", DENSE), ("dense", recipes.digits(1)), ("dense", wide))
    assert len(found) == 2
    assert found[0].startswith("resnet8-8 on digits (360 test images), 2 seeds: dense runs of 400 steps")
    assert found[1].startswith(
        "wrn16-8 on cifar10 (10,000 test images), 1 seed: dense runs of 80,000 steps of 128 images (Nesterov SGD, "
        "learning rate 0.1, dropped at steps 32,000, 48,000, 64,000, times 0.2 at each drop, momentum 0.9, weight "
        "decay 0.0004, batch norm's momentum 0.1, its epsilon 0.001); protocol digits, precision bf16."
    )


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (0, "No training image was held out for validation."),
        (1, "1 training image was held out for validation."),
        (1437, "1,437 training images were held out for validation."),
    ],
)
def test_validation_images(images, sentence):
    (found,) = methods.paragraphs(framed([row("dense", DENSE, val_examples=images)]))
    assert sentence in found


def test_without_descriptions_the_columns_speak():
    (found,) = said(("dense", DENSE), declare=False)
    assert found.startswith("resnet8-8 on digits (360 test images), 1 seed: dense runs of 400 steps of 64 images; pro")
    unknown = row("dense", DENSE, val_examples=None, precision=None, dataset="mine@0123456789abcdef", dense_steps=4000)
    assert methods.paragraphs(framed([unknown]), [{"key": unknown["key"]}]) == [
        "resnet8-8 on mine@0123456789abcdef, 1 seed: dense runs of 4,000 steps of 64 images; protocol digits. " + LAST
    ]


def test_costs_by_hand():
    """Three cells of two kinds, a chain's first cycle under both schedules, one failed, one of unknown hours."""
    first, second = cycle(strategies.lr_rewinding(DENSE), 0.5), cycle(strategies.lr_rewinding(DENSE), 0.5, 0.25)
    other = cycle(strategies.weight_rewinding(DENSE, 44), 0.5)
    frame = framed(
        [
            row("dense", DENSE, train_seconds=1800),
            row("one-shot", first, train_seconds=3600),
            row("iterative", first, train_seconds=3600),
            row("iterative", second, train_seconds=7200),
            row("one-shot", other),
            row("one-shot", cycle(strategies.fine_tuning(DENSE), 0.5), status="failed"),
        ]
    )
    expected = pd.DataFrame(
        {
            "what": ["dense", "lr-rewinding", "weight-rewinding", "together"],
            "networks": [1, 2, 1, 4],
            "steps": pd.array([400, 800, 356, 1556], dtype="Int64"),
            "if_separate": pd.array([400, 800 + 1200, 756, 3156], dtype="Int64"),
            "hours": [0.5, 3.0, math.nan, 3.5],
        }
    )
    pd.testing.assert_frame_equal(methods.costs(frame), expected, check_dtype=False)


def test_steps_that_are_not_known_stay_unknown():
    frame = framed([row("iterative", cycle(strategies.lr_rewinding(DENSE), 0.5), total_steps=None, budget=None)])
    found = methods.costs(frame)
    assert found[["steps", "if_separate"]].isna().all(axis=None)
    assert found["networks"].tolist() == [1, 1]


def test_provenance_by_hand():
    """Each network once, a row per way of computing, unknown values among them."""
    cells = [cycle(strategies.lr_rewinding(DENSE), density) for density in (0.5, 0.25, 0.125)]
    here = {"device": "cpu", "threads": 1, "compile": False, "versions": "torch=2.6", "git_commit": "abc"}
    frame = framed(
        [
            row("one-shot", cells[0], **here, numerics_mixed=False, finished_at="2026-11-23T09"),
            row("iterative", cells[0], **here, numerics_mixed=False, finished_at="2026-11-23T09"),
            row("one-shot", cells[1], **here, numerics_mixed=True, finished_at="2026-11-23T08"),
            row("one-shot", cells[2], **here | {"device": "cuda", "git_commit": None}, finished_at="2026-11-24T08"),
            row("one-shot", cycle(strategies.fine_tuning(DENSE), 0.5), status="missing"),
        ]
    )
    found = methods.provenance(frame)
    assert list(found.columns) == [
        *("device", "threads", "compile", "precision", "versions", "git_commit"),
        *("networks", "mixed", "first", "last"),
    ]
    assert found[["device", "threads", "precision", "versions"]].to_numpy().tolist() == [
        ["cpu", 1, "fp32", "torch=2.6"],
        ["cuda", 1, "fp32", "torch=2.6"],
    ]
    assert found["git_commit"].fillna("unknown").tolist() == ["abc", "unknown"]
    assert found[["networks", "mixed"]].to_numpy().tolist() == [[2, 1], [1, 0]]
    assert found[["first", "last"]].to_numpy().tolist() == [
        ["2026-11-23T08", "2026-11-23T09"],
        ["2026-11-24T08", "2026-11-24T08"],
    ]
