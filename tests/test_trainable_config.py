"""Descriptions of cells: their rules, keys, parents and JSON."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from trainable import config
from trainable.config import (
    Cycle,
    DenseRun,
    Retraining,
    chain,
    coerce,
    dense_run,
    density,
    describe,
    from_description,
    key,
    lineage,
    parent,
    states_read,
)

DENSE = DenseRun(
    dataset="digits",
    architecture="resnet8-8",
    seed=0,
    steps=400,
    batch_size=64,
    learning_rate=0.1,
    drops=(200, 300),
    drop_factor=0.1,
    weight_decay=2e-4,
    batch_norm_momentum=0.1,
    batch_norm_eps=1e-5,
)
REWIND = Retraining(weights_from=44, lr_from=44, budget=356)
LINEAR = Retraining(weights_from=None, lr_from=None, budget=100, shape="linear", peak_lr=0.1, warmup=10)
ONE_SHOT = Cycle(dense=DENSE, densities=(0.2,), retraining=REWIND)
CHAIN = Cycle(dense=DENSE, densities=(0.5, 0.25, 0.125), retraining=REWIND)


# Rules


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataset": "mnist"},
            r"unknown data set 'mnist': choose from digits, cifar10, cifar100, or the path of an npz",
        ),
        ({"dataset": "mine.npz"}, r"unknown data set 'mine\.npz'"),
        ({"dataset": "mine@123"}, r"unknown data set 'mine@123'"),
        ({"dataset": "a/b@0123456789abcdef"}, r"unknown data set"),
        ({"architecture": "lenet"}, r"unknown architecture 'lenet': choose from resnet\{6n\+2\}.*wrn.*vgg16"),
        ({"architecture": "resnet21"}, r"architecture 'resnet21': .*6n \+ 2 .*, got 21"),
        ({"architecture": "wrn20-2"}, r"architecture 'wrn20-2': .*6n \+ 4 .*, got 20"),
        ({"seed": -1}, r"seed must be 0 or more, got -1"),
        ({"steps": 0, "drops": ()}, r"steps must be 1 or more, got 0"),
        ({"batch_size": 1}, r"batch_size must be 2 or more, got 1"),
        ({"learning_rate": 0.0}, r"learning_rate must be above 0 and finite, got 0"),
        ({"learning_rate": math.inf}, r"learning_rate must be a finite number, got inf"),
        ({"learning_rate": math.nan}, r"learning_rate must be a finite number, got nan"),
        ({"drops": (300, 200)}, r"drops must be increasing steps within 1 … steps − 1 = 399, got \[300, 200\]"),
        ({"drops": (200, 200)}, r"drops must be increasing .*got \[200, 200\]"),
        ({"drops": (0, 200)}, r"drops must be increasing .*got \[0, 200\]"),
        ({"drops": (200, 400)}, r"drops must be increasing .*got \[200, 400\]"),
        ({"drop_factor": 0.0}, r"drop_factor must be in \(0, 1\], got 0"),
        ({"drop_factor": 1.5}, r"drop_factor must be in \(0, 1\], got 1\.5"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1"),
        ({"momentum": 0.0}, r"nesterov needs a momentum above 0, got 0"),
        ({"weight_decay": -1e-4}, r"weight_decay must be 0 or more and finite, got -0\.0001"),
        ({"batch_norm_momentum": 0.0}, r"batch_norm_momentum must be in \(0, 1\], got 0"),
        ({"batch_norm_eps": 0.0}, r"batch_norm_eps must be above 0 and finite, got 0"),
        ({"val_examples": -1}, r"val_examples must be 0 or more, got -1"),
        ({"val_examples": 1437}, r"fewer than the 1,?437 training images of digits, got 1,?437"),
        ({"dataset": "cifar10", "val_examples": 50_000}, r"fewer than the 50,?000 training images of cifar10"),
        ({"precision": "fp16"}, r"precision must be 'fp32' or 'bf16', got 'fp16'"),
        ({"seed": "0"}, r"seed must be a whole number, got '0'"),
        ({"seed": 0.5}, r"seed must be a whole number, got 0\.5"),
        ({"seed": True}, r"seed must be a whole number, got True"),
        ({"seed": None}, r"seed must be a whole number, got None"),
        ({"nesterov": 1}, r"nesterov must be true or false, got 1"),
        ({"dataset": 10}, r"dataset must be a string, got 10"),
        ({"drops": 200}, r"drops must be a list, each a whole number, got 200"),
        ({"drops": ("200",)}, r"drops must be a whole number, got '200'"),
        ({"learning_rate": "0.1"}, r"learning_rate must be a finite number, got '0\.1'"),
        ({"schedule": "exponential"}, r"schedule must be 'step' or 'linear' or 'cosine' or 'one-cycle', got 'expon"),
        ({"schedule": "linear"}, r"schedule 'linear' has no drops, got \[200, 300\]"),
        ({"schedule": "linear", "drops": ()}, r"schedule 'linear' needs drop_factor 1, got 0\.1"),
        ({"warmup": 10}, r"warmup is for the schedules linear, cosine and one-cycle only, got 10"),
        (
            {"schedule": "cosine", "drops": (), "drop_factor": 1, "warmup": 400},
            r"warmup must be in 0 … steps − 1 = 399, got 400",
        ),
        ({"init": "zeros"}, r"init must be 'he-uniform' or 'truncated-normal', got 'zeros'"),
        ({"architecture": "vgg16", "shortcut_norm": True}, r"shortcut_norm is for resnet architectures, got 'vgg16'"),
        ({"padding": "edge"}, r"padding must be 'reflect' or 'zeros' or None, got 'edge'"),
        ({"standardisation": "none"}, r"standardisation must be 'training-set' or 'image', got 'none'"),
        ({"val_from": "test"}, r"val_from 'test' needs val_examples above 0, got 0"),
        ({"val_from": "test", "val_examples": 360}, r"fewer than the 360 test images of digits, got 360"),
    ],
)
def test_a_dense_run_against_a_rule(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(DENSE, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 0}, r"budget must be 1 step or more, got 0"),
        ({"weights_from": -1}, r"weights_from must be a step of the dense run, 0 or more, got -1"),
        ({"weights_from": "init"}, r"weights_from must be a whole number or 'fresh' or None, got 'init'"),
        ({"lr_from": -100}, r"clock cannot start before step 0 .*budget ≤ T.*, got lr_from = -100"),
        ({"lr_from": None}, r"shape 'replay' needs lr_from.*got None"),
        ({"peak_lr": 0.1}, r"shape 'replay' has no peak_lr: .*, got 0\.1"),
        ({"warmup": 3}, r"warmup is for the shapes other than replay, got 3"),
        ({"shape": "linear", "peak_lr": 0.1}, r"shape 'linear' has no lr_from.*got 44"),
        ({"shape": "cosine", "lr_from": None}, r"shape 'cosine' needs a peak_lr above 0 and finite, got None"),
        ({"shape": "linear", "lr_from": None, "peak_lr": 0.0}, r"needs a peak_lr above 0 and finite, got 0"),
        (
            {"shape": "linear", "lr_from": None, "peak_lr": 0.1, "warmup": 356},
            r"warmup must be in 0 … budget − 1 = 355, got 356",
        ),
        ({"shape": "linear", "lr_from": None, "peak_lr": 0.1, "warmup": -1}, r"warmup must be in 0 … .*got -1"),
        ({"shape": "triangle"}, r"shape must be 'replay' or 'linear' or 'cosine' or .* got 'triangle'"),
        ({"shape": "scaled"}, r"shape 'scaled' has no lr_from.*got 44"),
        ({"shape": "scaled", "lr_from": None, "peak_lr": 0.1}, r"shape 'scaled' has no peak_lr: .*, got 0\.1"),
        (
            {"shape": "adaptive-linear", "lr_from": None, "peak_lr": 0.1},
            r"shape 'adaptive-linear' needs the parent's weights .*, got 44",
        ),
        (
            {"shape": "adaptive-linear", "lr_from": None, "peak_lr": 0.1, "weights_from": "fresh"},
            r"shape 'adaptive-linear' needs the parent's weights .*, got 'fresh'",
        ),
        (
            {"shape": "adaptive-linear", "lr_from": None, "peak_lr": 1, "weights_from": None, "gradual": (0, 9, 1)},
            r"shape 'adaptive-linear' needs pruning at once",
        ),
        ({"gradual": (10, 100)}, r"gradual must be \(first, last, every\) with .* < budget = 356 .*, got \[10, 100\]"),
        ({"gradual": (100, 10, 5)}, r"gradual must be .*, got \[100, 10, 5\]"),
        ({"gradual": (-1, 10, 5)}, r"gradual must be .*, got \[-1, 10, 5\]"),
        ({"gradual": (10, 356, 5)}, r"gradual must be .*, got \[10, 356, 5\]"),
        ({"gradual": (10, 100, 0)}, r"gradual must be .*, got \[10, 100, 0\]"),
        ({"gradual": (10, 100, 5), "weights_from": "fresh"}, r"gradual pruning starts from a State of the dense run"),
        ({"momentum": 0.9}, r"momentum must be 'fresh' or 'with_weights', got 0\.9"),
    ],
)
def test_a_retraining_against_a_rule(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(REWIND, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"densities": ()}, r"densities must name one density or more, got \[\]"),
        ({"densities": (0,)}, r"density must be in \(0, 1\], got 0$"),
        ({"densities": (-0.2,)}, r"density must be in \(0, 1\], got -0\.2"),
        ({"densities": (80,)}, r"density must be in \(0, 1\], got 80: is it a percentage\?"),
        ({"densities": (0.1234567,)}, r"density must have at most 6 decimals .*density\(sparsity\).*got 0\.1234567"),
        ({"densities": (1 - 0.9,)}, r"density must have at most 6 decimals .*got 0\.0999"),
        ({"densities": (0.2, 0.5)}, r"densities of a chain must never increase, got \[0\.2, 0\.5\]"),
        ({"densities": (math.nan,)}, r"densities must be a finite number, got nan"),
        ({"densities": 0.2}, r"densities must be a list, each a finite number, got 0\.2"),
        ({"densities": ("0.2",)}, r"densities must be a finite number, got '0\.2'"),
        ({"retraining": replace(REWIND, weights_from=401)}, r"weights_from must be .* dense run, 0 … 400, got 401"),
        ({"retraining": replace(REWIND, lr_from=401)}, r"lr_from must be in 0 … 400, .*got 401"),
        ({"structure": "blocks"}, r"structure must be 'unstructured' or 'structured', got 'blocks'"),
        ({"dense": "digits"}, r"dense must be DenseRun, got 'digits'"),
        ({"mask": "movement"}, r"mask must be 'magnitude' or 'random' or .* got 'movement'"),
        ({"mask": "erk", "structure": "structured"}, r"structured masks are magnitude, random, .*, got 'erk'"),
        ({"parent_step": 400}, r"parent_step must be a step .* 0 … 399, or None, got 400"),
        ({"parent_step": -1}, r"parent_step must be .*, got -1"),
        (
            {"parent_step": 360, "retraining": replace(REWIND, gradual=(0, 9, 1))},
            r"gradual pruning from a step of the dense run has no parent_step, got 360",
        ),
        (
            {"densities": (0.5, 0.2), "retraining": replace(REWIND, gradual=(0, 9, 1))},
            r"gradual pruning reaches its density inside one run, .*: no chain, got \[0\.5, 0\.2\]",
        ),
    ],
)
def test_a_cycle_against_a_rule(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(ONE_SHOT, **changes)


@pytest.mark.parametrize("weights_from", [np.int64(401), 401.0])
def test_a_rewind_point_of_another_number_type_obeys_the_rule(weights_from):
    with pytest.raises(ValueError, match=r"weights_from must be .* 0 … 400, got .*401"):
        replace(ONE_SHOT, retraining=replace(REWIND, weights_from=weights_from))


def test_edges_that_are_allowed():
    replace(DENSE, dataset="mine@0123456789abcdef", val_examples=10**6)  # its size is known to the data only
    replace(DENSE, drops=(1, 399), drop_factor=1)
    replace(DENSE, momentum=0, nesterov=False, weight_decay=0)
    replace(ONE_SHOT, densities=(1, 1, 0.5, 0.5, 0.000001))
    replace(ONE_SHOT, retraining=replace(REWIND, weights_from=400, lr_from=400, budget=10_000))
    replace(DENSE, val_from="test", val_examples=359)
    replace(DENSE, schedule="one-cycle", drops=(), drop_factor=1, warmup=399)
    replace(ONE_SHOT, parent_step=0)
    replace(ONE_SHOT, retraining=replace(REWIND, gradual=(0, 355, 1000)))


def test_a_negative_val_examples_of_an_npz_has_no_infinity_in_its_message():
    with pytest.raises(ValueError, match=r"val_examples must be 0 or more, got -1") as caught:
        replace(DENSE, dataset="mine@0123456789abcdef", val_examples=-1)
    assert "inf" not in str(caught.value)


@pytest.mark.parametrize("seed", [2**53 + 1, pytest.param(10**400, id="10^400")])
def test_a_whole_number_of_any_size_is_one(seed):
    assert json.loads(json.dumps(describe(replace(DENSE, seed=seed))))["seed"] == seed


# Densities


def test_density_has_one_spelling():
    assert [density(s) for s in (0, 0.2, 0.3, 0.893, 0.9375, 0.999999)] == [1.0, 0.8, 0.7, 0.107, 0.0625, 0.000001]


@pytest.mark.parametrize(("sparsity", "hint"), [(80, r": is it a percentage\?"), (1, "$"), (-0.1, "$"), (1000, "$")])
def test_a_sparsity_outside_its_range(sparsity, hint):
    with pytest.raises(ValueError, match=rf"sparsity must be in \[0, 1\), got {sparsity}{hint}"):
        density(sparsity)


def test_chain_has_the_published_sparsities():
    """Mikler 2021, figures 1 and 2."""
    published = [0.2, 0.36, 0.488, 0.59, 0.672, 0.738, 0.79, 0.832, 0.866, 0.893]
    densities = chain(0.2, 10)
    assert [round(1 - value, 6) for value in densities] == published
    assert densities == (0.8, 0.64, 0.512, 0.41, 0.328, 0.262, 0.21, 0.168, 0.134, 0.107)


def test_chain_of_thirty_percent_reaches_the_wide_nets_last_sparsity():
    """0.7^13 is 0.00969: sparsity 0.990, where Mikler's WRN-16-8 axis ends."""
    assert chain(0.3, 13)[-1] == 0.01


