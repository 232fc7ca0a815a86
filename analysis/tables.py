"""Tables for people: aggregated frames in, frames of strings out, and these as text, Markdown or LaTeX.

CSV is `frame.to_csv(path, index=False)` of either kind.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from analysis import claims
from analysis.aggregate import PANEL, scenario_title, title

LATEX = {
    **{character: rf"\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "Δ": r"$\Delta$",
    "–": "--",
    "…": r"\ldots{}",
    "\n": " ",
}
"""What LaTeX reads otherwise than it is written."""
MARKDOWN = {**{character: rf"\{character}" for character in "\\`*_|<>[]#"}, "\n": " "}
"""What Markdown reads otherwise than it is written."""
BOUNDS = {"": "", "at least": "≥ ", "at most": "≤ "}


def as_text(table: pd.DataFrame) -> str:
    """accuracy() for a terminal: strategy × sparsity for each panel, median [min, max] in percent, n beside it."""
    parts = [
        f"{name}: test accuracy, %, by sparsity\n{wide.set_index('strategy').rename_axis(None).to_string()}"
        for name, wide in strategy_by_sparsity(table).items()
    ]
    return "\n\n".join(parts)


def strategy_by_sparsity(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """accuracy() as a table for each panel, by its title: a row per line, a column per sparsity.

    A cell is the median [min, max] in percent and n: "n=2/3" while one of three cells is not finished.
    """
    table = table.assign(cell=_each(table, _accuracy), sparsity=[f"{s:g}" for s in table["sparsity_target"]])
    tables = {}
    for _, panel in table.groupby(PANEL, dropna=False, sort=False):
        lines, sparsities = panel["label"].unique(), panel.sort_values("sparsity_target")["sparsity"].unique()
        wide = panel.set_index(["label", "sparsity"])["cell"].unstack(fill_value="")  # noqa: PD010
        wide = wide.reindex(index=lines, columns=sparsities).rename_axis(index="strategy", columns=None)
        tables[title(panel.iloc[0], table)] = wide.reset_index()
    return tables


def iso_accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """aggregate.iso_accuracy() as a table: a row per line, the compression ratio within each tolerance of dense.

    A cell is the median (and the interval) over seeds: "≥" where the grid ends inside, "≤" where it begins outside.
    """
    table = table.assign(cell=_each(table, _reached), line=table.groupby([*PANEL, "label"], dropna=False).ngroup())
    made = []
    for _, line in table.groupby("line"):
        first = line.iloc[0]
        n = _n(first["n"], first["seeds"])
        head = {"panel": title(first, table), "strategy": first["label"], "n": n.removeprefix("n=")}
        within = {
            f"within {_points(tolerance)}": cell
            for tolerance, cell in zip(line["tolerance"], line["cell"], strict=True)
        }
        made.append((line.index[0], head | within))
    return pd.DataFrame([row for _, row in sorted(made, key=lambda item: item[0])])


def search_cost(table: pd.DataFrame) -> pd.DataFrame:
    """aggregate.search_cost() as a table, a row per line and sparsity, cheapest first within a panel."""
    panel = table.groupby(PANEL, dropna=False, sort=False).ngroup()
    table = table.assign(panel=panel).sort_values(["panel", "total_steps"], kind="stable")
    return pd.DataFrame(
        {
            "panel": _titles(table),
            "strategy": table["label"],
            "compression": [f"{ratio:.2f}×" for ratio in table["compression_ratio"]],
            "total steps": [f"{steps:,.0f}" for steps in table["total_steps"]],
            "test accuracy, %": _each(table, _accuracy),
            "change, points": [_signed(delta) for delta in table["delta"]],
            "on the front": ["yes" if front else "" for front in table["front"]],
        }
    ).reset_index(drop=True)


def win_tie_loss(table: pd.DataFrame) -> pd.DataFrame:
    """aggregate.win_tie_loss() counted over sparsities: a row per two strategies, a column per panel, and all.

    A cell says on how many sparsities the first is ahead / level / behind.
    """
    table = table.assign(panel=_titles(table))
    pairs = table.groupby(["a", "b"], sort=False)
    panels = {
        panel: [_counts(rows.loc[rows["panel"] == panel, "outcome"]) for _, rows in pairs]
        for panel in table["panel"].unique()
    }
    names = [f"{a} against {b}" for (a, b), _ in pairs]
    return pd.DataFrame({"win / tie / loss": names, **panels, "all": [_counts(rows["outcome"]) for _, rows in pairs]})


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """aggregate.difference_intervals() as a table, a row per sparsity: descriptive, no verdict."""
    return pd.DataFrame(
        {
            "panel": _titles(table),
            "difference": [f"{row.label_a} − {row.label_b}" for row in table.itertuples()],
            "sparsity": [f"{sparsity:g}" for sparsity in table["sparsity_target"]],
            "mean, points": [_signed(mean) for mean in table["mean"]],
            "95 % interval": [_range(row.low, row.high) for row in table.itertuples()],
            "p": [_p(p) for p in table["p"]],
            "p adjusted": [_p(p) for p in table["p_adjusted"]],
            "n": [f"{row.n}" if row.paired else f"{row.n}, unpaired" for row in table.itertuples()],
        }
    )


def noise(table: pd.DataFrame) -> pd.DataFrame:
    """aggregate.noise() as a table, a row per line."""
    return pd.DataFrame(
        {
            "panel": _titles(table),
            "strategy": table["label"],
            "test accuracy, %": [f"{100 * accuracy:.1f}" for accuracy in table["accuracy"]],
            "SD over seeds, points": ["one seed" if math.isnan(sd) else f"{sd:.2f}" for sd in table["seed_sd"]],
            "SE of the test set, points": ["" if math.isnan(se) else f"{se:.2f}" for se in table["test_se"]],
        }
    )


def across_architectures(table: pd.DataFrame) -> pd.DataFrame:
    """aggregate.across_architectures() as a table, a row per line and measure."""
    return pd.DataFrame(
        {
            "scenario": [scenario_title(row) for _, row in table.iterrows()],
            "strategy": table["label"],
            "measure": table["measure"],
            "change, points": [_signed(value) for value in table["value"]],
            **_bootstrap(table, lambda row: _range(row.low, row.high)),
        }
    )


def improvement(table: pd.DataFrame) -> pd.DataFrame:
    """aggregate.improvement() as a table, a row per two lines."""
    return pd.DataFrame(
        {
            "scenario": [scenario_title(row) for _, row in table.iterrows()],
            "better": table["a"],
            "than": table["b"],
            "probability": [f"{probability:.2f}" for probability in table["probability"]],
            **_bootstrap(table, lambda row: "" if math.isnan(row.low) else f"[{row.low:.2f}, {row.high:.2f}]"),
        }
    )


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """claims.evaluate() as a table. Bounds are one-sided, each at the level; p is after Holm over a claim's parts."""
    return pd.DataFrame(
        {
            "claim": table["claim"],
            "scope": table["scope"].str.replace("/", ", "),
            "comparison": table["part"],
            "setting": table["setting"],
            "verdict": table["verdict"],
            "effect, points": [_signed(100 * effect) for effect in table["effect"]],
            "bounds": [_range(100 * row.low, 100 * row.high) for row in table.itertuples()],
            "p": [_p(p) for p in table["p_adjusted"]],
            "n": table["n"].astype("string"),
            "level": [
                f"{row.level:g}" if row.look == 0 else f"{row.level:g}, look {row.look + 1}"
                for row in table.itertuples()
            ],
            "smallest p": [_p(p) for p in table["smallest_p"]],
            "remarks": ["; ".join(filter(None, said)) for said in zip(table["note"], table["needs"], strict=True)],
        }
    )


