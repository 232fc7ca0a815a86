"""Figures of a study's frame, drawn from aggregated frames; a strategy looks the same everywhere.

A figure function takes a frame and returns a Drawn: a figure with its caption and its alternative text. The draw_
functions draw one thing on one axes and return it.
"""

import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from analysis import aggregate, files
from analysis.aggregate import PANEL, SCENARIO, SETTING, title

LOOKS = {
    "fine-tuning": ("#0072B2", "o"),
    "weight-rewinding": ("#D55E00", "s"),
    "lr-rewinding": ("#009E73", "^"),
    "low-lr-weight-rewinding": ("#CC79A7", "D"),
    "reinit": ("#56B4E9", "v"),
    "dense-extra-budget": ("#E69F00", "P"),
    "weight-rewinding-to-init": ("#882255", "p"),
    "linear-restart": ("#999933", "<"),
    "scaled-restart": ("#6699CC", "H"),
    "cosine-restart": ("#332288", ">"),
    "one-cycle-restart": ("#44AA99", "h"),
    "adaptive-linear-restart": ("#AA4499", "*"),
    "scratch-b": ("#661100", "8"),
    "gradual-pruning": ("#117733", "$G$"),
    "plane": ("#A6761D", "d"),
}
"""Colour and marker by strategy: Okabe & Ito's palette and Tol's, told apart with any colour vision by markers too."""
OTHER = ("#555555", "X")
DENSE = "#000000"
STYLES = ("-", "--", "-.", ":")
"""Of the first, second, … line of one strategy in a panel."""
COLUMNS = 2
"""Panels side by side: more wrap."""
PANEL_INCHES = (5.2, 4.0)
LEGEND_LINES = 8
"""More lines than that are named by strategy only."""
TICK_GAP = 0.07
"""Least distance of two ticks, as a share of the axis."""
RATIO = "compression ratio (prunable / kept weights)"
ACCURACY = "test accuracy, %"
CHANGE = "change against dense, points"
BANDS = "Lines join medians over seeds, bands go from the lowest to the highest"


@final
class Drawn(Figure):
    """A figure with its words."""

    caption: str
    """What is drawn and how to read it; stands under the figure."""
    alt: str
    """What the figure shows, for who does not see it."""


def accuracy_against_compression(
    frame: pd.DataFrame, published: pd.DataFrame | None = None, setting: Sequence[str] = SETTING
) -> Drawn:
    """Test accuracy against compression ratio, a panel per data set × architecture × schedule.

    Lines join medians over seeds, bands go from the lowest to the highest; the dense network is the black line, and
    the dense network with the extra budget the dashed one. published: a frame whose points stand beside where they
    belong to a panel. Raises ValueError when no cell is finished.
    """
    return _accuracy_against(frame, "compression_ratio", RATIO, setting, published)


def accuracy_against_speedup(frame: pd.DataFrame, setting: Sequence[str] = SETTING) -> Drawn:
    """Test accuracy against theoretical speed-up (dense multiply-accumulates / kept ones), panels as by compression.

    Raises ValueError when no finished pruned cell has a speed-up.
    """
    if aggregate.pruned_cells(frame)["theoretical_speedup"].isna().all():
        raise ValueError("no finished cell has a theoretical speed-up: there is nothing to draw")
    known = frame[frame["theoretical_speedup"].notna() | (frame["status"] != "done")]
    xlabel = "theoretical speed-up (dense / kept multiply-accumulates)"
    return _accuracy_against(known, "theoretical_speedup", xlabel, setting, None)


