"""Every strategy and control in one study of tiny budgets, through a real Ray Tuner."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.load import load

SCRIPT = Path(__file__).parent / "every_strategy_study.py"
SPEC = importlib.util.spec_from_file_location("every_strategy_study", SCRIPT)
every = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(every)


@pytest.mark.slow
def test_all_of_them_train_and_show(tmp_path):
    arguments = [sys.executable, str(SCRIPT), "--storage", "storage"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    frame = load(tmp_path / "storage", "every-strategy")
    assert set(frame["status"]) == {"done"}
    one_shot = frame[(frame["schedule"] == "one-shot") & (frame["mask"] == "magnitude")]
    names = [name.split()[0] for name in every.retrainings(every.dense_run())]
    assert list(one_shot["strategy"]) == ["dense-extra-budget", *names]
    others = frame[frame["mask"].notna() & (frame["mask"] != "magnitude")]
    expected = [(mask, "unstructured") for mask in every.MASKS] + [(mask, "structured") for mask in every.MASKS[:-1]]
    assert sorted(zip(others["mask"], others["structure"], strict=True)) == sorted(expected)
    pruned = frame[frame["sparsity_target"] == 0.8]
    assert (pruned.loc[pruned["structure"] == "unstructured", "sparsity"] - 0.8).abs().max() < 1e-4
    # Gradual pruning needs no dense run: it costs its own steps only.
    assert frame.loc[frame["strategy"] == "gradual-pruning", "total_steps"].tolist() == [52]
