"""What Renda, Frankle & Carbin 2020 (arXiv 2003.02389) released of CIFAR-10, as rows of the same columns.

Which rows share a dense network is not said there. That one-shot fine-tuning, weight, LR and low-LR weight rewinding of
one (network, density, trial) do is inferred: their accuracies correlate by 0.3 to 0.6. A network's own dense rows are
paired with no trial.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.load import SCHEMA

DENSE_STEPS = 71_108
"""T: 182 passes over the training set."""
STEPS = {
    10: 3_907,
    30: 11_719,
    50: 19_532,
    70: 27_344,
    90: 35_157,
    110: 42_969,
    130: 50_782,
    150: 58_594,
    170: 66_407,
    182: DENSE_STEPS,
}
"""Steps of retraining by the column `retrain_time`, in passes."""
STRATEGIES = {
    "finetune": "fine-tuning",
    "lottery": "weight-rewinding",
    "lr_finetune": "lr-rewinding",
    "lr_lottery": "low-lr-weight-rewinding",
    "reinit": "reinit",
}
"""Our names of the column `retrain_method`."""
TO_INIT = "weight-rewinding-to-init"
"""Weight rewinding of all T steps: a strategy of its own."""
NETWORKS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
"""Networks that are trained on CIFAR-10 for T steps."""
STRUCTURES = {"Unstructured": "unstructured", "Structured": "structured"}
PRUNED = (
    "network",
    "prune_method",
    "is_iterative",
    "retrain_method",
    "density",
    "retrain_time",
    "trial",
    "test_acc",
    "val_acc",
    "flops",
)
"""The columns of the file of pruned networks."""
DENSE = ("network", "test_acc", "val_acc", "flops")
"""The columns of the file of dense networks."""


def load_renda2020(pruned_csv: str | Path, dense_csv: str | Path) -> pd.DataFrame:
    """The two released files as one table, dense networks first; trials are seeds, passes are steps.

    Accuracies are on 8,000 of the test images, `val_accuracy` on the other 2,000. dense_test_accuracy is the median of
    the network's dense rows. `unit` is what shares a dense network, as far as can be inferred (see above): a one-shot
    (network, density, trial) but for reinit, else a whole chain. The dense file lists a network's rows twice: the
    second half is dropped. Raises ValueError for missing files, other columns, and values that are none of theirs.
    """
    dense, pruned = _read(dense_csv, DENSE), _read(pruned_csv, PRUNED)
    _check_pruned(pruned, pruned_csv)
    dense = pd.concat([_first_half(rows, dense_csv) for _, rows in dense.groupby("network", sort=False)])
    reference = dense.groupby("network")[["test_acc", "flops"]].median()
    if unknown := sorted(set(pruned["network"]) - set(reference.index)):
        raise ValueError(f"{dense_csv} has no dense network {', '.join(unknown)}: it has {', '.join(reference.index)}")
    frame = pd.concat([_dense(dense), _pruned(pruned)], ignore_index=True)
    of_network = reference.loc[frame["architecture"]].reset_index(drop=True)
    return (
        frame.assign(
            study="renda2020",
            status="done",
            dataset="cifar10",
            protocol="renda2020",
            protocol_name="renda2020",
            dense_schedule="step",
            batch_size=128,
            dense_steps=DENSE_STEPS,
            sparsity=1 - frame["density"],
            sparsity_target=(1 - frame["density"]).round(6),
            compression_ratio=1 / frame["density"],
            theoretical_speedup=of_network["flops"] / frame["flops"],
            total_steps=DENSE_STEPS + (frame["iteration"] * frame["budget"]).mask(frame["schedule"] == "dense", 0),
            dense_test_accuracy=of_network["test_acc"],
            delta_test_accuracy=frame["test_accuracy"] - of_network["test_acc"],
        )
        .reindex(columns=list(SCHEMA))
        .astype(SCHEMA)
    )


def best_budget(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with one budget for every way of retraining: the one of the highest median validation accuracy.

    Chosen per (dataset, architecture, structure, schedule, strategy, sparsity_target), of equal ones the smallest, as
    the figures of Renda et al. do; dense rows stay. Since each density's cell may now come from another chain, the unit
    of an iterative released row becomes network/structure/strategy/trial. Raises ValueError when a finished pruned row
    has no validation accuracy.
    """
    by = ["dataset", "architecture", "structure", "schedule", "strategy", "sparsity_target"]
    pruned = frame[(frame["schedule"] != "dense") & (frame["status"] == "done")]
    if without := int(pruned["val_accuracy"].isna().sum()):
        raise ValueError(
            f"a budget is chosen by validation accuracy, and {without} of {len(pruned)} finished rows have none: "
            "hold out training images (val_examples), or compare at equal budgets"
        )
    medians = pruned.groupby([*by, "budget"], as_index=False, dropna=False)["val_accuracy"].median()
    best = medians.sort_values(["val_accuracy", "budget"], ascending=[False, True], kind="stable").drop_duplicates(by)
    chosen = frame[by].merge(best, how="left", on=by)["budget"].set_axis(frame.index)
    kept = frame[(frame["schedule"] == "dense") | (frame["budget"] == chosen).fillna(False)]
    chain = (kept["study"] == "renda2020") & (kept["schedule"] == "iterative")
    unit = kept["architecture"] + "/" + kept["structure"] + "/" + kept["strategy"] + "/" + kept["seed"].astype("string")
    return kept.assign(unit=kept["unit"].mask(chain, unit)).reset_index(drop=True)


