"""What is compared, and that a verdict is computed, and a look noted, once."""

import dataclasses
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis import claims, subject
from trainable import recipes
from trainable.columns import columns
from trainable.config import describe
from trainable.store import Store, write

DATA = Path(__file__).parent / "data"


@pytest.fixture
def released(tmp_path):
    """The small released files: every network of one budget."""
    for name in ("pruned", "dense"):
        shutil.copy(DATA / f"renda_{name}.csv", tmp_path / f"renda2020_{name}.csv")
    return subject.of_renda2020(tmp_path)


def test_a_line_of_released_networks_holds_the_strategy_only(released):
    assert released.setting == ["strategy"]
    assert released.by_validation
    assert released.margin == 0.0025, "two of 8,000 images are 0.025 points"


def test_released_networks_have_no_curves_and_no_looks(released):
    assert released.curves() == []
    assert released.looks == {}
    assert released.declared == ()


def test_verdicts_are_of_what_is_shown_and_computed_once(released, monkeypatch):
    expected = claims.evaluate(released.shown, margin=released.margin)
    asked = []
    monkeypatch.setattr(claims, "evaluate", lambda frame, **_: asked.append(len(frame)) or expected)
    for _ in range(2):
        pd.testing.assert_frame_equal(released.verdicts(), expected)
    assert asked == [len(released.shown)]


def test_without_a_chosen_budget_none_stand_beside(released):
    whole = subject.Subject(title="all", frame=released.shown, shown=released.shown, margin=0.0025)
    beside = whole.verdicts_at_equal_budget()
    assert beside.empty
    assert list(beside.columns) == list(whole.verdicts().columns)


def test_equal_budgets_are_equal(released):
    """Weight rewinding of 3,907 steps and fine-tuning of as many; learning-rate rewinding has another budget only."""
    beside = released.verdicts_at_equal_budget()
    assert not beside["setting"].str.contains("against").any()


def test_no_folder_and_no_file_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"^there is no file .*renda2020_(dense|pruned)\.csv$"):
        subject.of_renda2020(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"^there is no storage at .*nowhere$"):
        subject.of_study(tmp_path / "nowhere", "quick")


def test_one_protocol_of_several(tmp_path):
    """Verdicts do not mix them; the choices are in the message."""
    store = Store(tmp_path / "storage")
    short = dataclasses.replace(recipes.digits(0), steps=420)
    dense = [recipes.digits(0), short]
    rows = [
        {"study": "two", "protocol_name": "digits", **columns(cell, "dense"), "cell": describe(cell)} for cell in dense
    ]
    write(store.study("two") / "cells.json", json.dumps(rows).encode())
    digest = rows[1]["protocol"]
    chosen = subject.of_study(store.root, "two", protocol=digest, look=False)
    assert (chosen.title, list(chosen.frame["dense_steps"])) == (f"two, step schedule, protocol {digest}", [420])
    with pytest.raises(ValueError, match=f"no row has protocol 'x': the study has {rows[0]['protocol']}, {digest}"):
        subject.of_study(store.root, "two", protocol="x", look=False)
