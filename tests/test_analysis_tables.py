"""Tables by their strings; their numbers are tested where they are computed."""

import itertools
import math
import re

import pandas as pd

from analysis import aggregate, tables
from analysis.load import SCHEMA


def frame_of(rows) -> pd.DataFrame:
    """Rows of a study's table."""
    return pd.DataFrame(rows).reindex(columns=list(SCHEMA)).astype(SCHEMA)


SEEDS = itertools.count()


def row(accuracy, **columns):
    """A row with a seed of its own."""
    made = {
        "status": "done",
        "key": f"key of {accuracy}",
        "protocol": "0123456789ab",
        "seed": next(SEEDS),
        "dataset": "digits",
        "architecture": "resnet8-8",
        "structure": "unstructured",
        "schedule": "one-shot",
        "strategy": "lr-rewinding",
        "shape": "replay",
        "budget": 400,
        "sparsity_target": 0.5,
        "compression_ratio": 2.0,
        "test_accuracy": accuracy,
    }
    return made | columns


def dense(accuracy, **columns):
    unpruned = {"structure": None, "schedule": "dense", "strategy": "dense", "sparsity_target": 0.0}
    unknown = {"shape": None, "budget": None}
    return row(accuracy, **(unpruned | unknown | {"compression_ratio": 1.0} | columns))


STUDY = [
    *(dense(accuracy) for accuracy in (0.97, 0.99, 0.98)),
    *(row(accuracy) for accuracy in (0.9, 0.8, 0.6)),
    *(row(accuracy, sparsity_target=0.8, compression_ratio=5.0 + accuracy) for accuracy in (0.5, 0.3)),
    row(0.7, strategy="fine-tuning"),
    row(0.65, schedule="iterative", prune_fraction=0.5),
    row(math.nan, status="failed", sparsity_target=0.9),
    row(math.nan, status="missing", strategy="fine-tuning"),
]


def test_text():
    text = tables.as_text(aggregate.accuracy(frame_of(STUDY)))
    panels = [panel.splitlines() for panel in text.split("\n\n")]
    assert [panel[0] for panel in panels] == [
        "digits, resnet8-8, dense: test accuracy, %, by sparsity",
        "digits, resnet8-8, unstructured, one-shot: test accuracy, %, by sparsity",
        "digits, resnet8-8, unstructured, iterative, −50 % a cycle: test accuracy, %, by sparsity",
    ]
    assert panels[1][1].split() == ["0.5", "0.8"]
    assert panels[1][2].split() == ["lr-rewinding", "80.0", "[60.0,", "90.0]", "n=3", "40.0", "[30.0,", "50.0]", "n=2"]
    assert panels[1][3].split() == ["fine-tuning", "70.0", "[70.0,", "70.0]", "n=1/2"]
    assert "<NA>" not in text
    assert "nan" not in text


def test_columns_of_the_text_are_by_increasing_sparsity():
    rows = [row(0.5, sparsity_target=sparsity) for sparsity in (0.9375, 0.5, 0.107)]
    assert tables.as_text(aggregate.accuracy(frame_of(rows))).splitlines()[1].split() == ["0.107", "0.5", "0.9375"]


def strings(text: str) -> pd.DataFrame:
    """A table written with two spaces or more between its columns."""
    head, *rows = (re.split(r" {2,}", line.strip()) for line in text.strip().splitlines())
    return pd.DataFrame(rows, columns=head)


def same(found: pd.DataFrame, text: str) -> None:
    expected = strings(text).replace("-", "")
    pd.testing.assert_frame_equal(found.astype(object), expected.astype(object), check_column_type=False)


def test_strategy_by_sparsity():
    found = tables.strategy_by_sparsity(aggregate.accuracy(frame_of(STUDY)))
    assert list(found) == [
        "digits, resnet8-8, dense",
        "digits, resnet8-8, unstructured, one-shot",
        "digits, resnet8-8, unstructured, iterative, −50 % a cycle",
    ]
    same(
        found["digits, resnet8-8, unstructured, one-shot"],
        """
        strategy      0.5                      0.8
        lr-rewinding  80.0 [60.0, 90.0] n=3    40.0 [30.0, 50.0] n=2
        fine-tuning   70.0 [70.0, 70.0] n=1/2  -
        """,
    )


