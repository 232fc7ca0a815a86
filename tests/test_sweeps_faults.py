"""A study of twenty tiny cells that is killed, starved and damaged ends with the numbers of an undisturbed one."""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TINY = [sys.executable, str(Path(__file__).parent / "tiny_study.py"), "--resume-every", "0.1", "--steps", "100"]
CELLS, STEPS = 21, 3 * (100 + 2 * 75 + 2 * 100 + 75 + 100)


def numbers(storage: Path) -> dict[str, dict]:
    """What every finished run says of itself, by key."""
    results = storage.glob("runs/*/result.json")
    return {path.parent.name: json.loads(path.read_bytes())["numbers"] for path in results}


def provenances(storage: Path) -> list[dict]:
    return [json.loads(path.read_bytes())["provenance"] for path in storage.glob("runs/*/result.json")]


def claimed(storage: Path) -> list[Path]:
    """Claims of runs that are being trained, or of trainers that were killed."""
    return list(storage.glob("runs/*/claim.json"))


def failures(storage: Path) -> dict[str, str]:
    found = storage.glob("runs/*/failure.json")
    return {path.parent.name: json.loads(path.read_bytes())["error"] for path in found}


def start(storage: Path, *options: str) -> subprocess.Popen:
    with (storage.parent / f"{storage.name}.log").open("ab") as log:
        return subprocess.Popen([*TINY, "--storage", str(storage), *options], stdout=log, stderr=log)


def log_of(storage: Path) -> str:
    return (storage.parent / f"{storage.name}.log").read_text()


def finish(storage: Path, *options: str) -> int:
    process = start(storage, *options)
    try:
        return process.wait(240)
    finally:
        process.kill()


def descendants(pid: int) -> dict[int, str]:
    """Command lines of the processes below one, by pid."""
    parents, commands = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):
                continue
    below, new = {pid}, {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new and child not in below}
        below |= new
    return {child: commands[child] for child in below - {pid} if child in commands}


def trials(pid: int) -> list[int]:
    """Processes below one that train cells."""
    return [child for child, command in descendants(pid).items() if command.startswith("ray::CellTrainable")]


