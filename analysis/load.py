"""From a storage to one table: a row per cell of a study, done or not. Needs neither torch nor ray."""

import hashlib
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd

CLAIM_SECONDS = 120
"""A claim younger than this means that somebody trains the run."""
SCHEMA = {
    "study": "string",
    "unit": "string",
    "key": "string",
    "parent": "string",
    "status": "string",
    "error": "string",
    "dataset": "string",
    "architecture": "string",
    "structure": "string",
    "schedule": "string",
    "iteration": "Int64",
    "prune_fraction": "float64",
    "mask": "string",
    "protocol": "string",
    "protocol_name": "string",
    "dense_schedule": "string",
    "batch_size": "Int64",
    "val_examples": "Int64",
    "strategy": "string",
    "weights_from": "string",
    "lr_from": "Int64",
    "budget": "Int64",
    "shape": "string",
    "momentum": "string",
    "seed": "Int64",
    "sparsity_target": "float64",
    "sparsity": "float64",
    "compression_ratio": "float64",
    "macs": "Int64",
    "theoretical_speedup": "float64",
    "dense_steps": "Int64",
    "total_steps": "Int64",
    "val_accuracy": "float64",
    "test_accuracy": "float64",
    "test_loss": "float64",
    "dense_test_accuracy": "float64",
    "delta_test_accuracy": "float64",
    "train_seconds": "float64",
    "resumes": "Int64",
    "images_per_second": "float64",
    "max_test_accuracy": "float64",
    "device": "string",
    "threads": "Int64",
    "compile": "boolean",
    "precision": "string",
    "numerics_mixed": "boolean",
    "git_commit": "string",
    "versions": "string",
    "finished_at": "string",
}
"""The columns of a study's table and their pandas types."""


def load(storage: str | Path, study: str) -> pd.DataFrame:
    """A study's table, in the order in which its cells were declared; accuracies are those of the last step.

    A run whose files are damaged is a failed row that says so. Raises ValueError when there is no such storage or study
    (the message says which there are).
    """
    root = Path(storage)
    if not root.is_dir():
        raise ValueError(f"there is no storage at {root}")
    path = root / "studies" / study / "cells.json"
    if not path.exists():
        found = sorted(folder.parent.name for folder in root.glob("studies/*/cells.json"))
        raise ValueError(f"there is no study {study!r} in {root}: it has {', '.join(found) or 'none'}")
    try:
        declared = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and the study's script writes it again") from error
    runs = {key: _outcome(root / "runs" / key) for row in declared for key in (row["key"], row["unit"])}
    rows = [_row(row, runs[row["key"]], runs[row["unit"]]) for row in declared]
    return pd.DataFrame(rows, columns=list(SCHEMA)).astype(SCHEMA)


def save(frame: pd.DataFrame, folder: Path) -> None:
    """Write results.parquet and results.csv, each whole or not at all."""
    contents = {"results.parquet": io.BytesIO(), "results.csv": io.BytesIO()}
    frame.to_parquet(contents["results.parquet"], index=False)
    frame.to_csv(contents["results.csv"], index=False)
    for name, content in contents.items():
        temporary = folder / f".{name}.{os.getpid()}.tmp"
        temporary.write_bytes(content.getvalue())
        temporary.replace(folder / name)


def _row(declared: dict[str, Any], outcome: dict[str, Any], dense: dict[str, Any]) -> dict[str, Any]:
    row = {name: declared.get(name) for name in SCHEMA} | outcome
    row["dense_test_accuracy"] = dense.get("test_accuracy")
    if outcome["status"] == "done" and dense["status"] == "done":
        row["delta_test_accuracy"] = outcome["test_accuracy"] - dense["test_accuracy"]
    return row


def _outcome(run: Path) -> dict[str, Any]:
    """What a run's files add to its row. Any file may go while it is looked for: the study runs."""
    try:
        if (result := _json(run / "result.json")) is not None:
            return _result(**result)
        if (failure := _json(run / "failure.json")) is not None:
            return {"status": "failed", "error": failure["error"]}
        claim = _json(run / "claim.json")
        trained = claim is not None and time.time() - claim["time"] < CLAIM_SECONDS
        return {"status": "running" if trained else "missing"}
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        return {"status": "failed", "error": f"a file in {run} is damaged ({error!r}): delete the folder {run}"}


def _result(numbers: dict[str, Any], provenance: dict[str, Any]) -> dict[str, Any]:
    if _numbers_digest(numbers) != provenance["numbers_digest"]:
        raise ValueError("its checksum is off")
    same = ("val_accuracy", "test_accuracy", "test_loss", "max_test_accuracy", "macs")
    copied = ("train_seconds", "images_per_second", "numerics_mixed", "git_commit", "finished_at")
    return {
        "status": "done",
        **{name: numbers[name] for name in same},
        **{name: provenance[name] for name in copied},
        **{name: provenance["numerics"][name] for name in ("device", "threads", "compile")},
        "sparsity": 1 - numbers["density"],
        "compression_ratio": 1 / numbers["density"],
        "theoretical_speedup": numbers["dense_macs"] / numbers["macs"] if numbers["macs"] else None,
        "resumes": len(provenance["resumed_at"]),
        "versions": " ".join(f"{name}={version}" for name, version in sorted(provenance["versions"].items())),
    }


def _numbers_digest(numbers: dict[str, Any]) -> str:
    """As the writer computes it (trainable.store): SHA-256 of the canonical JSON."""
    return hashlib.sha256(json.dumps(numbers, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _json(path: Path) -> Any:
    """What a file holds; None when there is none."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