PANEL = "digits, resnet8-8, unstructured, one-shot"


def cells(strategy, seeds):
    """Changes in points by compression 2, 4 of each seed."""
    return [
        row(
            0.9 + change / 100,
            strategy=strategy,
            seed=seed,
            unit=f"u{seed}",
            sparsity_target=1 - 1 / ratio,
            compression_ratio=ratio,
            delta_test_accuracy=change / 100,
            dense_steps=400,
            total_steps=800,
        )
        for seed, changes in enumerate(seeds)
        for ratio, change in zip((2.0, 4.0), changes, strict=True)
    ]


COMPARED = frame_of(
    [*cells("lr-rewinding", [(0.0, -1.0), (0.0, 0.0)]), *cells("fine-tuning", [(-2.0, -3.0), (0.0, 0.0)])]
)


def test_iso_accuracy():
    late = [*cells("reinit", [(0.0, -3.0)]), row(math.nan, strategy="plane", seed=0, status="missing")]
    frame = pd.concat([COMPARED, frame_of([*late, *cells("plane", [(0.0, -3.0)])[1:]])], ignore_index=True)
    same(
        tables.iso_accuracy(aggregate.iso_accuracy(frame, (0.5, 1.0, 4.0))),
        f"""
        panel    strategy      n  within 0.5 points      within 1 point         within 4 points
        {PANEL}  lr-rewinding  2  ≥ 3.41× [2.83, ≥ 4.00]  ≥ 4.00× [≥ 4.00, ≥ 4.00]  ≥ 4.00× [≥ 4.00, ≥ 4.00]
        {PANEL}  fine-tuning   2  unknown [≤ 2.00, ≥ 4.00]  unknown [≤ 2.00, ≥ 4.00]  ≥ 4.00× [≥ 4.00, ≥ 4.00]
        {PANEL}  reinit        1  2.24×                  2.52×                  ≥ 4.00×
        {PANEL}  plane         1  ≤ 4.00×                ≤ 4.00×                ≥ 4.00×
        """,
    )


def test_a_line_without_a_whole_curve_is_not_finished():
    rows = [*cells("reinit", [(0.0, -3.0)]), *cells("reinit", [(0.0, -3.0), (0.0, -3.0)])[3:]]
    found = tables.iso_accuracy(aggregate.iso_accuracy(frame_of(rows), [1.0]))
    assert found[["n", "within 1 point"]].to_numpy().tolist() == [["1/2", "2.52×"]]
    rows[0]["delta_test_accuracy"] = None
    found = tables.iso_accuracy(aggregate.iso_accuracy(frame_of(rows), [1.0]))
    assert found[["n", "within 1 point"]].to_numpy().tolist() == [["0/2", "not finished"]]


def test_search_cost():
    dear = row(0.95, total_steps=1200, compression_ratio=2.0, delta_test_accuracy=0.0, strategy="fine-tuning")
    cheap = row(0.9, total_steps=800, compression_ratio=2.0, delta_test_accuracy=-0.05)
    bad = row(0.8, total_steps=800, compression_ratio=2.0, delta_test_accuracy=-0.15, strategy="reinit")
    same(
        tables.search_cost(aggregate.search_cost(frame_of([dear, cheap, bad]))),
        f"""
        panel    strategy      compression  total steps  test accuracy, %       change, points  on the front
        {PANEL}  lr-rewinding  2.00×        800          90.0 [90.0, 90.0] n=1  −5.00           yes
        {PANEL}  reinit        2.00×        800          80.0 [80.0, 80.0] n=1  −15.00          -
        {PANEL}  fine-tuning   2.00×        1,200        95.0 [95.0, 95.0] n=1  +0.00           yes
        """,
    )