def accuracy_against_budget(frame: pd.DataFrame, sparsity: float) -> Drawn:
    """Test accuracy against retraining budget at one target sparsity, a panel per data set × architecture × schedule.

    A strategy's cells of all budgets are one line, their rewind points with them. Sparsities are equal at 3 decimals.
    Raises ValueError when no finished cell has that one (the message says which there are).
    """
    aggregate.pruned_cells(frame)
    table = aggregate.accuracy(frame)
    here = table[np.isclose(table["sparsity_target"], sparsity, rtol=0, atol=5e-4) & table["budget"].notna()]
    if here.empty:
        pruned = table.loc[table["sparsity_target"] > 0, "sparsity_target"]
        there = ", ".join(f"{s:g}" for s in sorted(pruned.round(3).unique()))
        raise ValueError(f"no finished cell has sparsity {sparsity:g} and a budget: there are sparsities {there}")
    line = ["strategy", "shape", "momentum"]
    here = here.assign(label=aggregate.labels(here, line), budget=here["budget"].astype(float))
    figure, panels = _panels(here, table)
    for ax, rows in panels:
        draw_lines(ax, rows.sort_values("budget", kind="stable"), "budget")
        ax.set_xlabel("retraining budget of one cycle, steps")
        finish(ax, ACCURACY)
    caption = f"Test accuracy against retraining budget at sparsity {sparsity:g}. {BANDS}.{_unfinished(frame)}"
    return worded(figure, caption)


def paired_differences(frame: pd.DataFrame, a: str, b: str, setting: Sequence[str] = SETTING) -> Drawn:
    """Mean difference of strategies a and b against compression ratio, with 95 % t intervals, panels as by accuracy.

    Hollow: no interval (one unit only). Raises ValueError when no finished row is called a or b, or none of both stand
    in one panel at one sparsity.
    """
    table = aggregate.difference_intervals(frame, a, b, setting)
    if table.empty:
        raise ValueError(
            f"{a} and {b} have no finished cells of one panel and sparsity: there is no difference to draw"
        )
    figure, panels = _panels(table, table)
    for ax, rows in panels:
        ax.axhline(0, color=DENSE, linewidth=1)
        for place, (_, line) in enumerate(rows.groupby(["label_a", "label_b"], sort=False)):
            draw_differences(ax, line.sort_values("compression_ratio"), a, STYLES[place % len(STYLES)])
        _ratios(ax, rows["compression_ratio"])
        ax.set_xlabel(RATIO)
        ax.margins(y=0.15)
        finish(ax, f"{a} − {b}, points")
    caption = (
        f"Test accuracy of {a} minus {b}: means over units (dense runs) and 95 % t intervals. Descriptive: each is of "
        "one sparsity, not corrected for their number. Hollow: one unit, no interval."
    )
    unpaired = " Unpaired where the legend says so: no unit has both, means of each side's units and Welch's t."
    return worded(figure, caption if table["paired"].all() else caption + unpaired)


def pareto_front(frame: pd.DataFrame, setting: Sequence[str] = SETTING) -> Drawn:
    """Accuracy against compression (left) and against total steps (right), a row per network and structure.

    Filled: no other network found is as accurate, as small and as cheap, and better in one; hollow: one is. Raises
    ValueError when no finished cell says its total steps.
    """
    table = aggregate.search_cost(frame, setting)
    rows = list(table.groupby(["dataset", "architecture", "structure", "protocol"], dropna=False, sort=False))
    figure, axes = grid(2 * len(rows), columns=2)
    for (left, right), (_, points) in zip(zip(axes[::2], axes[1::2], strict=True), rows, strict=True):
        network = points.iloc[0].to_dict() | {"schedule": None, "prune_fraction": None}
        for ax, x in ((left, "compression_ratio"), (right, "total_steps")):
            draw_front(ax, points, x)
            ax.set_title(title(pd.Series(network), table), size=10)
        _ratios(left, points["compression_ratio"])
        _steps(right)
        left.set_xlabel(RATIO)
        right.set_xlabel("search cost: total steps, dense included")
        for ax in (left, right):
            finish(ax, ACCURACY, legend=False)
        left.legend(handles=[_marker(strategy) for strategy in points["strategy"].unique()], fontsize=7.5)
    caption = (
        "Accuracy, compression and search cost (steps, the dense run and every earlier cycle included), medians over "
        "seeds. Filled points are the Pareto front of the three; hollow ones are beaten in all that matters by another."
    )
    return worded(figure, caption)


