"""Every strategy and protocol against its source: what each of its steps starts from, its rates, its images."""

import dataclasses
import hashlib
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainable import cycle, data, datasets, pruning, recipes, strategies
from trainable.config import Cycle, Retraining
from trainable.store import Store
from trainable.training import build_network

T, K, BUDGET = 40, 10, 20
RATES = [0.1] * 20 + [0.01] * 10 + [0.001] * 10
"""Of the dense run, a step each."""


@pytest.fixture(scope="module")
def dense(tiny):
    return replace(tiny, steps=T, drops=(20, 30))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dense, digits, numerics):
    root = tmp_path_factory.mktemp("conformance")
    for _ in cycle.run(dense, Store(root), digits, numerics, keep=frozenset({0, K}), eval_every=T):
        pass
    return root


@pytest.fixture
def storage(tmp_path, trained):
    shutil.copytree(trained, tmp_path / "storage")
    return Store(tmp_path / "storage")


def traced(cell, store, digits, numerics, monkeypatch):
    """Train a cell; what its optimizer saw: first weights and momentum, and of each step rate, zeros and labels."""
    seen = SimpleNamespace(rates=[], labels=[], zeros=[], weights={}, momentum={}, settings=set())
    step, batches_of = torch.optim.SGD.step, cycle.training_batches
    names = [name for name, _ in build_network(cell.dense, digits, numerics, 0, "init").model.named_parameters()]

    def recorded_step(optimizer, *arguments):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not seen.rates:
            seen.weights = dict(zip(names, (p.detach().clone() for p in parameters), strict=True))
            buffers = [optimizer.state[p]["momentum_buffer"].clone() for p in parameters]
            seen.momentum = dict(zip(names, buffers, strict=True))
        (group,) = optimizer.param_groups
        seen.rates.append(group["lr"])
        seen.settings.add((group["momentum"], group["nesterov"], group["weight_decay"]))
        kernels = [p for p in parameters if p.dim() > 1]
        seen.zeros.append(sum(int((p == 0).sum()) for p in kernels))
        return step(optimizer, *arguments)

    def recorded_batches(*arguments):
        batches = batches_of(*arguments)

        def recorded(number):
            images, labels = batches(number)
            seen.labels.append(labels)
            return images, labels

        return recorded

    monkeypatch.setattr(torch.optim.SGD, "step", recorded_step)
    monkeypatch.setattr(cycle, "training_batches", recorded_batches)
    for _ in cycle.run(cell, store, digits, numerics, eval_every=1000):
        pass
    return seen


def order(labels, seed, iteration, steps, batch_size):
    """Labels of the batches: the passes' permutations, one after the other."""
    passes = math.ceil(steps * batch_size / len(labels))
    found = []
    for number in range(passes):
        text = hashlib.sha256(f"{seed}/{iteration}/order/{number}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(text[:8]))
        found.append(labels[torch.randperm(len(labels), generator=generator)])
    return torch.cat(found)[: steps * batch_size]


def largest(final, density):
    """Masks by NumPy: the largest |w| over all layers."""
    flat = np.abs(np.concatenate([final.weights[name].numpy().ravel() for name in final.masks]))
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(-flat, kind="stable")[: round(density * flat.size)]] = True
    ends = np.cumsum([final.weights[name].numel() for name in final.masks])[:-1]
    pieces = np.split(mask, ends)
    shapes = [final.weights[name].shape for name in final.masks]
    return {name: m.reshape(shape) for name, m, shape in zip(final.masks, pieces, shapes, strict=True)}


