"""What a study will do, computed before it does it."""

import dataclasses
import json
import subprocess
import sys
import time

import pytest

from sweeps import full_study, plan
from sweeps.jobs import Jobs
from trainable import cycle, recipes, strategies
from trainable.config import Cycle, key, lineage


def planned(store, cells, rows=None):
    jobs = Jobs(store)
    jobs.add([("one-shot", cell) for cell in cells])
    return plan.plan(jobs, store, None if rows is None else [("one-shot", cell) for cell in rows])


def chain_of(dense, retraining, *densities):
    return Cycle(dense=dense, densities=densities, retraining=retraining)


def finish(store, cell, speed, *kept):
    """A run as if it had been trained, with empty files for States."""
    store.begin(cell)
    store.write_result(cell, {}, {"images_per_second": speed})
    for step in kept:
        store.state_path(cell, step).touch()


@pytest.fixture
def study(tiny):
    """A dense run of 30 steps; weight rewinding to 10, thrice; fine-tuning once, 5 steps."""
    rewound = strategies.weight_rewinding(tiny, 10)
    chain = lineage(chain_of(tiny, rewound, 0.5, 0.25, 0.125))
    return [*chain, chain_of(tiny, strategies.fine_tuning(tiny, 5), 0.5)]


def test_an_empty_storage(empty, study):
    found = planned(empty, study)
    assert (found.cells, found.cells_done, found.cells_missing) == (5, 0, 5)
    assert (found.cells_failed, found.cells_resumable, found.replays, found.steps_to_replay) == (0, 0, 0, 0)
    assert found.dense_runs == 1
    assert found.steps_to_train == 30 + 3 * 20 + 5
    assert found.steps_if_separate == 30 + (30 + 20) + (30 + 40) + (30 + 60) + (30 + 5)
    assert found.states == 2 + 1 + 1  # the dense run's last and step 10; the chain's last; fine-tuning's
    assert found.seeds == (plan.Seeds(dataset="digits", architecture="resnet8-4", seeds=1),)
    assert not empty.root.exists()


def test_rows_are_what_separate_trials_would_train(empty, study):
    found = planned(empty, [study[3]], rows=[study[3]])
    assert (found.cells, found.steps_to_train, found.steps_if_separate) == (4, 90, 90)


def test_more_seeds_are_more_dense_runs(empty, tiny):
    runs = [dataclasses.replace(tiny, seed=seed) for seed in (0, 5)]
    other = dataclasses.replace(tiny, architecture="resnet8-5", seed=5)
    found = planned(empty, [*runs, other])
    assert found.dense_runs == 3
    assert [(group.architecture, group.seeds) for group in found.seeds] == [("resnet8-4", 2), ("resnet8-5", 1)]


def test_verdicts_are_of_the_whole_study(empty, tiny):
    """Seeds 0–3 of one network and seed 0 of another were declared earlier; seeds 3–5 of the first are chosen now."""
    first, other = (
        [dataclasses.replace(tiny, architecture=name, seed=seed) for seed in range(6)]
        for name in ("resnet8-4", "resnet8-5")
    )
    jobs = Jobs(empty)
    jobs.add([("dense", cell) for cell in first[3:]])
    cycles = [chain_of(dense, strategies.fine_tuning(dense, 5), 0.5) for dense in (*first[:4], other[0])]
    found = plan.plan(jobs, empty, declared=cycles)
    assert (found.cells, found.dense_runs, found.steps_to_train, found.states) == (3, 3, 90, 3)
    assert [(group.architecture, group.seeds) for group in found.seeds] == [("resnet8-4", 6), ("resnet8-5", 1)]


def test_done_failed_and_under_way(store, study, digits, numerics):
    """The dense run is done in this storage; the first cycle stops after 7 of its 20 steps; fine-tuning failed."""
    steps = cycle.run(study[1], store, digits, numerics)
    for progress in steps:
        if progress.step == 7:
            steps.close()
    store.begin(study[4])
    store.write_failure(study[4], "the loss is not finite")
    found = planned(store, study)
    assert (found.cells, found.cells_done, found.cells_missing) == (5, 1, 4)
    assert (found.cells_failed, found.cells_resumable) == (1, 1)
    assert found.steps_to_train == (20 - 7) + 20 + 20 + 5
    assert found.steps_if_separate == 50 + 70 + 90 + 35
    assert "5: 1 done, 4 missing, of which 1 failed before, 1 under way" in plan.as_text(found)


@pytest.mark.parametrize("content", [b"", b"\0" * 30, b"\x05\0\0\0\0\0\0\0[1,2]", b"\xff" * 40])
def test_a_damaged_resume_state_saves_no_step(store, study, content):
    store.begin(study[1])
    store.resume_path(study[1]).write_bytes(content)
    found = planned(store, study)
    assert (found.cells_resumable, found.steps_to_train) == (1, 65)


