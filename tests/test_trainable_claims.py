"""Who trains a run: claims taken, renewed, lost and given up."""

import json
import os
import platform
import subprocess
import sys
import time

import pytest

from trainable import claims
from trainable.store import write


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def put(folder, **changed):
    """A claim of another launch on another host, a second old."""
    claim = {"launch": "other", "host": "elsewhere", "pid": 7, "machines": ["m"], "step": 20, "reached": 25, "lost": 0}
    write(folder / "claim.json", json.dumps(claim | {"time": time.time() - 1} | changed).encode())


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_first_claim(folder):
    claim = claims.take(folder, "ours", 0)
    assert (claim.starts, claim.lost) == (1, 0)
    written = claims.read(folder)
    assert abs(written.pop("time") - time.time()) < 5
    ours = {"launch": "ours", "host": platform.node(), "pid": os.getpid(), "machines": [""], "step": 0, "reached": 0}
    assert written == ours | {"lost": 0}
    assert claims.held(folder)


def test_a_claim_given_up(folder):
    claims.take(folder, "ours", 0).release()
    assert claims.read(folder) is None
    assert not claims.held(folder)
    claims.release(folder, "ours")


@pytest.mark.parametrize("launch", ["other", "ours"])
def test_only_its_own_process_gives_a_claim_up(folder, launch):
    claim = claims.take(folder, "ours", 0)
    put(folder, launch=launch)
    claim.release()
    assert claims.read(folder)["launch"] == launch


def test_a_young_claim_of_another_host_is_respected(folder):
    put(folder)
    assert claims.held(folder)
    assert claims.take(folder, "ours", 20) is None
    assert claims.read(folder)["launch"] == "other"


@pytest.mark.parametrize(("age", "free"), [(115, False), (121, True)])
def test_age(folder, age, free):
    put(folder, time=time.time() - age)
    assert claims.held(folder) is not free
    assert (claims.take(folder, "ours", 20) is not None) is free


def test_a_claim_of_a_dead_process_here_is_taken_over(folder):
    put(folder, host=platform.node(), pid=dead_pid())
    assert not claims.held(folder)
    claim = claims.take(folder, "ours", 20)
    assert (claim.starts, claim.lost) == (1, 5)


def test_a_claim_of_a_living_process_here_is_respected(folder):
    put(folder, host=platform.node(), pid=os.getpid())
    assert claims.take(folder, "ours", 20) is None
    put(folder, host=platform.node(), pid=1)
    assert claims.take(folder, "ours", 20) is None


def test_a_dead_pid_means_nothing_on_another_host(folder):
    put(folder, pid=dead_pid())
    assert claims.take(folder, "ours", 20) is None


def test_starts_are_counted_while_the_state_stands_still(folder):
    starts = [claims.take(folder, "ours", step).starts for step in (0, 0, 0, 12, 12, 13)]
    assert starts == [1, 2, 3, 1, 2, 1]


def test_starts_on_machines_that_are_gone_are_not_counted(folder):
    """Five machines that are taken back within one resume interval are no fault of the run."""
    gone = set()
    for number in range(5):
        claim = claims.take(folder, "ours", 0, machine=f"m{number}", gone=gone.__contains__)
        assert claim.starts == 1
        gone.add(f"m{number}")
    starts = [claims.take(folder, "ours", 0, machine=name, gone=gone.__contains__).starts for name in ("a", "a", "b")]
    assert starts == [1, 2, 3]


def test_a_trainer_given_up_for_dead_is_superseded(folder):
    """Its machine lost touch, its launch has started the run elsewhere: however young, its claim does not stand."""
    claim = claims.take(folder, "ours", 0)
    put(folder, launch="ours")
    with pytest.raises(claims.Superseded, match="process 7 on elsewhere trains run run now"):
        claim.require()
    put(folder, launch="ours", time=0)
    with pytest.raises(claims.Superseded):
        claim.require()


def test_another_launch_counts_anew(folder):
    put(folder, time=0, machines=["m"] * 5)
    assert claims.take(folder, "ours", 20).starts == 1


@pytest.mark.parametrize(("step", "lost"), [(20, 5), (25, 0), (30, 0), (0, 25)])
def test_lost_steps(folder, step, lost):
    put(folder, time=0)
    assert claims.take(folder, "ours", step).lost == lost


def test_lost_steps_are_carried_while_the_state_stands_still(folder, monkeypatch):
    """Two deaths before a resume State lose the steps of both; the next State has counted them."""
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.0)
    lost = []
    for step, reached in ((0, 7), (0, 4), (0, 0), (5, 9), (5, 5), (12, 12)):
        claim = claims.take(folder, "ours", step)
        claim.renew(reached)
        lost.append(claim.lost)
        assert claims.read(folder)["lost"] == claim.lost
    assert lost == [0, 7, 11, 0, 4, 0]


def test_lost_steps_of_another_launch_are_carried_too(folder):
    put(folder, time=0, lost=3)
    assert claims.take(folder, "ours", 20).lost == 3 + 5
    put(folder, time=0, lost=3)
    assert claims.take(folder, "ours", 22).lost == 3


def test_renewing(folder, monkeypatch):
    claim = claims.take(folder, "ours", 4)
    first = claims.read(folder)
    claim.renew(9)
    assert claims.read(folder) == first
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.0)
    claim.renew(11)
    again = claims.read(folder)
    assert (again["step"], again["reached"]) == (4, 11)
    assert again["time"] > first["time"]


def test_a_run_taken_over_is_not_written(folder, monkeypatch):
    claim = claims.take(folder, "ours", 0)
    claim.require()
    put(folder)
    with pytest.raises(claims.Superseded, match="process 7 on elsewhere trains run run now"):
        claim.require()
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.0)
    with pytest.raises(claims.Superseded):
        claim.renew(3)
    assert claims.read(folder)["launch"] == "other"


def test_a_foreign_claim_that_is_out_of_force_is_no_obstacle(folder):
    claim = claims.take(folder, "ours", 0)
    put(folder, time=time.time() - 200)
    claim.require()


def test_a_claim_that_vanished_is_no_obstacle(folder):
    claim = claims.take(folder, "ours", 0)
    (folder / "claim.json").unlink()
    claim.require()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_a_torn_claim_counts_as_none(folder, content):
    write(folder / "claim.json", content)
    assert claims.read(folder) is None
    assert claims.take(folder, "ours", 0).starts == 1