@pytest.mark.parametrize(
    ("fraction", "cycles", "message"),
    [
        (20, 3, r"prune_fraction must be in \(0, 1\), got 20: is it a percentage\?"),
        (0, 3, r"prune_fraction must be in \(0, 1\), got 0$"),
        (1, 3, r"prune_fraction must be in \(0, 1\), got 1$"),
        (0.2, 0, r"cycles must be 1 or more, got 0"),
        (0.5, 40, r"sparsity must be in \[0, 1\), got 1"),
    ],
)
def test_a_chain_that_cannot_be(fraction, cycles, message):
    with pytest.raises(ValueError, match=message):
        chain(fraction, cycles)


# Keys

PINNED = {
    "dense": "98bc0965ac1ddc601d3a",
    "one-shot": "4672d26c1f7358dad022",
    "chain": "30d4be9c1fb199f2edc5",
    "structured-linear-bf16-npz": "2383628119425f2f7a8a",
}
"""Keys of the cells in tests/data/<name>.cell.json. They never change: results are found by them."""


@pytest.mark.parametrize("name", PINNED)
def test_pinned_descriptions_keep_their_keys(data_folder, name):
    description = json.loads((data_folder / f"{name}.cell.json").read_text(encoding="utf-8"))
    cell = from_description(description)
    assert key(cell) == PINNED[name]
    assert describe(cell) == description


