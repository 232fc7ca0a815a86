"""Tables of a study's frame."""

import pandas as pd

PANEL = ["dataset", "architecture", "structure", "schedule", "prune_fraction", "protocol"]
"""What one panel of a table or a figure holds fixed."""
SETTING = ["strategy", "shape", "weights_from", "lr_from", "budget", "momentum"]
"""What one line holds fixed beside it."""


def done_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The finished rows. Raises ValueError when there is none: there is nothing to show."""
    done = frame[frame["status"] == "done"]
    if done.empty:
        counts = ", ".join(f"{count} {status}" for status, count in frame["status"].value_counts().items())
        raise ValueError(f"no cell is finished ({counts}): nothing to show")
    return done


def accuracy(frame: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy over seeds, a row per panel × setting × target sparsity, in the order of the frame.

    Columns: PANEL, SETTING, label (see labels()), sparsity_target, compression_ratio (median reached), median, min,
    max, n. Accuracies are fractions. Raises ValueError when no cell is finished, or when a seed would count twice.
    """
    done = done_cells(frame)
    by = [*PANEL, *SETTING, "sparsity_target"]
    twice = done[done["seed"].notna() & done.duplicated([*by, "seed"])]
    if not twice.empty:
        raise ValueError(f"rows that count a seed twice: keys {', '.join(twice['key'].head(3))} …")
    groups = done.assign(label=labels(done)).groupby([*by, "label"], dropna=False, sort=False)
    return groups.agg(
        compression_ratio=("compression_ratio", "median"),
        median=("test_accuracy", "median"),
        min=("test_accuracy", "min"),
        max=("test_accuracy", "max"),
        n=("test_accuracy", "size"),
    ).reset_index()


def labels(frame: pd.DataFrame) -> pd.Series:
    """What a row's line is called: its strategy, and what else tells it from others of that name in its panel."""
    names = frame["strategy"].astype("object")
    forms = {
        "shape": "{} ({})",
        "weights_from": "{} (from {})",
        "lr_from": "{} (clock from {})",
        "budget": "{} ({} steps)",
        "momentum": "{} ({} momentum)",
    }
    for column, form in forms.items():
        groups = frame.assign(label=names).groupby([*PANEL, "label"], dropna=False)
        several = groups[column].transform(lambda values: values.nunique(dropna=False)) > 1
        said = [
            form.format(name, "the kept" if pd.isna(v) else v) for name, v in zip(names, frame[column], strict=True)
        ]
        names = names.where(~several, pd.Series(said, index=frame.index))
    return names


def title(panel: pd.Series, frame: pd.DataFrame) -> str:
    """What a panel is called: a row of accuracy(), and the whole table, for what need not be said."""
    parts = [panel[name] for name in ("dataset", "architecture", "structure", "schedule") if not pd.isna(panel[name])]
    if not pd.isna(panel["prune_fraction"]):
        parts.append(f"−{100 * panel['prune_fraction']:g} % a cycle")
    network = (frame[["dataset", "architecture"]] == panel[["dataset", "architecture"]]).all(axis=1)
    if len(frame.loc[network, "protocol"].unique()) > 1:
        parts.append(f"protocol {panel['protocol']}")
    return ", ".join(parts)


def as_text(table: pd.DataFrame) -> str:
    """accuracy() for a terminal: strategy × sparsity for each panel, median [min, max] in percent, n beside it."""
    table = table.assign(
        cell=[f"{100 * r.median:.1f} [{100 * r.min:.1f}, {100 * r.max:.1f}] n={r.n}" for r in table.itertuples()],
        sparsity=[f"{sparsity:g}" for sparsity in table["sparsity_target"]],
    )
    parts = []
    for _, rows in table.groupby(PANEL, dropna=False, sort=False):
        lines, sparsities = rows["label"].unique(), rows.sort_values("sparsity_target")["sparsity"].unique()
        wide = rows.set_index(["label", "sparsity"])["cell"].unstack(fill_value="")  # noqa: PD010
        wide = wide.reindex(index=lines, columns=sparsities).rename_axis(index=None, columns=None)
        parts.append(f"{title(rows.iloc[0], table)}: test accuracy, %, by sparsity\n{wide.to_string()}")
    return "\n\n".join(parts)