def test_replay_of_a_rewind_point(store, tiny):
    """The dense run has its States at 0, 10 and 30: the one at 20 is ten steps from 10, and 30 is reached to check."""
    cells = [chain_of(tiny, strategies.weight_rewinding(tiny, 20), density) for density in (0.5, 0.25)]
    found = planned(store, cells)
    assert (found.replays, found.steps_to_replay, found.steps_to_train) == (1, 20, 20)
    assert "20 steps, for 1 State that was not kept" in plan.as_text(found)
    jobs = Jobs(store)
    jobs.add([("one-shot", cell) for cell in cells])
    job = jobs.next()
    assert (job.cell, job.replay) == (tiny, 20)


def test_replay_of_a_chain_whose_states_are_gone(store, study):
    """Two finished cycles without their States: the third needs the second's, and that one the first's."""
    for cell in study[1:3]:
        finish(store, cell, 1.0)
    found = planned(store, study)
    assert (found.replays, found.steps_to_replay, found.steps_to_train) == (2, 40, 25)
    store.state_path(study[2], 20).touch()
    found = planned(store, study)
    assert (found.replays, found.steps_to_replay) == (0, 0)


def test_nothing_left(store, tiny):
    found = planned(store, [tiny])
    assert (found.cells_missing, found.steps_to_train, found.steps_if_separate, found.hours) == (0, 0, 0, 0)
    assert found.throughputs == ()
    assert "if separate" not in plan.as_text(found)
    assert "time" not in plan.as_text(found)


def test_throughput_of_this_study(empty, study):
    """16 images a step at the median of 100, 200 and 900 images a second."""
    tiny = study[0]
    finish(empty, tiny, 200.0, 10, 30)
    for seed, speed in ((7, 100.0), (8, 900.0)):
        finish(empty, dataclasses.replace(tiny, seed=seed), speed, 30)
    seeds = [dataclasses.replace(tiny, seed=seed) for seed in (7, 8)]
    found = planned(empty, [*study, *seeds])
    assert found.steps_to_train == 65
    assert found.hours == pytest.approx(65 * 16 / 200 / 3600)
    assert found.longest_hours == pytest.approx(60 * 16 / 200 / 3600)
    (known,) = found.throughputs
    assert (known.images_per_second, known.source) == (200.0, "measured here (median of 3)")


def test_throughput_of_other_studies(empty, study):
    tiny = study[0]
    finish(empty, dataclasses.replace(tiny, seed=99), 400.0)
    finish(empty, dataclasses.replace(tiny, seed=99, architecture="resnet8-5"), 1.0)
    finish(empty, dataclasses.replace(tiny, seed=99, precision="bf16"), 1.0)
    (empty.root / "runs" / "0" / "nested").mkdir(parents=True)  # no run at all
    (known,) = planned(empty, study).throughputs
    assert (known.images_per_second, known.source) == (400.0, "measured here (median of 1)")


def test_throughput_of_the_paper(empty):
    runs = [recipes.cifar_resnet("resnet20", 0, dataset="cifar100"), recipes.wide_resnet("wrn16-8", 0)]
    found = planned(empty, runs)
    hours = {known.architecture: known.hours for known in found.throughputs}
    assert hours == pytest.approx({"resnet20": 72_000 / 59.0 / 3600, "wrn16-8": 80_000 / 17.4 / 3600})
    assert {known.source for known in found.throughputs} == {"Mikler 2021, table 4 (TensorFlow 2.4, one RTX 3080)"}
    assert found.hours == pytest.approx(sum(hours.values()))
    half = dataclasses.replace(runs[0], batch_size=64)
    assert planned(empty, [half]).hours == pytest.approx(hours["resnet20"] / 2)


def test_one_cifar_is_as_fast_as_the_other(empty):
    finish(empty, recipes.cifar_resnet("resnet20", 0), 1280.0)
    found = planned(empty, [recipes.cifar_resnet("resnet20", 0, dataset="cifar100")])
    assert found.hours == pytest.approx(72_000 / 10 / 3600)


def test_no_throughput_no_estimate(empty, study):
    found = planned(empty, [*study, recipes.cifar_resnet("resnet20", 0)])
    assert (found.hours, found.longest_hours) == (None, None)
    text = plan.as_text(found)
    assert "unknown: this storage has not seen all kinds of cells yet" in text
    assert "resnet8-4 on digits: 95 steps, no result to estimate from" in text
    assert "resnet20 on cifar: 20.3 min at 7,552 images/s, Mikler 2021, table 4" in text


