"""Runs: interrupted or not, evaluated often or not, the same bytes; replays; and what is refused."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainable import cycle, data, datasets, state, strategies
from trainable.config import Cycle, describe, key
from trainable.progress import Diverged
from trainable.store import Store
from trainable.training import build_network


def run(cell, store, digits, numerics, **options):
    for _ in cycle.run(cell, store, digits, numerics, **options):
        pass
    return outcome(cell, store)


def outcome(cell, store):
    """What must be the same bit for bit: the final State's file, the numbers and the per-image bits."""
    folder = store.run(key(cell))
    final = store.state_path(cell, cell.budget).read_bytes()
    return hashlib.sha256(final).hexdigest(), store.result(cell)["numbers"], (folder / "correct.bits").read_bytes()


def pruned(tiny):
    """A cell with all that a resume State must hold: masks, momentum, a schedule with a drop."""
    retraining = replace(strategies.weight_rewinding(tiny, 10), momentum="with_weights")
    return Cycle(dense=tiny, densities=(0.2,), retraining=retraining)


def files(store, cell):
    return sorted(path.name for path in store.run(key(cell)).iterdir())


# What a run leaves


def test_files_of_a_finished_run(store, tiny, digits, numerics):
    assert files(store, tiny) == [
        "cell.json",
        "correct.bits",
        "result.json",
        "state-0.safetensors",
        "state-10.safetensors",
        "state-30.safetensors",
    ]
    run(pruned(tiny), store, digits, numerics)
    assert files(store, pruned(tiny)) == ["cell.json", "correct.bits", "result.json", "state-20.safetensors"]


def test_progress_counts_every_step(empty, tiny, digits, numerics):
    seen = list(cycle.run(tiny, empty, digits, numerics, eval_every=12))
    assert [(progress.step, progress.steps) for progress in seen] == [(step, 30) for step in range(1, 31)]
    assert [progress.record.step for progress in seen if progress.record] == [12, 24, 30]
    assert [progress.record.lr for progress in seen if progress.record] == [0.1, 0.01, 0.001]


def test_an_evaluation_each_tenth_unless_told(empty, tiny, digits, numerics):
    seen = list(cycle.run(tiny, empty, digits, numerics))
    assert [progress.step for progress in seen if progress.record] == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]


def test_the_result_against_the_kept_state(store, tiny, digits, numerics):
    """The final State, loaded into a plain model, gives the numbers and the bits."""
    cell = pruned(tiny)
    _, numbers, bits = run(cell, store, digits, numerics)
    final = cycle.load(store, cell, 20, digits)
    model = build_network(tiny, digits, numerics, 1, "anything").model
    model.load_state_dict({**final.weights, **final.statistics})
    with torch.no_grad():
        logits = model.eval()(digits.standardise(digits.test.images))
    right = (logits.argmax(1) == digits.test.labels).numpy()
    assert bits == np.packbits(right).tobytes()
    assert numbers["test_accuracy"] == right.sum() / 360
    assert numbers["test_loss"] == pytest.approx(float(F.cross_entropy(logits, digits.test.labels)), rel=1e-5)
    # resnet8-4 on 8×8: 36 + 288 + 896 + 3,584 + 160 weights; (36 + 288)·64 + 896·16 + 3,584·4 + 160 uses
    assert (numbers["prunable"], numbers["kept"], numbers["density"]) == (4_964, 993, 993 / 4_964)
    assert numbers["dense_macs"] == 49_568
    uses = {"first": 64, "blocks.0": 64, "blocks.1": 16, "blocks.2": 4, "classifier": 1}
    by_hand = sum(
        int(mask.sum()) * next(uses[start] for start in uses if name.startswith(start))
        for name, mask in final.masks.items()
    )
    assert numbers["macs"] == by_hand < 49_568
    assert (numbers["val_accuracy"], numbers["val_loss"]) == (None, None)
    assert (numbers["steps"], numbers["data"]) == (20, digits.digest)
    assert numbers["max_test_accuracy"] == max(record["test_accuracy"] for record in numbers["history"])


def test_train_loss_is_the_mean_since_the_last_evaluation(empty, tmp_path, tiny, digits, numerics):
    _, often, _ = run(tiny, empty, digits, numerics, eval_every=1)
    _, seldom, _ = run(tiny, Store(tmp_path / "seldom"), digits, numerics, eval_every=20)
    losses = [record["train_loss"] for record in often["history"]]
    expected = [np.mean(losses[:20]), np.mean(losses[20:])]
    assert [record["train_loss"] for record in seldom["history"]] == pytest.approx(expected, rel=1e-5)


