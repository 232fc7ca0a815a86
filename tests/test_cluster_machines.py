"""A cluster by `ray up cluster.local.yaml`, for real: three machines made of namespaces, which come and go."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1000)]

ROOT = Path(__file__).parents[1]
MACHINES = ROOT / "tests/machines"
PACKAGES = {"sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync", "ip": "iproute2"}
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CAN_MAKE_MACHINES = """
mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/root &&
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root &&
ip link add br0 type bridge && ip link add v0 type veth peer name v1
"""
STUDIES = ("killed", "job", "pulled", "replaced")


def unshare(*command):
    """A command in namespaces of its own."""
    options = ("--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--mount-proc")
    return subprocess.run(
        ["unshare", *options, *command], env={**os.environ, "PATH": PATH}, capture_output=True, text=True, check=False
    )


def obstacle():
    """Why machines can't be made here, or None."""
    if sys.platform != "linux":
        return "machines are made of Linux's namespaces"
    if missing := [package for tool, package in PACKAGES.items() if shutil.which(tool, path=PATH) is None]:
        return f"machines need apt-get install {' '.join(missing)}"
    tried = unshare("sh", "-c", CAN_MAKE_MACHINES)
    return f"machines need root, and a kernel that lets it: {tried.stderr.strip()}" if tried.returncode else None


def command_lines():
    """Of every process on this machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            yield path.read_bytes().replace(b"\0", b" ").decode()


def outside(work):
    """What the machines could leave behind on this one: links, mounts, processes, the launcher's sockets."""
    return {
        "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if str(work) in line],
        "processes": [line for line in command_lines() if str(work) in line],
        "sockets": sorted(map(str, Path("/tmp").glob("ray_ssh_*/*"))),
    }


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """What tests/machines/laptop.py found, and this machine before and after."""
    if reason := obstacle():
        pytest.skip(reason)
    work = tmp_path_factory.mktemp("machines")
    before = outside(work)
    command = ["bash", MACHINES / "machines.sh", work, Path(sys.executable).parent, "900"]
    done = subprocess.run(
        [*command, sys.executable, MACHINES / "laptop.py", work],
        cwd=ROOT,
        env={**os.environ, "PATH": PATH, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=950,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-20_000:]
    return json.loads(done.stdout) | {"before": before, "after": outside(work)}


@pytest.mark.parametrize("study", STUDIES)
def test_the_table_is_that_of_one_machine(session, study):
    """Bit for bit, whatever happened to the machines on the way."""
    assert session["cable_pulled"]["alone"] == 0
    found = session[study]
    assert found["status"] == {"done": 7}
    assert found["same_numbers"]
    assert found["same_table"]


@pytest.mark.parametrize("study", ["killed", "pulled", "replaced"])
def test_cells_go_on_from_their_resume_state(session, study):
    assert session[study]["resumes"] >= 1


def test_a_worker_may_die(session):
    """`ray submit` ends well, the worker killed or cut off."""
    assert session["worker_killed"]["status"] == 0
    assert session["cable_pulled"]["status"] == 0


def test_a_head_may_be_replaced(session):
    """Its death ends `ray submit`; on the new one the same command goes on."""
    assert session["head_replaced"] == [1, 0]


def test_a_job(session):
    assert "runs on the Ray cluster at 10.77.0.11:6379" in session["job_said"]
    assert re.search(r"Job 'raysubmit_\w+' succeeded", session["job_said"])


def test_a_closed_terminal_ends_the_study(session):
    """Its process is gone, and its table says what was done by then."""
    assert 1 <= session["terminal_closed"]["done"] < 7
    assert sum(session["terminal_closed"].values()) == 7


def test_the_first_line_says_where_it_runs(session):
    said = "runs on the Ray cluster at 10.77.0.11:6379, with storage /mnt/shared/results"
    assert session["worker_killed"]["first_line"] == said


def test_machines_run_what_was_synced(session):
    """And not the checkout, which they see too."""
    imported = session["worker_killed"]["imported"]
    assert imported == dict.fromkeys(("head", "w1", "w2"), "/root/rewind-sweeps/trainable/__init__.py")


def test_each_cell_is_a_run_of_tensorboard(session):
    """Written by every machine into the shared folder; the study's own beside them."""
    runs = {name for study in STUDIES for name in session[study]["tensorboard"]}
    assert "study" in runs
    assert len(runs - {"study"}) == 3 * 7 + 1


def test_nothing_leaves_the_namespaces(session):
    """The laptop, and with it the machines, can reach their own network only."""
    assert [route.split()[0] for route in session["routes"]] == ["10.77.0.0/24"]


def test_nothing_is_left_behind(session):
    """On the machines, after `ray down` and `ray stop`, and here. On the laptop: Ray's state and cache, torch's."""
    assert session["down"]["machines"] == []
    assert {name.partition("-")[0] for name in session["down"]["laptop"]} <= {"ray", "torchinductor_root"}
    assert session["after"] == session["before"]


def test_a_time_limit_ends_all(tmp_path):
    """When a session hangs: its machines, mounts and links are gone with it."""
    if reason := obstacle():
        pytest.skip(reason)
    before = outside(tmp_path)
    done = subprocess.run(
        ["bash", MACHINES / "machines.sh", tmp_path, Path(sys.executable).parent, "10", "sleep", "600"],
        env={**os.environ, "PATH": PATH},
        timeout=60,
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert (tmp_path / "w2.pid").exists()
    assert outside(tmp_path) == before