def test_a_damaged_result_is_no_sample(empty, study):
    finish(empty, study[0], 100.0, 10, 30)
    (empty.run(key(study[0])) / "result.json").write_text("{")
    assert planned(empty, study).hours is None


def test_the_size_of_a_state(store, tiny):
    file = store.state_path(tiny, 30).stat().st_size
    assert plan.state_bytes(tiny) == pytest.approx(file, rel=0.03)


def test_disk(empty, study):
    one = plan.state_bytes(study[0])
    found = planned(empty, study)
    assert (found.disk_bytes, found.disk_bytes_with_keep_states) == (4 * one, 6 * one)


@pytest.mark.parametrize("seeds", range(1, 12))
def test_verdicts(seeds):
    """The sign-flip test's smallest p-value is 2^-n: 4 seeds reach 0.0625, 5 reach 0.031, 7 reach 0.0078."""
    text = plan.verdict(seeds)
    assert text.startswith(f"{seeds} seed")
    if 2**-seeds > 0.04:
        assert "no verdict per architecture can be reached; 5 are needed, 7 under Holm over three" in text
    elif 2**-seeds > 0.04 / 3:
        assert "can be reached, but not under Holm over three: 7 are needed" in text
    else:
        assert "under Holm over three too" in text


def test_text(empty):
    panels = full_study.select(figures=["1-left", "4"], strategies=["lr-rewinding"], sparsities=[0.2, 0.893])
    rows = list(full_study.cells(panels, seeds=[0, 1, 2]))
    found = planned(empty, [cell for _, cell in rows])
    assert plan.as_text(found).splitlines() == [
        "cells           18: 0 done, 18 missing",
        "dense runs      6",
        "steps to train  1,296,000",
        "if separate     2,160,000: 1.67 × as many",
        "time            9.3 h one trial at a time; the longest chain 1.4 h",
        "                resnet20 on cifar: 3.1 h at 7,552 images/s, "
        "Mikler 2021, table 4 (TensorFlow 2.4, one RTX 3080)",
        "                resnet56 on cifar: 6.3 h at 3,661 images/s, "
        "Mikler 2021, table 4 (TensorFlow 2.4, one RTX 3080)",
        "disk            about 83.8 MB in 18 States that stay (83.8 MB with --keep-states)",
        "verdicts        3 seeds: no verdict per architecture can be reached; 5 are needed, 7 under Holm over three",
    ]


def test_json(empty, study):
    found = json.loads(json.dumps(plan.as_json(planned(empty, study)), allow_nan=False))
    numbers = {"cells": 5, "cells_done": 0, "cells_missing": 5, "dense_runs": 1, "steps_to_train": 95}
    assert {name: found[name] for name in numbers} == numbers
    assert found["seeds"] == [
        {"dataset": "digits", "architecture": "resnet8-4", "seeds": 1, "verdict": plan.verdict(1)},
    ]
    assert found["throughputs"][0]["source"] == "no result to estimate from"


def test_sharing_of_the_whole_study(empty):
    """Steps by hand, thousands a seed. Separate: every cycle with its dense run and all cycles before it."""
    found = {}
    for schedule in ("one-shot", "iterative"):
        panels = [panel for panel in full_study.PANELS if panel.schedule == schedule]
        rows = [cell for _, cell in full_study.cells(panels, seeds=[0])]
        made = planned(empty, rows)
        found[schedule] = (made.steps_to_train // 1000, made.steps_if_separate // 1000)
    triple = 72 + 64 + 72
    one_shot = 41 * triple + 6 * 152 + 4 * 72 + 80
    one_shot_separate = one_shot + 41 * 3 * 72 + 12 * 80
    iterative = (10 + 14) * triple + 13 * 152 + 10 * 80 + 2 * 72 + 80

    def chain(length, budget, dense):
        return length * dense + budget * length * (length + 1) // 2

    iterative_separate = (
        sum(chain(length, budget, 72) for length in (10, 14) for budget in (72, 64, 72))
        + chain(13, 72, 80)
        + chain(13, 80, 80)
        + chain(10, 80, 80)
        + 2 * 72
        + 80
    )
    assert found == {"one-shot": (one_shot, one_shot_separate), "iterative": (iterative, iterative_separate)}
    assert found == {"one-shot": (9_808, 19_624), "iterative": (7_992, 59_800)}


def test_the_whole_study_is_planned_quickly(empty):
    rows = list(full_study.cells(seeds=range(3)))
    began = time.process_time()
    found = planned(empty, [cell for _, cell in rows])
    assert (found.cells, found.steps_to_train, found.steps_if_separate) == (726, 51_480_000, 235_056_000)
    assert time.process_time() - began < 4


def test_neither_torch_nor_ray_is_loaded():
    script = "import sys, sweeps.plan; sys.exit(bool({'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0
