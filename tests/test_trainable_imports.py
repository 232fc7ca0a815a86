"""What an import brings along: validation must be quick, and only trainable.tune may know of Ray."""

import os
import subprocess
import sys

import pytest

LIGHT = "trainable.config, trainable.architectures, trainable.recipes, trainable.strategies, trainable.schedules"


def loaded(statement, path=""):
    """Which of torch and ray a fresh interpreter has loaded after a statement."""
    script = f"import sys; {statement}; print(*sorted({{'torch', 'ray'}} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.split()


def test_validation_loads_neither_torch_nor_ray():
    assert loaded(f"import {LIGHT}, trainable.datasets, trainable.store") == []


def test_a_cycle_loads_no_ray():
    assert loaded("import trainable.cycle") == ["torch"]


@pytest.mark.parametrize("module", ["torch", "ray"])
def test_the_check_can_fail(tmp_path, module):
    """A stand-in of the same name is imported by way of another module: the check must see it."""
    (tmp_path / f"{module}.py").write_text("")
    (tmp_path / "innocent.py").write_text(f"import {module}\n")
    assert loaded("import innocent", tmp_path) == [module]
