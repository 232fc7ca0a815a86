"""Cells that a search asks for, driven by hand: rounds are told when complete, and the best is judged at the end."""

import argparse
import dataclasses
import json
import sys

import pytest

from sweeps import study
from sweeps.jobs import Jobs
from sweeps.rounds import folder_of
from sweeps.search import Search, Space, group
from sweeps.source import GroupSearch, Searches
from trainable import recipes
from trainable.config import DenseRun, dense_run, key, states_read
from trainable.store import Store, write

SEARCH = Search(
    group=group("digits/resnet8-8/unstructured/0.95"),
    dense=dataclasses.replace(recipes.digits(0), val_examples=200),
    space=Space(kind="plane", steps=400, learning_rate=0.1, grid=40, between=(0, 400), budget=400),
    seeds=(0, 1),
    rewind_point=40,
    sampler="tpe",
    sampler_seed=0,
    round_size=4,
)


def accuracy(cell) -> float:
    """A hill at weights from 280, clock from 120."""
    if isinstance(cell, DenseRun):
        return 0.97
    at = 400 if cell.retraining.weights_from is None else cell.retraining.weights_from
    return 0.9 - abs(at - 280) / 1000 - abs(cell.retraining.lr_from - 120) / 2000 - cell.seed / 100


class Driven:
    """A search with everybody's part played: cells are trained in an instant, and have no test accuracy at all."""

    def __init__(self, root, *searches, trials=12, fresh=(2, 3), fail=None):
        self.store, self.jobs = Store(root), None
        self.folder = self.store.study("search")
        self.groups = [
            GroupSearch(search, self.store, folder_of(search, self.folder), trials, fresh, warm=True)
            for search in searches or [SEARCH]
        ]
        self.source = Searches(self.groups, lambda frame: None)
        self.jobs = Jobs(self.store)
        self.source.begin(self.jobs)
        self.source.save()
        self.fail = fail or {}
        self.trained, self.replayed = [], []

    def run(self, cells=10_000):
        """Train so many cells, or to the end; whether there is more to do."""
        while self.jobs.left() and cells:
            job = self.jobs.next()
            if job is None:
                return True
            if job.replay is None:
                assert all(step in self.store.kept_steps(run) for run, step in states_read(job.cell))
                error = self.fail.get(key(job.cell))
                self.trained.append(job.cell)
                cells -= 1
            else:
                self.replayed.append((job.cell, job.replay))
                error = None
                write(self.store.state_path(job.cell, job.replay), b"")
            if error is None and job.replay is None:
                for step in {*job.keep, job.cell.budget}:
                    write(self.store.begin(job.cell) / f"state-{step}.safetensors", b"")
                self.store.write_result(job.cell, {"val_accuracy": accuracy(job.cell)}, {})
            self.jobs.ended(job, error)
            if self.source.advance(self.jobs):
                self.source.save()
        return bool(self.jobs.left())

    def rounds(self):
        return {path.name: json.loads(path.read_text()) for path in sorted(self.folder.glob("search/*/round-*.json"))}


def test_a_search_from_beginning_to_end(tmp_path):
    driven = Driven(tmp_path)
    assert not driven.run()
    rounds = driven.rounds()
    assert list(rounds) == [f"round-000{n}.json" for n in range(4)]
    assert [len(found["trials"]) for found in rounds.values()] == [0, 4, 4, 4]
    dense = [cell for cell in driven.trained if isinstance(cell, DenseRun)]
    assert sorted(cell.seed for cell in dense) == [0, 1, 2, 3]
    assert len(driven.trained) == len(set(driven.trained))
    told = [trial for found in rounds.values() for trial in found["trials"]]
    top = max(told, key=lambda trial: trial["value"])
    fresh = {key(cell) for cell in driven.trained if cell.seed > 1}
    best = SEARCH.space.retraining(top["params"])
    points = {*SEARCH.named.values(), best}
    assert fresh == {
        *(key(SEARCH.cell(point, seed)) for point in points for seed in (2, 3)),
        *(key(SEARCH.dense_run(seed)) for seed in (2, 3)),
    }


def test_dense_runs_keep_the_grid_so_that_nothing_is_replayed(tmp_path):
    driven = Driven(tmp_path)
    driven.run()
    assert driven.store.kept_steps(SEARCH.dense_run(0)) == list(range(0, 401, 40))
    assert driven.replayed == []


def test_states_of_an_earlier_study_that_were_not_kept_are_replayed(tmp_path):
    store = Store(tmp_path)
    for seed in (0, 1):
        write(store.begin(SEARCH.dense_run(seed)) / "state-400.safetensors", b"")
        store.write_result(SEARCH.dense_run(seed), {"val_accuracy": 0.97}, {})
    driven = Driven(tmp_path)
    driven.run()
    assert {seed for cell, _ in driven.replayed for seed in [cell.seed]} == {0, 1}
    assert len(driven.replayed) == len(set(driven.replayed))
    assert not any(isinstance(cell, DenseRun) and cell.seed < 2 for cell in driven.trained)


@pytest.mark.parametrize("stopped", [1, 3, 9, 10, 11, 20, 27])
def test_a_stop_anywhere_changes_nothing(tmp_path, stopped):
    whole = Driven(tmp_path / "whole")
    whole.run()
    first = Driven(tmp_path / "stopped")
    assert first.run(stopped)
    second = Driven(tmp_path / "stopped")
    assert not second.run()
    assert second.rounds() == whole.rounds()
    assert len(first.trained) + len(second.trained) == len(whole.trained)
    assert {*first.trained, *second.trained} == {*whole.trained}


