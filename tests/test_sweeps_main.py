"""python -m sweeps: gc and forget, and the scripts by name."""

import json
import time

import pytest

from sweeps import __main__ as command
from trainable import recipes, strategies
from trainable.columns import run_name
from trainable.config import Cycle, describe, key
from trainable.store import Store, write

DENSE = recipes.digits(0)
RETRAINING = strategies.weight_rewinding(DENSE, 44)
FIRST, SECOND = (Cycle(dense=DENSE, densities=d, retraining=RETRAINING) for d in ((0.5,), (0.5, 0.25)))


def finish(store, cell, *steps):
    for step in (*steps, cell.budget):
        write(store.begin(cell) / f"state-{step}.safetensors", bytes(1000))
    store.write_result(cell, {}, {})


def declare(store, name, *cells):
    rows = [{"key": key(cell), "cell": describe(cell)} for cell in cells]
    write(store.study(name) / "cells.json", json.dumps(rows).encode())


def claim(store, cell, age=0.0):
    words = {"launch": "a", "host": "elsewhere", "pid": 1, "time": time.time() - age}
    write(store.run(key(cell)) / "claim.json", json.dumps(words).encode())


def files(store):
    return {str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()}


@pytest.fixture
def store(tmp_path) -> Store:
    """A dense run, a chain of two cycles, all done; the chain is declared by a study."""
    store = Store(tmp_path / "storage")
    finish(store, DENSE, 44)
    finish(store, FIRST)
    finish(store, SECOND)
    declare(store, "one", DENSE, FIRST, SECOND)
    return store


def gc(store, capsys, *options) -> list[str]:
    assert command.main(["gc", str(store.root), *options]) == 0
    return capsys.readouterr().out.splitlines()


def error(capsys, *arguments) -> str:
    assert command.main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


# gc


def test_an_inner_state_goes(store, capsys):
    before, inner = files(store), store.state_path(FIRST, 356)
    assert gc(store, capsys, "--dry-run") == [str(inner), "1 files, 0.0 MB would go"]
    assert files(store) == before
    assert gc(store, capsys) == [str(inner), "1 files, 0.0 MB removed"]
    assert files(store) == before - {str(inner.relative_to(store.root))}
    assert gc(store, capsys) == ["0 files, 0.0 MB removed"]


def test_a_state_that_another_study_needs_stays(store, capsys):
    declare(store, "two", Cycle(dense=DENSE, densities=(0.5, 0.1), retraining=RETRAINING))
    assert gc(store, capsys) == ["0 files, 0.0 MB removed"]


def test_what_no_study_declares_stays(store, capsys):
    (store.study("one") / "cells.json").unlink()
    assert gc(store, capsys) == ["0 files, 0.0 MB removed"]


def test_leftovers_of_killed_writers(store, capsys):
    other = recipes.digits(1)
    stale, live = store.begin(FIRST) / ".state-1.safetensors.0.tmp", store.begin(other) / ".resume.safetensors.1.tmp"
    rolling, under_way = store.resume_path(SECOND), store.resume_path(other)
    for path in (stale, live, rolling, under_way):
        write(path, bytes(2_000_000))
    claim(store, other)
    found = gc(store, capsys)
    assert set(found[:-1]) == {str(store.state_path(FIRST, 356)), str(stale), str(rolling)}
    assert found[-1] == "3 files, 4.0 MB removed"
    assert live.exists()
    assert under_way.exists()


def test_a_damaged_cells_json_stops_gc(store, capsys):
    path = store.study("two") / "cells.json"
    for content in (b"{", b'[{"key": "x"}]', b"[1]"):
        write(path, content)
        said = error(capsys, "gc", str(store.root))
        assert said.startswith(f"error: {path} is damaged (")
        assert "delete it, and the study's script writes it again" in said
    assert store.kept_steps(FIRST) == [356]


# forget


def test_forget(store, capsys):
    before = files(store)
    assert command.main(["forget", str(store.root), key(FIRST)[:8]]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"forgotten: {store.run(key(FIRST))}",
        f"stands on it: {run_name(SECOND, 'iterative')} (done, and stays as it is)",
    ]
    assert {path for path in before if key(FIRST) not in path} == files(store)


def test_forget_says_what_will_need_it(store, capsys):
    declare(store, "two", Cycle(dense=DENSE, densities=(0.5, 0.1), retraining=RETRAINING), SECOND)
    assert command.main(["forget", str(store.root), key(DENSE)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 3
    waiting = [line for line in lines if "not done: the next launch trains this run again for it" in line]
    assert len(waiting) == 1
    assert "/s0.9/" in waiting[0]


def test_forget_refuses_a_run_that_is_trained(store, capsys):
    claim(store, FIRST)
    assert f"error: run {key(FIRST)} is being trained: stop its study first" in error(
        capsys, "forget", str(store.root), key(FIRST)
    )
    assert store.done(FIRST)
    claim(store, FIRST, age=121)
    assert command.main(["forget", str(store.root), key(FIRST)]) == 0


def test_forget_needs_one_run(store, capsys):
    for name in ("abc1", "abc2"):
        (store.root / "runs" / name).mkdir()
    assert error(capsys, "forget", str(store.root), "abc").strip() == (
        f"error: 2 runs of {store.root} begin with 'abc': abc1, abc2"
    )
    assert error(capsys, "forget", str(store.root), "zzz").strip() == f"error: 0 runs of {store.root} begin with 'zzz'"
    assert error(capsys, "forget", str(store.root), "").startswith("error: 0 runs of ")
    assert "0 runs" in error(capsys, "forget", str(store.root), "../")


def test_forget_works_on_a_run_with_damaged_files(store):
    (store.run(key(FIRST)) / "cell.json").write_text("{")
    (store.run(key(FIRST)) / "result.json").write_text("{")
    assert command.main(["forget", str(store.root), key(FIRST)]) == 0
    assert not store.run(key(FIRST)).exists()


@pytest.mark.parametrize("arguments", [["gc"], ["forget", "abc"]])
def test_an_unknown_storage(tmp_path, capsys, arguments):
    argv = [arguments[0], str(tmp_path / "none"), *arguments[1:]]
    assert error(capsys, *argv).strip() == f"error: there is no storage at {tmp_path / 'none'}"
    assert not (tmp_path / "none").exists()


# The scripts


def test_scripts_by_name(tmp_path, capsys):
    storage = ["--storage", str(tmp_path / "s"), "--dry-run", "--json"]
    assert command.main(["quick_study", "--seeds", "0", *storage]) == 0
    assert json.loads(capsys.readouterr().out)["cells"] == 1 + 1 + 3 * (5 + 4 - 1)
    assert command.main(["full_study", "--figures", "1-left", "--seeds", "0", *storage]) == 0
    assert json.loads(capsys.readouterr().out)["dense_runs"] == 1
    assert not (tmp_path / "s").exists()


def test_no_command(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main([])
    assert "required: command" in capsys.readouterr().err