def test_provenance(store, tiny, digits, numerics):
    provenance = store.result(tiny)["provenance"]
    assert provenance["numerics"] == numerics.as_dict()
    assert provenance["numerics_mixed"] is False
    assert provenance["resumed_at"] == []
    assert provenance["train_seconds"] > 0
    assert provenance["images_per_second"] > 0
    assert len(provenance["images_per_second_history"]) == 3


def test_a_done_cell_is_not_trained_again(store, tiny, digits, numerics):
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    assert list(cycle.run(tiny, store, digits, numerics, keep=frozenset({5}))) == []
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == before


def test_evaluating_more_often_changes_nothing_else(empty, tmp_path, tiny, digits, numerics):
    often = run(tiny, empty, digits, numerics, eval_every=1)
    seldom = run(tiny, Store(tmp_path / "seldom"), digits, numerics, eval_every=1000, keep=frozenset({7}))
    assert often[0] == seldom[0]
    assert often[1]["history"][-1]["test_loss"] == seldom[1]["history"][-1]["test_loss"]


def test_two_storages_hold_the_same_bytes(store, empty, tiny, digits, numerics):
    assert run(tiny, empty, digits, numerics, eval_every=10) == outcome(tiny, store)


def test_bf16_runs(empty, tiny, digits, numerics, store):
    half = replace(tiny, precision="bf16")
    final, numbers, _ = run(half, empty, digits, numerics)
    assert final != outcome(tiny, store)[0]
    assert 0 < numbers["test_loss"] < 10
    weights = cycle.load(empty, half, 30, digits).weights
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_held_out_images_are_evaluated_and_not_trained_on(empty, tiny, numerics):
    cell = replace(tiny, val_examples=137)
    dataset = datasets.load("digits", "nowhere", "nowhere")
    prepared = data.prepare(dataset, "digits", 137, torch.device("cpu"))
    assert (len(prepared.labels), len(prepared.val.labels)) == (1300, 137)
    _, numbers, _ = run(cell, empty, prepared, numerics)
    final = cycle.load(empty, cell, 30, prepared)
    model = build_network(cell, prepared, numerics, 1, "anything").model
    model.load_state_dict({**final.weights, **final.statistics})
    with torch.no_grad():
        logits = model.eval()(prepared.standardise(prepared.val.images))
    assert numbers["val_accuracy"] == float((logits.argmax(1) == prepared.val.labels).sum()) / 137
    assert numbers["val_loss"] == pytest.approx(float(F.cross_entropy(logits, prepared.val.labels)), rel=1e-5)
    assert all(record["val_accuracy"] is not None for record in numbers["history"])


def test_structured_cells_report_what_was_reached(store, tiny, digits, numerics):
    cell = Cycle(dense=tiny, densities=(0.5,), retraining=strategies.fine_tuning(tiny, 3), structure="structured")
    _, numbers, _ = run(cell, store, digits, numerics)
    assert 0.5 <= numbers["density"] == numbers["kept"] / 4_964 < 0.53
    assert numbers["macs"] < 49_568


# Interrupted


@pytest.mark.parametrize("kind", ["dense", "cycle"])
def test_closed_at_random_steps_and_gone_on(store, tmp_path, tiny, digits, numerics, kind):
    cell = tiny if kind == "dense" else pruned(tiny)
    whole = outcome(tiny, store) if kind == "dense" else run(cell, store, digits, numerics, eval_every=10)
    other = Store(tmp_path / "other")
    if kind == "cycle":
        shutil.copytree(store.run(key(tiny)), other.run(key(tiny)))
    random = np.random.default_rng(0)
    closed_at = []
    while not other.done(cell):
        steps = cycle.run(cell, other, digits, numerics, eval_every=10)
        for _ in range(random.integers(1, 7)):
            progress = next(steps, None)
            if progress is None:
                break
        steps.close()
        if progress is not None and progress.step < cell.budget:
            closed_at.append(progress.step)
    assert len(closed_at) > 3
    assert outcome(cell, other) == whole
    assert other.result(cell)["provenance"]["resumed_at"] == closed_at
    assert "resume.safetensors" not in files(other, cell)


