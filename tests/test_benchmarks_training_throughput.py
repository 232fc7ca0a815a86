"""The benchmark runs at its smallest and prints what it promises; its figures are checked for sense, not for size."""

import importlib.util
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "training_throughput.py"
SMALLEST = ("--architecture", "resnet8-8", "--steps", "1", "--rounds", "1", "--threads", "1", "--device", "cpu")
NAMES = ("naive", "fp32", "bf16", "bf16_compiled")
KEYS = {
    *("images_per_second", "ratio_to_naive", "share_of_matmul_peak", "masking_cost", "masking_pairs", "per_round"),
    *("naive_workers", "matmul_peak_tflops", "training_flops_per_image", "compile_seconds", "architecture", "density"),
    *("batch_size", "threads", "steps", "rounds", "data", "device", "cpu", "cores", "versions", "date"),
}


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=280,
    )


def check(result, measured):
    assert set(result) == KEYS
    for table in ("images_per_second", "ratio_to_naive", "share_of_matmul_peak"):
        assert tuple(result[table]) == NAMES
        assert [name for name in NAMES if result[table][name] is not None] == measured
        assert all(0 < result[table][name] < math.inf for name in measured)
    speeds, ratios = result["images_per_second"], result["ratio_to_naive"]
    assert ratios == {name: None if speed is None else speed / speeds["naive"] for name, speed in speeds.items()}
    assert speeds["naive"] == max(result["per_round"]["naive_0"] + result["per_round"]["naive_2"])
    assert -1 < result["masking_cost"] < math.inf
    assert set(result["matmul_peak_tflops"]) == {"fp32", "bf16"}
    assert (result["architecture"], result["threads"], result["steps"], result["rounds"]) == ("resnet8-8", 1, 1, 1)
    assert (result["data"], result["batch_size"], result["density"]) == ("random", 128, 0.2)


@pytest.fixture(scope="module")
def without_compiler(tmp_path_factory):
    """A run on a machine without a C++ compiler."""
    done = run(*SMALLEST, "--json", PATH=str(tmp_path_factory.mktemp("empty")), CXX="")
    assert done.returncode == 0, done.stderr
    return done


def test_json_of_the_smallest_run(without_compiler):
    result = json.loads(without_compiler.stdout)
    check(result, ["naive", "fp32", "bf16"])
    assert result["compile_seconds"] is None
    assert "bf16_compiled is not measured: torch.compile needs a C++ compiler" in without_compiler.stderr
    # ResNet-8 of width 8 on 32×32 pixels, by hand: kernel × inputs × outputs × output pixels of each layer.
    first, classifier = 9 * 3 * 8 * 1024, 32 * 10
    second, third = (9 + 1) * 8 * 16 * 256 + 9 * 16 * 16 * 256, (9 + 1) * 16 * 32 * 64 + 9 * 32 * 32 * 64
    macs = first + 2 * 9 * 8 * 8 * 1024 + second + third + classifier
    assert result["training_flops_per_image"] == 3 * 2 * macs


def test_table(without_compiler):
    spec = importlib.util.spec_from_file_location("training_throughput", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "training_throughput", module)
        spec.loader.exec_module(module)
        text = module.table(json.loads(without_compiler.stdout))
    cells = [line.split() for line in text.splitlines() if line]
    rows = {name: figures for name, *figures in cells if name in NAMES}
    assert set(rows) == set(NAMES)
    assert rows["bf16_compiled"] == ["—", "—", "—"]
    assert rows["naive"][1] == "1.00"
    assert "masking costs" in text


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="torch.compile needs a C++ compiler")
def test_compiled_too():
    done = run(*SMALLEST, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    check(result, list(NAMES))
    assert result["compile_seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", "0"), "must be a whole number, 1 or more, got '0'"),
        (("--rounds", "two"), "must be a whole number, 1 or more, got 'two'"),
        (("--architecture", "resnet21"), "a CIFAR ResNet's depth is 6n + 2"),
        (("--batch-size", "1"), "batch_size must be 2 or more, got 1"),
        (("--threads", "1000000"), "threads must be at most the"),
        (("--data-root", "no-such-folder"), "cifar10.npz is not there: leave --data-root out"),
        (("--device", "abacus"), "device 'abacus' can't be used"),
    ],
)
def test_bad_arguments(arguments, message):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
