"""A study on three Ray nodes of this machine, undisturbed or not, ends with the numbers of one on one node."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from trainable.config import from_description
from trainable.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

HERE = Path(__file__).parent
TINY = [sys.executable, str(HERE / "tiny_study.py"), "--steps", "300", "--seeds", "2"]
CELLS, STEPS = 14, 2 * (300 + 2 * 225 + 2 * 300 + 225 + 300)
NODE = {"num_cpus": 1, "num_gpus": 1}
"""Of which a cell of the tiny study asks for all CPUs and a quarter of the GPU."""


class Nodes:
    """A Ray cluster: a head that trains nothing and worker nodes, in a process of its own (tests/ray_nodes.py)."""

    def __init__(self, folder: Path, scratch: str) -> None:
        """folder: which drivers start in, as the nodes do. scratch: a short path, for Ray's sockets."""
        self.folder = folder
        self.variables = {**os.environ, "RAY_TMPDIR": scratch, "RAY_AUTH_MODE": "disabled"}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "ray_nodes.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env=self.variables,
            text=True,
        )
        self.address = self._answer()
        self.variables["RAY_ADDRESS"] = self.address
        self.up: list[str] = []
        """Ids of the worker nodes."""

    def add(self, **options) -> str:
        """Start a node; its id."""
        self.up.append(self._ask(f"add {json.dumps(NODE | options)}"))
        return self.up[-1]

    def kill(self, node: str) -> None:
        self.up.remove(node)
        assert self._ask(f"kill {node}") == node

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, command: str) -> str:
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        line = self._process.stdout.readline().strip()
        assert line, "the cluster's process has died"
        return line


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Three of them; whoever kills one adds another."""
    scratch = tempfile.mkdtemp(prefix="ry")
    cluster = Nodes(tmp_path_factory.mktemp("nodes"), scratch)
    try:
        for _ in range(3):
            cluster.add()
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(scratch)


@pytest.fixture(scope="module")
def one_node(tmp_path_factory):
    """The storage of the study when it was trained on one node, which Ray starts by itself."""
    storage = tmp_path_factory.mktemp("one") / "storage"
    with tempfile.TemporaryDirectory(prefix="ry") as scratch:
        variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        command = [*TINY, "--storage", str(storage)]
        run = subprocess.run(
            command, env=variables | {"RAY_TMPDIR": scratch}, capture_output=True, text=True, timeout=240
        )
    assert run.returncode == 0, run.stderr
    assert run.stderr.startswith(f"runs on this machine, with storage {storage}\n")
    assert len(results(storage)) == CELLS
    return storage


def results(storage: Path) -> dict[str, dict]:
    """What every finished run has written, by key."""
    return {path.parent.name: json.loads(path.read_bytes()) for path in storage.glob("runs/*/result.json")}


def start(nodes: Nodes, storage: Path, *options: str) -> subprocess.Popen:
    """A driver, as a user starts one on the head."""
    with log_path(storage).open("ab") as log:
        command = [*TINY, "--resume-every", "0.2", "--storage", str(storage), *options]
        return subprocess.Popen(command, cwd=nodes.folder, env=nodes.variables, stdout=log, stderr=log)


def log_path(storage: Path) -> Path:
    return storage.parent / "log"


def finish(process: subprocess.Popen) -> int:
    try:
        return process.wait(240)
    finally:
        process.kill()
        process.wait()


def require_same(storage: Path, one_node: Path, drivers_killed: int = 0) -> None:
    """Every cell is done, with the same numbers; nothing is left of how it came about, but a killed driver's mark."""
    expected = results(one_node)
    found = results(storage)
    assert {run_key: result["numbers"] for run_key, result in found.items()} == {
        run_key: result["numbers"] for run_key, result in expected.items()
    }
    left = {path.name for path in storage.glob("runs/*/*")} - {"cell.json", "correct.bits", "result.json"}
    assert left == {path.name for path in one_node.glob("runs/*/state-*.safetensors")}
    assert len(list(storage.glob("probes/*"))) == drivers_killed
    cells = "studies/tiny/cells.json"
    assert (storage / cells).read_bytes() == (one_node / cells).read_bytes()