def test_win_tie_loss():
    chain = [made | {"schedule": "iterative", "prune_fraction": 0.5} for made in cells("lr-rewinding", [(0.0, -1.0)])]
    frame = pd.concat([COMPARED, frame_of([*chain, *cells("reinit", [(0.0, -1.0)])])], ignore_index=True)
    found = tables.win_tie_loss(aggregate.win_tie_loss(frame))
    same(
        found,
        f"""
        win / tie / loss                  {PANEL}    all
        lr-rewinding against fine-tuning  2 / 0 / 0  2 / 0 / 0
        lr-rewinding against reinit       0 / 2 / 0  0 / 2 / 0
        fine-tuning against reinit        0 / 0 / 2  0 / 0 / 2
        """,
    )


def test_differences():
    table = aggregate.difference_intervals(COMPARED, "lr-rewinding", "fine-tuning")
    same(
        tables.differences(table),
        f"""
        panel    difference                  sparsity  mean, points  95 % interval     p      p adjusted  n
        {PANEL}  lr-rewinding − fine-tuning  0.5       +1.00         [−11.71, +13.71]  0.500  0.500       2
        {PANEL}  lr-rewinding − fine-tuning  0.75      +1.00         [−11.71, +13.71]  0.500  0.500       2
        """,
    )
    one = aggregate.difference_intervals(COMPARED[COMPARED["seed"] == 0], "lr-rewinding", "fine-tuning")
    assert tables.differences(one)[["95 % interval", "p", "p adjusted", "n"]].iloc[0].tolist() == ["", "", "", "1"]


def test_aggregates():
    found = tables.across_architectures(aggregate.across_architectures(COMPARED))
    assert found.drop(columns="bootstrap interval").iloc[0].tolist() == [
        "unstructured, one-shot",
        "lr-rewinding",
        "mean",
        "−0.25",
        "50 %",
        "networks: 1, sparsities: 2, seeds: 2+",
    ]
    assert found["bootstrap interval"].iloc[0] == "[−0.50, +0.00]"
    found = tables.improvement(aggregate.improvement(COMPARED))  # (3 of 4 pairs + 2.5 of 4) / 2
    assert found[["better", "than", "probability"]].iloc[0].tolist() == ["lr-rewinding", "fine-tuning", "0.69"]
    alone = COMPARED[COMPARED["seed"] == 0]
    assert tables.improvement(aggregate.improvement(alone))["bootstrap interval"].tolist() == [""]


SPECIAL = pd.DataFrame(
    [("a_b & c", 1, "≥ 5 %"), ("x|y\\z", 2, None), ("−1 <2> {3} ~^#$", 3, "new\nline")], columns=["name", "n", "50 %"]
)


def test_markdown():
    assert tables.markdown(SPECIAL).splitlines() == [
        "| name | n | 50 % |",
        "| --- | --- | --- |",
        "| a\\_b & c | 1 | ≥ 5 % |",
        "| x\\|y\\\\z | 2 |  |",
        "| −1 \\<2\\> {3} ~^\\#$ | 3 | new line |",
    ]


def test_latex():
    assert tables.latex(SPECIAL).splitlines() == [
        r"\begin{tabular}{lll}",
        r"\toprule",
        r"name & n & 50 \% \\",
        r"\midrule",
        r"a\_b \& c & 1 & $\geq$ 5 \% \\",
        r"x\textbar{}y\textbackslash{}z & 2 &  \\",
        r"$-$1 \textless{}2\textgreater{} \{3\} \textasciitilde{}\textasciicircum{}\#\$ & 3 & new line \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_every_table_is_plain_latex():
    """Nothing stands in a table's own words that pdflatex cannot print."""
    made = [
        *tables.strategy_by_sparsity(aggregate.accuracy(COMPARED)).values(),
        tables.iso_accuracy(aggregate.iso_accuracy(COMPARED)),
        tables.search_cost(aggregate.search_cost(COMPARED)),
        tables.win_tie_loss(aggregate.win_tie_loss(COMPARED)),
        tables.differences(aggregate.difference_intervals(COMPARED, "lr-rewinding", "fine-tuning")),
        tables.across_architectures(aggregate.across_architectures(COMPARED)),
        tables.improvement(aggregate.improvement(COMPARED)),
    ]
    assert [table for table in made if not tables.latex(table).isascii()] == []
