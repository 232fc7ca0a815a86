"""Studies with their storage in a bucket: the same numbers as in a folder, and nothing lost when the server fails."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from analysis.load import load
from sweeps.watch import Mirror
from trainable.columns import columns
from trainable.config import describe
from trainable.events import Events
from trainable.remote import S3Path
from trainable.store import Store, write

pytestmark = pytest.mark.timeout(600)
TINY = [sys.executable, str(Path(__file__).parent / "tiny_study.py"), "--seeds", "1", "--steps", "20"]
CHOSEN = ["--seeds", "0", "--sparsities", "0.9", "--strategies", "weight-rewinding", "lr-rewinding"]
QUICK = [sys.executable, "sweeps/quick_study.py", *CHOSEN, "--resume-every", "1"]
MEASURED = ["train_seconds", "images_per_second", "resumes", "finished_at", "git_commit"]
"""What may differ from run to run."""


def run(command, storage, **variables) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, "--storage", str(storage)],
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ | variables,
        cwd=Path(__file__).parent.parent,
    )


def numbers(uri: str) -> dict[str, dict]:
    """What every finished run of a bucket says of itself, by key."""
    store = Store(uri)
    done = [run_key for run_key, found in store.look(store.run_keys()).items() if found.done]
    return {run_key: json.loads((store.run(run_key) / "result.json").read_bytes())["numbers"] for run_key in done}


def numbers_of_folder(storage: Path) -> dict[str, dict]:
    results = storage.glob("runs/*/result.json")
    return {path.parent.name: json.loads(path.read_bytes())["numbers"] for path in results}


def assert_same_table(uri: str, storage: Path, study: str) -> None:
    theirs, ours = load(uri, study), load(storage, study)
    assert set(theirs["status"]) == {"done"}
    pd.testing.assert_frame_equal(theirs.drop(columns=MEASURED), ours.drop(columns=MEASURED))
    assert numbers(uri) == numbers_of_folder(storage)


@pytest.mark.slow
def test_a_study_in_a_bucket(s3, tmp_path):
    """From the plan to the report; TensorBoard's files, the same command again, gc and forget."""
    planned = run([*TINY, "--dry-run"], s3.uri)
    assert planned.stdout.startswith("cells           7: 0 done, 7 missing\n")
    study = run(TINY, s3.uri)
    assert study.returncode == 0, study.stderr
    assert study.stderr.startswith(f"runs on this machine, with storage {s3.uri}\n")
    assert f"python -m sweeps tensorboard {s3.uri} tiny\n" in study.stderr
    assert run(TINY, tmp_path / "folder").returncode == 0
    assert_same_table(s3.uri, tmp_path / "folder", "tiny")

    store = Store(s3.uri)
    found = (store.study("tiny")).below()
    assert {"cells.json", "results.csv", "results.parquet", "accuracy.png", "looks.json"} <= found.keys()
    assert "report/index.html" in found
    left = [path for path in store.root.below() if path.endswith(("claim.json", "resume.safetensors"))]
    assert left + [path for path in store.root.below() if path.startswith("probes/")] == []
    assert not list(tmp_path.glob("**/*pkl"))

    mirror = Mirror(store.study("tiny") / "tensorboard", tmp_path / "events")
    assert mirror.update() == 8  # the study's own and one a cell
    assert mirror.update() == 0
    for path in (tmp_path / "events").glob("**/events.*"):
        tags = EventAccumulator(str(path)).Reload().Tags()
        assert {"accuracy/test", "study/cells_done"} & {*tags["scalars"]}

    again = run(TINY, s3.uri)
    assert again.returncode == 0
    assert again.stderr.startswith("cells           7: 7 done, 0 missing\n")
    run_key = store.run_keys()[0]
    sweeps = [sys.executable, "-m", "sweeps"]
    collected = subprocess.run([*sweeps, "gc", s3.uri], capture_output=True, text=True)
    assert collected.stdout == "0 files, 0.0 MB removed\n"
    forgotten = subprocess.run([*sweeps, "forget", s3.uri, run_key], capture_output=True, text=True)
    assert forgotten.stdout.startswith(f"forgotten: {s3.uri}/runs/{run_key}\n")
    assert run_key not in store.run_keys()
    forgotten_rows = load(s3.uri, "tiny").query("key == @run_key")
    assert set(forgotten_rows["status"]) == {"missing"}


