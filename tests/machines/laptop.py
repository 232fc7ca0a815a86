"""The session that test_cluster_machines.py judges: python laptop.py WORK, from the checkout, on machines.sh's laptop.

It brings a cluster up with cluster.local.yaml, takes machines away in the middle of studies and brings them back, takes
the cluster down, and prints what it found, as JSON.
"""

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.load import load
from sweeps import quick_study
from trainable.config import key

ADDRESSES = {"head": "10.77.0.11", "w1": "10.77.0.12", "w2": "10.77.0.13"}
STRATEGIES = ("weight-rewinding",)
MEASURED = ("study", "resumes", "train_seconds", "images_per_second", "finished_at", "git_commit")
"""Columns that tell how a cell was computed, not what came out."""


def work() -> Path:
    return Path(sys.argv[1])


def cluster() -> Path:
    """The cluster file, filled in."""
    return work() / "cluster.local.yaml"


def storage() -> Path:
    """What is /mnt/shared/results on the machines."""
    return work() / "shared" / "results"


def configuration(text: str, environment: Path) -> dict[str, Any]:
    """cluster.local.yaml with what its comments name filled in, and the environment that the machines see already.

    Installing torch three times is the one thing that a test cannot do: the two commands that would are replaced by a
    link to the environment that Ray runs in here, and a line that makes it import the project as it was synced.
    """
    config = yaml.safe_load(text)
    config["provider"] |= {"head_ip": ADDRESSES["head"], "worker_ips": [ADDRESSES["w1"], ADDRESSES["w2"]]}
    for target in [target for target, source in config["file_mounts"].items() if source.startswith(".git")]:
        if not Path(config["file_mounts"][target]).exists():  # as the comment beside them says
            del config["file_mounts"][target]
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(work() / "key")}
    config["head_start_ray_commands"][1] += " --num-cpus=0"
    config["worker_start_ray_commands"][1] += " --num-cpus=1"  # each sees this machine's
    packages = next(environment.glob("lib/python*/site-packages"))
    make, install = config["setup_commands"][1:3]
    assert "python3 -m venv" in make, make
    assert "pip install" in install, install
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
    return run(
        "ssh", *given, "-i", work() / "key", f"root@{ADDRESSES[machine]}", f". ~/.bashrc; {command}", check=check
    )


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
    run("bash", Path(__file__).with_name("machine.sh"), work(), Path(sys.executable).parent, machine)


def kill(machine: str) -> None:
    os.kill(int((work() / f"{machine}.pid").read_text()), 9)


