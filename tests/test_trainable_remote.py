"""A storage in a bucket, on a real S3-protocol server."""

import contextlib
import threading
import time

import pytest

from trainable import remote
from trainable.remote import S3Path
from trainable.store import Store, as_folder, locked, names_in, write, write_once


@pytest.fixture
def place(s3):
    return S3Path(s3.uri)


def test_places():
    path = S3Path("s3://bucket/prefix/") / "runs" / "abc" / "cell.json"
    assert str(path) == "s3://bucket/prefix/runs/abc/cell.json"
    assert (path.name, str(path.parent), path.parent.name) == ("cell.json", "s3://bucket/prefix/runs/abc", "abc")
    assert path == S3Path(str(path))
    assert len({path, S3Path(str(path))}) == 1


def test_a_file(place):
    path = place / "a" / "b.bin"
    assert not path.exists()
    for content in (b"", b"first", b"x" * 12_000_000):  # the last goes in several parts
        write(path, content)
        assert path.exists()
        assert path.read_bytes() == content
        assert path.read_start(3) == content[:3]
        assert path.stat().st_size == len(content)
        assert abs(path.stat().st_mtime_ns / 1e9 - time.time()) < 10
    write_once(path, b"other")
    assert path.read_start(1) == b"x"
    assert names_in(place) == ["a"]
    assert names_in(place / "a") == ["b.bin"]
    assert list((place).below()) == ["a/b.bin"]
    path.unlink()
    assert not path.exists()
    assert names_in(place / "nothing") == []


@pytest.mark.parametrize("ask", [S3Path.read_bytes, S3Path.stat, S3Path.unlink, lambda path: path.read_start(8)])
def test_what_is_not_there(place, ask):
    with pytest.raises(FileNotFoundError):
        ask(place / "nothing")
    (place / "nothing").unlink(missing_ok=True)


def test_a_local_folder_for_writers_of_files(place):
    with as_folder(place / "report") as folder:
        (folder / "figures").mkdir()
        (folder / "index.html").write_text("page")
        (folder / "figures" / "a.png").write_bytes(b"png")
    assert {name: stat.st_size for name, stat in place.below().items()} == {
        "report/index.html": 4,
        "report/figures/a.png": 3,
    }
    with locked(place / "lock"):
        assert not (place / "lock").exists()


def test_no_such_bucket(s3):
    with pytest.raises(ValueError, match="'s3://no-such-bucket/x' can't be used: there is no bucket 'no-such-bucket'"):
        Store("s3://no-such-bucket/x")


def test_a_store_reads_as_a_folder_does(s3, tiny, empty):
    """Each of a store's answers, in a bucket and in a folder."""

    def told(store: Store) -> list[object]:
        store.begin(tiny)
        store.write_failure(tiny, "bad luck")
        first = store.look(["unknown", *store.run_keys()])
        for step in (10, 0, 30):
            write(store.state_path(tiny, step), b"state")
        write(store.resume_path(tiny), b"torn")
        resumed = store.resume_step(tiny)
        again = store.begin(tiny).name
        store.write_result(tiny, {"a": 1.5}, {"b": 2})
        write(store.study("s") / "cells.json", b"[]")
        declared = {path.parent.name: size for path, (_, size) in store.declarations().items()}
        (run_key,) = store.run_keys()
        answers = [first, resumed, again, store.done(tiny), store.result(tiny), store.kept_steps(tiny), declared]
        second = store.look([run_key])
        store.forget(run_key)
        return [*answers, second, store.run_keys(), store.done(tiny), store.resume_step(tiny)]

    assert told(Store(s3.uri)) == told(empty)


def test_a_server_that_is_away_for_a_while(s3, place, capsys):
    path = place / "a"
    write(path, b"before")
    s3.kill()
    threading.Timer(3.0, s3.start).start()
    began = time.monotonic()
    write(path, b"after")
    assert 2.5 < time.monotonic() - began < 60
    assert path.read_bytes() == b"after"
    assert "NETWORK_CONNECTION" in capsys.readouterr().err


def test_a_second_try_to_remove(place):
    """The first one's answer may be lost."""
    (place / "nothing").remove_all()
    write(place / "runs" / "a", b"x")
    (place / "runs").remove_all()
    assert place.below() == {}


def test_patience_ends(s3, place, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 1.0)
    s3.kill()
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        (place / "a").read_bytes()
    s3.start()


@pytest.mark.parametrize("words", remote.FINAL)
def test_what_no_waiting_mends(words):
    calls = []

    def refused():
        calls.append(None)
        raise OSError(f"AWS Error {words} during PutObject operation")

    with pytest.raises(OSError, match=words):
        remote.patiently(refused)
    assert len(calls) == 1


def test_every_third_request_fails(s3, place):
    s3.kill()
    s3.start(fail_every=3)
    for number in range(4):
        write(place / str(number), b"x" * number)
    assert [(place / str(number)).stat().st_size for number in range(4)] == [0, 1, 2, 3]
    with contextlib.suppress(FileNotFoundError):
        (place / "nothing").read_bytes()