def _read(path: str | Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """One of the two files, its columns, accuracies and networks checked."""
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}")
    try:
        frame = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV file: {error}") from error
    if set(frame.columns) != set(columns):
        raise ValueError(f"{path} must have the columns {', '.join(columns)}, got {', '.join(map(str, frame.columns))}")
    if frame.empty:
        raise ValueError(f"{path} has no row")
    _check(frame["network"].isin(NETWORKS), frame["network"], path, f"must be of {', '.join(NETWORKS)}")
    for name in ("test_acc", "val_acc"):
        _check(_numbers(frame[name]).between(0, 1), frame[name], path, "must be a fraction in [0, 1]")
    _check(frame["flops"].isna() | (_numbers(frame["flops"]) > 0), frame["flops"], path, "must be above 0, or missing")
    return frame


def _check_pruned(frame: pd.DataFrame, path: str | Path) -> None:
    density, times = _numbers(frame["density"]), ", ".join(map(str, STEPS))
    _check(frame["prune_method"].isin(STRUCTURES), frame["prune_method"], path, f"must be of {', '.join(STRUCTURES)}")
    _check(
        frame["is_iterative"].astype(str).isin(["True", "False"]), frame["is_iterative"], path, "must be True or False"
    )
    _check(
        frame["retrain_method"].isin(STRATEGIES), frame["retrain_method"], path, f"must be of {', '.join(STRATEGIES)}"
    )
    _check((density > 0) & (density <= 1), frame["density"], path, "must be in (0, 1]")
    _check(frame["retrain_time"].isin(STEPS), frame["retrain_time"], path, f"must be passes, of {times}")
    _check(frame["trial"].astype(str).str.fullmatch(r"trial_\d+"), frame["trial"], path, "must be trial_<number>")
    place = [name for name in PRUNED if name not in ("test_acc", "val_acc", "flops")]
    _check(~frame.duplicated(place), frame["density"], path, f"must not stand twice with the same {', '.join(place)}")


def _check(good: pd.Series, values: pd.Series, path: str | Path, rule: str) -> None:
    """Raise ValueError for the first value that is not good, with its line in the file."""
    if not good.all():
        place = int(np.argmin(good))
        raise ValueError(f"{path}, line {place + 2}: {values.name} {rule}, got {values.iloc[place]}")


def _numbers(values: pd.Series) -> pd.Series:
    """NaN for what is no number."""
    return pd.to_numeric(values, errors="coerce")