def performance_profiles(frame: pd.DataFrame, setting: Sequence[str] = SETTING, *, seed: int = 0) -> Drawn:
    """Share of cells whose change against dense is at least x points, over architectures, a panel per scenario.

    seed: of the bootstrap's bands. Raises ValueError where aggregate.profiles() does.
    """
    table = aggregate.profiles(frame, setting, seed=seed)
    scenarios = list(table.groupby(SCENARIO, dropna=False, sort=False))
    figure, axes = grid(len(scenarios))
    for ax, (_, rows) in zip(axes, scenarios, strict=True):
        for style, line in _by_strategy(rows):
            draw_profile(ax, line, style)
        ax.axvline(0, color=DENSE, linewidth=1)
        ax.set_xlabel(CHANGE)
        ax.set_ylim(-0.02, 1.02)
        ax.set_title(f"{aggregate.scenario_title(rows.iloc[0])}\n{_extent(rows.loc[rows['seeds'].idxmin()])}", size=9)
        finish(ax, "share of cells at least there")
    caption = (
        "Performance profiles: the share of cells whose change against their seed's dense network is at least so many "
        "points; every network weighs the same, and only sparsities count that all strategies have. Bands: pointwise "
        "95 % bootstrap over seeds, which covers less than it says at few seeds (in the titles, measured for means)."
    )
    return worded(figure, caption)