def test_pinned_descriptions_are_those_of_these_cells(data_folder):
    def pinned(name):
        return from_description(json.loads((data_folder / f"{name}.cell.json").read_text(encoding="utf-8")))

    assert pinned("dense") == DENSE
    assert pinned("one-shot") == ONE_SHOT
    assert pinned("chain") == CHAIN


def test_the_key_is_the_hash_of_the_canonical_json():
    canonical = (
        '{"architecture":"resnet8-8","batch_norm_eps":1e-05,"batch_norm_momentum":0.1,"batch_size":64,'
        '"dataset":"digits","drop_factor":0.1,"drops":[200,300],"kind":"dense","learning_rate":0.1,"momentum":0.9,'
        '"nesterov":true,"precision":"fp32","seed":0,"steps":400,"val_examples":0,"weight_decay":0.0002}'
    )
    assert key(DENSE) == hashlib.sha256(canonical.encode()).hexdigest()[:20]


OTHER_DENSE = {
    "dataset": "cifar10",
    "architecture": "resnet8-4",
    "seed": 1,
    "steps": 401,
    "batch_size": 65,
    "learning_rate": 0.2,
    "drops": (200,),
    "drop_factor": 0.2,
    "momentum": 0.8,
    "nesterov": False,
    "weight_decay": 1e-4,
    "batch_norm_momentum": 0.2,
    "batch_norm_eps": 1e-3,
    "val_examples": 100,
    "precision": "bf16",
    "schedule": "linear",
    "warmup": 10,
    "init": "truncated-normal",
    "shortcut_norm": True,
    "padding": "reflect",
    "standardisation": "image",
    "val_from": "test",
}
NEEDED = {
    "schedule": {"drops": (), "drop_factor": 1},
    "warmup": {"drops": (), "drop_factor": 1, "schedule": "cosine"},
    "val_from": {"val_examples": 100},
}
"""What a field's other value needs, by rule."""
OTHER_RETRAINING = {  # the retraining that is changed, and the field's other value
    "weights_from": (REWIND, None),
    "lr_from": (REWIND, 0),
    "budget": (REWIND, 357),
    "shape": (LINEAR, "cosine"),
    "peak_lr": (LINEAR, 0.2),
    "warmup": (LINEAR, 11),
    "momentum": (REWIND, "with_weights"),
    "gradual": (REWIND, (0, 100, 10)),
}
OTHER_CYCLE = {
    "dense": replace(DENSE, seed=1),
    "densities": (0.2, 0.2),
    "retraining": replace(REWIND, budget=1),
    "structure": "structured",
    "mask": "random",
    "parent_step": 360,
}


