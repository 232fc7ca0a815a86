"""A methods paragraph made from the cells' own descriptions, and where the numbers come from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.aggregate import test_images

STRUCTURES = {
    "unstructured": "single weights, ranked by magnitude over all layers together",
    "structured": "whole channels, ranked by mean magnitude over all layers together",
}
RECIPE = (
    ("learning_rate", "learning rate {:g}"),
    ("drop_factor", "times {:g} at each drop"),
    ("momentum", "momentum {:g}"),
    ("weight_decay", "weight decay {:g}"),
    ("batch_norm_momentum", "batch norm's momentum {:.4g}"),
    ("batch_norm_eps", "its epsilon {:g}"),
)
"""Fields of a dense run's description, as they are said."""


def paragraphs(frame: pd.DataFrame, declared: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """How the networks of a frame were trained and pruned, a paragraph per network and protocol.

    declared: rows of cells.json, whose complete descriptions say more than the frame's columns.
    """
    cells = {row["key"]: row["cell"] for row in declared if "cell" in row}
    groups = frame.groupby(["dataset", "architecture", "protocol"], dropna=False, sort=False)
    return [" ".join(_of_network(rows, cells)) for _, rows in groups]


def _of_network(rows: pd.DataFrame, cells: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    first = rows.iloc[0]
    seeds = rows["seed"].nunique()
    yield (
        f"{first['architecture']} on {first['dataset']}{_images(rows)}, {seeds} seed{'s' if seeds != 1 else ''}: "
        f"dense runs of {first['dense_steps']:,} steps of {first['batch_size']} images{_schedule(first)}"
        f"{_recipe(next((cells[key] for key in rows['key'] if key in cells), {}))}; protocol {first['protocol_name']}"
        f"{'' if pd.isna(first['precision']) else ', precision ' + first['precision']}."
    )
    if not pd.isna(first["val_examples"]):
        images = first["val_examples"]
        held_out = f"{images:,} training images were" if images > 1 else f"{images or 'No'} training image was"
        yield f"{held_out} held out for validation."
    for (structure, schedule), pruned in rows[rows["sparsity_target"] > 0].groupby(
        ["structure", "schedule"], sort=False
    ):
        removed = f"{STRUCTURES.get(structure, structure)}{_chain(pruned)}"
        yield f"Pruned {schedule}: {removed}, to sparsities {_sparsities(pruned)}."
    ways = rows.loc[rows["schedule"] != "dense", ["strategy", "weights_from", "lr_from", "budget", "shape", "momentum"]]
    for strategy, settings in ways.drop_duplicates().groupby("strategy", sort=False):
        yield f"{strategy}: {_retraining(settings)}."
    yield "Accuracies are on the test set after the last step, never the best over steps."


def _images(rows: pd.DataFrame) -> str:
    images = test_images(rows).iloc[0]
    return "" if pd.isna(images) else f" ({images:,.0f} test images)"


def _schedule(first: pd.Series) -> str:
    """Of the dense run's learning rate; step drops are said by the recipe."""
    name = first["dense_schedule"]
    return "" if pd.isna(name) or name == "step" else f" on a {name} schedule"


def _recipe(cell: Mapping[str, Any]) -> str:
    dense = cell.get("dense", cell)
    said = [form.format(dense[name]) for name, form in RECIPE if dense.get(name) is not None]
    if drops := dense.get("drops"):
        said.insert(1, f"dropped at steps {', '.join(f'{step:,}' for step in drops)}")
    return f" ({'Nesterov SGD' if dense.get('nesterov') else 'SGD'}, {', '.join(said)})" if said else ""


def _chain(pruned: pd.DataFrame) -> str:
    shares = pruned["prune_fraction"].dropna().unique()
    return f", {' or '.join(f'{100 * share:g} %' for share in shares)} of what is left a cycle" if len(shares) else ""


def _sparsities(pruned: pd.DataFrame) -> str:
    return ", ".join(f"{s:g}" for s in sorted(pruned["sparsity_target"].round(4).unique()))


def _retraining(settings: pd.DataFrame) -> str:
    first = settings.iloc[0]
    if len(settings) > 1:
        budgets = settings["budget"].dropna()
        return f"{len(settings)} settings, budgets {budgets.min():,} to {budgets.max():,} steps a cycle"
    weights = "weights kept" if pd.isna(first["weights_from"]) else f"weights of step {first['weights_from']}"
    clock = "" if pd.isna(first["lr_from"]) else f", the learning rate's clock from step {first['lr_from']:,}"
    shape = "" if pd.isna(first["shape"]) or first["shape"] == "replay" else f", {first['shape']}"
    momentum = "" if pd.isna(first["momentum"]) else f", {first['momentum'].replace('_', ' ')} momentum"
    budget = "" if pd.isna(first["budget"]) else f", {first['budget']:,} steps a cycle"
    return f"{weights}{clock}{shape}{momentum}{budget}"


def costs(frame: pd.DataFrame) -> pd.DataFrame:
    """What the finished cells cost, a row per kind of run, each key once, then all together.

    Columns: what, networks, steps (trained: a dense run's, or one cycle's), if_separate (steps, had each network
    trained its dense run and earlier cycles itself), hours (of training, evaluation included; NaN where not recorded).
    """
    done = frame[frame["status"] == "done"].drop_duplicates(["study", "key", "unit"])
    own = done["budget"].where(done["schedule"] != "dense", done["dense_steps"])
    cells = pd.DataFrame(
        {
            "what": done["strategy"],
            "networks": 1.0,
            "steps": own.astype(float),
            "if_separate": done["total_steps"].astype(float),
            "hours": done["train_seconds"] / 3600,
        }
    )
    kinds = cells.groupby("what", sort=False).sum(min_count=1)
    kinds.loc["together"] = kinds.sum(min_count=1)
    whole = {"networks": int, "steps": "Int64", "if_separate": "Int64"}
    return kinds.reset_index().astype(whole)


def provenance(frame: pd.DataFrame) -> pd.DataFrame:
    """Where the finished cells were computed, a row per way: device, threads, precision, versions, commit, networks."""
    done = frame[frame["status"] == "done"].drop_duplicates(["study", "key", "unit"])
    by = ["device", "threads", "compile", "precision", "versions", "git_commit"]
    table = done.groupby(by, dropna=False, sort=False).agg(
        networks=("key", "size"),
        mixed=("numerics_mixed", "sum"),
        first=("finished_at", "min"),
        last=("finished_at", "max"),
    )
    return table.reset_index()