def training_curves(histories: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Drawn:
    """Test accuracy (left) and training loss (right) by step of chosen cells.

    histories: (label, entries with step, test_accuracy and train_loss; either may be missing or None). A label that
    begins with a strategy's name has its colour. Raises ValueError when no cell has an entry.
    """
    if not any(entries for _, entries in histories):
        raise ValueError(f"no training curve to draw: {len(histories)} cells chosen, none has a history")
    figure, (accuracy, loss) = grid(2)
    seen: dict[str, int] = {}
    for label, entries in histories:
        colour = _colour_of(label)
        style = STYLES[seen.setdefault(colour, 0) % len(STYLES)]
        seen[colour] += 1
        for ax, name, scale in ((accuracy, "test_accuracy", 100), (loss, "train_loss", 1)):
            points = [(entry["step"], scale * entry[name]) for entry in entries if entry.get(name) is not None]
            ax.plot(*zip(*points, strict=True) if points else ([], []), color=colour, linestyle=style, label=label)
    for ax, label in ((accuracy, ACCURACY), (loss, "training loss")):
        ax.set_xlabel("step")
        finish(ax, label)
    return worded(figure, "Training curves of chosen cells: test accuracy and training loss by step.")


def draw_lines(ax: Axes, rows: pd.DataFrame, x: str = "compression_ratio") -> Axes:
    """Every label's line of one panel, rows of aggregate.accuracy() in the order in which they are joined."""
    for style, line in _by_strategy(rows):
        draw_line(ax, line, x, style)
    return ax


def draw_line(ax: Axes, line: pd.DataFrame, x: str = "compression_ratio", style: str = "-") -> Axes:
    """One label's medians and range, rows of aggregate.accuracy() in order. Hollow where cells are not finished."""
    colour, marker = look = LOOKS.get(line["strategy"].iloc[0], OTHER)
    at, label = line[x].to_numpy(dtype=float), f"{line['label'].iloc[0]} ({_seeds(line)})"
    low, middle, high = (100 * line[name].to_numpy() for name in ("min", "median", "max"))
    if len(set(at)) == len(at):
        ax.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    else:  # several settings at one place: points
        style = "none"
    ax.plot(at, middle, color=colour, linestyle=style, marker=marker, markersize=5, label=label)
    _hollow(ax, at, middle, (line["n"] < line["declared"]).to_numpy(), look)
    return ax


def draw_references(ax: Axes, unpruned: pd.DataFrame) -> Axes:
    """The dense network's median and range, and the dense network with the extra budget."""
    for row in unpruned.itertuples():
        dense = row.strategy == "dense"
        label = f"{row.label} ({_seeds(unpruned.loc[[row.Index]])})"
        colour, style = (DENSE, "-") if dense else (LOOKS.get(row.strategy, OTHER)[0], "--")
        ax.axhline(100 * row.median, color=colour, linestyle=style, linewidth=1, label=label)
        if dense:
            ax.axhspan(100 * row.min, 100 * row.max, color=colour, alpha=0.08, linewidth=0)
    return ax


def draw_published(ax: Axes, points: pd.DataFrame) -> Axes:
    """Published accuracies: hollow markers without a line, rows of a frame."""
    for strategy, rows in points.groupby("strategy", sort=False):
        colour, marker = LOOKS.get(strategy, OTHER)
        x, y = rows["compression_ratio"].to_numpy(), 100 * rows["test_accuracy"].to_numpy()
        look: dict[str, Any] = {"marker": marker, "markersize": 8, "markerfacecolor": "none", "markeredgecolor": colour}
        ax.plot(x, y, linestyle="none", alpha=0.8, label=f"{strategy} (published)", **look)
    return ax


def draw_differences(ax: Axes, line: pd.DataFrame, strategy: str, style: str = "-") -> Axes:
    """Means and intervals of one pair of lines, rows of aggregate.difference_intervals() by increasing ratio."""
    colour, marker = look = LOOKS.get(strategy, OTHER)
    x, y = line["compression_ratio"].to_numpy(), line["mean"].to_numpy()
    ax.vlines(x, line["low"].to_numpy(), line["high"].to_numpy(), color=colour, linewidth=1.5, alpha=0.6)
    paired = "" if line["paired"].all() else ", unpaired"
    label = f"{line['label_a'].iloc[0]} − {line['label_b'].iloc[0]} (n = {_span(line['n'])}{paired})"
    ax.plot(x, y, color=colour, linestyle=style, linewidth=0.8, marker=marker, markersize=5, label=label)
    _hollow(ax, x, y, line["low"].isna().to_numpy(), look)
    return ax


def draw_front(ax: Axes, points: pd.DataFrame, x: str) -> Axes:
    """Accuracy against x, rows of aggregate.search_cost(): filled on the front, hollow behind it."""
    for (strategy, front), rows in points.groupby(["strategy", "front"], sort=False):
        colour, marker = LOOKS.get(strategy, OTHER)
        look: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "markerfacecolor": colour if front else "none",
            "linestyle": "none",
        }
        at, y = rows[x].to_numpy(dtype=float), 100 * rows["median"].to_numpy()
        label = f"{strategy}, {'on the front' if front else 'behind it'} (n = {_span(rows['n'])})"
        ax.plot(at, y, markersize=6, label=label, **look)
    return ax


def draw_profile(ax: Axes, line: pd.DataFrame, style: str = "-") -> Axes:
    """One label's share by threshold with its pointwise band, rows of aggregate.profiles()."""
    colour, _ = LOOKS.get(line["strategy"].iloc[0], OTHER)
    at = line["threshold"].to_numpy()
    ax.plot(at, line["share"].to_numpy(), color=colour, linestyle=style, linewidth=1.4, label=line["label"].iloc[0])
    ax.fill_between(at, line["low"].to_numpy(), line["high"].to_numpy(), color=colour, alpha=0.12, linewidth=0)
    return ax


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, SVG and PDF beside each other, each whole or not at all; the same bytes every time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")  # laid out once; savefig would do it, and draw, twice for each format
    formats: dict[str, Callable[[io.BytesIO], object]] = {
        "png": FigureCanvasAgg(figure).print_png,
        "svg": partial(FigureCanvasSVG(figure).print_svg, metadata={"Date": None}),
        "pdf": partial(FigureCanvasPdf(figure).print_pdf, metadata={"CreationDate": None}),
    }
    for suffix, draw in formats.items():
        content = io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": "rewind-sweeps"}):
            draw(content)
        files.write(path.with_name(f"{path.name}.{suffix}"), content.getvalue())