def kill(pids: Iterator[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, dict]:
    storage = tmp_path_factory.mktemp("undisturbed") / "storage"
    assert finish(storage) == 0, log_of(storage)
    found = numbers(storage)
    assert len(found) == CELLS
    assert sum(result["steps"] for result in found.values()) == STEPS
    assert sum(provenance["steps_run"] for provenance in provenances(storage)) == STEPS
    return found


def test_ten_kills_of_trial_processes(undisturbed, tmp_path):
    storage, chance = tmp_path / "storage", random.Random(0)
    process = start(storage, "--retries", "10")
    for done_before in range(10):  # of 21 cells, so that the study is never over before its tenth kill
        wait_for(lambda before=done_before: len(numbers(storage)) >= before and bool(claimed(storage)))
        time.sleep(chance.uniform(0, 0.3))
        while not (running := trials(process.pid)):
            time.sleep(0.02)
        kill(iter([chance.choice(running)]))
    assert process.wait(240) == 0, log_of(storage)
    assert numbers(storage) == undisturbed
    # Beyond the budgets at most what was made since the last resume State: known to less than two seconds of it.
    assert STEPS <= sum(provenance["steps_run"] for provenance in provenances(storage)) < 2 * STEPS


def test_five_kills_of_the_driver(undisturbed, tmp_path):
    storage, chance = tmp_path / "storage", random.Random(1)
    for done_before in (1, 4, 8, 12, 16):
        process = start(storage)
        wait_for(lambda before=done_before: len(numbers(storage)) >= before)
        time.sleep(chance.uniform(0, 1))
        process.kill()
        process.wait()
    assert finish(storage) == 0, log_of(storage)
    assert numbers(storage) == undisturbed


def test_all_of_ray_is_killed(undisturbed, tmp_path):
    storage = tmp_path / "storage"
    process = start(storage)
    wait_for(lambda: len(numbers(storage)) >= 6)
    kill(iter(descendants(process.pid)))
    try:
        process.wait(90)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert finish(storage) == 0, log_of(storage)
    assert numbers(storage) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_closed_terminal(undisturbed, tmp_path, number):
    storage = tmp_path / "storage"
    process = start(storage)
    wait_for(lambda: len(numbers(storage)) >= 6)
    process.send_signal(number)
    assert process.wait(60) == 130
    assert f"to go on: {shlex.quote(sys.executable)} " in log_of(storage)
    assert (storage / "studies/tiny/results.parquet").exists()
    assert not claimed(storage)
    assert finish(storage) == 0
    assert numbers(storage) == undisturbed


def test_a_cell_that_diverges_is_a_row_and_nothing_else_is_touched(undisturbed, tmp_path):
    storage = tmp_path / "storage"
    assert finish(storage, "--diverge") == 1
    found = numbers(storage)
    assert {run_key: found[run_key] for run_key in undisturbed} == undisturbed
    errors = sorted(failures(storage).values())
    assert len(errors) == 2
    assert errors[0].startswith("diverged: the training loss is not finite (step ")
    assert errors[1].startswith("its parent digits/resnet8-8/iterative/linear-restart/s0.5/seed3-")


def test_a_damaged_state_is_named_and_nothing_else_is_touched(undisturbed, tmp_path):
    storage = tmp_path / "storage"
    assert finish(storage) == 0
    dense = next(path for path in storage.glob("runs/*/cell.json") if json.loads(path.read_text())["kind"] == "dense")
    state = dense.parent / "state-100.safetensors"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    children = [path for path in storage.glob("runs/*/cell.json") if _is_first_cycle_of(path, dense)]
    for path in children:
        shutil.rmtree(path.parent)
    assert finish(storage) == 1
    errors = failures(storage)
    assert set(errors) == {path.parent.name for path in children}
    assert all(f"{state} is damaged (its checksum is off)" in error for error in errors.values())
    assert numbers(storage) == {run_key: undisturbed[run_key] for run_key in undisturbed if run_key not in errors}
    forget = [sys.executable, "-m", "sweeps", "forget", str(storage), dense.parent.name]
    assert subprocess.run(forget, capture_output=True, text=True, check=True).stdout.count("stands on it") == 6
    assert finish(storage) == 0
    assert numbers(storage) == undisturbed


def _is_first_cycle_of(path: Path, dense: Path) -> bool:
    cell, run = json.loads(path.read_text()), json.loads(dense.read_text())
    return cell["kind"] == "cycle" and len(cell["densities"]) == 1 and {"kind": "dense", **cell["dense"]} == run


def test_an_environment_that_is_broken_on_the_workers_ends_the_study(tmp_path):
    """Tune alone would start their trials again for ever."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if any('default_worker.py' in argument for argument in sys.orig_argv):\n"
        "    sys.modules['trainable.tune'] = None\n"
    )
    command = [*TINY, "--storage", str(tmp_path / "storage")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert run.returncode == 3
    assert "trials die before they begin, three in a row" in run.stderr
    assert "import of trainable.tune halted" in run.stderr


NAMESPACE = ["unshare", "--mount", "--propagation", "private"]


@pytest.mark.parametrize("fault", ["read-only", "full"])
def test_a_storage_that_gives_up_for_a_while(undisturbed, tmp_path, fault):
    """In a mount namespace of its own, since permissions mean nothing to root."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("needs root: a tmpfs in a private mount namespace")
    mount = tmp_path / "mount"
    mount.mkdir()
    script = [sys.executable, __file__, fault, str(mount), str(tmp_path / "found.json")]
    run = subprocess.run([*NAMESPACE, *script], capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["codes"] == [3, 0]
    assert found["said"], found
    assert found["numbers"] == undisturbed


def in_namespace(fault: str, mount: Path, report: Path) -> None:
    """Start a study on a tmpfs, take the storage away, and give it back."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(mount)], check=True)
    storage, filler = mount / "storage", mount / "filler"
    log = (report.parent / "log").open("ab")
    process = subprocess.Popen([*TINY, "--storage", str(storage)], stdout=log, stderr=log)
    wait_for(lambda: len(numbers(storage)) >= 5)
    if fault == "read-only":
        while subprocess.run(["mount", "-o", "remount,ro", str(mount)], capture_output=True).returncode:
            time.sleep(0.01)  # busy while a file is open for writing
    else:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
    codes = [process.wait(120)]
    if fault == "read-only":
        subprocess.run(["mount", "-o", "remount,rw", str(mount)], check=True)
    else:
        filler.unlink()
    codes.append(subprocess.run([*TINY, "--storage", str(storage)], stdout=log, stderr=log, timeout=200).returncode)
    words = {"read-only": "Read-only file system", "full": "No space left on device"}[fault]
    said = "storage error" in (text := (report.parent / "log").read_text()) and words in text
    report.write_text(json.dumps({"codes": codes, "said": said, "numbers": numbers(storage)}))


if __name__ == "__main__":
    in_namespace(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
