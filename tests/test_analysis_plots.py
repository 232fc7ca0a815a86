"""Figures by their data: lines, bands, labels and colours, not pixels."""

import itertools
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from analysis import load, plots

SEEDS = itertools.count()


def row(strategy, sparsity, accuracy, schedule="one-shot", **columns):
    """A row with a seed of its own."""
    made = {
        "status": "done",
        "key": f"key of {strategy}",
        "protocol": "0123456789ab",
        "seed": next(SEEDS),
        "dataset": "digits",
        "architecture": "resnet8-8",
        "structure": "unstructured",
        "schedule": schedule,
        "strategy": strategy,
        "shape": "replay",
        "budget": 400,
        "sparsity_target": sparsity,
        "compression_ratio": 1 / (1 - sparsity),
        "test_accuracy": accuracy,
    }
    return made | columns


def frame_of(rows) -> pd.DataFrame:
    return pd.DataFrame(rows).reindex(columns=list(load.SCHEMA)).astype(load.SCHEMA)


DENSE = [
    row("dense", 0.0, accuracy, "dense", structure=None, shape=None, budget=None) for accuracy in (0.96, 0.98, 0.97)
]
EXTRA = [row("dense-extra-budget", 0.0, 0.99)]
PRUNED = [
    *(row("lr-rewinding", 0.8, accuracy) for accuracy in (0.7, 0.9, 0.8)),
    *(row("lr-rewinding", 0.5, accuracy) for accuracy in (0.9, 0.95)),
    row("fine-tuning", 0.5, 0.5),
    row("fine-tuning", 0.75, 0.4, "iterative", prune_fraction=0.5),
    row("lr-rewinding", 0.75, 0.6, "iterative", prune_fraction=0.5),
    row("lr-rewinding", 0.9, math.nan, status="failed"),
]


@pytest.fixture(scope="module")
def figure():
    return plots.accuracy_against_compression(frame_of([*DENSE, *EXTRA, *PRUNED]))