def names(cls):
    return [entry.name for entry in dataclasses.fields(cls)]


@pytest.mark.parametrize("name", names(DenseRun))
def test_every_field_of_a_dense_run_changes_the_key(name):
    """A new field without a value above fails here: give it one, and metadata={"absent": …}."""
    base = replace(DENSE, **NEEDED.get(name, {})) if name != "schedule" else DENSE
    other = replace(DENSE, **NEEDED.get(name, {}), **{name: OTHER_DENSE[name]})
    assert key(other) != key(base)
    assert key(replace(ONE_SHOT, dense=other)) != key(replace(ONE_SHOT, dense=base))


@pytest.mark.parametrize("name", names(Retraining))
def test_every_field_of_a_retraining_changes_the_key(name):
    base, value = OTHER_RETRAINING[name]
    cycle = replace(ONE_SHOT, retraining=base)
    assert key(replace(cycle, retraining=replace(base, **{name: value}))) != key(cycle)


@pytest.mark.parametrize("name", names(Cycle))
def test_every_field_of_a_cycle_changes_the_key(name):
    assert key(replace(ONE_SHOT, **{name: OTHER_CYCLE[name]})) != key(ONE_SHOT)


def test_spellings_of_one_value_have_one_key():
    assert key(replace(DENSE, learning_rate=1)) == key(replace(DENSE, learning_rate=1.0))
    assert key(replace(DENSE, drops=[200, 300])) == key(DENSE)
    assert key(replace(DENSE, seed=np.int64(0), drops=(np.int32(200), 300.0))) == key(DENSE)
    assert key(replace(DENSE, learning_rate=np.float64(0.1))) == key(DENSE)
    assert key(replace(ONE_SHOT, densities=[0.2])) == key(ONE_SHOT)
    assert key(replace(ONE_SHOT, densities=(1,))) == key(replace(ONE_SHOT, densities=(1.0,)))
    assert key(replace(ONE_SHOT, retraining=replace(REWIND, weights_from=np.int64(44)))) == key(ONE_SHOT)


