"""The quick study at its smallest, through a real Ray Tuner; and small studies that are disturbed a little."""

import hashlib
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import metadata

from analysis import aggregate, tables
from analysis.load import SCHEMA, load
from analysis.subject import of_study
from sweeps import quick_study
from trainable import recipes
from trainable.config import DenseRun, key

SMALLEST = ["--seeds", "0", "--strategies", "lr-rewinding", "--sparsities", "0.95"]
QUICK = [sys.executable, "-m", "sweeps.quick_study"]
TINY = [sys.executable, str(Path(__file__).parent / "tiny_study.py")]


def run(folder: Path, *arguments: str, script=QUICK, **environment: str) -> subprocess.CompletedProcess:
    """A study's script in a process of its own, with <folder>/storage."""
    command, variables = [*script, "--storage", str(folder / "storage"), *arguments], {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=240, check=False)


def children_seconds() -> float:
    """CPU seconds that finished children have taken: unlike the clock's, nearly the same on a busy machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def results(folder: Path) -> dict[str, dict]:
    paths = folder.glob("storage/runs/*/result.json")
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def stamps(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("storage/runs/*/result.json")}


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """The folder of the smallest quick study, and what its script said."""
    folder = tmp_path_factory.mktemp("quick")
    done = run(folder, *SMALLEST)
    assert done.returncode == 0, done.stderr
    return folder, done


def tensorboard(folder: Path) -> dict[str, Path]:
    """Runs of TensorBoard by name."""
    root = folder / "storage/studies/quick/tensorboard"
    return {str(path.parent.relative_to(root)): path.parent for path in root.rglob("events.out.tfevents.*")}


# Declared


def test_the_whole_study():
    rows = list(quick_study.cells())
    cells = {key(cell): cell for _, cell in rows}
    # A seed: dense, dense with the extra budget, and three strategies × (5 one-shot + 4 iterative, one of them both).
    assert len(rows) == 5 * (1 + 1 + 3 * (5 + 4))
    assert len(cells) == 5 * (1 + 1 + 3 * (5 + 4 - 1))
    assert sum(isinstance(cell, DenseRun) for cell in cells.values()) == 5
    assert {cell.density for cell in cells.values() if not isinstance(cell, DenseRun)} == {
        *(1.0, 0.5, 0.2, 0.1, 0.05, 0.02),
        *(0.25, 0.125, 0.0625),
    }


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--sparsities", "80"], r"error: sparsity must be in \[0, 1\), got 80.0: is it a percentage\?"),
        (["--sparsities", "1"], r"error: sparsity must be in \[0, 1\), got 1.0$"),
        (["--storage", "/proc/x"], r"error: storage '/proc/x' can't be written"),
        (["--name", "a b"], r"error: a study's name must be"),
    ],
)
def test_bad_input(tmp_path, capsys, option, said):
    assert quick_study.main(["--storage", str(tmp_path / "s"), *option]) == 2
    out, err = capsys.readouterr()
    assert (out, list(tmp_path.iterdir())) == ("", [])
    assert re.search(said, err.strip()), err


@pytest.mark.parametrize("seed", ["-1", "one", "0.5"])
def test_a_seed_that_is_none(tmp_path, capsys, seed):
    with pytest.raises(SystemExit, match="2"):
        quick_study.main(["--storage", str(tmp_path / "s"), "--seeds", seed])
    said = f"error: argument --seeds: must be a whole number, 0 or more, got {seed} (see --help)\n"
    assert capsys.readouterr() == ("", said)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_strategy(capsys):
    with pytest.raises(SystemExit, match="2"):
        quick_study.main(["--strategies", "hope"])
    assert "choose from fine-tuning, weight-rewinding, lr-rewinding" in capsys.readouterr().err.replace("'", "")


def test_a_dry_run_is_quick_and_starts_no_ray(tmp_path):
    began = children_seconds()
    done = run(tmp_path, "--dry-run", "--json", RAY_TMPDIR=str(tmp_path / "ray"))
    assert children_seconds() - began < 5
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    promised = {"cells": 130, "cells_done": 0, "cells_missing": 130, "dense_runs": 5}
    assert {name: found[name] for name in promised} == promised
    per_seed = 400 * 2 + 400 * 8 * 2 + 356 * 8
    assert found["steps_to_train"] == 5 * per_seed
    assert found["steps_if_separate"] > found["steps_to_train"]
    assert list(tmp_path.iterdir()) == []  # Ray's folder would be here too


@pytest.mark.parametrize(
    ("option", "gpus", "said"),
    [
        (["--threads", "999"], 0, "{'CPU': 999.0}"),
        (["--gpus-per-trial", "0.5"], 0, "{'CPU': 1.0, 'GPU': 0.5}"),
        (["--gpus-per-trial", "2"], 1, "{'CPU': 1.0, 'GPU': 2.0}"),
    ],
)
def test_a_trial_that_fits_no_machine_is_refused_before_ray(tmp_path, option, gpus, said):
    machine = {"RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": 2, "GPU": gpus}), "RAY_TMPDIR": str(tmp_path / "ray")}
    done = run(tmp_path, "--seeds", "1", *option, script=TINY, **machine)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = re.findall("^error: .*$", done.stderr, re.M)
    assert line == (
        f"error: a trial asks for {said}, more than any machine has (2 CPU, {gpus} GPU): "
        "lower --threads or --gpus-per-trial"
    )
    assert list(tmp_path.iterdir()) == []  # Ray's folder would be here too


# Trained


def test_results(studied):
    folder, _ = studied
    found = results(folder)
    assert len(found) == 7
    assert sum(result["numbers"]["steps"] for result in found.values()) == 2800
    assert sum(result["provenance"]["steps_run"] for result in found.values()) == 2800
    assert {tuple(result["provenance"]["resumed_at"]) for result in found.values()} == {()}
    left = {path.name for path in folder.glob("storage/runs/*/*")} - {"cell.json", "correct.bits", "result.json"}
    assert left == {"state-400.safetensors"}


def test_the_table_in_three_forms(studied):
    folder, _ = studied
    study = folder / "storage/studies/quick"
    frame = load(folder / "storage", "quick")
    assert list(frame["status"]) == ["done"] * 7
    assert list(frame["sparsity_target"]) == [0.0, 0.0, 0.95, 0.5, 0.75, 0.875, 0.9375]
    pd.testing.assert_frame_equal(pd.read_parquet(study / "results.parquet"), frame)
    pd.testing.assert_frame_equal(pd.read_csv(study / "results.csv", dtype=SCHEMA), frame)
    declared = json.loads((study / "cells.json").read_text())
    assert [row["key"] for row in declared] == list(frame["key"])


def test_what_is_printed(studied):
    """Table and verdicts on stdout and nothing else; the plan first, progress and the way to TensorBoard on stderr."""
    folder, done = studied
    subject = of_study(folder / "storage", "quick", look=False)
    table, verdicts = tables.as_text(aggregate.accuracy(subject.frame)), tables.headlines(subject.verdicts())
    assert done.stdout == f"{table}\n\n{verdicts}\n"
    where = f"runs on this machine, with storage {folder / 'storage'}"
    assert done.stderr.startswith(f"{where}\ncells           7: 0 done, 7 missing\n")
    assert f"tensorboard --logdir {folder / 'storage/studies/quick/tensorboard'}" in done.stderr
    assert "Failed to fetch metrics" not in done.stderr  # Tune's, of log files that there are none of
    assert len(re.findall(r"^\[\d/7\] digits/resnet8-8/\S+  test accuracy [01]\.\d{4}$", done.stderr, re.M)) == 7


def test_figure_files(studied):
    folder, _ = studied
    study = folder / "storage/studies/quick"
    assert (study / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (study / "accuracy.svg").read_text()


def test_event_files_of_the_cells(studied):
    """One run a cell, under its name; the evaluations of result.json, at their steps."""
    folder, _ = studied
    runs = {name: path for name, path in tensorboard(folder).items() if name != "study"}
    found = results(folder)
    assert {name.rsplit("-", 1)[1] for name in runs} == {run_key[:6] for run_key in found}
    for name, path in runs.items():
        (result,) = [result for run_key, result in found.items() if run_key.startswith(name.rsplit("-", 1)[1])]
        history = result["numbers"]["history"]
        seen = EventAccumulator(str(path)).Reload()
        assert [event.step for event in seen.Scalars("loss/train")] == list(range(40, 401, 40))
        for tag, column in (("accuracy/test", "test_accuracy"), ("training/learning_rate", "lr")):
            values = [event.value for event in seen.Scalars(tag)]
            assert values == pytest.approx([record[column] for record in history])
        times = [event.wall_time for event in seen.Scalars("accuracy/test")]
        assert times == sorted(times)
        assert times[-1] - times[0] > 0.1  # as it trained, not at its end


def test_hparams_have_one_key_set(studied):
    folder, _ = studied
    sessions = [
        metadata.parse_session_start_info_plugin_data(value.metadata.plugin_data.content).hparams
        for name, path in tensorboard(folder).items()
        for file in path.glob("events.out*")
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.tag == metadata.SESSION_START_INFO_TAG and name != "study"
    ]
    assert len(sessions) == 7
    (names,) = {frozenset(session) for session in sessions}
    assert {"strategy", "sparsity_target", "seed", "schedule", "architecture", "weights_from", "budget"} <= names
    kinds = {name: {session[name].WhichOneof("kind") for session in sessions} for name in ("seed", "sparsity_target")}
    assert kinds == {"seed": {"number_value"}, "sparsity_target": {"number_value"}}


def test_the_studys_own_run(studied):
    folder, _ = studied
    seen = EventAccumulator(str(tensorboard(folder)["study"])).Reload()
    assert seen.Scalars("study/cells_done")[-1].value == 7
    assert seen.Scalars("study/cells_failed")[-1].value == 0
    assert seen.Scalars("study/steps_saved_by_sharing")[-1].value == 7600 - 2800
    assert seen.Images("study/accuracy_against_compression")[-1].encoded_image_string.startswith(b"\x89PNG")


def test_again_and_more(studied):
    """The same command trains nothing; a density more trains just that; cells.json only grows."""
    folder, first = studied
    before, path = stamps(folder), folder / "storage/studies/quick/cells.json"
    declared = json.loads(path.read_text())
    again = run(folder, *SMALLEST)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert stamps(folder) == before
    assert "trials at a time" not in again.stderr
    more = run(folder, *SMALLEST[:-1], "0.98")
    assert more.returncode == 0, more.stderr
    after = stamps(folder)
    assert {name: after[name] for name in before} == before
    assert len(after) == 8
    assert json.loads(path.read_text())[: len(declared)] == declared
    assert len(json.loads(path.read_text())) == len(declared) + 1
    assert "1 rows declared earlier are not selected now: they stay in the table" in more.stderr
    assert "0.95" in more.stdout
    assert "0.98" in more.stdout


def test_a_seed_more_is_that_seed_only(studied):
    folder, _ = studied
    done = run(folder, "--seeds", "0", "1", *SMALLEST[2:], "--dry-run", "--json")
    found = json.loads(done.stdout)
    assert (found["cells"], found["cells_missing"], found["dense_runs"]) == (14, 7, 2)
    assert found["steps_to_train"] == 2800


def test_another_protocol_under_that_name(studied):
    folder, _ = studied
    done = run(folder, "--name", "quick", script=TINY)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: study 'quick' in ")
    assert "steps 400 there, 40 here" in line
    assert "batch_size 64 there, 16 here" in line
    assert line.endswith("choose another --name")


# Slower


@pytest.mark.slow
def test_gpu_shares_and_tunes_own_metrics(tmp_path, cpu_name):
    """Eight CPUs and one GPU, all of them imagined: four trials of a quarter each."""
    script = tmp_path / "script.py"
    script.write_text(
        "import functools, runpy, sys\n"
        "import pandas as pd, ray\n"
        "from sweeps import launch\n"
        "ray.init = functools.partial(ray.init, num_cpus=8, num_gpus=1)\n"
        "train = launch.train\n"
        "def kept(*arguments):\n"
        "    stop, results = train(*arguments)\n"
        "    analysis = results._experiment_analysis\n"
        "    assert not any(trial.metric_n_steps or trial.metric_analysis for trial in analysis.trials)\n"
        "    assert all(frame.empty for frame in analysis.trial_dataframes.values())\n"
        f"    pd.DataFrame([result.metrics for result in results]).to_json({str(tmp_path / 'metrics.json')!r})\n"
        "    return stop, results\n"
        "launch.train = kept\n"
        f"sys.argv = [{TINY[1]!r}, *sys.argv[1:]]\n"
        f"runpy.run_path({TINY[1]!r}, run_name='__main__')\n"
    )
    done = run(tmp_path, "--seeds", "1", script=(sys.executable, str(script)))
    assert done.returncode == 0, done.stderr
    assert "4 trials at a time" in done.stderr
    found = results(tmp_path)
    assert {result["provenance"]["numerics"]["device"].rpartition(" ")[0] for result in found.values()} == {cpu_name}
    frame = pd.read_json(tmp_path / "metrics.json")
    assert sorted(frame["key"]) == sorted(found)
    assert {row.key: row.step for row in frame.itertuples()} == {
        run_key: result["numbers"]["steps"] for run_key, result in found.items()
    }
    assert set(frame["error"]) == {""}


@pytest.mark.slow
def test_a_cluster_decides_what_fits(tmp_path, monkeypatch):
    """One that is there already has two CPUs and one GPU; what this machine has does not matter then."""
    script = "import ray; print(ray.init(num_cpus=2, num_gpus=1).address_info['gcs_address'], flush=True); input()"
    command = [sys.executable, "-c", script]
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cluster:
        here = {"RAY_ADDRESS": cluster.stdout.readline().strip(), "RAY_OVERRIDE_RESOURCES": '{"GPU": 0}'}
        refused = run(tmp_path, "--seeds", "1", "--gpus-per-trial", "2", script=TINY, **here)
        assert (refused.returncode, refused.stdout) == (2, "")
        said = "error: a trial asks for {'CPU': 1.0, 'GPU': 2.0}, more than any machine has (2 CPU, 1 GPU): "
        assert said in refused.stderr
        assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]
        done = run(tmp_path, "--seeds", "1", "--gpus-per-trial", "0.5", script=TINY, **here)
        assert done.returncode == 0, done.stderr
        assert "2 trials at a time" in done.stderr
        cluster.communicate("\n")


@pytest.mark.slow
def test_two_launches_over_one_storage(tmp_path):
    """Nothing is trained twice, both end well, and each has the whole table."""
    command = [*TINY, "--storage", str(tmp_path / "storage"), "--seeds", "2"]
    launches = [
        subprocess.Popen([*command, "--name", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    said = [launch.communicate(timeout=280) for launch in launches]
    assert [launch.returncode for launch in launches] == [0, 0], said
    found = results(tmp_path)
    plan = 2 * (40 + 2 * 30 + 2 * 40 + 30 + 40)
    assert len(found) == 14
    assert sum(result["provenance"]["steps_run"] for result in found.values()) == plan
    assert {tuple(result["provenance"]["resumed_at"]) for result in found.values()} == {()}
    assert said[0][0] == said[1][0]
    one, two = (load(tmp_path / "storage", name).drop(columns="study") for name in ("one", "two"))
    assert set(one["status"]) == {"done"}
    pd.testing.assert_frame_equal(one, two)
    reports = [len(re.findall(r"^\[\d+/14\] .* test accuracy", text, re.M)) for _, text in said]
    assert sum(reports) >= 14


@pytest.mark.slow
def test_a_trial_computes_what_a_cell_without_ray_computes(studied, tmp_path):
    """python -m trainable, one thread: the same bytes."""
    folder, _ = studied
    dense = recipes.digits(0)
    source = folder / "storage/runs" / key(dense)
    command = [sys.executable, "-m", "trainable", str(source / "cell.json"), "--storage", str(tmp_path / "s")]
    subprocess.run([*command, "--threads", "1", "--device", "cpu"], check=True, timeout=120, capture_output=True)
    ours = tmp_path / "s/runs" / key(dense)
    digests = [hashlib.sha256((where / "state-400.safetensors").read_bytes()).hexdigest() for where in (source, ours)]
    assert digests[0] == digests[1]
    numbers = [json.loads((where / "result.json").read_text())["numbers"] for where in (source, ours)]
    assert numbers[0] == numbers[1]
