"""Figures of a study's frame, drawn from aggregated tables; a strategy looks the same everywhere."""

import os
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from analysis import tables

LOOKS = {
    "fine-tuning": ("#0072B2", "o"),
    "weight-rewinding": ("#D55E00", "s"),
    "lr-rewinding": ("#009E73", "^"),
    "low-lr-weight-rewinding": ("#CC79A7", "D"),
    "reinit": ("#56B4E9", "v"),
    "dense-extra-budget": ("#E69F00", "P"),
}
"""Colour and marker by strategy: Okabe & Ito's palette, told apart with any colour vision."""
OTHER = ("#555555", "X")
DENSE = "#000000"


def accuracy_against_compression(frame: pd.DataFrame) -> Figure:
    """Test accuracy against compression ratio, a panel per data set × architecture × schedule.

    Lines join medians over seeds, bands go from the lowest to the highest; the dense network is the black line, and
    the dense network with the extra budget the dashed one. Raises ValueError when no cell is finished.
    """
    table = tables.accuracy(frame)
    pruned = table[table["sparsity_target"] > 0]
    panels = list(pruned.groupby(tables.PANEL, dropna=False, sort=False)) or [(None, pruned)]
    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (_, rows) in zip(axes, panels, strict=True):
        network = rows.iloc[0] if len(rows) else table.iloc[0]
        same = (table[["dataset", "architecture", "protocol"]] == network[["dataset", "architecture", "protocol"]]).all(
            axis=1
        )
        draw_references(ax, table[same & (table["sparsity_target"] == 0)])
        for _, line in rows.groupby("label", sort=False):
            draw_line(ax, line.sort_values("compression_ratio"))
        ax.set_title(tables.title(network, table), fontsize=10)
        ax.set_xscale("log")
        ax.set_xticks(sorted({float(f"{ratio:.3g}") for ratio in rows["compression_ratio"]}))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("compression ratio (prunable / kept weights)")
        ax.grid(alpha=0.25)
        ax.legend(fontsize=8, loc="lower left")
    axes[0].set_ylabel("test accuracy, %")
    return figure


def draw_line(ax: Axes, line: pd.DataFrame) -> Axes:
    """One label's medians and range, rows of tables.accuracy() by increasing compression ratio."""
    colour, marker = LOOKS.get(line["strategy"].iloc[0], OTHER)
    x, n = line["compression_ratio"].to_numpy(), sorted(set(line["n"]))
    seeds = f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]}–{n[-1]}"
    label = f"{line['label'].iloc[0]} ({seeds})"
    ax.plot(x, 100 * line["median"].to_numpy(), color=colour, marker=marker, markersize=5, label=label)
    ax.fill_between(
        x, 100 * line["min"].to_numpy(), 100 * line["max"].to_numpy(), color=colour, alpha=0.15, linewidth=0
    )
    return ax


def draw_references(ax: Axes, unpruned: pd.DataFrame) -> Axes:
    """The dense network's median and range, and the dense network with the extra budget."""
    for row in unpruned.itertuples():
        dense = row.strategy == "dense"
        label = f"{row.label} (n = {row.n})"
        colour, style = (DENSE, "-") if dense else (LOOKS.get(row.strategy, OTHER)[0], "--")
        ax.axhline(100 * row.median, color=colour, linestyle=style, linewidth=1, label=label)
        if dense:
            ax.axhspan(100 * row.min, 100 * row.max, color=colour, alpha=0.08, linewidth=0)
    return ax


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and SVG beside each other, each whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("png", "svg"):
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{suffix}")
        figure.savefig(temporary, dpi=150, metadata={"Date": None} if suffix == "svg" else None)
        temporary.replace(path.with_name(f"{path.name}.{suffix}"))