def test_a_float32_is_another_value():
    """float32's 0.1 is 0.10000000149…: silently the same key would be two runs under one."""
    assert key(replace(DENSE, learning_rate=np.float32(0.1))) != key(DENSE)


# A field added later


@pytest.fixture
def later(monkeypatch):
    """DenseRun with a field that a release after the first added, and whose default changed once more since."""

    @dataclass(frozen=True, kw_only=True)
    class Later(DenseRun):
        smoothing: float = field(default=0.1, metadata={"absent": 0.0})

    monkeypatch.setattr(config, "DenseRun", Later)
    return Later(**vars(DENSE), smoothing=0)


def test_a_later_field_at_its_absent_value_keeps_the_key(later):
    assert "smoothing" not in describe(later)
    assert key(later) == PINNED["dense"]


def test_a_later_field_at_another_value_changes_the_key(later):
    default = type(later)(**vars(DENSE))
    assert default.smoothing == 0.1
    assert describe(default)["smoothing"] == 0.1
    assert key(default) != PINNED["dense"]


def test_an_older_description_means_the_absent_value_not_the_default(later):
    assert from_description({"kind": "dense", **vars(DENSE)}) == later
    assert from_description(describe(replace(later, smoothing=0.3))).smoothing == 0.3


# JSON and back


