"""The storage folder: whole files or none, and errors that name the file and the way on."""

import hashlib
import json
import os
import re
from dataclasses import replace

import pytest

from trainable import store as storage
from trainable.config import Cycle, describe, key
from trainable.store import Store, numbers_digest, write, write_once
from trainable.strategies import fine_tuning

NUMBERS = {"test_accuracy": 0.5, "history": [{"step": 1}]}


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Places


@pytest.mark.parametrize("root", ["gs://x", "file:///tmp/x", "s3://", "s3://No_Bucket/x", "s3://bucket/x?region=y"])
def test_what_is_neither_a_folder_nor_a_bucket(root):
    with pytest.raises(ValueError, match=f"storage must be a folder or s3://bucket/prefix, got '{re.escape(root)}'"):
        Store(root)


def test_a_file_is_no_storage(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=r"storage '.*' can't be written: .*file is not a folder; choose another"):
            Store(root)


def test_a_broken_link_is_no_storage(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"can't be written: .*link is not a folder"):
        Store(tmp_path / "link" / "below")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc on this system")
def test_a_virtual_folder_is_no_storage():
    with pytest.raises(ValueError, match=r"storage '/proc/x' can't be written: no permission in /proc; choose another"):
        Store("/proc/x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(ValueError, match=r"can't be written: no permission in .*closed"):
        Store(tmp_path / "closed" / "below")


def test_making_a_store_writes_nothing(tmp_path):
    Store(tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == []


def test_layout(tmp_path, tiny):
    store = Store(tmp_path)
    assert store.run("abc") == tmp_path / "runs" / "abc"
    assert store.state_path(tiny, 30) == tmp_path / "runs" / key(tiny) / "state-30.safetensors"
    assert store.resume_path(tiny) == tmp_path / "runs" / key(tiny) / "resume.safetensors"
    assert store.study("quick") == tmp_path / "studies" / "quick"
    assert store.datasets == tmp_path / "datasets"


def test_a_home_folder_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/results").root == tmp_path / "results"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "with space"])
def test_a_studys_name(tmp_path, name):
    with pytest.raises(ValueError, match=r"a study's name must be letters, digits, .*, got"):
        Store(tmp_path).study(name)


# Writing


def test_write_makes_folders_and_replaces(tmp_path):
    write(tmp_path / "a" / "b", b"one")
    write(tmp_path / "a" / "b", b"two")
    assert (tmp_path / "a" / "b").read_bytes() == b"two"
    assert files(tmp_path) == ["a/b"]


def test_an_error_while_writing_leaves_nothing_behind(tmp_path):
    (tmp_path / "old").write_bytes(b"whole")
    with pytest.raises(TypeError):
        write(tmp_path / "old", "not bytes")
    assert files(tmp_path) == ["old"]
    assert (tmp_path / "old").read_bytes() == b"whole"


def test_an_error_while_renaming_leaves_nothing_behind(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write(tmp_path / "folder", b"x")
    assert files(tmp_path) == []


def test_write_once_keeps_the_first(tmp_path):
    write_once(tmp_path / "a", b"one")
    write_once(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"one"


# A run


def test_begin_writes_the_description_and_forgets_a_failure(empty, tiny):
    folder = empty.begin(tiny)
    assert json.loads((folder / "cell.json").read_text()) == describe(tiny)
    assert "written" not in json.loads((folder / "cell.json").read_text())
    empty.write_failure(tiny, "Diverged: at step 3")
    assert json.loads((folder / "failure.json").read_text()) == {"error": "Diverged: at step 3"}
    empty.begin(tiny)
    assert files(folder) == ["cell.json"]


def test_a_key_that_is_anothers(empty, tiny):
    """A collision of keys, or a file put there by hand."""
    other = {**describe(tiny), "seed": 4}
    write(empty.run(key(tiny)) / "cell.json", json.dumps(other).encode())
    message = rf"{key(tiny)}/cell\.json is damaged \(it describes another cell than the one with this key\): delete the"
    with pytest.raises(ValueError, match=message):
        empty.begin(tiny)
    empty.write_result(tiny, NUMBERS, {})
    with pytest.raises(ValueError, match=r"cell\.json is damaged .*another cell"):
        empty.result(tiny)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"kind": "dense"'])
def test_a_damaged_description(empty, tiny, content):
    write(empty.run(key(tiny)) / "cell.json", content)
    folder = empty.run(key(tiny))
    with pytest.raises(
        ValueError, match=rf"cell\.json is damaged \(it does not parse: .*\): delete the folder {folder},"
    ):
        empty.begin(tiny)


def finished(store, cell):
    store.begin(cell)
    store.write_result(cell, NUMBERS, {"host": "here"})
    return store.run(key(cell)) / "result.json"


def test_a_result_comes_back(empty, tiny):
    assert not empty.done(tiny)
    finished(empty, tiny)
    assert empty.done(tiny)
    result = empty.result(tiny)
    assert result["numbers"] == NUMBERS
    assert result["provenance"]["host"] == "here"


def test_a_result_ends_the_rolling_state_and_is_never_changed(empty, tiny):
    write(empty.resume_path(tiny), b"rolling")
    path = finished(empty, tiny)
    assert files(path.parent) == ["cell.json", "result.json"]
    empty.write_result(tiny, {"test_accuracy": 0.6}, {})
    assert empty.result(tiny)["numbers"] == NUMBERS


def damaged_results():
    good = {"numbers": NUMBERS, "provenance": {"numbers_digest": numbers_digest(NUMBERS)}}
    return {
        "truncated": json.dumps(good).encode()[:-9],
        "empty": b"",
        "another number": json.dumps({**good, "numbers": {**NUMBERS, "test_accuracy": 0.51}}).encode(),
        "no digest": json.dumps({**good, "provenance": {}}).encode(),
        "nothing in it": b"{}",
        "no object": b"[1, 2]",
    }


@pytest.mark.parametrize("kind", damaged_results())
def test_a_damaged_result(empty, tiny, kind):
    path = finished(empty, tiny)
    path.write_bytes(damaged_results()[kind])
    message = rf"{path} is damaged \(.*\): delete the folder {path.parent}, and its cell is trained again"
    with pytest.raises(ValueError, match=message):
        empty.result(tiny)


def test_no_result(empty, tiny):
    empty.begin(tiny)
    with pytest.raises(ValueError, match=r"result\.json"):
        empty.result(tiny)


def test_a_result_with_a_number_that_is_none(empty, tiny):
    """NaN is no JSON: it must not get into a file."""
    with pytest.raises(ValueError, match="JSON"):
        empty.write_result(tiny, {"test_loss": float("nan")}, {})
    assert not empty.done(tiny)


def test_numbers_digest():
    canonical = b'{"history":[{"step":1}],"test_accuracy":0.5}'
    assert numbers_digest(NUMBERS) == hashlib.sha256(canonical).hexdigest()
    assert numbers_digest(dict(reversed(NUMBERS.items()))) == numbers_digest(NUMBERS)


def test_kept_steps(empty, tiny):
    assert empty.kept_steps(tiny) == []
    for name in ("state-100", "state-9", "state-0", "state-x", "state-7.tmp", "resume"):
        write(empty.run(key(tiny)) / f"{name}.safetensors", b"")
    write(empty.run(key(tiny)) / ".state-5.safetensors.0a0b.tmp", b"")
    assert empty.kept_steps(tiny) == [0, 9, 100]


def test_damaged_states_say_what_to_delete(empty, tiny):
    kept = storage.damaged_state(empty.state_path(tiny, 30), "its checksum is off")
    folder = empty.run(key(tiny))
    assert str(kept).startswith(f"{folder}/state-30.safetensors is damaged (its checksum is off): delete the folder")
    rolling = storage.damaged_state(empty.resume_path(tiny), "x")
    assert str(rolling) == (
        f"{folder}/resume.safetensors is damaged (x): delete this file, and its run starts again from step 0"
    )


def test_two_cells_have_two_folders(empty, tiny):
    cell = Cycle(dense=tiny, densities=(0.5,), retraining=fine_tuning(tiny))
    assert len({empty.begin(tiny), empty.begin(cell), empty.begin(replace(tiny, seed=4))}) == 3


def test_a_forgotten_run_leaves_the_others(empty, tiny):
    finished(empty, tiny)
    finished(empty, replace(tiny, seed=4))
    empty.forget(key(tiny))
    assert not empty.done(tiny)
    assert os.listdir(empty.root / "runs") == [key(replace(tiny, seed=4))]
    empty.begin(tiny)


# The step of a resume State, from its header alone


def resume(store, cell, content: bytes) -> None:
    write(store.resume_path(cell), content)


def test_the_step_of_a_resume_state_is_in_its_header(empty, tiny):
    header = json.dumps({"__metadata__": {"state": json.dumps({"step": 7})}}).encode()
    resume(empty, tiny, len(header).to_bytes(8, "little") + header + b"tensors")
    assert empty.resume_step(tiny) == 7


@pytest.mark.parametrize("content", [b"", b"\x01", b"\xff" * 50, b"\x02\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]"])
def test_a_damaged_resume_state_has_no_step(empty, tiny, content):
    assert empty.resume_step(tiny) is None
    resume(empty, tiny, content)
    assert empty.resume_step(tiny) == 0