@dataclass(frozen=True, kw_only=True)
class Training:
    """A run that is under way, with a resume State."""

    key: str
    machine: str
    step: int
    """Of the resume State."""


def training(nodes: Nodes, storage: Path) -> list[Training]:
    """Runs that are under way now, on nodes that are up."""
    store, found = Store(storage), []
    for path in storage.glob("runs/*/resume.safetensors"):
        try:
            claim = json.loads((path.parent / "claim.json").read_bytes())
            cell = from_description(json.loads((path.parent / "cell.json").read_bytes()))
        except FileNotFoundError:
            continue
        if (step := store.resume_step(cell)) and (machine := claim["machines"][-1]) in nodes.up:
            found.append(Training(key=path.parent.name, machine=machine, step=step))
    return found


def wait_for(found: Callable[[], list | bool], driver: subprocess.Popen, seconds: float = 120) -> list | bool:
    until = time.monotonic() + seconds
    while not (now := found()):
        assert driver.poll() is None, "the study is over"
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
    return now


def strike(nodes: Nodes, storage: Path, driver: subprocess.Popen, chance: random.Random, done_before: int) -> Training:
    """Wait for cells that are done, then a random time, then for a run to strike."""
    wait_for(lambda: len(results(storage)) >= done_before, driver)
    time.sleep(chance.uniform(0, 1))
    return chance.choice(wait_for(lambda: training(nodes, storage), driver))


def require_little_lost(storage: Path, struck: list[Training]) -> None:
    """What was trained before the last resume State was not trained again."""
    found = {run_key: result["provenance"] for run_key, result in results(storage).items()}
    interrupted = [run for run in struck if found[run.key]["resumed_at"]]
    assert interrupted, "no run was killed midway"
    for run in interrupted:
        assert max(found[run.key]["resumed_at"]) >= run.step
    assert STEPS <= sum(provenance["steps_run"] for provenance in found.values()) < 1.5 * STEPS


def test_three_nodes(nodes, one_node, tmp_path):
    storage = tmp_path / "storage"
    assert finish(start(nodes, storage)) == 0, log_path(storage).read_text()
    said = log_path(storage).read_text()
    assert said.startswith(f"runs on the Ray cluster at {nodes.address}, with storage {storage}\n")
    assert "\n3 trials at a time; " in said
    require_same(storage, one_node)
    assert sum(result["provenance"]["steps_run"] for result in results(storage).values()) == STEPS


def test_five_kills_of_a_node(nodes, one_node, tmp_path):
    """With no retries: none of this is a cell's fault."""
    storage, chance, struck = tmp_path / "storage", random.Random(0), []
    driver = start(nodes, storage, "--retries", "0")
    for done_before in (0, 2, 4, 6, 8):
        struck.append(strike(nodes, storage, driver, chance, done_before))
        nodes.kill(struck[-1].machine)
        nodes.add()
    assert finish(driver) == 0, log_path(storage).read_text()
    require_same(storage, one_node)
    require_little_lost(storage, struck)


def test_kills_of_the_driver(nodes, one_node, tmp_path):
    storage, chance, struck = tmp_path / "storage", random.Random(1), []
    for done_before in (0, 4, 8):
        driver = start(nodes, storage)
        struck.append(strike(nodes, storage, driver, chance, done_before))
        driver.kill()
        driver.wait()
    assert finish(start(nodes, storage)) == 0, log_path(storage).read_text()
    require_same(storage, one_node, drivers_killed=3)
    require_little_lost(storage, struck)


def test_both_at_once(nodes, one_node, tmp_path):
    storage, chance, struck = tmp_path / "storage", random.Random(2), []
    for done_before in (0, 5):
        driver = start(nodes, storage)
        struck.append(strike(nodes, storage, driver, chance, done_before))
        driver.kill()
        nodes.kill(struck[-1].machine)
        driver.wait()
        nodes.add()
    assert finish(start(nodes, storage)) == 0, log_path(storage).read_text()
    require_same(storage, one_node, drivers_killed=2)
    require_little_lost(storage, struck)