def one_cycle(peak, steps):
    """torch's own, as Le & Hua's released code calls it (norm-pruning/cifar/l1-norm-pruning/main_finetune.py)."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=peak,
        total_steps=steps,
        pct_start=0.1,
        div_factor=100,
        final_div_factor=100,
        cycle_momentum=False,
    )
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        if len(rates) < steps:
            scheduler.step()
    return rates


def adapted_peak(final, density, budget):
    """Zimmer et al.: clip(max(d1, d2), 0, 1) of the highest rate."""
    w = np.concatenate([final.weights[name].double().numpy().ravel() for name in final.masks])
    mask = np.concatenate([mask.ravel() for mask in largest(final, density).values()])
    s = 1 - mask.sum() / mask.size
    d1 = np.linalg.norm(w - w * mask) / (np.linalg.norm(w) * math.sqrt(s))
    return 0.1 * float(np.clip(max(d1, min(budget / T, 1)), 0, 1))


WARM = [0.05, 0.1]
"""A tenth of 20 steps."""
CASES = {
    # strategy: (retraining of the dense run, name, weights of step (or fresh), rates)
    "fine-tuning": (lambda d: strategies.fine_tuning(d, BUDGET), "fine-tuning", T, [0.001] * 20),
    "weight rewinding": (lambda d: strategies.weight_rewinding(d, K), "weight-rewinding", K, RATES[10:]),
    "lottery ticket": (lambda d: strategies.weight_rewinding(d, 0), "weight-rewinding", 0, RATES),
    "lr rewinding": (lambda d: strategies.lr_rewinding(d, BUDGET), "lr-rewinding", T, RATES[20:]),
    "low-lr": (lambda d: strategies.low_lr_weight_rewinding(d, K), "low-lr-weight-rewinding", K, [0.001] * 30),
    "reinit": (lambda d: strategies.reinit(d, 8), "reinit", "fresh", RATES + [0.001] * 8),
    "scratch-E": (strategies.reinit, "reinit", "fresh", RATES),
    "scratch-B": (
        lambda d: strategies.scratch_b(d, 1.5),
        "scratch-b",
        "fresh",
        [0.1] * 30 + [0.01] * 15 + [0.001] * 15,
    ),
    "SLR": (
        lambda d: strategies.scaled_restart(d, BUDGET),
        "scaled-restart",
        T,
        WARM + [RATES[int(j * 40 / 18)] for j in range(18)],
    ),
    "CLR": (lambda d: strategies.cyclic_restart(d, BUDGET), "one-cycle-restart", T, one_cycle(0.1, BUDGET)),
    "LLR": (
        lambda d: strategies.linear_restart(d, BUDGET),
        "linear-restart",
        T,
        WARM + [0.1 * (18 - j) / 18 for j in range(18)],
    ),
    "ALLR": (lambda d: strategies.adaptive_linear_restart(d, BUDGET), "adaptive-linear-restart", T, None),
    "ALLR, short": (lambda d: strategies.adaptive_linear_restart(d, 4), "adaptive-linear-restart", T, None),
    "cosine": (
        lambda d: strategies.restart(d, "cosine", BUDGET),
        "cosine-restart",
        T,
        [0.05 * (1 + math.cos(math.pi * j / 20)) for j in range(20)],
    ),
    "between": (lambda d: Retraining(weights_from=K, lr_from=25, budget=20), "plane", K, RATES[25:] + [0.001] * 5),
}


@pytest.mark.parametrize("case", CASES)
def test_strategy(case, dense, storage, digits, numerics, monkeypatch):
    make, name, source, rates = CASES[case]
    cell = Cycle(dense=dense, densities=(0.3,), retraining=make(dense))
    assert strategies.name(cell) == name
    seen = traced(cell, storage, digits, numerics, monkeypatch)
    final = cycle.load(storage, dense, T, digits)
    if rates is None:
        peak, t = adapted_peak(final, 0.3, cell.budget), cell.budget
        warm = t // 10
        rates = [peak * (j + 1) / warm for j in range(warm)]
        rates += [peak * (1 - j / (t - warm)) for j in range(t - warm)]
        assert 0.01 < peak < 0.1
    assert seen.rates == pytest.approx(rates, rel=1e-12)
    masks = largest(final, 0.3)
    if source == "fresh":
        text = hashlib.sha256(b"3/1/reinit").digest()
        generator = torch.Generator().manual_seed(int.from_bytes(text[:8]))
        begun = {
            n: torch.empty(final.weights[n].shape).uniform_(
                -math.sqrt(6 / final.weights[n][0].numel()),
                math.sqrt(6 / final.weights[n][0].numel()),
                generator=generator,
            )
            for n in final.masks
        }
    else:
        begun = cycle.load(storage, dense, source, digits).weights
    for weights_name, mask in masks.items():
        np.testing.assert_array_equal(seen.weights[weights_name].numpy(), begun[weights_name].numpy() * mask)
    assert all((buffer == 0).all() for buffer in seen.momentum.values())
    assert torch.equal(torch.cat(seen.labels), order(digits.labels, 3, 1, cell.budget, 16))
    assert set(seen.zeros) == {4_964 - round(0.3 * 4_964)}


def test_scratch_e_is_reinit_without_extra_steps(dense):
    assert strategies.reinit(dense) == Retraining(weights_from="fresh", lr_from=0, budget=T)


@pytest.mark.parametrize("speedup", [0.5, 0, -1, math.nan, math.inf])
def test_scratch_b_of_a_network_that_saves_nothing(dense, speedup):
    with pytest.raises(ValueError, match="speedup must be dense / kept multiply-accumulates, 1 or more, got"):
        strategies.scratch_b(dense, speedup)


def test_dense_with_the_extra_budget(dense, storage, digits, numerics, monkeypatch):
    cell = Cycle(dense=dense, densities=(1,), retraining=strategies.lr_rewinding(dense, BUDGET))
    seen = traced(cell, storage, digits, numerics, monkeypatch)
    assert strategies.name(cell) == "dense-extra-budget"
    assert (seen.rates, set(seen.zeros)) == (RATES[20:], {0})
    for name, tensor in cycle.load(storage, dense, T, digits).weights.items():
        assert torch.equal(seen.weights[name], tensor)


def test_gradual_pruning(dense, storage, digits, numerics, monkeypatch):
    """Zhu & Gupta: s(step) = s·(1 − (1 − (step − t0) / (tn − t0))³), inside one run of T + t steps from step 0."""
    cell = Cycle(dense=dense, densities=(0.1,), retraining=strategies.gradual_pruning(dense, BUDGET))
    assert (strategies.name(cell), cell.budget, cell.retraining.gradual) == ("gradual-pruning", 60, (6, 30, 1))
    seen = traced(cell, storage, digits, numerics, monkeypatch)
    assert seen.rates == [0.1] * 30 + [0.01] * 15 + [0.001] * 15
    begun = cycle.load(storage, dense, 0, digits)
    for name, tensor in begun.weights.items():
        assert torch.equal(seen.weights[name], tensor)
    cubic = [0.9 * (1 - (1 - min(max(step - 6, 0) / 24, 1)) ** 3) for step in range(60)]
    assert seen.zeros == [4_964 - round(round(1 - s, 6) * 4_964) for s in cubic]
    assert torch.equal(torch.cat(seen.labels), order(digits.labels, 3, 1, 60, 16))
    final = cycle.load(storage, cell, 60, digits)
    assert pruning.count_kept(final.masks) == 496
    assert storage.result(cell)["numbers"]["density"] == 496 / 4_964


def test_adaptive_peak_is_the_highest_rate_for_a_whole_budget(dense, storage, digits, numerics, monkeypatch):
    cell = Cycle(dense=dense, densities=(0.9,), retraining=strategies.adaptive_linear_restart(dense))
    assert max(traced(cell, storage, digits, numerics, monkeypatch).rates) == pytest.approx(0.1)


def test_adaptive_peak_of_a_cycle_that_cuts_nothing(dense, storage, digits, numerics, monkeypatch):
    """0 / 0: d1 is 0, and d2 decides."""
    cell = Cycle(dense=dense, densities=(1,), retraining=strategies.adaptive_linear_restart(dense, 10))
    assert max(traced(cell, storage, digits, numerics, monkeypatch).rates) == pytest.approx(0.1 * 10 / 40)


def test_adaptive_peak_in_a_second_cycle_is_relative_to_what_remains(dense, storage, digits, numerics):
    retraining = strategies.adaptive_linear_restart(dense, 4)
    first, second = (Cycle(dense=dense, densities=d, retraining=retraining) for d in ((0.5,), (0.5, 0.2)))
    for _ in cycle.run(first, storage, digits, numerics):
        pass
    begun, _ = cycle.start(second, storage, digits, numerics)
    final = cycle.load(storage, first, 4, digits)
    w = np.concatenate([final.weights[name].double().numpy().ravel() for name in final.masks])
    cut = np.sort(np.abs(w))[: 4_964 - round(0.2 * 4_964)]
    s = 1 - round(0.2 * 4_964) / round(0.5 * 4_964)
    assert begun.notes["norm_drop"] == pytest.approx(np.linalg.norm(cut) / (np.linalg.norm(w) * math.sqrt(s)))


# Protocols


def small(protocol, architecture):
    """A protocol's dense run, shortened to 40 steps, on the digits."""
    run = recipes.PROTOCOLS[protocol].dense(architecture, 3)
    shape = {"resnet20": "resnet8-4", "wrn16-8": "wrn10-1"}[architecture]
    val = 72 if run.val_examples else 0
    run = replace(run, dataset="digits", architecture=shape, batch_size=16, val_examples=val)
    return recipes.scaled(run, 40 / run.steps)