def processes(machine: str, pattern: str) -> dict[int, str]:
    """Command lines by process id, of a machine's processes that match."""
    space, found = os.readlink(f"/proc/{(work() / f'{machine}.pid').read_text().strip()}/ns/pid"), {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            if re.search(pattern, line) and os.readlink(folder / "ns/pid") == space:
                found[int(folder.name)] = line
        except OSError:  # it has ended
            continue
    return found


def send(number: signal.Signals, to: Iterable[int]) -> None:
    for process in to:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(process, number)


def raylet(machine: str) -> set[int]:
    return set(processes(machine, r"/raylet/raylet "))


def active() -> int:
    """Machines of the cluster, as `ray status` says it."""
    said = ssh("head", "ray status", check=False).partition("Active:")[2].partition("Pending:")[0]
    return sum(int(number) for number in re.findall(r"^ (\d+) local\.cluster\.node$", said, re.M))


# Studies


def keys(seed: int, sparsity: float = 0.95) -> list[str]:
    return list(dict.fromkeys(key(cell) for _, cell in quick_study.cells([seed], STRATEGIES, [sparsity])))


def done(seed: int) -> int:
    return sum((storage() / "runs" / run_key / "result.json").exists() for run_key in keys(seed))


def options(name: str, seed: int, sparsity: float = 0.95) -> list[str]:
    """Of the quick study: seven cells, five of them one after the other."""
    chosen = ["--seeds", str(seed), "--strategies", *STRATEGIES, "--sparsities", str(sparsity)]
    return ["--storage", "/mnt/shared/results", "--name", name, *chosen, "--resume-every", "0.5"]


class Submitted:
    """`ray submit` of the quick study, in a terminal of its own."""

    def __init__(self, name: str, seed: int, log: str) -> None:
        self.log = work() / log
        self._terminal, inside = pty.openpty()
        self._process = subprocess.Popen(
            ["ray", "submit", str(cluster()), "sweeps/quick_study.py", "--", *options(name, seed)],
            stdin=inside,
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inside)

    def close_terminal(self) -> None:
        os.close(self._terminal)

    def wait(self) -> int:
        return self._process.wait(300)


def midway(seed: int, cells: int) -> str:
    """Wait until as many cells of a seed are done and another one has a resume State; the worker that trains it."""
    folders = [storage() / "runs" / run_key for run_key in keys(seed)]

    def trained_by() -> str | None:
        if done(seed) < cells:
            return None
        for folder in folders:
            try:
                if (folder / "resume.safetensors").exists():
                    return str(json.loads((folder / "claim.json").read_bytes())["host"])
            except FileNotFoundError:  # it is done
                continue
        return None

    return str(until(120, f"{cells} cells of seed {seed} and a resume State", trained_by))


def without_cluster() -> subprocess.Popen:
    """The same cells, trained on the laptop."""
    with (work() / "alone.log").open("wb") as log:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "sweeps.quick_study", "--storage", str(work() / "alone")),
                *("--seeds", "0", "1", "2", "--strategies", *STRATEGIES, "--sparsities", "0.95", "0.9"),
            ],
            stdout=log,
            stderr=log,
        )


def judged(name: str, seed: int, sparsity: float = 0.95) -> dict[str, Any]:
    """The table of a study that has ended, against that of the same cells trained here, without a cluster."""
    rows = keys(seed, sparsity)
    table = pd.read_parquet(storage() / "studies" / name / "results.parquet")
    alone = load(work() / "alone", "quick")
    ours, theirs = (
        frame[frame["key"].isin(rows)].drop(columns=list(MEASURED)).reset_index(drop=True) for frame in (table, alone)
    )
    numbers = [
        [json.loads((root / "runs" / run_key / "result.json").read_text())["numbers"] for run_key in rows]
        for root in (storage(), work() / "alone")
    ]
    return {
        "status": table["status"].value_counts().to_dict(),
        "same_numbers": numbers[0] == numbers[1],
        "same_table": ours.equals(theirs),
        "resumes": int(table["resumes"].sum()),
        "tensorboard": sorted(
            str(path.parent.relative_to(storage() / "studies" / name / "tensorboard"))
            for path in (storage() / "studies" / name / "tensorboard").rglob("events.out.tfevents.*")
        ),
    }


# The session


def main() -> dict[str, Any]:
    began = time.monotonic()
    found: dict[str, Any] = {"routes": run("ip", "-o", "route").splitlines()}
    sockets = set(Path("/tmp").glob("ray_ssh_*/*"))
    run("ray", "get-auth-token", "--generate")
    os.environ["RAY_AUTH_MODE"] = "token"
    config = configuration(Path("cluster.local.yaml").read_text(), Path(sys.executable).parent.parent)
    cluster().write_text(yaml.safe_dump(config, sort_keys=False, width=1000))
    run("ray", "up", cluster(), "--yes")
    found["seconds"] = {}
    for part in (worker_killed, job_said, terminal_closed, cable_pulled, head_replaced, down):
        found[part.__name__] = part()
        found["seconds"][part.__name__] = round(time.monotonic() - began)
    for name, seed, sparsity in (("killed", 0, 0.95), ("job", 0, 0.9), ("pulled", 1, 0.95), ("replaced", 2, 0.95)):
        found[name] = judged(name, seed, sparsity)
    for folder in set(Path("/tmp").glob("ray_ssh_*/*")) - sockets:
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # another cluster's may be there
            folder.parent.rmdir()
    return found