def test_a_cells_own_deaths_count_and_its_machines_deaths_do_not(nodes, tmp_path):
    """One retry: a dense run whose process dies twice is a failed row, however many machines died under it."""
    storage = tmp_path / "storage"
    driver = start(nodes, storage, "--seeds", "1", "--steps", "100000", "--retries", "1", "--resume-every", "1000")
    dead: set[int] = set()

    def next_claim() -> dict:
        def unseen() -> list[dict]:
            found = [json.loads(path.read_bytes()) for path in storage.glob("runs/*/claim.json")]
            return [claim for claim in found if claim["pid"] not in dead]

        (claim,) = wait_for(unseen, driver)
        dead.add(claim["pid"])
        return claim

    for by_machine in (True, False, True, False):
        claim = next_claim()
        if by_machine:
            nodes.kill(claim["machines"][-1])
            nodes.add()
        else:
            os.kill(claim["pid"], signal.SIGKILL)
    assert finish(driver) == 1
    failures = [json.loads(path.read_bytes())["error"] for path in storage.glob("runs/*/failure.json")]
    own = "Vanished: its process vanished 2 times at or after step 0, with no word why"
    assert sorted(error.startswith("its parent ") for error in failures) == [False] + 6 * [True]
    assert all(error.endswith(own) for error in failures)


# Refused before anything is trained


def refused(nodes: Nodes, storage: str, *options: str) -> str:
    """What a driver says that ends with status 2, about its input."""
    command = [*TINY, "--storage", storage, *options]
    run = subprocess.run(command, cwd=nodes.folder, env=nodes.variables, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (2, "")
    assert list(Path(storage).glob("runs/*")) == []
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("option", "asked"), [(("--threads", "2"), "'CPU': 2.0, 'GPU': 0.25"), (("--gpus-per-trial", "2"), "'GPU': 2.0")]
)
def test_a_trial_that_fits_no_node(nodes, tmp_path, option, asked):
    said = refused(nodes, str(tmp_path / "storage"), *option)
    assert asked in said
    assert "more than any machine has (1 CPU, 1 GPU; 0 CPU, 0 GPU): lower --threads or --gpus-per-trial" in said


@pytest.fixture
def odd_node(nodes):
    """Adds a node with surroundings of its own, for the time of a test."""
    added = []
    yield lambda **options: added.append(nodes.add(**options))
    for node in added:
        nodes.kill(node)


def test_a_path_that_means_something_else_on_a_node(nodes, odd_node, tmp_path):
    """A path below its own folder is there for each process, and another one."""
    storage = "/proc/self/cwd/storage"
    odd_node(cwd=str(tmp_path))
    said = refused(nodes, storage)
    assert f"does not see the storage {storage} that the study was started with" in said
    assert said.endswith("use a file system that all machines share, or s3://bucket/prefix")
    assert list(tmp_path.iterdir()) == []


def test_a_node_with_another_version(nodes, odd_node, tmp_path):
    metadata = tmp_path / "torch-0.4.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.4\n")
    odd_node(env={"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"})
    said = refused(nodes, str(tmp_path / "storage"))
    assert "has other versions than the driver (torch 0.4 here, " in said


def test_a_node_with_other_source(nodes, odd_node, tmp_path):
    for package in ("trainable", "sweeps", "analysis"):
        shutil.copytree(HERE.parent / package, tmp_path / package)
    with (tmp_path / "trainable/strategies.py").open("a") as file:
        file.write("# not as on the driver\n")
    odd_node(env={"PYTHONPATH": str(tmp_path)})
    said = refused(nodes, str(tmp_path / "storage"))
    assert "has other source files of trainable, sweeps, analysis than the driver: bring the project to every" in said