WIDE = [0.1] * 16 + [0.02] * 8 + [0.004] * 8 + [0.0008] * 8
PROTOCOLS = [
    # protocol, network, strategy, schedule, rewind point, weights of step, momentum with weights, rates
    ("mikler2021", "resnet20", "fine-tuning", "one-shot", 4, T, False, [0.001] * 40),
    ("mikler2021", "resnet20", "weight-rewinding", "iterative", 4, 4, False, RATES[4:]),
    ("mikler2021", "resnet20", "lr-rewinding", "one-shot", 4, T, False, RATES),
    ("mikler2021", "resnet20", "lr-rewinding-equal-budget", "one-shot", 4, T, False, RATES[4:]),
    ("mikler2021", "wrn16-8", "weight-rewinding", "one-shot", 4, 4, False, WIDE[4:]),
    ("mikler2021-as-released", "resnet20", "fine-tuning", "one-shot", 4, T, False, [0.001] * 40),
    ("mikler2021-as-released", "resnet20", "fine-tuning", "iterative", 4, T, False, [0.001] * 36),
    ("mikler2021-as-released", "resnet20", "weight-rewinding", "one-shot", 4, 4, False, RATES[:36]),
    ("mikler2021-as-released", "wrn16-8", "weight-rewinding", "one-shot", 4, 4, False, WIDE[:36]),
    ("mikler2021-as-released", "wrn16-8", "lr-rewinding", "iterative", 4, 36, False, WIDE),
    ("mikler2021-as-released", "wrn16-8", "fine-tuning", "one-shot", 4, 36, False, [0.001] * 40),
    ("renda2020", "resnet20", "fine-tuning", "one-shot", 24, T, True, [0.001] * 16),
    ("renda2020", "resnet20", "weight-rewinding", "one-shot", 24, 24, True, RATES[24:]),
    ("renda2020", "resnet20", "lr-rewinding", "one-shot", 24, T, True, RATES[24:]),
    ("renda2020", "resnet20", "low-lr-weight-rewinding", "one-shot", 24, 24, True, [0.001] * 16),
    ("renda2020", "resnet20", "reinit", "one-shot", 24, "fresh", True, RATES + [0.001] * 16),
]


