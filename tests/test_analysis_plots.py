"""Figures by their data: lines, bands, labels and colours, not pixels."""

import itertools
import math
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from analysis import plots
from analysis.load import SCHEMA
from analysis.renda2020 import best_budget, load_renda2020

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
    return pd.DataFrame(rows).reindex(columns=list(SCHEMA)).astype(SCHEMA)


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
    assert names == ["accuracy.pdf", "accuracy.png", "accuracy.svg"]
    assert (tmp_path / "figures" / "accuracy.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "figures" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(tmp_path / "figures" / "accuracy.svg").getroot().tag.endswith("svg")


def test_files_are_the_same_bytes_every_time(tmp_path):
    for name in ("once", "again"):
        plots.save(plots.accuracy_against_compression(frame_of([*DENSE, *PRUNED])), tmp_path / name)
    for suffix in ("png", "svg", "pdf"):
        assert (tmp_path / f"once.{suffix}").read_bytes() == (tmp_path / f"again.{suffix}").read_bytes()


def test_no_display_is_needed():
    script = "import sys, analysis.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


def test_the_words_of_a_figure(figure):
    """The alternative text says what the lines say; the caption how to read them, and what is not there yet."""
    assert figure.alt == (
        "digits, resnet8-8, unstructured, one-shot: test accuracy, % against compression ratio "
        "(prunable / kept weights). dense (n = 3): 97 throughout; dense-extra-budget (n = 1): 99 throughout; "
        "lr-rewinding (n = 2–3): 92.5 at 2 to 80 at 5; fine-tuning (n = 1): 50 at 2. "
        "digits, resnet8-8, unstructured, iterative, −50 % a cycle: test accuracy, % against compression ratio "
        "(prunable / kept weights). dense (n = 3): 97 throughout; dense-extra-budget (n = 1): 99 throughout; "
        "fine-tuning (n = 1): 40 at 4; lr-rewinding (n = 1): 60 at 4."
    )
    assert figure.caption == (
        "Test accuracy against compression ratio. Lines join medians over seeds, bands go from the lowest to the "
        "highest; black: the dense network. 12 of 13 cells are finished: hollow where some seeds are missing, nothing "
        "where all are."
    )


def hollow(ax) -> list[tuple[list, list]]:
    """Markers with a white face."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines if line.get_label() == "_hollow"]


def test_a_point_that_waits_for_a_seed_is_hollow():
    rows = [
        *PRUNED[:5],
        row("lr-rewinding", 0.8, math.nan, status="missing"),
    ]
    (ax,) = plots.accuracy_against_compression(frame_of(rows)).axes
    assert next(iter(lines(ax))) == "lr-rewinding (n = 2–3 of 2–4)"
    assert hollow(ax) == [([pytest.approx(5.0)], [80.0])]
    (ax,) = plots.accuracy_against_compression(frame_of(rows[:-1])).axes
    assert hollow(ax) == []


def test_published_points_stand_beside():
    """In their own panel only, whatever protocol it is."""
    published = frame_of(
        [
            row("lr-rewinding", 0.5, 0.91, protocol="theirs"),
            row("weight-rewinding", 0.9, 0.88, protocol="theirs"),
            row("lr-rewinding", 0.75, 0.5, "iterative", prune_fraction=0.2, protocol="theirs"),
            row("lr-rewinding", 0.5, 0.5, dataset="cifar10", protocol="theirs"),
        ]
    )
    figure = plots.accuracy_against_compression(frame_of([*DENSE, *PRUNED]), published)
    one_shot, iterative = (lines(ax) for ax in figure.axes)
    assert one_shot["lr-rewinding (published)"] == ([2.0], [91.0])
    assert one_shot["weight-rewinding (published)"] == ([pytest.approx(10.0)], [88.0])
    assert not [label for label in iterative if "published" in label]
    drawn = {line.get_label(): line for line in figure.axes[0].lines}
    point, line = drawn["lr-rewinding (published)"], drawn["lr-rewinding (n = 2–3)"]
    assert (point.get_markerfacecolor(), point.get_linestyle()) == ("none", "None")
    assert (point.get_markeredgecolor(), point.get_marker()) == (line.get_color(), line.get_marker())
    assert list(figure.axes[0].get_xticks()) == [2.0, 5.0, 10.0]
    assert "published medians" in figure.caption


def test_panels_wrap():
    rows = [row("reinit", 0.5, 0.9, architecture=f"net{i}") for i in range(5)]
    figure = plots.accuracy_against_compression(frame_of(rows))
    places = [(ax.get_subplotspec().rowspan.start, ax.get_subplotspec().colspan.start) for ax in figure.axes]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_panels_of_one_network_share_the_y_axis():
    rows = [*PRUNED[:7], row("reinit", 0.5, 0.1, architecture="resnet20")]
    one_shot, iterative, other = plots.accuracy_against_compression(frame_of(rows)).axes
    assert one_shot.get_ylim() == iterative.get_ylim() != other.get_ylim()


def test_ticks_keep_their_distance():
    rows = [row("reinit", 1 - 0.8**cycle, 0.9) for cycle in range(1, 21)]
    (ax,) = plots.accuracy_against_compression(frame_of(rows)).axes
    ticks = np.log(ax.get_xticks())
    assert 8 <= len(ticks) <= 15
    assert np.diff(ticks).min() >= plots.TICK_GAP * (ticks[-1] - ticks[0])


def test_many_lines_have_a_legend_of_strategies():
    rows = [row(strategy, 0.5, 0.9, budget=budget) for strategy in ("reinit", "lr-rewinding") for budget in range(5)]
    (ax,) = plots.accuracy_against_compression(frame_of([*rows, row("fine-tuning", 0.5, 0.9)])).axes
    assert legend(ax) == ["reinit (5 lines)", "lr-rewinding (5 lines)", "fine-tuning"]
    assert len(lines(ax)) == 11


def test_lines_of_one_strategy_differ_in_style():
    rows = [row("reinit", sparsity, 0.9, budget=budget) for budget in (400, 356) for sparsity in (0.5, 0.8)]
    (ax,) = plots.accuracy_against_compression(frame_of(rows)).axes
    assert [line.get_linestyle() for line in ax.lines] == ["-", "--"]
    assert len({line.get_color() for line in ax.lines}) == 1


def test_speedup():
    rows = [row("reinit", 0.5, 0.9, theoretical_speedup=1.5), row("reinit", 0.8, 0.8, theoretical_speedup=3.0)]
    (ax,) = plots.accuracy_against_speedup(frame_of([*DENSE, *rows])).axes
    assert lines(ax)["reinit (n = 1)"] == ([1.5, 3.0], [90.0, 80.0])
    assert ax.get_xlabel() == "theoretical speed-up (dense / kept multiply-accumulates)"
    with pytest.raises(ValueError, match=r"no finished cell has a theoretical speed-up: there is nothing to draw"):
        plots.accuracy_against_speedup(frame_of(PRUNED))


def test_budget():
    """Rewind points go with budgets: one line. The other sparsity is not there; 0.8001 is 0.8."""
    rows = [
        row("weight-rewinding", 0.8, 0.8, budget=356, weights_from="44", lr_from=44),
        row("weight-rewinding", 0.8001, 0.9, budget=200, weights_from="200", lr_from=200),
        row("fine-tuning", 0.8, 0.7, budget=400),
        row("fine-tuning", 0.8, math.nan, budget=200, status="missing"),
        row("fine-tuning", 0.5, 0.9, budget=200),
    ]
    (ax,) = plots.accuracy_against_budget(frame_of([*DENSE, *rows]), 0.8).axes
    assert lines(ax) == {
        "weight-rewinding (n = 1)": ([200.0, 356.0], [90.0, 80.0]),
        "fine-tuning (n = 1)": ([400.0], [70.0]),
    }
    with pytest.raises(
        ValueError, match=r"no finished cell has sparsity 0.9 and a budget: there are sparsities 0.5, 0.8$"
    ):
        plots.accuracy_against_budget(frame_of([*DENSE, *rows]), 0.9)


def test_two_settings_of_one_budget_are_not_joined():
    rows = [row("plane", 0.8, accuracy, budget=400, weights_from=k) for k, accuracy in (("0", 0.8), ("44", 0.7))]
    (ax,) = plots.accuracy_against_budget(frame_of(rows), 0.8).axes
    assert lines(ax) == {"plane (n = 1)": ([400.0, 400.0], [80.0, 70.0])}
    assert [line.get_linestyle() for line in ax.lines] == ["None"]


def on_units(strategy, sparsity, accuracies):
    return [row(strategy, sparsity, a, unit=f"u{i}", seed=i) for i, a in enumerate(accuracies)]


def test_differences():
    rows = [
        *on_units("lr-rewinding", 0.5, (0.9, 0.8)),
        *on_units("fine-tuning", 0.5, (0.8, 0.6)),
        *on_units("lr-rewinding", 0.8, (0.9,)),
        *on_units("fine-tuning", 0.8, (0.8,)),
    ]
    figure = plots.paired_differences(frame_of(rows), "lr-rewinding", "fine-tuning")
    (ax,) = figure.axes
    x, y = lines(ax)["lr-rewinding − fine-tuning (n = 1–2)"]
    assert (x, y) == (pytest.approx([2.0, 5.0]), pytest.approx([15.0, 10.0]))
    ((_, low), (_, high)) = ax.collections[0].get_segments()[0]
    assert (low, high) == pytest.approx((15 - 12.7062 * 5, 15 + 12.7062 * 5), rel=1e-5)  # t of 1 degree of freedom
    assert hollow(ax) == [([pytest.approx(5.0)], [pytest.approx(10.0)])]
    assert "Unpaired" not in figure.caption


def test_unpaired_differences_say_so():
    rows = [row("lr-rewinding", 0.5, 0.9, unit="a"), row("fine-tuning", 0.5, 0.8, unit="b")]
    figure = plots.paired_differences(frame_of(rows), "lr-rewinding", "fine-tuning")
    assert list(lines(figure.axes[0]))[1] == "lr-rewinding − fine-tuning (n = 1, unpaired)"
    assert "Unpaired where the legend says so" in figure.caption


def test_no_differences():
    with pytest.raises(ValueError, match=r"no finished row of strategy 'reinit': there are lr-rewinding, fine-tuning"):
        plots.paired_differences(frame_of(PRUNED), "lr-rewinding", "reinit")
    rows = [row("reinit", 0.5, 0.9), row("fine-tuning", 0.8, 0.8)]
    with pytest.raises(ValueError, match=r"reinit and fine-tuning have no finished cells of one panel and sparsity"):
        plots.paired_differences(frame_of(rows), "reinit", "fine-tuning")


def test_pareto_front():
    rows = [
        row("lr-rewinding", 0.5, 0.9, total_steps=800),
        row("fine-tuning", 0.5, 0.8, total_steps=800),
        row("lr-rewinding", 0.75, 0.85, "iterative", total_steps=1200, prune_fraction=0.5),
    ]
    figure = plots.pareto_front(frame_of([*DENSE, *rows]))
    left, right = figure.axes
    assert lines(left) == {
        "lr-rewinding, on the front (n = 1)": ([2.0, 4.0], [90.0, 85.0]),
        "fine-tuning, behind it (n = 1)": ([2.0], [80.0]),
    }
    assert lines(right)["lr-rewinding, on the front (n = 1)"] == ([800.0, 1200.0], [90.0, 85.0])
    assert {line.get_label().split(",")[0]: line.get_markerfacecolor() for line in left.lines} == {
        "lr-rewinding": plots.LOOKS["lr-rewinding"][0],
        "fine-tuning": "none",
    }
    assert left.get_title() == "digits, resnet8-8, unstructured"
    assert legend(left) == ["lr-rewinding", "fine-tuning"]


def test_performance_profiles():
    rows = [
        row("reinit", 0.5, 0.9, seed=seed, delta_test_accuracy=change, dense_steps=400)
        for seed, change in enumerate((-0.02, -0.01, 0.0, 0.01))
    ]
    figure = plots.performance_profiles(frame_of(rows))
    (ax,) = figure.axes
    assert ax.get_title() == "unstructured, one-shot\nnetworks: 1, sparsities: 1, seeds: 4; bands cover 80 %"
    x, y = lines(ax)["reinit"]
    assert (x[0], x[-1]) == pytest.approx((-1.94, 1.0))
    assert (y[0], y[np.argmin(np.abs(np.array(x) + 0.5))], y[-1]) == (0.75, 0.5, 0.25)
    alone = plots.performance_profiles(frame_of(rows[:1]))  # one seed has no band
    assert "bands" not in alone.axes[0].get_title()


def test_training_curves():
    history = [
        {"step": 1, "test_accuracy": None, "train_loss": 2.0},
        {"step": 100, "test_accuracy": 0.5, "train_loss": 1.0},
        {"step": 200, "test_accuracy": 0.75, "train_loss": 0.5},
    ]
    figure = plots.training_curves(
        [("lr-rewinding at 0.8", history), ("lr-rewinding at 0.9", history[1:]), ("dense", []), ("mine", history)]
    )
    accuracy, loss = figure.axes
    assert lines(accuracy)["lr-rewinding at 0.8"] == ([100, 200], [50.0, 75.0])
    assert lines(loss)["lr-rewinding at 0.8"] == ([1, 100, 200], [2.0, 1.0, 0.5])
    assert [(to_hex(line.get_color()), line.get_linestyle()) for line in loss.lines] == [
        ("#009e73", "-"),
        ("#009e73", "--"),
        ("#000000", "-"),
        ("#555555", "-"),
    ]
    assert "dense: nothing yet" in figure.alt


@pytest.mark.parametrize("histories", [[], [("dense", [])]])
def test_no_training_curve(histories):
    with pytest.raises(ValueError, match=r"no training curve to draw: \d cells chosen, none has a history"):
        plots.training_curves(histories)


@pytest.mark.parametrize(
    "drawn",
    [
        plots.accuracy_against_compression,
        plots.accuracy_against_speedup,
        lambda frame: plots.accuracy_against_budget(frame, 0.9),
        lambda frame: plots.paired_differences(frame, "lr-rewinding", "fine-tuning"),
        plots.pareto_front,
        plots.performance_profiles,
    ],
)
def test_no_figure_of_nothing(drawn):
    with pytest.raises(ValueError, match=r"no cell is finished \(1 failed\)"):
        drawn(frame_of(PRUNED[-1:]))


@pytest.mark.parametrize(
    "drawn",
    [
        plots.accuracy_against_compression,
        lambda frame: plots.accuracy_against_budget(frame, 0.5),
        lambda frame: plots.paired_differences(frame, "lr-rewinding", "fine-tuning"),
        plots.pareto_front,
        plots.performance_profiles,
    ],
)
def test_every_figure_has_its_words(drawn):
    rows = [
        *on_units("lr-rewinding", 0.5, (0.9, 0.8)),
        *on_units("fine-tuning", 0.5, (0.8, 0.6)),
    ]
    known = {"total_steps": 800, "delta_test_accuracy": -0.01, "dense_steps": 400}
    figure = drawn(frame_of([made | known for made in rows]))
    assert len(figure.caption) > 60
    assert "lr-rewinding" in figure.alt
    assert "fine-tuning" in figure.alt


RENDA = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.skipif(not (RENDA / "renda2020_pruned.csv").exists(), reason="the data of Renda et al. are not here")
def test_rendas_figure_is_plain_pandas():
    """One-shot ResNet-20, learning-rate rewinding: per density the retrain time of the best median validation."""
    frame = best_budget(load_renda2020(RENDA / "renda2020_pruned.csv", RENDA / "renda2020_dense.csv"))
    figure = plots.accuracy_against_compression(frame, setting=["strategy"])
    one_shot = next(ax for ax in figure.axes if ax.get_title() == "cifar10, resnet20, unstructured, one-shot")
    raw = pd.read_csv(RENDA / "renda2020_pruned.csv")
    raw = raw[(raw["network"] == "resnet20") & ~raw["is_iterative"] & (raw["retrain_method"] == "lr_finetune")]
    medians = raw.groupby(["density", "retrain_time"])[["val_acc", "test_acc"]].median()
    best = medians.groupby("density")["val_acc"].idxmax()
    expected = medians.loc[best, "test_acc"].droplevel("retrain_time").sort_index(ascending=False)
    x, y = lines(one_shot)["lr-rewinding (n = 3)"]
    assert x == pytest.approx(list(1 / expected.index))
    assert y == pytest.approx(list(100 * expected))