@pytest.mark.parametrize("resume_every", [0, 0.01, 60])
@pytest.mark.parametrize("kind", ["dense", "cycle"])
def test_cut_off_at_random_steps_and_gone_on(store, tmp_path, tiny, digits, numerics, kind, resume_every):
    """A copy of the storage, made while a run is under way, is what a killed process leaves."""
    cell = tiny if kind == "dense" else pruned(tiny)
    first = Store(tmp_path / "first")
    if kind == "cycle":
        shutil.copytree(store.run(key(tiny)), first.run(key(tiny)))
    cuts = set(np.random.default_rng(1).choice(cell.budget - 1, 5, replace=False) + 1)
    for progress in cycle.run(cell, first, digits, numerics, eval_every=10, resume_every=resume_every):
        if progress.step in cuts:
            shutil.copytree(first.root, tmp_path / f"cut-{progress.step}")
    whole = outcome(cell, first)
    assert cell is not tiny or whole == outcome(cell, store)
    for cut in cuts:
        left = Store(tmp_path / f"cut-{cut}")
        assert left.resume_path(cell).exists() == (resume_every == 0) or resume_every == 0.01
        steps = [progress.step for progress in cycle.run(cell, left, digits, numerics, eval_every=10)]
        assert steps[0] == {0: cut + 1, 60: 1}.get(resume_every, steps[0])
        assert outcome(cell, left) == whole


KILLER = """
import json, os, random, signal, sys
import torch
torch.set_num_threads(1)
from trainable import cycle, data, datasets, numerics
from trainable.config import from_description, key
from trainable.store import Store

root, kind, deaths = sys.argv[1], sys.argv[2], json.loads(sys.argv[4])
cell = from_description(json.loads(sys.argv[3]))
digits = data.prepare(datasets.load("digits", "nowhere", "nowhere"), "digits", 0, torch.device("cpu"))
here = numerics.configure(torch.device("cpu"), 1, False)

def train(store, resume_every, die_after):
    for count, _ in enumerate(cycle.run(cell, store, digits, here, eval_every=10, resume_every=resume_every), 1):
        if count == die_after:
            os.kill(os.getpid(), signal.SIGKILL)

def in_a_process_of_its_own(*arguments):
    child = os.fork()
    if child == 0:
        train(*arguments)
        os._exit(0)
    return os.waitpid(child, 0)[1]

import shutil
shutil.copytree(f"{root}/0", f"{root}/warm")
train(Store(f"{root}/warm"), 60, None)  # what torch and the caches do once, is done before the first fork

for number, (step, resume_every) in enumerate(deaths):
    store = Store(f"{root}/{number}")
    assert os.WTERMSIG(in_a_process_of_its_own(store, resume_every, step)) == signal.SIGKILL
    assert not store.done(cell)
    assert in_a_process_of_its_own(store, 60, None) == 0
"""
"""Forks what it kills, so that torch is imported once: each attempt is a process, with a real SIGKILL."""