@pytest.fixture(scope="module")
def dense_of(tmp_path_factory, numerics):
    """The dense run of a protocol, trained once, with its data and its storage."""
    made = {}

    def of(protocol, architecture):
        if (protocol, architecture) not in made:
            run, root = small(protocol, architecture), tmp_path_factory.mktemp("protocol")
            prepared = data.prepare_for(run, datasets.load("digits", "nowhere", "nowhere"), torch.device("cpu"))
            for _ in cycle.run(run, Store(root), prepared, numerics, keep=frozenset({0, 4, 24, 36}), eval_every=T):
                pass
            made[protocol, architecture] = run, prepared, root
        return made[protocol, architecture]

    return of


@pytest.mark.parametrize("case", PROTOCOLS, ids=lambda case: "-".join(map(str, case[:4])))
def test_protocol(case, dense_of, tmp_path, numerics, monkeypatch):
    name, network, strategy, schedule, point, source, with_weights, rates = case
    protocol = recipes.PROTOCOLS[name]
    run, prepared, root = dense_of(name, network)
    shutil.copytree(root, tmp_path / "storage")
    store = Store(tmp_path / "storage")
    cell = Cycle(
        dense=run,
        densities=(0.3,),
        retraining=protocol.strategies[strategy](run, point, schedule),
        parent_step=protocol.parent_step(run),
    )
    seen = traced(cell, store, prepared, numerics, monkeypatch)
    assert seen.rates == pytest.approx(rates, rel=1e-12)
    assert seen.settings == {(0.9, name != "renda2020", 4e-4 if network == "wrn16-8" else 2e-4)}
    masks = largest(cycle.load(store, run, cell.parent_step or T, prepared), 0.3)
    if source == "fresh":
        assert all((buffer == 0).all() for buffer in seen.momentum.values())
    else:
        begun = cycle.load(store, run, source, prepared)
        for key, mask in masks.items():
            np.testing.assert_array_equal(seen.weights[key].numpy(), begun.weights[key].numpy() * mask)
            expected = begun.momentum[key].numpy() * mask * with_weights
            np.testing.assert_array_equal(seen.momentum[key].numpy(), expected)
    assert torch.equal(torch.cat(seen.labels), order(prepared.labels, 3, 1, cell.budget, 16))