def worker_killed() -> dict[str, Any]:
    """A worker's power is cut, and it is switched on again. The study is there before the workers are."""
    study = Submitted("killed", 0, "killed.log")
    until(120, "both workers", lambda: raylet("w1") and raylet("w2"))
    machine = midway(0, 2)
    kill(machine)
    start(machine)
    status = study.wait()
    first = next(line for line in study.log.read_text().splitlines() if line.startswith("runs "))  # but for Ray's own
    imported = {
        machine: ssh(machine, 'python -c "import trainable; print(trainable.__file__)"').split()[-1]
        for machine in ADDRESSES
    }
    return {"status": status, "first_line": first, "imported": imported}


def job_said() -> str:
    """A job, sent through the tunnel to the dashboard, while the worker comes back; what `ray job submit` says."""
    with subprocess.Popen(["ray", "dashboard", str(cluster())], stdout=subprocess.DEVNULL) as tunnel:
        until(30, "the tunnel", lambda: not socket.socket().connect_ex(("127.0.0.1", 8265)))
        script = ["python", "sweeps/quick_study.py", *options("job", 0, 0.9)]
        said = run("ray", "job", "submit", "--address", "http://127.0.0.1:8265", "--working-dir", ".", "--", *script)
        tunnel.terminate()
    until(120, "Ray on both workers", lambda: raylet("w1") and raylet("w2"))
    until(120, "three machines", lambda: active() == 3)
    return said


def terminal_closed() -> dict[str, int]:
    """The terminal of `ray submit` is closed; the table that the study leaves, by status."""
    study = Submitted("pulled", 1, "pulled-1.log")
    midway(1, 1)
    study.close_terminal()
    until(60, "the end of the study's process", lambda: not processes("head", r"python \S*quick_study\.py"))
    study.wait()
    return pd.read_parquet(storage() / "studies/pulled/results.parquet")["status"].value_counts().to_dict()


def cable_pulled() -> dict[str, int]:
    """The same command goes on. A worker's cable is pulled, and put back when the study has ended.

    Until the cluster gives the worker up, little happens: the same studies are trained without a cluster meanwhile.
    """
    study = Submitted("pulled", 1, "pulled-2.log")
    machine = midway(1, 2)
    cut, old = processes(machine, r"^ray::"), raylet(machine)
    run("ip", "link", "set", f"v-{machine}", "down")
    send(signal.SIGSTOP, cut)  # a shared folder would be behind that cable: what touches it waits
    alone = without_cluster()
    status = study.wait()
    run("ip", "link", "set", f"v-{machine}", "up")
    send(signal.SIGCONT, cut)
    until(120, "Ray on that machine", lambda: raylet(machine) - old)
    until(120, "three machines", lambda: active() == 3)
    return {"status": status, "alone": alone.wait(300)}


def head_replaced() -> list[int]:
    """The head dies, and a new machine gets its address; the statuses of the two `ray submit`."""
    study = Submitted("replaced", 2, "replaced-1.log")
    midway(2, 2)
    kill("head")
    died = study.wait()
    run("umount", work() / "head")
    start("head")
    run("ray", "down", cluster(), "--yes")
    run("ray", "up", cluster(), "--yes")
    return [died, Submitted("replaced", 2, "replaced-2.log").wait()]


def down() -> dict[str, list[str]]:
    """The cluster ends; what is left of it on the machines, and of all on the laptop."""
    run("ray", "down", cluster(), "--yes")
    for machine in ("w1", "w2"):
        ssh(machine, "ray stop --force")  # without, it waits for a head that is gone
    return {
        "machines": [line for machine in ADDRESSES for line in processes(machine, "ray").values()],
        "laptop": sorted(path.name for path in Path("/dev/shm").iterdir()),
    }


if __name__ == "__main__":
    try:
        print(json.dumps(main(), indent=1))
    except Exception:
        print(
            ssh("head", "ray status; tail -n 300 /tmp/ray/session_latest/logs/monitor.log", check=False),
            file=sys.stderr,
        )
        raise