@pytest.mark.parametrize(("kind", "times"), [("dense", 5), ("cycle", 10)])
def test_killed_at_random_steps_and_gone_on(store, tmp_path, tiny, digits, numerics, kind, times):
    cell = tiny if kind == "dense" else pruned(tiny)
    whole = outcome(tiny, store) if kind == "dense" else run(cell, store, digits, numerics, eval_every=10)
    random = np.random.default_rng(2)
    steps = sorted(random.choice(cell.budget - 1, times, replace=False) + 1)
    deaths = [(int(step), (0, 0.02)[number % 2]) for number, step in enumerate(steps)]
    for number in range(times):
        shutil.copytree(store.run(key(tiny)), tmp_path / str(number) / "runs" / (key(tiny) if kind == "cycle" else "x"))
    arguments = [str(tmp_path), kind, json.dumps(describe(cell)), json.dumps(deaths)]
    done = subprocess.run([sys.executable, "-c", KILLER, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for number, (step, resume_every) in enumerate(deaths):
        left = Store(tmp_path / str(number))
        assert outcome(cell, left) == whole
        resumed_at = left.result(cell)["provenance"]["resumed_at"]
        assert resumed_at == [step] if resume_every == 0 else resumed_at == [] or 1 <= resumed_at[0] <= step


def test_closing_before_the_first_step_writes_nothing(empty, tiny, digits, numerics):
    cycle.run(tiny, empty, digits, numerics).close()
    assert not empty.root.exists()


def test_a_resume_state_is_kept_while_in_progress(empty, tiny, digits, numerics):
    steps = cycle.run(tiny, empty, digits, numerics, resume_every=1000)
    next(steps)
    assert files(empty, tiny) == ["cell.json"]
    steps.close()
    assert files(empty, tiny) == ["cell.json", "resume.safetensors"]


# Diverged


def test_a_diverged_run_says_so_at_once(empty, tiny, digits, numerics):
    seen = []
    with pytest.raises(Diverged, match=r"diverged: .*not finite \(step \d+ of 30, learning rate 1e\+20\)"):
        seen.extend(cycle.run(replace(tiny, learning_rate=1e20), empty, digits, numerics))
    assert len(seen) < 10
    assert files(empty, replace(tiny, learning_rate=1e20)) == ["cell.json"]


def test_a_diverged_run_says_so_without_an_evaluation(empty, tiny, digits, numerics):
    seen = []
    with pytest.raises(Diverged, match="diverged"):
        seen.extend(cycle.run(replace(tiny, learning_rate=1e20), empty, digits, numerics, eval_every=1000))
    assert len(seen) == 9


def test_a_diverged_run_says_so_when_it_saves(empty, tiny, digits, numerics):
    cell = replace(tiny, learning_rate=1e20)
    with pytest.raises(Diverged, match="diverged"):
        run(cell, empty, digits, numerics, resume_every=0, eval_every=1000)


def test_a_diverged_run_that_is_closed_is_not_saved(empty, tiny, digits, numerics):
    """Whatever close() says, there must be no State of a network that is no more."""
    cell = replace(tiny, learning_rate=1e20)
    steps = cycle.run(cell, empty, digits, numerics, eval_every=1000)
    for _ in range(6):
        next(steps)
    with contextlib.suppress(Diverged):
        steps.close()
    assert files(empty, cell) == ["cell.json"]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_run_whose_last_update_diverged(empty, tiny, digits, numerics, steps):
    """The loss before the last update was finite: only the evaluation sees it."""
    cell = replace(tiny, learning_rate=1e30, steps=steps, drops=())
    with pytest.raises(Diverged, match="diverged"):
        run(cell, empty, digits, numerics)
    assert files(empty, cell) == ["cell.json"]


def test_a_network_at_chance_is_a_result(empty, tiny, digits, numerics):
    cell = replace(tiny, learning_rate=1e-12)
    _, numbers, _ = run(cell, empty, digits, numerics)
    assert numbers["test_accuracy"] < 0.3


# Replays


@pytest.mark.parametrize("step", [0, 7, 10, 29])
def test_a_replay_brings_the_same_bytes(store, tmp_path, tiny, digits, numerics, step):
    kept = Store(tmp_path / "kept")
    run(tiny, kept, digits, numerics, keep=frozenset({step}), eval_every=3)
    store.state_path(tiny, step).unlink(missing_ok=True)
    seen = list(cycle.replay(tiny, step, store, digits, numerics))
    assert store.state_path(tiny, step).read_bytes() == kept.state_path(tiny, step).read_bytes()
    earlier, later = {0: (0, 10), 7: (0, 10), 10: (0, 30), 29: (10, 30)}[step]
    assert [progress.step for progress in seen] == list(range(earlier + 1, later + 1))
    assert all(progress.record is None for progress in seen)


def test_a_replay_of_a_cycle(store, tmp_path, tiny, digits, numerics):
    cell = pruned(tiny)
    kept = Store(tmp_path / "kept")
    shutil.copytree(store.run(key(tiny)), kept.run(key(tiny)))
    run(cell, kept, digits, numerics, keep=frozenset({0, 8}))
    run(cell, store, digits, numerics)
    for step in (8, 0):
        list(cycle.replay(cell, step, store, digits, numerics))
        assert store.state_path(cell, step).read_bytes() == kept.state_path(cell, step).read_bytes()


def test_a_replay_of_what_is_kept_does_nothing(store, tiny, digits, numerics):
    assert list(cycle.replay(tiny, 10, store, digits, numerics)) == []


def test_a_replay_under_other_numerics_is_refused(store, tiny, digits, numerics):
    other = replace(numerics, threads=7)
    rule = rf"the State at step 7 of run {key(tiny)} was not kept and can't be computed again here"
    with pytest.raises(ValueError, match=rf"{rule}: .*'threads': 1.*, this machine's are .*'threads': 7"):
        list(cycle.replay(tiny, 7, store, digits, other))
    assert store.kept_steps(tiny) == [0, 10, 30]


def test_a_replay_that_ends_in_another_network_is_refused(store, tmp_path, tiny, digits, numerics):
    """The same description of numerics, another State: nothing is written."""
    found = cycle.load(store, tiny, 10, digits)
    name = next(iter(found.weights))
    nudged = replace(found, weights={**found.weights, name: found.weights[name] + 1e-6})
    store.state_path(tiny, 10).write_bytes(state.to_bytes(nudged))
    with pytest.raises(ValueError, match=r"step 7 .*can't be computed again here"):
        list(cycle.replay(tiny, 7, store, digits, numerics))
    assert store.kept_steps(tiny) == [0, 10, 30]


def test_numbers_have_the_digest_of_the_last_state(store, tiny, digits):
    assert store.result(tiny)["numbers"]["state_digest"] == cycle.load(store, tiny, 30, digits).digest()


@pytest.mark.parametrize("step", [7, 30])
def test_a_replay_without_a_later_state_ends_in_the_results_network(store, tiny, digits, numerics, step):
    """Also that of the last State itself; another network is refused, and nothing is written."""
    last = store.state_path(tiny, 30)
    content = last.read_bytes()
    for kept in (10, 30):
        store.state_path(tiny, kept).unlink()
    seen = list(cycle.replay(tiny, step, store, digits, numerics))
    assert [progress.step for progress in seen] == list(range(1, 31))
    assert store.kept_steps(tiny) == [0, step]
    assert step != 30 or last.read_bytes() == content
    begun = cycle.load(store, tiny, 0, digits)
    name = next(iter(begun.weights))
    nudged = replace(begun, weights={**begun.weights, name: begun.weights[name] + 1e-3})
    store.state_path(tiny, 0).write_bytes(state.to_bytes(nudged))
    store.state_path(tiny, step).unlink()
    with pytest.raises(ValueError, match=rf"step {step} .*can't be computed again here"):
        list(cycle.replay(tiny, step, store, digits, numerics))
    assert store.kept_steps(tiny) == [0]


def test_missing_states(store, tiny, digits, numerics):
    at_10, at_7 = pruned(tiny), Cycle(dense=tiny, densities=(0.2,), retraining=strategies.weight_rewinding(tiny, 7))
    assert cycle.missing_states(at_10, store) == []
    assert cycle.missing_states(at_7, store) == [(tiny, 7)]
    second = replace(at_7, densities=(0.2, 0.1))
    assert cycle.missing_states(second, store) == [(tiny, 7)]  # the parent is not done: it will keep its last State
    store.state_path(tiny, 30).unlink()
    assert cycle.missing_states(at_10, store) == [(tiny, 30)]
    other_seed = replace(at_7, dense=replace(tiny, seed=4))
    assert cycle.missing_states(other_seed, store) == []


def test_rewind_points(tiny):
    cells = [
        tiny,
        pruned(tiny),
        replace(pruned(tiny), densities=(0.2, 0.1)),
        Cycle(dense=tiny, densities=(0.5,), retraining=strategies.weight_rewinding(tiny, 7)),
        Cycle(dense=tiny, densities=(0.5,), retraining=strategies.lr_rewinding(tiny)),
    ]
    assert cycle.rewind_points(cells) == {key(tiny): frozenset({7, 10, 30}), key(pruned(tiny)): frozenset({20})}


# Numerics


def test_a_cell_under_other_numerics_than_its_parents_is_marked(store, tiny, digits, numerics):
    cell, other = pruned(tiny), replace(numerics, threads=7)
    run(cell, store, digits, other)
    provenance = store.result(cell)["provenance"]
    assert provenance["numerics_mixed"] is True
    assert provenance["numerics"]["threads"] == 7


@pytest.mark.parametrize("there_and_back", [False, True])
def test_a_run_gone_on_under_other_numerics_is_marked(empty, tiny, digits, numerics, there_and_back):
    steps = cycle.run(tiny, empty, digits, numerics)
    next(steps)
    steps.close()
    other = replace(numerics, threads=7)
    if there_and_back:
        steps = cycle.run(tiny, empty, digits, other)
        next(steps)
        steps.close()
    run(tiny, empty, digits, numerics if there_and_back else other)
    assert empty.result(tiny)["provenance"]["numerics_mixed"] is True


def test_one_numerics_is_not_mixed(store, tiny, digits, numerics):
    run(pruned(tiny), store, digits, numerics)
    assert store.result(pruned(tiny))["provenance"]["numerics_mixed"] is False


# Refused


def test_another_data_set_than_the_parents(store, tiny, digits, numerics):
    other = data.Data(**{**vars(digits), "digest": "0123456789abcdef"})
    message = (
        rf"state-30.safetensors was trained on a data set of digest {digits.digest}, this one's is 0123456789abcdef"
    )
    with pytest.raises(ValueError, match=message):
        run(pruned(tiny), store, other, numerics)


def test_going_on_with_another_data_set(empty, tiny, digits, numerics):
    steps = cycle.run(tiny, empty, digits, numerics)
    next(steps)
    steps.close()
    other = data.Data(**{**vars(digits), "digest": "0123456789abcdef"})
    with pytest.raises(ValueError, match=r"resume\.safetensors was trained on a data set of digest"):
        run(tiny, empty, other, numerics)


def test_a_missing_parent(store, tiny, digits, numerics):
    cell = replace(pruned(tiny), dense=replace(tiny, seed=4))
    with pytest.raises(ValueError, match=r"state-30\.safetensors is damaged \(it is missing\)"):
        run(cell, store, digits, numerics)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_state_of_the_parent(store, tiny, digits, numerics, damage):
    path = store.state_path(tiny, 30)
    content = bytearray(path.read_bytes())
    content[-100] ^= 0xFF
    path.write_bytes(content if damage == "flipped" else content[:-100])
    reason = "its checksum is off" if damage == "flipped" else "it does not parse: .*"
    folder = store.run(key(tiny))
    message = rf"{path} is damaged \({reason}\): delete the folder {folder}, and its cell is trained again"
    with pytest.raises(ValueError, match=message):
        run(pruned(tiny), store, digits, numerics)


def test_a_damaged_resume_state(empty, tiny, digits, numerics):
    steps = cycle.run(tiny, empty, digits, numerics)
    next(steps)
    steps.close()
    path = empty.resume_path(tiny)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{path} is damaged \(.*\): delete this file, and its run starts again"):
        run(tiny, empty, digits, numerics)
    path.unlink()
    run(tiny, empty, digits, numerics)  # the way on that the message names


def test_a_density_that_keeps_nothing(store, tiny, digits, numerics):
    cell = replace(pruned(tiny), densities=(0.0001,))
    with pytest.raises(ValueError, match=r"density 0\.0001 keeps 0 of 4,964 prunable weights: at least 1 is needed"):
        run(cell, store, digits, numerics)


def test_an_evaluation_every_zero_steps(empty, tiny, digits, numerics):
    with pytest.raises(ValueError, match="eval_every must be 1 or more, got 0"):
        run(tiny, empty, digits, numerics, eval_every=0)


def test_data_prepared_for_another_split(empty, tiny, digits, numerics):
    """Held-out images that were trained on would be silent otherwise."""
    with pytest.raises((ValueError, AssertionError), match="val_examples"):
        run(replace(tiny, val_examples=137), empty, digits, numerics)


# Compiled


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no compiler")
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_a_compiled_run_is_close_to_an_eager_one(empty, tmp_path, tiny, digits, numerics):
    cell = replace(tiny, steps=5, drops=())
    _, eager, _ = run(cell, empty, digits, numerics)
    compiled = Store(tmp_path / "compiled")
    _, numbers, _ = run(cell, compiled, digits, replace(numerics, compile=True))
    assert numbers["test_loss"] == pytest.approx(eager["test_loss"], rel=0.05)
    assert compiled.result(cell)["provenance"]["numerics"]["compile"] is True
    assert cycle.load(compiled, cell, 5, digits).weights.keys() == cycle.load(empty, cell, 5, digits).weights.keys()


def test_the_environment_has_no_part_in_it(store, tmp_path, tiny, digits, numerics, monkeypatch):
    """Neither torch's global generator, nor NumPy's, nor the working directory."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(os.getpid())
    assert run(tiny, Store("here"), digits, numerics, eval_every=10) == outcome(tiny, store)