def lines(ax) -> dict[str, tuple[list, list]]:
    """Coordinates by label."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines}


def test_a_panel_for_each_schedule(figure):
    assert [ax.get_title() for ax in figure.axes] == [
        "digits, resnet8-8, unstructured, one-shot",
        "digits, resnet8-8, unstructured, iterative, −50 % a cycle",
    ]
    assert [ax.get_xscale() for ax in figure.axes] == ["log", "log"]
    assert figure.axes[0].get_ylabel() == "test accuracy, %"
    assert {ax.get_xlabel() for ax in figure.axes} == {"compression ratio (prunable / kept weights)"}


def test_lines_join_medians(figure):
    one_shot, iterative = (lines(ax) for ax in figure.axes)
    x, y = one_shot["lr-rewinding (n = 2–3)"]
    assert x == pytest.approx([2.0, 5.0])
    assert y == pytest.approx([92.5, 80.0])
    assert one_shot["fine-tuning (n = 1)"] == ([2.0], [50.0])
    assert iterative["lr-rewinding (n = 1)"] == ([4.0], [60.0])


def test_bands_go_from_the_lowest_to_the_highest(figure):
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    at = {x: band[np.isclose(band[:, 0], x), 1] for x in (2.0, 5.0)}
    assert (at[2.0].min(), at[2.0].max()) == pytest.approx((90.0, 95.0))
    assert (at[5.0].min(), at[5.0].max()) == pytest.approx((70.0, 90.0))


def test_references_in_every_panel_of_a_network(figure):
    for ax in figure.axes:
        found = {label: y[0] for label, (_, y) in lines(ax).items() if label.startswith("dense")}
        assert found == pytest.approx({"dense (n = 3)": 97.0, "dense-extra-budget (n = 1)": 99.0})
        styles = {line.get_label(): line.get_linestyle() for line in ax.lines}
        assert (styles["dense (n = 3)"], styles["dense-extra-budget (n = 1)"]) == ("-", "--")


def test_a_strategy_has_one_colour_in_every_panel(figure):
    colours = {}
    for ax in figure.axes:
        for line in ax.lines:
            colours.setdefault(line.get_label().split(" ")[0], set()).add(to_hex(line.get_color()))
    assert colours == {
        "dense": {"#000000"},
        "dense-extra-budget": {"#e69f00"},
        "lr-rewinding": {"#009e73"},
        "fine-tuning": {"#0072b2"},
    }


def test_all_looks_differ():
    assert len(set(plots.LOOKS.values()) | {plots.OTHER}) == len(plots.LOOKS) + 1
    assert len({marker for _, marker in plots.LOOKS.values()}) == len(plots.LOOKS)


def test_ticks_are_the_ratios_drawn(figure):
    assert list(figure.axes[0].get_xticks()) == [2.0, 5.0]
    assert list(figure.axes[1].get_xticks()) == [4.0]


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_legend_of_every_panel_names_its_lines(figure):
    assert figure.legends == []
    for ax in figure.axes:
        assert legend(ax) == [line.get_label() for line in ax.lines]
        strategies = {label.split(" (n")[0] for label in legend(ax)}
        assert strategies == {"lr-rewinding", "fine-tuning", "dense", "dense-extra-budget"}


def test_a_strategy_of_the_second_panel_only_is_in_a_legend():
    """A colour without a name says nothing."""
    rows = [row("fine-tuning", 0.5, 0.5), row("reinit", 0.75, 0.4, "iterative")]
    figure = plots.accuracy_against_compression(frame_of(rows))
    assert [legend(ax) for ax in figure.axes] == [["fine-tuning (n = 1)"], ["reinit (n = 1)"]]


def test_two_budgets_are_two_lines_with_labels():
    rows = [row("lr-rewinding", 0.5, 0.9), row("lr-rewinding", 0.5, 0.8, budget=356)]
    (ax,) = plots.accuracy_against_compression(frame_of(rows)).axes
    assert lines(ax) == {
        "lr-rewinding (400 steps) (n = 1)": ([2.0], [90.0]),
        "lr-rewinding (356 steps) (n = 1)": ([2.0], [80.0]),
    }


def test_dense_runs_alone(tmp_path):
    """The picture of a study that has just begun."""
    figure = plots.accuracy_against_compression(frame_of(DENSE))
    (ax,) = figure.axes
    assert {label: y[0] for label, (_, y) in lines(ax).items()} == pytest.approx({"dense (n = 3)": 97.0})
    plots.save(figure, tmp_path / "early")


def test_another_network_has_a_panel_and_a_reference_of_its_own():
    other = [{**dict(made), "architecture": "resnet20"} for made in (*DENSE[:1], *PRUNED[:1])]
    figure = plots.accuracy_against_compression(frame_of([*DENSE, *PRUNED[:3], *other]))
    assert [ax.get_title().split(", ")[:2] for ax in figure.axes] == [["digits", "resnet8-8"], ["digits", "resnet20"]]
    assert [sum(label.startswith("dense") for label in lines(ax)) for ax in figure.axes] == [1, 1]
    assert lines(figure.axes[1])["dense (n = 1)"][1][0] == pytest.approx(96.0)


def test_another_protocol_has_a_panel_and_a_reference_of_its_own():
    """Trained longer, a network is another one."""
    other = [{**made, "protocol": "ba9876543210"} for made in (DENSE[0], PRUNED[1])]
    figure = plots.accuracy_against_compression(frame_of([*DENSE, *PRUNED[:1], *other]))
    panel = "digits, resnet8-8, unstructured, one-shot, protocol"
    assert [ax.get_title() for ax in figure.axes] == [f"{panel} 0123456789ab", f"{panel} ba9876543210"]
    assert [lines(ax)["lr-rewinding (n = 1)"][1] for ax in figure.axes] == [[70.0], [90.0]]
    references = [{label for label in lines(ax) if label.startswith("dense")} for ax in figure.axes]
    assert references == [{"dense (n = 3)"}, {"dense (n = 1)"}]
    assert lines(figure.axes[1])["dense (n = 1)"][1][0] == pytest.approx(96.0)


def test_nothing_finished():
    with pytest.raises(ValueError, match=r"no cell is finished \(1 failed\)"):
        plots.accuracy_against_compression(frame_of(PRUNED[-1:]))


def test_files(figure, tmp_path):
    for _ in range(2):
        plots.save(figure, tmp_path / "figures" / "accuracy")
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == ["accuracy.png", "accuracy.svg"]
    assert (tmp_path / "figures" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(tmp_path / "figures" / "accuracy.svg").getroot().tag.endswith("svg")


def test_no_display_is_needed():
    script = "import sys, analysis.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0