def headlines(table: pd.DataFrame) -> str:
    """claims.evaluate() for a terminal: a line per claim and scope that it is about, its parts left out."""
    chosen = table[claims.whole(table) & table["about"]]
    setting = ["setting"] if (chosen["setting"] != "").any() else []
    lines = verdicts(chosen)[["claim", "verdict", "effect, points", "bounds", "p", "n", "scope", *setting]]
    return f"verdicts\n{lines.to_string(index=False, justify='left')}"


def scores(table: pd.DataFrame) -> pd.DataFrame:
    """published.summary() as a table: beside our shares those of two wrong tables."""
    shares = {"accuracy": "within 1 point", "change": "change within 0.5", "both": "both", "signs": "signs of pairs"}
    others = {"": "", "dense_": "dense everywhere", "exchanged_": "rewindings exchanged"}
    return pd.DataFrame(
        {
            "panel": table["source"],
            "points": [f"{row.points} of {row.printed}" for row in table.itertuples()],
            **{
                f"{said} ({other})" if other else said: [_percent(share) for share in table[f"{prefix}{name}"]]
                for prefix, other in others.items()
                for name, said in shares.items()
            },
            "reproduced": ["" if pd.isna(held) else "yes" if held else "no" for held in table["reproduced"]],
            "because": table["reason"],
        }
    )


