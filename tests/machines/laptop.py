"""The session that test_cluster_machines.py judges: python laptop.py WORK, from the checkout, on machines.sh's laptop.

It brings a cluster up with cluster.local.yaml, takes machines away in the middle of studies and brings them back, takes
the cluster down, and prints what it found, as JSON.
"""

import fcntl
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.load import load
from sweeps import quick_study
from trainable.config import key

WORK = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
CHECKOUT = Path.cwd()
ADDRESSES = {"head": "10.77.0.11", "w1": "10.77.0.12", "w2": "10.77.0.13"}
STRATEGIES = ("weight-rewinding",)
SELECTION = ("--strategies", *STRATEGIES, "--sparsities", "0.95")
CLUSTER = WORK / "cluster.local.yaml"
STORAGE = WORK / "shared" / "results"  # on the machines: /mnt/shared/results
MEASURED = ("study", "resumes", "train_seconds", "images_per_second", "finished_at", "git_commit")
"""Columns that tell how a cell was computed, not what came out."""


def configuration(text: str, environment: Path) -> dict[str, Any]:
    """cluster.local.yaml with what its comments name filled in, and the environment that the machines see already.

    Installing torch three times is the one thing that a test cannot do: the two commands that would are replaced by a
    link to the environment that Ray runs in here, and a line that makes it import the project as it was synced.
    """
    config = yaml.safe_load(text)
    config["provider"] |= {"head_ip": ADDRESSES["head"], "worker_ips": [ADDRESSES["w1"], ADDRESSES["w2"]]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(WORK / "key")}
    config["head_start_ray_commands"][1] += " --num-cpus=0"
    config["worker_start_ray_commands"][1] += " --num-cpus=1"  # each sees this machine's
    packages = next(environment.glob("lib/python*/site-packages"))
    make, install = config["setup_commands"][1:3]
    assert make.startswith("python3 -m venv "), make
    assert " install " in install, install
    config["setup_commands"][1:3] = [
        f"ln -sfn {environment} ~/rewind-sweeps/.venv",
        f"echo ~/rewind-sweeps > {packages}/0-synced.pth",  # on the machine's copy-on-write root
    ]
    return config


