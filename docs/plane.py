"""Draw the rewind plane with every strategy on it: python docs/plane.py writes docs/plane.png."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.plots import LOOKS

T, K, BUDGET = 72_000, 24_000, 24_000
FRESH, KEPT, OWN = -24_000, 86_000, -18_000
"""Where what is no step stands: a fresh initialisation, the kept weights, a clock of its own."""
POINTS = (
    # strategy, weights from, clock from, what is written beside it
    ("fine-tuning", KEPT, T, "fine-tuning"),
    ("lr-rewinding", KEPT, T - BUDGET, "LR rewinding by t"),
    ("lr-rewinding", KEPT, 0, "LR rewinding by T"),
    ("weight-rewinding", K, K, "weight rewinding to k"),
    ("weight-rewinding", 0, 0, "lottery ticket"),
    ("low-lr-weight-rewinding", K, T, "low-LR weight rewinding"),
    ("reinit", FRESH, 0, "reinit,\nScratch-E"),
    ("scratch-b", FRESH, OWN, "Scratch-B"),
    ("plane", K, 0, "as Mikler released it"),
    ("plane", 50_000, 30_000, "any other point"),
    ("gradual-pruning", 0, OWN, "gradual\npruning"),
    ("scaled-restart", KEPT, OWN, "SLR"),
)
BESIDE = ("one-cycle-restart", "linear-restart", "adaptive-linear-restart", "cosine-restart")
NAMES = ("CLR", "LLR", "ALLR", "cosine")


def draw() -> Figure:
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([0, T], [0, T], color=LOOKS["weight-rewinding"][0], linewidth=1, zorder=0)
    axes.plot([0, T], [T, T], color=LOOKS["low-lr-weight-rewinding"][0], linewidth=1, zorder=0)
    axes.plot([KEPT, KEPT], [0, T], color=LOOKS["lr-rewinding"][0], linewidth=1, zorder=0)
    for x in (-3_500, (T + KEPT) / 2):
        axes.axvline(x, color="#bbbbbb", linestyle=":")
    axes.axhline(OWN / 2, color="#bbbbbb", linestyle=":")
    for strategy, x, y, text in POINTS:
        mark(axes, strategy, x, y, text)
    for number, (strategy, text) in enumerate(zip(BESIDE, NAMES, strict=True), start=1):
        mark(axes, strategy, KEPT + number * 11_000, OWN, text)
    axes.set_xticks([FRESH, 0, K, T, KEPT], ["fresh", "0", "k", "T", "kept"])
    axes.set_yticks([OWN, 0, K, T - BUDGET, T], ["its own", "0", "k", "T − t", "T"])
    axes.set_xlim(FRESH - 8_000, KEPT + 56_000)
    axes.set_ylim(OWN - 11_000, T + 9_000)
    axes.set_xlabel("weights from (step of the dense run)")
    axes.set_ylabel("learning-rate clock from (step of the dense schedule)")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def mark(axes, strategy, x, y, text) -> None:
    colour, marker = LOOKS[strategy]
    axes.plot(x, y, color=colour, marker=marker, markersize=9, linestyle="")
    below = {"xytext": (0, -9), "ha": "center", "va": "top"}
    beside = {"xytext": (9, 0), "ha": "left", "va": "center"}
    axes.annotate(
        text, (x, y), textcoords="offset points", fontsize=8, **(below if y == OWN or (x, y) == (K, T) else beside)
    )


if __name__ == "__main__":
    draw().savefig(Path(__file__).with_name("plane.png"), dpi=120)
