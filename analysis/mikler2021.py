"""What Mikler 2021 published, as rows of the same columns: medians of finished cells.

The points: Szymon Mikler, "Reproducibility Study: Comparing Rewinding and Fine-tuning in Neural Network Pruning", 2021,
arXiv 2109.09670; figures 1–6 and table 5, exact as plotted (analysis/data/mikler2021.csv).
"""

from importlib import resources
from typing import Any

import pandas as pd

from analysis.load import SCHEMA

PUBLISHED = ("mikler2021",)
"""Names for load_published()."""
STEPS = {"resnet20": 72_000, "resnet56": 72_000, "resnet110": 72_000, "wrn16-8": 80_000}
"""T of the dense runs, by architecture (tables 1 and 2)."""
REWIND_POINT = 8_000
"""The step that the weight rewinding goes back to (released experiment files)."""
PROTOCOLS = {
    ("cifar10", "resnet20"): "b03d95f95993",
    ("cifar10", "resnet56"): "91bb121d081c",
    ("cifar100", "resnet56"): "9be7c89732a9",
    ("cifar10", "resnet110"): "ce9eafa97b36",
    ("cifar10", "wrn16-8"): "cdeb7b9964bb",
}
"""The column `protocol` of a study that trains these networks by the recipes (trainable.recipes)."""


def load_published(name: str) -> pd.DataFrame:
    """Published medians as rows of finished cells; `unit` says where each is printed.

    mikler2021: the 243 points of Mikler 2021, arXiv 2109.09670, figures 1–6 and table 5, as plotted. How many networks
    a median is of, and whether of their last or best epoch, is not known: `seed` is missing. The columns that say how
    was trained are the paper's. Raises ValueError for another name.
    """
    if name not in PUBLISHED:
        raise ValueError(f"nothing published goes by the name {name!r}: choose from {', '.join(PUBLISHED)}")
    with resources.files("analysis").joinpath(f"data/{name}.csv").open("rb") as file:
        points = pd.read_csv(file)
    retraining = pd.DataFrame([_retraining(point) for _, point in points.iterrows()])
    printed = {
        "study": name,
        "unit": points["source"],
        "key": [f"{p.source}: {p.strategy} at sparsity {p.sparsity:g}" for p in points.itertuples()],
        "status": "done",
        "mask": "magnitude",
        "protocol_name": name,
        "dense_schedule": "step",
        "batch_size": 128,
        "val_examples": 0,
        "shape": "replay",
        "momentum": "fresh",
        "precision": "fp32",
        "sparsity_target": points["sparsity"],
        "compression_ratio": 1 / (1 - points["sparsity"]),
        "test_accuracy": points["accuracy"],
        "dense_test_accuracy": points["dense_accuracy"],
        "delta_test_accuracy": points["accuracy"] - points["dense_accuracy"],
    }
    return points.assign(**printed, **retraining).reindex(columns=list(SCHEMA)).astype(SCHEMA)


def _retraining(point: pd.Series) -> dict[str, Any]:
    """How one point was trained, in the columns of a study: steps, the place in its chain."""
    steps, cycle = STEPS[point["architecture"]], 1
    while point["schedule"] == "iterative" and round(1 - (1 - point["prune_fraction"]) ** cycle, 3) < point["sparsity"]:
        cycle += 1
    rewound = point["strategy"] == "weight-rewinding"
    budget = steps - REWIND_POINT if rewound else steps
    return {
        "protocol": PROTOCOLS[point["dataset"], point["architecture"]],
        "iteration": cycle,
        "weights_from": str(REWIND_POINT) if rewound else None,
        "lr_from": {"fine-tuning": steps, "weight-rewinding": REWIND_POINT, "lr-rewinding": 0}[point["strategy"]],
        "budget": budget,
        "dense_steps": steps,
        "total_steps": steps + cycle * budget,
    }