def _accuracy_against(
    frame: pd.DataFrame, x: str, xlabel: str, setting: Sequence[str], published: pd.DataFrame | None
) -> Drawn:
    table = aggregate.accuracy(frame, setting)
    pruned = table[table["sparsity_target"] > 0]
    figure, panels = _panels(pruned if len(pruned) else table.iloc[:1], table)
    overlaid = False
    for ax, group in panels:
        network, rows = group.iloc[0], group[group["sparsity_target"] > 0]
        same = same_values(table, network, ["dataset", "architecture", "protocol"])
        draw_references(ax, table[same & (table["sparsity_target"] == 0)])
        draw_lines(ax, rows.sort_values(x, kind="stable"), x)
        beside = published if published is not None else frame.iloc[:0]
        points = beside[same_values(beside, network, PANEL[:-1])].sort_values(x)
        draw_published(ax, points)
        overlaid |= len(points) > 0
        _ratios(ax, pd.concat([rows[x], points[x]]))
        ax.set_xlabel(xlabel)
        finish(ax, ACCURACY)
    also = " Large hollow markers without a line: published medians." if overlaid else ""
    caption = (
        f"Test accuracy against {xlabel.split(' (')[0]}. {BANDS}; black: the dense network.{also}{_unfinished(frame)}"
    )
    return worded(figure, caption)


def same_values(rows: pd.DataFrame, of: pd.Series, names: Iterable[str]) -> pd.Series:
    """Which rows have these values, missing ones included."""
    same = pd.Series(True, index=rows.index)
    for name in names:
        same &= rows[name].isna() if pd.isna(of[name]) else (rows[name] == of[name]).fillna(False)
    return same


def _panels(rows: pd.DataFrame, table: pd.DataFrame) -> tuple[Drawn, list[tuple[Axes, pd.DataFrame]]]:
    """A figure with an axes for each panel of rows, titled; panels of one network share the y axis."""
    groups = [group for _, group in rows.groupby(PANEL, dropna=False, sort=False)]
    figure, axes = grid(len(groups))
    first: dict[tuple[str, str], Axes] = {}
    for ax, group in zip(axes, groups, strict=True):
        head = group.iloc[0]
        ax.set_title(title(head, table), size=10)
        if (shared := first.setdefault((head["dataset"], head["architecture"]), ax)) is not ax:
            ax.sharey(shared)
    return figure, list(zip(axes, groups, strict=True))


def grid(panels: int, columns: int = COLUMNS) -> tuple[Drawn, list[Axes]]:
    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    width, height = PANEL_INCHES
    figure = Drawn(figsize=(width * columns, height * rows), dpi=150, layout="constrained")
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(panels)]