def score_points(table: pd.DataFrame) -> pd.DataFrame:
    """published.scorecard() as a table, a row per published point."""
    return pd.DataFrame(
        {
            "panel": table["source"],
            "strategy": table["strategy"],
            "sparsity": [f"{sparsity:g}" for sparsity in table["sparsity"]],
            "theirs, %": [f"{100 * accuracy:.2f}" for accuracy in table["theirs"]],
            "ours, %": [f"{100 * accuracy:.2f}" for accuracy in table["ours"]],
            "n": table["n"].astype("string"),
            "their change": [_signed(100 * change) for change in table["change_theirs"]],
            "our change": [_signed(100 * change) for change in table["change_ours"]],
            "within 1 point": ["yes" if held else "no" for held in table["within_accuracy"]],
            "change within 0.5": ["yes" if held else "no" for held in table["within_change"]],
            "trained otherwise": table["differences"],
        }
    )


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """methods.costs() as a table."""
    return pd.DataFrame(
        {
            "what": table["what"],
            "networks": [f"{count:,}" for count in table["networks"]],
            "steps trained": [f"{steps:,}" for steps in table["steps"]],
            "if each trained its whole past": [f"{steps:,}" for steps in table["if_separate"]],
            "device hours": ["not recorded" if math.isnan(hours) else f"{hours:.2f}" for hours in table["hours"]],
        }
    )


def markdown(table: pd.DataFrame) -> str:
    """A pipe table. Numbers are written as they are, so give strings where digits matter.

    >>> print(markdown(pd.DataFrame({"a|b": ["x_1"], "n": [3]})))
    | a\\|b | n |
    | --- | --- |
    | x\\_1 | 3 |
    """
    return "\n".join(
        f"| {' | '.join(row)} |"
        for row in [
            _escaped(table.columns, MARKDOWN),
            ["---"] * len(table.columns),
            *(_escaped(row, MARKDOWN) for row in table.itertuples(index=False)),
        ]
    )


def latex(table: pd.DataFrame) -> str:
    """A tabular environment with booktabs' rules.

    >>> print(latex(pd.DataFrame({"share, %": ["≥ 5"]})))
    \\begin{tabular}{l}
    \\toprule
    share, \\% \\\\
    \\midrule
    $\\geq$ 5 \\\\
    \\bottomrule
    \\end{tabular}
    """
    head, *rows = (rf"{' & '.join(_escaped(row, LATEX))} \\" for row in [table.columns, *table.itertuples(index=False)])
    rules = [r"\toprule", head, r"\midrule", *rows, r"\bottomrule"]
    return "\n".join([rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}", *rules, r"\end{tabular}"])


def _escaped(values: Iterable[Any], escapes: dict[str, str]) -> list[str]:
    table = {ord(character): escaped for character, escaped in escapes.items()}
    return ["" if pd.isna(value) else str(value).translate(table) for value in values]


def _titles(table: pd.DataFrame) -> pd.Series:
    """Of each row's panel."""
    panels = table.groupby(PANEL, dropna=False, sort=False)
    names = {number: title(rows.iloc[0], table) for number, (_, rows) in enumerate(panels)}
    return panels.ngroup().map(names)


def _each(table: pd.DataFrame, said: Callable[[Any], str]) -> list[str]:
    return [said(row) for row in table.itertuples()]


def _accuracy(row: Any) -> str:
    return f"{100 * row.median:.1f} [{100 * row.min:.1f}, {100 * row.max:.1f}] {_n(row.n, row.declared)}"


def _n(done: int, declared: int) -> str:
    return f"n={done}" if done == declared else f"n={done}/{declared}"


def _reached(row: Any) -> str:
    if row.n == 0:
        return "not finished"
    if row.n == 1:
        return f"{BOUNDS[row.bound]}{row.ratio:.2f}×"
    low, high = (f"{BOUNDS[bound]}{end:.2f}" for bound, end in ((row.low_bound, row.low), (row.high_bound, row.high)))
    middle = "unknown" if row.bound == "unknown" else f"{BOUNDS[row.bound]}{row.ratio:.2f}×"
    return f"{middle} [{low}, {high}]"


def _points(number: float) -> str:
    return f"{number:g} point" if number == 1 else f"{number:g} points"


def _counts(outcomes: pd.Series) -> str:
    return " / ".join(str((outcomes == outcome).sum()) for outcome in ("win", "tie", "loss")) if len(outcomes) else ""


def _bootstrap(table: pd.DataFrame, interval: Callable[[Any], str]) -> dict[str, list[str]]:
    return {
        "bootstrap interval": _each(table, interval),
        "its coverage": ["" if math.isnan(share) else f"{100 * share:.0f} %" for share in table["coverage"]],
        "of": _each(table, lambda row: f"networks: {row.pairs}, sparsities: {row.sparsities}, seeds: {row.seeds}+"),
    }


def _signed(points: float) -> str:
    return "" if math.isnan(points) else f"{points:+.2f}".replace("-", "−")


def _range(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"[{_signed(low)}, {_signed(high)}]"


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.0f} %"


def _p(p: float) -> str:
    if math.isnan(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
