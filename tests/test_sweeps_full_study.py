"""The reproduction study as declared: every published point, every selection, and what it must cost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps import full_study
from trainable import columns
from trainable.config import DenseRun, dense_run, key, lineage

RESNET = "0.2 0.36 0.488 0.59 0.672 0.738 0.79 0.832 0.866 0.893"
LONGER = f"{RESNET} 0.914 0.931 0.945 0.956"
FT, WR, LR = "fine-tuning", "weight-rewinding", "lr-rewinding"
PUBLISHED = [
    # figure, data set, architecture, structure, schedule, prune fraction, strategies, sparsities as printed
    ("1-left", "cifar10", "resnet20", "unstructured", "one-shot", None, (WR, LR, FT), RESNET),
    ("1-right", "cifar10", "resnet20", "unstructured", "iterative", 0.2, (WR, LR, FT), RESNET),
    ("2-left", "cifar10", "resnet56", "unstructured", "one-shot", None, (WR, LR, FT), RESNET),
    ("2-right", "cifar10", "resnet56", "unstructured", "iterative", 0.2, (WR, LR, FT), LONGER),
    ("3", "cifar10", "resnet20", "structured", "one-shot", None, (WR, LR, FT), RESNET),
    ("4", "cifar100", "resnet56", "unstructured", "one-shot", None, (WR, LR, FT), RESNET),
    ("5-left", "cifar10", "wrn16-8", "unstructured", "one-shot", None, (WR, LR), "0.25 0.5 0.8 0.9 0.95 0.975"),
    (
        "5-right",
        "cifar10",
        "wrn16-8",
        "unstructured",
        "iterative",
        0.3,
        (WR, LR),
        "0.3 0.51 0.657 0.76 0.832 0.882 0.918 0.942 0.96 0.972 0.98 0.986 0.99",
    ),
    ("6", "cifar10", "wrn16-8", "unstructured", "iterative", 0.2, (LR,), RESNET),
    ("table-5", "cifar10", "resnet110", "unstructured", "one-shot", None, (WR, LR, FT), "0.893"),
]  # fmt: skip
"""The 243 points of figures 1–6 and table 5 of Mikler 2021, arXiv 2109.09670."""


def points(rows):
    """Rows as the published points are described, the dense runs left out."""
    return [
        (
            dense_run(cell).dataset,
            dense_run(cell).architecture,
            cell.structure,
            schedule,
            columns.columns(cell, schedule)["prune_fraction"],
            columns.columns(cell, schedule)["strategy"],
            columns.columns(cell, schedule)["sparsity_target"],
        )
        for schedule, cell in rows
        if schedule != "dense"
    ]


def published(figures):
    return [
        (*panel, strategy, float(sparsity))
        for figure, *panel, strategies, sparsities in PUBLISHED
        if figure in figures
        for strategy in strategies
        for sparsity in sparsities.split()
    ]


@pytest.mark.parametrize("figure", [figure for figure, *_ in PUBLISHED])
def test_each_panel_has_exactly_its_points(figure):
    rows = full_study.cells(full_study.select(figures=[figure]), seeds=[4])
    assert sorted(map(str, points(rows))) == sorted(map(str, published([figure])))


def test_all_published_points_are_declared():
    everything = published(full_study.FIGURES)
    assert len(everything) == 243
    assert sorted(map(str, points(full_study.cells(seeds=[0])))) == sorted(map(str, everything))


def test_cells_and_steps_of_three_seeds():
    rows = list(full_study.cells(seeds=range(3)))
    distinct = {key(cell): cell for _, cell in rows}
    assert len(distinct) == 726 == 3 * (243 - 6 + 5)  # six first cycles stand in two panels; five dense runs
    assert {key(member) for cell in distinct.values() for member in lineage(cell)} == set(distinct)
    # Thousands of steps a seed. A point of all three strategies: 72 + 64 + 72; of WRN's two: 72 + 80.
    resnet20, resnet56, cifar100, resnet110 = (10 + 9 + 10) * 208, (10 + 13) * 208, 10 * 208, 208
    wrn = (6 + 13) * 152 + 10 * 80
    thousands = resnet20 + resnet56 + cifar100 + resnet110 + wrn + 4 * 72 + 80
    assert sum(cell.budget for cell in distinct.values()) == 3 * 1000 * thousands == 51_480_000


def test_a_dense_run_is_one_row_and_comes_first():
    rows = list(full_study.cells(full_study.select(figures=["1-left", "1-right", "3", "4"]), seeds=[1, 0, 1]))
    dense = [(position, cell) for position, (_, cell) in enumerate(rows) if isinstance(cell, DenseRun)]
    assert [(cell.dataset, cell.architecture, cell.seed) for _, cell in dense] == [
        ("cifar10", "resnet20", 1),
        ("cifar100", "resnet56", 1),
        ("cifar10", "resnet20", 0),
        ("cifar100", "resnet56", 0),
    ]
    for position, cell in dense:
        users = [other for other, (_, one) in enumerate(rows) if dense_run(one) == cell]
        assert users[0] == position
        assert rows[position][0] == "dense"


def test_retraining():
    rows = {
        (dense_run(cell).architecture, columns.columns(cell, schedule)["strategy"]): cell.retraining
        for schedule, cell in full_study.cells(seeds=[0])
        if schedule != "dense"
    }
    found = {name: (value.weights_from, value.lr_from, value.budget, value.momentum) for name, value in rows.items()}
    fine_tuning, rewound, replayed = (
        (None, 72_000, 72_000, "fresh"),
        (8_000, 8_000, 64_000, "fresh"),
        (None, 0, 72_000, "fresh"),
    )
    expected = {("wrn16-8", WR): (8_000, 8_000, 72_000, "fresh"), ("wrn16-8", LR): (None, 0, 80_000, "fresh")}
    for architecture in ("resnet20", "resnet56", "resnet110"):
        expected |= {(architecture, FT): fine_tuning, (architecture, WR): rewound, (architecture, LR): replayed}
    assert found == expected


def test_scaled():
    panels = full_study.select(figures=["1-left", "5-left"])
    rows = list(full_study.cells(panels, seeds=[0], scale=0.0125, precision="bf16"))
    dense = [cell for schedule, cell in rows if schedule == "dense"]
    assert [(run.steps, run.drops, run.precision) for run in dense] == [
        (900, (450, 675), "bf16"),
        (1000, (400, 600, 800), "bf16"),
    ]
    retraining = {cell.retraining for schedule, cell in rows if schedule != "dense"}
    assert {(value.weights_from, value.lr_from, value.budget) for value in retraining} == {
        (None, 900, 900),
        (100, 100, 800),
        (None, 0, 900),
        (100, 100, 900),
        (None, 0, 1000),
    }


def test_sparsities_select_rows_and_bring_their_ancestors():
    panels = full_study.select(figures=["1-left", "1-right"], strategies=[LR], sparsities=[0.2, 0.67232, 0.893])
    rows = list(full_study.cells(panels, seeds=[0]))
    assert [(schedule, cell.iteration) for schedule, cell in rows] == [
        ("dense", 0),
        ("one-shot", 1),
        ("one-shot", 1),
        ("one-shot", 1),
        ("iterative", 1),
        ("iterative", 5),
        ("iterative", 10),
    ]
    assert len({key(member) for _, cell in rows for member in lineage(cell)}) == 1 + 2 + 10


def test_selections_narrow_one_another():
    panels = full_study.select(architectures=["resnet20", "wrn16-8"], strategies=[FT, WR], sparsities=[0.25, 0.2])
    assert [(panel.figure, panel.strategies, panel.sparsities) for panel in panels] == [
        ("1-left", (FT, WR), (0.2,)),
        ("1-right", (FT, WR), (0.2,)),
        ("3", (FT, WR), (0.2,)),
        ("5-left", (WR,), (0.25,)),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"figures": ["1-left"], "architectures": ["wrn16-8"]}, r"--architectures wrn16-8 .*there is resnet20$"),
        ({"figures": ["6"], "strategies": [FT, WR]}, r"--strategies fine-tuning weight-.*there is lr-rewinding$"),
        ({"figures": ["5-left"], "sparsities": [0.25, 0.2]}, r"--sparsities 0.2 .*0.25, 0.5, 0.8, 0.9, 0.95, 0.975$"),
        ({"sparsities": [80]}, r"sparsity must be in \[0, 1\), got 80: is it a percentage\?"),
        ({"sparsities": [0.6727]}, r"--sparsities 0.6727 selects nothing"),
    ],
)
def test_what_selects_nothing(options, message):
    with pytest.raises(ValueError, match=message):
        full_study.select(**options)


def test_equal_budget_stands_beside_both_rewindings():
    panels = full_study.equal_budget(full_study.PANELS)
    added = [panel.figure for panel in panels if len(panel.strategies) > 1 + ("fine-tuning" in panel.strategies) + 1]
    assert added == ["1-left", "1-right", "2-left", "2-right", "3", "4", "5-left", "5-right", "table-5"]
    chosen = full_study.select(panels, figures=["1-left", "5-left"], strategies=[LR])
    rows = [cell for schedule, cell in full_study.cells(chosen, seeds=[0]) if schedule != "dense"]
    values = {(dense_run(cell).architecture, cell.retraining.lr_from, cell.retraining.budget) for cell in rows}
    assert values == {
        ("resnet20", 0, 72_000),
        ("resnet20", 8_000, 64_000),
        ("wrn16-8", 0, 80_000),
        ("wrn16-8", 8_000, 72_000),
    }
    assert {columns.columns(cell, "one-shot")["strategy"] for cell in rows} == {LR}
    assert len(rows) == 2 * (10 + 6)


def plan_of(capsys, tmp_path, *options):
    """The exit status, and what a dry run says."""
    status = full_study.main(["--dry-run", "--json", "--storage", str(tmp_path / "storage"), *options])
    return status, capsys.readouterr()


def test_dry_run_of_the_whole_study(capsys, tmp_path):
    status, said = plan_of(capsys, tmp_path, "--seeds", "0", "1", "2")
    planned = json.loads(said.out)
    names = ("cells", "cells_done", "cells_missing", "dense_runs", "steps_to_train")
    assert status == 0
    assert [planned[name] for name in names] == [726, 0, 726, 15, 51_480_000]
    assert not (tmp_path / "storage").exists()


def test_no_argument_is_five_seeds(capsys, tmp_path):
    _, said = plan_of(capsys, tmp_path)
    assert json.loads(said.out)["cells"] == 5 * 242


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--figures", "1-left", "--architectures", "wrn16-8"], "there is resnet20"),
        (["--scale", "0.00001"], "scale must leave one step or more between learning-rate drops"),
        (["--scale", "80"], "scale must be in (0, 1], got 80"),
        (["--equal-budget", "--figures", "6"], "--equal-budget adds nothing"),
        (["--equal-budget", "--strategies", FT], "--equal-budget adds nothing"),
    ],
)
def test_bad_input(capsys, tmp_path, options, message):
    status, said = plan_of(capsys, tmp_path, *options)
    assert status == 2
    assert message in said.err


@pytest.mark.parametrize("seed", ["-1", "one", "0.5"])
def test_a_seed_that_is_none(capsys, seed):
    with pytest.raises(SystemExit, match="2"):
        full_study.main(["--seeds", seed, "--dry-run"])
    said = f"error: argument --seeds: must be a whole number, 0 or more, got {seed} (see --help)\n"
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("options", "choice"),
    [
        (["--figures", "9"], "table-5"),
        (["--architectures", "vgg16"], "wrn16-8"),
        (["--strategies", "distillation"], FT),
    ],
)
def test_unknown_names_are_answered_with_the_choices(capsys, options, choice):
    with pytest.raises(SystemExit) as stop:
        full_study.main(options)
    assert stop.value.code == 2
    assert f"'{choice}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "name", "protocol"),
    [
        ([], "mikler2021", "mikler2021"),
        (["--scale", "0.0125"], "mikler2021-x0.0125", "mikler2021-x0.0125"),
        (["--precision", "bf16"], "mikler2021-bf16", "mikler2021-bf16"),
        (["--scale", "0.5", "--precision", "bf16"], "mikler2021-x0.5-bf16", "mikler2021-x0.5-bf16"),
        (["--scale", "0.5", "--name", "mine"], "mine", "mikler2021-x0.5"),
    ],
)
def test_names(monkeypatch, options, name, protocol):
    declared = []
    monkeypatch.setattr(full_study.study, "command", lambda options, declare: declared.append(declare(options)) or 0)
    assert full_study.main([*options, "--figures", "table-5", "--seeds", "0"]) == 0
    assert [(study.name, study.protocol_name) for study in declared] == [(name, protocol)]


@pytest.mark.parametrize("command", [["sweeps/full_study.py"], ["-m", "sweeps.full_study"]])
def test_runs_as_a_script_and_as_a_module(tmp_path, command):
    """Without torch and Ray, and a module of one's own called study is not taken for ours."""
    (tmp_path / "study.py").write_text("raise SystemExit('the wrong study')\n")
    root = Path(full_study.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command, "--dry-run", "--figures", "table-5"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "cells" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "sweeps.study" in imported
    assert not imported & {"study", "torch", "ray"}


# Protocols


def strategies_of(protocol, **options):
    panels = full_study.select(full_study.PANELS_OF[protocol], **options)
    chosen = full_study.recipes.PROTOCOLS[protocol]
    return list(full_study.cells(full_study.without_refused(panels, chosen), seeds=[0], protocol=chosen))


def test_as_released():
    rows = strategies_of("mikler2021-as-released")
    pruned = [(schedule, cell) for schedule, cell in rows if schedule != "dense"]
    values = {
        (
            dense_run(cell).architecture,
            schedule,
            cell.retraining.weights_from,
            cell.retraining.lr_from,
            cell.retraining.budget,
            cell.parent_step,
        )
        for schedule, cell in pruned
    }
    expected = set()
    for network in ("resnet20", "resnet56", "resnet110"):
        expected |= {
            (network, "one-shot", None, 72_000, 72_000, None),
            (network, "one-shot", 8_000, 0, 64_000, None),
            (network, "one-shot", None, 0, 72_000, None),
        }
    for network in ("resnet20", "resnet56"):
        expected |= {
            (network, "iterative", None, 72_000, 64_000, None),
            (network, "iterative", None, 0, 72_000, None),
        }
    expected |= {
        ("wrn16-8", "one-shot", 8_000, 0, 72_000, 72_000),
        ("wrn16-8", "one-shot", None, 0, 80_000, 72_000),
        ("wrn16-8", "iterative", None, 0, 80_000, 72_000),
    }
    assert values == expected


def test_as_released_refuses_what_the_files_cannot_run(capsys, tmp_path):
    sentence = "the released files ask for a file that was never written"
    options = ["--protocol", "mikler2021-as-released", "--seeds", "0", "--figures", "1-right"]
    status, said = plan_of(capsys, tmp_path, *options)
    assert (status, json.loads(said.out)["cells"]) == (0, 1 + 2 * 10)
    assert said.err.count(sentence) == 1
    status, said = plan_of(capsys, tmp_path, *options, "--strategies", WR)
    assert status == 2
    assert said.err == f"error: iterative weight rewinding cannot be run as released: {sentence}\n"


def test_renda(capsys, tmp_path):
    rows = strategies_of("renda2020", figures=["resnet20-one-shot", "resnet20-iterative"])
    assert len(rows) == 1 + 10 * 5 * 10 + 10 * 4 * 10
    assert {cell.retraining.momentum for schedule, cell in rows if schedule != "dense"} == {"with_weights"}
    budgets = {cell.budget for _, cell in rows if columns.columns(cell, "one-shot")["strategy"] == LR}
    assert sorted(budgets) == [3907, 11719, 19532, 27344, 35157, 42969, 50782, 58594, 66407, 71108]
    sparsities = {
        columns.columns(cell, schedule)["sparsity_target"] for schedule, cell in rows if schedule == "one-shot"
    }
    assert sorted(sparsities)[-1] == 0.8926
    options = ["--protocol", "renda2020", "--figures", "resnet20-one-shot", "--seeds", "0", "--rewind-points", "0"]
    status, said = plan_of(capsys, tmp_path, *options)
    assert (status, json.loads(said.out)["cells"]) == (0, 1 + 10 * 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rewind-points", "5"], "--rewind-points 5 selects nothing: there is 8000"),
        (["--protocol", "renda2020", "--equal-budget"], "all budgets of renda2020 are equal"),
        (["--protocol", "renda2020", "--figures", "1-left"], "--figures 1-left selects nothing: there is resnet20-one"),
        (["--strategies", "reinit"], "--strategies reinit selects nothing: there is"),
    ],
)
def test_bad_input_of_protocols(capsys, tmp_path, options, message):
    status, said = plan_of(capsys, tmp_path, *options)
    assert status == 2
    assert message in said.err


def test_names_of_protocols():
    assert full_study.protocol_name(0.5, "fp32", "renda2020") == "renda2020-x0.5"