def test_renda_holds_out_test_images(dense_of):
    _, prepared, _ = dense_of("renda2020", "resnet20")
    assert (len(prepared.labels), len(prepared.val.labels), len(prepared.test.labels)) == (1_437, 72, 288)


def test_the_initialisation_of_renda(dense_of):
    """Normal, within two deviations, variance 1 / fan-in."""
    run, prepared, root = dense_of("renda2020", "resnet20")
    begun = cycle.load(Store(root), run, 0, prepared)
    for name in begun.masks:
        fan_in = begun.weights[name][0].numel()
        assert begun.weights[name].abs().max() <= 2 / 0.8796 / math.sqrt(fan_in)
    largest_kernel = begun.weights["blocks.2.second.weight"]
    assert float(largest_kernel.var()) == pytest.approx(1 / largest_kernel[0].numel(), rel=0.1)


def test_dense_runs_of_the_protocols():
    released = recipes.PROTOCOLS["mikler2021-as-released"].dense
    assert released("resnet56", 1) == replace(recipes.cifar_resnet("resnet56", 1), shortcut_norm=True)
    assert released("wrn16-8", 1) == recipes.wide_resnet("wrn16-8", 1)
    renda = dataclasses.asdict(recipes.PROTOCOLS["renda2020"].dense("resnet56", 1))
    assert renda == dataclasses.asdict(recipes.cifar_resnet("resnet56", 1)) | {
        "steps": 71_108,
        "drops": (35_546, 53_125),
        "nesterov": False,
        "val_examples": 2_000,
        "val_from": "test",
        "init": "truncated-normal",
        "shortcut_norm": True,
        "padding": "zeros",
        "standardisation": "image",
    }
    steps = [71_108 - point for point in recipes.PROTOCOLS["renda2020"].rewind_points]
    assert steps == [3907, 11719, 19532, 27344, 35157, 42969, 50782, 58594, 66407, 71108]
    assert recipes.PROTOCOLS["mikler2021-as-released"].parent_step(recipes.wide_resnet("wrn16-8", 0)) == 72_000