@pytest.mark.parametrize(
    "cell",
    [
        DENSE,
        replace(DENSE, precision="bf16", nesterov=False, momentum=0.0, val_examples=7, drops=()),
        ONE_SHOT,
        CHAIN,
        replace(CHAIN, retraining=LINEAR, structure="structured"),
        replace(ONE_SHOT, retraining=replace(REWIND, weights_from="fresh", momentum="with_weights")),
        replace(ONE_SHOT, retraining=replace(REWIND, weights_from=None), parent_step=360),
        replace(
            DENSE,
            schedule="cosine",
            drops=(),
            drop_factor=1,
            warmup=3,
            padding="zeros",
            val_from="test",
            val_examples=9,
        ),
        replace(ONE_SHOT, retraining=replace(REWIND, gradual=[0, 100, 10]), mask="erk"),
    ],
)
def test_round_trip(cell):
    back = from_description(json.loads(json.dumps(describe(cell))))
    assert back == cell
    assert type(back) is type(cell)
    assert hash(back) == hash(cell)


def test_values_come_back_in_their_declared_types():
    back = from_description(describe(replace(DENSE, learning_rate=1, drops=[200.0])))
    assert (type(back.learning_rate), type(back.drops), type(back.drops[0])) == (float, tuple, int)


def test_fields_with_a_default_may_be_left_out():
    short = {name: value for name, value in describe(DENSE).items() if name not in ("momentum", "precision")}
    assert from_description(short) == DENSE


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ([1], r"description must be a JSON object, got list"),
        ({}, r"kind must be 'dense' or 'cycle', got None"),
        ({"kind": "network"}, r"kind must be 'dense' or 'cycle', got 'network'"),
        ({"kind": ["dense"]}, r"kind must be 'dense' or 'cycle', got \['dense'\]"),
        ({**describe(DENSE), "colour": 1, "size": 2}, r"unknown field colour, size of dense: its fields are dataset, "),
        ({"kind": "dense", "dataset": "digits"}, r"dense lacks the field architecture"),
        ({**describe(DENSE), "seed": "zero"}, r"seed must be a whole number, got 'zero'"),
        ({**describe(DENSE), "seed": -3}, r"seed must be 0 or more, got -3"),
        ({**describe(ONE_SHOT), "retraining": 3}, r"retraining must be a JSON object, got 3"),
        ({**describe(ONE_SHOT), "dense": {}}, r"dense lacks the field dataset"),
        ({**describe(ONE_SHOT), "densities": [80]}, r"density must be in \(0, 1\], got 80: is it a percentage\?"),
        (
            {**describe(ONE_SHOT), "retraining": {"weights_from": 1, "lr_from": 1, "budget": 1, "lr": 3}},
            r"unknown field lr of retraining",
        ),
    ],
)
def test_a_description_that_is_none(description, message):
    with pytest.raises(ValueError, match=message):
        from_description(description)