def _by_strategy(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Lines by label, each with its line style: the first, second, … of its strategy."""
    seen: dict[str, int] = {}
    for _, line in rows.groupby("label", sort=False):
        strategy = line["strategy"].iloc[0]
        place = seen.setdefault(strategy, 0)
        seen[strategy] += 1
        yield STYLES[place % len(STYLES)], line


def _marker(strategy: str) -> Line2D:
    """What stands for a strategy in a legend."""
    colour, marker = LOOKS.get(strategy, OTHER)
    return Line2D([], [], color=colour, marker=marker, linestyle="none", label=strategy)


def _colour_of(label: str) -> str:
    names = sorted((name for name in [*LOOKS, "dense"] if label.startswith(name)), key=len)
    return LOOKS.get(names[-1], (DENSE, ""))[0] if names else OTHER[0]


def _hollow(ax: Axes, x: np.ndarray, y: np.ndarray, where: np.ndarray, look: tuple[str, str]) -> None:
    """White faces on some markers."""
    colour, marker = look
    if where.any():
        face: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": colour}
        ax.plot(x[where], y[where], linestyle="none", marker=marker, markersize=5, label="_hollow", **face)


def _seeds(rows: pd.DataFrame) -> str:
    """n of rows of aggregate.accuracy(): "n = 2–3", or "n = 2–3 of 3" while cells are not finished."""
    missing = "" if (rows["n"] == rows["declared"]).all() else f" of {_span(rows['declared'])}"
    return f"n = {_span(rows['n'])}{missing}"


def _span(numbers: pd.Series) -> str:
    low, high = numbers.min(), numbers.max()
    return f"{low}" if low == high else f"{low}–{high}"


def _ratios(ax: Axes, ratios: pd.Series) -> None:
    """A log axis with ticks at the ratios drawn, as many as there is room for."""
    ax.set_xscale("log")
    ticks: list[float] = []
    at = sorted({float(f"{ratio:.3g}") for ratio in ratios})
    gap = TICK_GAP * math.log(at[-1] / at[0]) if at else 0
    for ratio in at:
        if not ticks or math.log(ratio / ticks[-1]) >= gap:
            ticks.append(ratio)
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.tick_params(axis="x", labelsize=8)


def _steps(ax: Axes) -> None:
    """A log axis of steps, whole numbers at its ticks."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda steps, _: f"{steps:,.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())


def finish(ax: Axes, ylabel: str, legend: bool = True) -> None:
    """A grid, a name, and a legend of all lines, or of the strategies where there are too many lines to read."""
    ax.set_ylabel(ylabel)
    ax.grid(alpha=0.25)
    handles, names = ax.get_legend_handles_labels()
    if len(names) > LEGEND_LINES:
        strategies = [name.split(" (")[0] for name in names]
        handles = [handles[strategies.index(name)] for name in dict.fromkeys(strategies)]
        names = [name if n == 1 else f"{name} ({n} lines)" for name, n in Counter(strategies).items()]
    if legend:
        ax.legend(handles, names, fontsize=7.5)


def _unfinished(frame: pd.DataFrame) -> str:
    done = int((frame["status"] == "done").sum())
    if done == len(frame):
        return ""
    return f" {done} of {len(frame)} cells are finished: hollow where some seeds are missing, nothing where all are."


def _extent(row: pd.Series) -> str:
    """What a scenario of aggregate.profiles() is made of."""
    said = f"networks: {row['pairs']}, sparsities: {row['sparsities']}, seeds: {row['seeds']}"
    return said if math.isnan(row["coverage"]) else f"{said}; bands cover {100 * row['coverage']:.0f} %"


def worded(figure: Drawn, caption: str) -> Drawn:
    """With its caption, and the alternative text: what each axes shows, line by line, from the data drawn."""
    figure.caption, figure.alt = caption, " ".join(map(_alternative, figure.axes))
    return figure


def _alternative(ax: Axes) -> str:
    said = "; ".join(_line_in_words(line, ax) for line in ax.lines if not str(line.get_label()).startswith("_"))
    name = f"{ax.get_title()}: ".replace("\n", ", ") if ax.get_title() else ""
    return f"{name}{ax.get_ylabel()} against {ax.get_xlabel()}. {said or 'Nothing yet'}."


def _line_in_words(line: Line2D, ax: Axes) -> str:
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    if len(x) == 0:
        return f"{line.get_label()}: nothing yet"
    if line.get_transform() != ax.transData:
        return f"{line.get_label()}: {y[0]:.4g} throughout"
    if len(x) == 1:
        return f"{line.get_label()}: {y[0]:.4g} at {x[0]:.4g}"
    return f"{line.get_label()}: {y[0]:.4g} at {x[0]:.4g} to {y[-1]:.4g} at {x[-1]:.4g}"
