"""The benchmark runs at its smallest and prints what it promises; its figures are checked for sense, not for size."""

import importlib.util
import json
import math
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from trainable.config import dense_run, key, lineage

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "scale.py"
FIGURES = {"plan_seconds", "plan_cpu_seconds", "wall_seconds", "driver_cpu_seconds", "driver_peak_megabytes"}


@pytest.fixture(scope="module")
def scale():
    spec = importlib.util.spec_from_file_location("scale", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_hundred_cells_a_seed_parents_first(scale):
    rows = list(islice(scale.rows(), 200))
    assert len({key(cell) for _, cell in rows}) == 200
    assert [dense_run(cell).seed for _, cell in rows] == [0] * 100 + [1] * 100
    above = set()
    for _, cell in rows:
        assert above >= {key(member) for member in lineage(cell)[:-1]}
        above.add(key(cell))


def test_growth(scale):
    linear = {number: dict.fromkeys(FIGURES, 5 + 0.25 * number) for number in (100, 1000, 10000)}
    rates = {f"{name}_per_cell": 0.25 for name in FIGURES}
    assert scale.growth(linear) == {"100 to 1000": rates, "1000 to 10000": rates}


def test_json_of_the_smallest_run():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--cells", "3", "--json"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == {"n", "cells", "growth", "device", "versions", "logical_resources", "cores", "date"}
    assert (result["n"], result["growth"], set(result["cells"])) == (1, {}, {"3"})
    assert set(result["cells"]["3"]) == FIGURES
    assert all(0 < figure < math.inf for figure in result["cells"]["3"].values())
    assert done.stderr.startswith("3 cells: plan_seconds ")


@pytest.mark.cluster
def test_the_driver_grows_by_less_than_a_tenth_of_a_megabyte_a_cell():
    """The whole engine, at sizes that a test can wait for; the dated results go to 10,000 cells."""
    command = [sys.executable, SCRIPT, "--cells", "100", "500", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    grown = json.loads(done.stdout)["growth"]["100 to 500"]
    assert grown["driver_peak_megabytes_per_cell"] < 0.1


def test_bad_arguments():
    done = subprocess.run([sys.executable, SCRIPT, "--cells", "0"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "must be a whole number, 1 or more, got 0" in done.stderr