def _first_half(rows: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """One network's dense rows, each once. Raises ValueError when the second half is not the first, in any order."""
    half, each = len(rows) // 2, ["test_acc", "val_acc"]
    first, second = rows.iloc[:half], rows.iloc[half:]
    if sorted(map(tuple, first[each].to_numpy())) != sorted(map(tuple, second[each].to_numpy())):
        network = rows["network"].iloc[0]
        raise ValueError(f"{path} must list every dense {network} twice, one half after the other (as released)")
    return first


def _dense(rows: pd.DataFrame) -> pd.DataFrame:
    number = (rows.groupby("network").cumcount() + 1).astype("string")
    unit = rows["network"].astype("string") + "/dense/" + number
    return pd.DataFrame(
        {
            **_common(rows),
            "unit": unit,
            "key": "renda2020/" + unit,
            "schedule": "dense",
            "strategy": "dense",
            "iteration": 0,
            "density": 1.0,
        }
    )


def _pruned(rows: pd.DataFrame) -> pd.DataFrame:
    iterative, budget = rows["is_iterative"].astype(str) == "True", rows["retrain_time"].map(STEPS)
    strategy = rows["retrain_method"].map(STRATEGIES)
    strategy = strategy.mask((strategy == "weight-rewinding") & (budget == DENSE_STEPS), TO_INIT)
    pruned = pd.DataFrame(
        {
            **_common(rows),
            "structure": rows["prune_method"].map(STRUCTURES),
            "schedule": np.where(iterative, "iterative", "one-shot"),
            "iteration": _cycles(rows["density"]).where(iterative, 1),
            "prune_fraction": np.where(iterative, 0.2, np.nan),
            "mask": "magnitude",
            "strategy": strategy,
            "weights_from": _weights_from(strategy, budget),
            "lr_from": _lr_from(strategy, budget),
            "budget": budget,
            "shape": "replay",
            "momentum": "with_weights",
            "seed": rows["trial"].str.removeprefix("trial_").astype(int),
            "density": rows["density"],
        }
    )
    return pruned.assign(unit=[_unit(row) for row in pruned.itertuples()], key=[_key(r) for r in pruned.itertuples()])


def _common(rows: pd.DataFrame) -> dict[str, pd.Series]:
    names = {"architecture": "network", "test_accuracy": "test_acc", "val_accuracy": "val_acc", "flops": "flops"}
    return {ours: rows[theirs] for ours, theirs in names.items()}


def _cycles(density: pd.Series) -> pd.Series:
    """How many cycles that each keep 0.8 end at a density; missing where none do."""
    cycles = (np.log(density) / np.log(0.8)).round().astype("Int64")
    return cycles.where((0.8 ** cycles.astype(float) - density).abs() < 1e-6)


def _weights_from(strategy: pd.Series, budget: pd.Series) -> pd.Series:
    """A step of the dense run, where weights are rewound to one; fresh for a new initialisation."""
    rewound = strategy.isin(["weight-rewinding", TO_INIT, "low-lr-weight-rewinding"])
    step = (DENSE_STEPS - budget).astype("string")
    return step.where(rewound).mask(strategy == "reinit", "fresh")


def _lr_from(strategy: pd.Series, budget: pd.Series) -> pd.Series:
    """The step at which the schedule's clock restarts; of reinit it is not known."""
    at_end = strategy.isin(["fine-tuning", "low-lr-weight-rewinding"])
    return (DENSE_STEPS - budget).astype("Int64").mask(at_end, DENSE_STEPS).mask(strategy == "reinit")


def _unit(row: Any) -> str:
    network = f"{row.architecture}/{row.structure}"
    if row.schedule == "iterative":
        return f"{network}/{row.strategy}/{row.budget}/{row.seed}"
    return f"{network}/{'reinit/' if row.strategy == 'reinit' else ''}{row.density:g}/{row.seed}"


def _key(row: Any) -> str:
    place = f"{row.architecture}/{row.structure}/{row.schedule}/{row.strategy}"
    return f"renda2020/{place}/{row.density:.6g}/{row.budget}/{row.seed}"