def run(*command: object, seconds: float = 120, check: bool = True) -> str:
    """What a command printed; raises RuntimeError when it fails, unless it may."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )
    if check and done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def ssh(machine: str, command: str, check: bool = True) -> str:
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
    given = [part for option in options for part in ("-o", option)]
    return run("ssh", *given, "-i", WORK / "key", f"root@{ADDRESSES[machine]}", f". ~/.bashrc; {command}", check=check)


def until(seconds: float, what: str, ready: Callable[[], Any]) -> Any:
    """What `ready` says, once it is true."""
    end = time.monotonic() + seconds
    while not (found := ready()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.2)
    return found


# Machines


def start(machine: str) -> None:
    run("bash", Path(__file__).with_name("machine.sh"), WORK, Path(sys.executable).parent, machine)


def kill(machine: str) -> None:
    os.kill(int((WORK / f"{machine}.pid").read_text()), 9)


def processes(machine: str, pattern: str) -> dict[int, str]:
    """Command lines by process id, of a machine's processes that match."""
    space, found = os.readlink(f"/proc/{(WORK / f'{machine}.pid').read_text().strip()}/ns/pid"), {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            if re.search(pattern, line) and os.readlink(folder / "ns/pid") == space:
                found[int(folder.name)] = line
        except OSError:  # it has ended
            continue
    return found


def training() -> str | None:
    """A worker that trains now."""
    return next((machine for machine in ("w1", "w2") if processes(machine, r"^ray::\w+\.train$")), None)


def raylet(machine: str) -> set[int]:
    return set(processes(machine, r"/raylet/raylet "))


def active() -> int:
    """Machines of the cluster, as `ray status` says it."""
    said = ssh("head", "ray status", check=False).partition("Active:")[2].partition("Pending:")[0]
    return sum(int(number) for number in re.findall(r"^ (\d+) local\.cluster\.node$", said, re.M))


# Studies


def keys(seeds: Sequence[int]) -> list[str]:
    return list(dict.fromkeys(key(cell) for _, cell in quick_study.cells(seeds, STRATEGIES, (0.95,))))


def done(seeds: Sequence[int], storage: Path = STORAGE) -> int:
    return sum((storage / "runs" / run_key / "result.json").exists() for run_key in keys(seeds))


def study(name: str, seed: int, *more: str) -> list[str]:
    return ["--storage", "/mnt/shared/results", "--name", name, "--seeds", str(seed), *SELECTION, *more]


def submit(name: str, seed: int, log: str) -> subprocess.Popen:
    """`ray submit` of the quick study, in a terminal of its own: closing `terminal` closes that."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        ["ray", "submit", str(CLUSTER), "sweeps/quick_study.py", "--", *study(name, seed, "--resume-every", "1")],
        stdin=inside,
        stdout=(WORK / log).open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(inside)
    process.terminal = terminal
    return process


def midway(seed: int) -> str:
    """Wait until some cells of a seed are done; the worker that trains then."""
    until(90, f"two cells of seed {seed}", lambda: done([seed]) >= 2)
    return until(30, "a worker that trains", training)


def judged(name: str, seed: int) -> dict[str, Any]:
    """The table of a study that has ended, against that of the same cells trained here, without a cluster."""
    table = pd.read_parquet(STORAGE / "studies" / name / "results.parquet")
    alone = load(WORK / "alone", "quick")
    ours, theirs = (frame[frame["seed"] == seed].drop(columns=list(MEASURED)) for frame in (table, alone))
    numbers = [
        [json.loads((storage / "runs" / run_key / "result.json").read_text())["numbers"] for run_key in keys([seed])]
        for storage in (STORAGE, WORK / "alone")
    ]
    return {
        "status": table["status"].value_counts().to_dict(),
        "cells": len(numbers[0]),
        "same_numbers": numbers[0] == numbers[1],
        "same_table": ours.reset_index(drop=True).equals(theirs.reset_index(drop=True)),
        "resumes": int(table["resumes"].sum()),
        "event_files": len(list((STORAGE / "studies" / name / "tensorboard").rglob("events.out.tfevents.*"))),
    }


# The session


def main() -> dict[str, Any]:
    began, seconds, found = time.monotonic(), {}, {}

    def lap(name: str) -> None:
        seconds[name] = round(time.monotonic() - began, 1)
        print(f"{seconds[name]:6.1f} s  {name}", file=sys.stderr, flush=True)

    CLUSTER.write_text(
        yaml.safe_dump(
            configuration((CHECKOUT / "cluster.local.yaml").read_text(), Path(sys.executable).parent.parent),
            sort_keys=False,
            width=1000,
        )
    )
    found["routes"] = run("ip", "-o", "route").splitlines()
    before = set(Path("/tmp").glob("ray_ssh_*/*"))
    run("ray", "get-auth-token", "--generate")
    os.environ["RAY_AUTH_MODE"] = "token"
    alone = subprocess.Popen(
        [sys.executable, "-m", "sweeps.quick_study", "--storage", str(WORK / "alone"), "--seeds", "0", "1", "2"]
        + list(SELECTION),
        stdout=subprocess.DEVNULL,
        stderr=(WORK / "alone.log").open("wb"),
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )
    lap("begin")
    run("ray", "up", CLUSTER, "--yes")
    lap("ray up")
    until(120, "three machines", lambda: active() == 3)
    lap("three machines")
    found["alone"] = alone.wait(240)
    lap("the studies without a cluster")
    found["imported"] = {
        machine: ssh(machine, 'python -c "import trainable; print(trainable.__file__)"').split()[-1]
        for machine in ADDRESSES
    }

    # A worker's power is cut, and comes back.
    first = submit("killed", 0, "killed.log")
    taken = midway(0)
    kill(taken)
    lap(f"{taken} killed")
    start(taken)
    lap(f"{taken} started")
    code = first.wait(180)
    lap("killed: ended")
    found["killed"] = {"code": code} | judged("killed", 0)
    until(120, f"Ray on {taken}", lambda: raylet(taken))
    until(120, "three machines", lambda: active() == 3)
    lap("three machines")

    # A cable is pulled, and put back when the study has ended.
    second = submit("pulled", 1, "pulled.log")
    taken = midway(1)
    run("ip", "link", "set", f"v-{taken}", "down")
    lap(f"{taken} pulled")
    code = second.wait(240)
    lap("pulled: ended")
    found["pulled"] = {"code": code} | judged("pulled", 1)
    old = raylet(taken)
    run("ip", "link", "set", f"v-{taken}", "up")
    until(120, f"Ray on {taken}", lambda: raylet(taken) - old)
    until(120, "three machines", lambda: active() == 3)
    lap("three machines")

    # The head dies; a new machine gets its address.
    third = submit("replaced", 2, "replaced-1.log")
    midway(2)
    kill("head")
    lap("head killed")
    code = third.wait(120)
    lap("ray submit ended")
    run("umount", WORK / "head")
    start("head")
    run("ray", "down", CLUSTER, "--yes")
    run("ray", "up", CLUSTER, "--yes")
    lap("ray down, ray up")
    until(120, "three machines", lambda: active() == 3)
    lap("three machines")
    again = submit("replaced", 2, "replaced-2.log").wait(240)
    lap("replaced: ended")
    found["replaced"] = {"code": again, "code_without_head": code} | judged("replaced", 2)

    run("ray", "down", CLUSTER, "--yes")
    lap("ray down")
    for machine in ("w1", "w2"):
        ssh(machine, "ray stop")
    lap("ray stop")
    found["left"] = {
        "processes": [line for machine in ADDRESSES for line in processes(machine, "ray").values()],
        "laptop": sorted(path.name for path in (WORK / "laptop/tmp").iterdir()),
        "ssh": [str(path) for path in set(Path("/tmp").glob("ray_ssh_*/*")) - before],
    }
    for path in found["left"]["ssh"]:
        shutil.rmtree(path)
    found["seconds"] = seconds
    return found


if __name__ == "__main__":
    try:
        print(json.dumps(main(), indent=1))
    except Exception:
        print(ssh("head", "ray status; tail -n 300 /tmp/ray/session_latest/logs/monitor.log", check=False), file=sys.stderr)
        raise