def test_stopped_after_every_cell(tmp_path):
    whole, trained = Driven(tmp_path / "whole"), 0
    whole.run()
    while (now := Driven(tmp_path / "stopped")).jobs.left():
        now.run(1)
        trained += len(now.trained)
    assert now.rounds() == whole.rounds()
    assert trained == len(whole.trained)


def test_the_trials_are_raised_later(tmp_path):
    Driven(tmp_path / "raised", trials=8).run()
    raised, whole = Driven(tmp_path / "raised", trials=16), Driven(tmp_path / "whole", trials=16)
    raised.run()
    whole.run()
    assert raised.rounds() == whole.rounds()


def test_trials_lowered_below_what_is_done_leave_nothing_to_come(tmp_path):
    Driven(tmp_path, trials=8).run()
    said = Driven(tmp_path, trials=4).groups[0].outlook()
    assert ": 8 of 8 trials done, 0 points trained before; to come at most 0 retrainings" in said


def test_a_round_that_is_done_already_does_not_end_the_search(tmp_path):
    """Rounds 2 and 3 are lost, and one result of round 2: when that is back, nothing of round 3 is to be trained."""
    whole = Driven(tmp_path, trials=16)
    whole.run()
    rounds = whole.rounds()
    for number in (2, 3, 4):
        next(whole.folder.glob(f"search/*/round-000{number}.json")).unlink()
    (whole.store.run(rounds["round-0002.json"]["trials"][0]["keys"][0]) / "result.json").unlink()
    again = Driven(tmp_path, trials=16)
    again.run()
    assert len(again.trained) == 1
    assert again.rounds() == rounds


def test_the_same_search_under_another_name_trains_nothing_of_the_first(tmp_path):
    Driven(tmp_path).run()
    before = Driven(tmp_path).groups[0].told
    other = GroupSearch(SEARCH, Store(tmp_path), tmp_path / "other", 12, (2, 3), warm=True)
    assert {tuple(trial.params.items()) for trial in other.told} == {tuple(trial.params.items()) for trial in before}
    assert all(trial.number is None for trial in other.told)
    cold = GroupSearch(SEARCH, Store(tmp_path), tmp_path / "cold", 12, (2, 3), warm=False)
    assert cold.told == []


def test_the_warm_start_is_taken_once(tmp_path):
    """What another study finishes meanwhile does not change a search under way."""
    driven = Driven(tmp_path)
    driven.run(10)
    for seed in SEARCH.seeds:
        cell = SEARCH.cell(SEARCH.space.retraining({"weights_from": 320, "lr_from": 320}), seed)
        driven.store.begin(cell)
        driven.store.write_result(cell, {"val_accuracy": 0.99}, {})
    again = Driven(tmp_path)
    again.run()
    assert again.rounds()["round-0000.json"]["trials"] == []


def test_groups_side_by_side_share_dense_runs(tmp_path):
    other = dataclasses.replace(SEARCH, group=dataclasses.replace(SEARCH.group, density=0.1))
    driven = Driven(tmp_path, SEARCH, other)
    driven.run()
    assert sum(isinstance(cell, DenseRun) for cell in driven.trained) == 4
    assert len(list(driven.folder.glob("search/*/round-*.json"))) == 8
    order = [cell.density for cell in driven.trained if not isinstance(cell, DenseRun)]
    assert {0.05, 0.1} == {*order[:20]}


def test_a_loss_that_is_not_finite_is_a_result(tmp_path):
    lost = SEARCH.cell(SEARCH.named["fine-tuning"], 1)
    driven = Driven(tmp_path, fail={key(lost): "diverged: the training loss is not finite (step 3 of 400)"})
    driven.run()
    trial = driven.rounds()["round-0001.json"]["trials"][0]
    assert (trial["val_accuracy"], trial["value"]) == (None, None)
    assert trial["error"].startswith("diverged: ")
    assert len(driven.rounds()) == 4


def test_any_other_failure_leaves_the_round_open_and_is_tried_again(tmp_path):
    lost = SEARCH.cell(SEARCH.named["fine-tuning"], 1)
    first = Driven(tmp_path / "failed", fail={key(lost): "RuntimeError: out of memory"})
    first.run()
    assert list(first.rounds()) == ["round-0000.json"]
    second, whole = Driven(tmp_path / "failed"), Driven(tmp_path / "whole")
    second.run()
    whole.run()
    assert second.trained[0] == lost
    assert second.rounds() == whole.rounds()


def test_what_judges_must_not_have_chosen(tmp_path):
    with pytest.raises(ValueError, match=r"fresh seeds must be none of the search's \[0, 1\], got \[1\] among them"):
        Driven(tmp_path, fresh=(1, 2))


def test_rows_are_what_was_asked_for(tmp_path):
    driven = Driven(tmp_path)
    driven.run()
    asked = {cell for _, cell in (*driven.source.rows(), *driven.groups[0].compared())}
    assert asked == {*driven.trained}
    assert {dense_run(cell) for cell in asked} <= asked


def test_a_dry_run_of_a_study_with_a_source_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sweeps.launch", None)
    store = Store(tmp_path / "s")
    one = GroupSearch(SEARCH, store, folder_of(SEARCH, store.study("x")), 12, (2,), warm=True)
    source = Searches([one], lambda frame: None)
    parser = argparse.ArgumentParser()
    study.add_options(parser, name="x")
    options = parser.parse_args(["--storage", str(store.root), "--dry-run"])
    declared = study.Study(name="x", protocol_name="p", rows=tuple(one.compared()), source=source)
    assert study.command(options, lambda options: declared) == 0
    assert capsys.readouterr().out.startswith("cells           10: 0 done, 10 missing")
    assert list(tmp_path.iterdir()) == []