def test_coerce_takes_neither_strings_nor_truth_values_for_numbers():
    assert coerce(3, float, "x") == 3.0
    for value in ("3", True, None, [3], math.inf):
        with pytest.raises(ValueError, match="x must be a finite number"):
            coerce(value, float, "x")


# Parents


def test_parents():
    assert parent(DENSE) is None
    assert parent(ONE_SHOT) == DENSE
    assert parent(CHAIN) == Cycle(dense=DENSE, densities=(0.5, 0.25), retraining=REWIND)
    assert parent(replace(CHAIN, structure="structured")).structure == "structured"


def test_lineage_begins_at_the_dense_run():
    first, second = replace(CHAIN, densities=(0.5,)), replace(CHAIN, densities=(0.5, 0.25))
    assert lineage(CHAIN) == (DENSE, first, second, CHAIN)
    assert lineage(DENSE) == (DENSE,)


def test_small_properties():
    assert [cell.iteration for cell in lineage(CHAIN)] == [0, 1, 2, 3]
    assert [cell.budget for cell in lineage(CHAIN)] == [400, 356, 356, 356]
    assert (CHAIN.density, CHAIN.seed, dense_run(CHAIN), dense_run(DENSE)) == (0.125, 0, DENSE, DENSE)


@pytest.mark.parametrize("weights_from", [44, np.int64(44)])
def test_states_read_by_a_rewind(weights_from):
    second = replace(CHAIN, densities=(0.5, 0.25), retraining=replace(REWIND, weights_from=weights_from))
    assert states_read(second) == ((parent(second), 356), (DENSE, 44))  # the dense run's, in iteration 2 too


def test_states_read_without_a_rewind():
    assert states_read(DENSE) == ()
    for weights_from in (None, "fresh"):
        kept = replace(ONE_SHOT, retraining=replace(REWIND, weights_from=weights_from))
        assert states_read(kept) == ((DENSE, 400),)


def test_states_read_when_an_earlier_step_is_pruned():
    cycle = replace(ONE_SHOT, parent_step=360)
    assert states_read(cycle) == ((DENSE, 360), (DENSE, 44))
    kept = replace(cycle, retraining=replace(REWIND, weights_from=None))
    assert states_read(kept) == ((DENSE, 360),)
    second = replace(kept, densities=(0.5, 0.2))
    assert parent(second).parent_step == 360
    assert states_read(second) == ((parent(second), 356),)


def test_gradual_pruning_reads_where_it_starts_only():
    gradual = replace(REWIND, weights_from=0, lr_from=0, gradual=(0, 100, 10))
    assert states_read(replace(ONE_SHOT, retraining=gradual)) == ((DENSE, 0),)
    assert states_read(replace(ONE_SHOT, retraining=replace(gradual, weights_from=None))) == ((DENSE, 400),)


def test_fields_added_later_keep_the_keys_at_their_absent_values():
    added = {
        DENSE: {
            "schedule": "step",
            "warmup": 0,
            "init": "he-uniform",
            "shortcut_norm": False,
            "padding": None,
            "standardisation": "training-set",
            "val_from": "train",
        },
        ONE_SHOT: {"mask": "magnitude", "parent_step": None, "retraining": replace(REWIND, gradual=())},
    }
    for cell, fields in added.items():
        assert key(replace(cell, **fields)) == key(cell)
        assert not {"schedule", "init", "mask", "parent_step"} & describe(cell).keys()
    assert "gradual" not in describe(ONE_SHOT)["retraining"]


def test_a_rewind_to_the_parents_own_last_step_is_read_once():
    cycle = replace(ONE_SHOT, retraining=replace(REWIND, weights_from=400))
    assert states_read(cycle) == ((DENSE, 400),)
    second = replace(cycle, densities=(0.5, 0.2))
    assert states_read(second) == ((parent(second), 356), (DENSE, 400))