@pytest.mark.cluster
def test_the_plan_of_an_empty_bucket_is_quick(s3):
    """The whole reproduction study: 1,210 cells. Fifteen seconds are asked of it."""
    began = time.monotonic()
    planned = run([sys.executable, "sweeps/full_study.py", "--dry-run"], s3.uri)
    assert planned.stdout.startswith("cells           1,210: 0 done, 1,210 missing\n")
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://", "storage must be a folder or s3://bucket/prefix, got 's3://'"),
        ("s3://no-such-bucket/x", "there is no bucket 'no-such-bucket'"),
    ],
)
def test_a_bucket_that_cannot_be_had(s3, uri, words):
    refused = run(TINY, uri)
    assert refused.returncode == 2
    assert words in refused.stderr


def test_what_finished_runs_say_is_read_once(s3, tiny):
    """By who loads a growing study again and again, also when an older table is there."""
    store = Store(s3.uri)
    store.begin(tiny)
    row = {"study": "s", **columns(tiny, "dense"), "cell": describe(tiny)}
    write(store.study("s") / "cells.json", json.dumps([row]).encode())
    finished = {}
    assert load(s3.uri, "s", finished=finished)["status"].tolist() == ["missing"]
    assert finished == {}
    finished[row["key"]] = {"status": "done", "test_accuracy": 0.5}
    frame = load(s3.uri, "s", finished=finished)
    assert frame["test_accuracy"].tolist() == [0.5]


def test_event_files_grow_in_the_copy(s3, tmp_path):
    """TensorBoard reads on where it was: a file that has grown is not written anew."""
    place = S3Path(s3.uri)
    mirror = Mirror(place, tmp_path)
    (place / "run" / "events").write_bytes(b"first")
    mirror.update()
    inode = (tmp_path / "run" / "events").stat().st_ino
    (place / "run" / "events").write_bytes(b"first, second")
    mirror.update()
    assert (tmp_path / "run" / "events").read_bytes() == b"first, second"
    assert (tmp_path / "run" / "events").stat().st_ino == inode


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    storage = tmp_path_factory.mktemp("undisturbed") / "storage"
    assert run(QUICK, storage).returncode == 0
    return storage


@pytest.mark.cluster
def test_every_hundredth_request_fails(s3, undisturbed):
    s3.kill()
    s3.start(fail_every=100)
    study = run(QUICK, s3.uri)
    assert study.returncode == 0, study.stderr
    assert_same_table(s3.uri, undisturbed, "quick")


@pytest.mark.cluster
def test_a_server_that_is_killed_for_thirty_seconds(s3, undisturbed):
    """It goes when the fourth cell is trained: three cells' results and States stand, others are under way."""
    log = undisturbed.parent / "killed.log"
    with log.open("w") as file:
        process = subprocess.Popen([*QUICK, "--storage", s3.uri], stderr=file, stdout=file)
        try:
            deadline = time.monotonic() + 200
            while "[3/" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            s3.kill()
            time.sleep(30)
            assert process.poll() is None, log.read_text()
            s3.start()
            assert process.wait(300) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
    assert_same_table(s3.uri, undisturbed, "quick")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tensorboard_on_a_bucket(s3, number):
    """The real server shows what lies there; Ctrl-C, or its end, ends the server too."""
    folder = Store(s3.uri).study("tiny") / "tensorboard" / "digits"
    events = Events(folder)
    events.scalars({"accuracy/test": 0.5}, 1)
    events.close()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "sweeps", "tensorboard", s3.uri, "tiny", "--port", str(port)]
    shown = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        address = f"http://localhost:{port}/data/plugin/scalars/tags"
        deadline = time.monotonic() + 100
        seen = ""
        while "accuracy/test" not in seen:
            assert shown.poll() is None, shown.stderr.read()
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError):
                seen = urllib.request.urlopen(address, timeout=5).read().decode()
            time.sleep(0.5)
        assert list(json.loads(seen)) == ["digits"]
        shown.send_signal(number)
        assert shown.wait(30) == 0
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(address, timeout=5)
    finally:
        shown.kill()
        shown.stderr.close()
