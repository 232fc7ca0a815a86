"""From a storage to one table: a row per cell of a study, done or not. Needs neither torch nor ray."""

import hashlib
import io
import json
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import fs

from analysis.files import write

CLAIM_SECONDS = 120
"""A claim younger than this means that somebody trains the run."""
READERS = 32
"""Threads that read a storage: a file of a remote one takes tens of milliseconds, whatever its size."""
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


def load(storage: str | Path, study: str, *, finished: dict[str, dict[str, Any]] | None = None) -> pd.DataFrame:
    """A study's table, in the order in which its cells were declared; accuracies are those of the last step.

    storage: a local folder, or s3://bucket/prefix (endpoint, region and credentials from the usual AWS_… variables);
    of a remote one the study's results.parquet is taken when it has exactly the study's cells, all of them done.
    finished: what finished runs add to the table, by key; it is filled, for who loads a growing study again and again,
    from the runs themselves.
    A run whose files are damaged is a failed row that says so. Raises ValueError when there is no such storage or study
    (the message says which there are), OSError when a remote storage does not answer.
    """
    files, name = filesystem(storage)
    cells = declared(storage, study)
    if finished is None:
        if is_remote(storage) and (whole := _finished(files, study, cells)) is not None:
            return whole
        finished = {}
    keys = dict.fromkeys(key for row in cells for key in (row["key"], row["unit"]))
    begun = _begun(files) if is_remote(storage) else keys.keys()  # one answer instead of three a run
    unread = [key for key in keys if key in begun and key not in finished]
    with ThreadPoolExecutor(READERS) as pool:
        read = dict(zip(unread, pool.map(partial(_outcome, files, name), unread), strict=True))
    finished |= {key: outcome for key, outcome in read.items() if outcome["status"] == "done"}
    missing = {"status": "missing"}
    runs = {key: finished.get(key) or read.get(key, missing) for key in keys}
    rows = [_row(row, runs[row["key"]], runs[row["unit"]]) for row in cells]
    return pd.DataFrame(rows, columns=list(SCHEMA)).astype(SCHEMA)


def declared(storage: str | Path, study: str) -> list[dict[str, Any]]:
    """A study's rows as they were declared, each with its complete description under "cell". Raises as load() does."""
    files, name = filesystem(storage)
    if not files.get_file_info(f"studies/{study}/cells.json").is_file:
        found = ", ".join(_studies(files)) or "none"
        raise ValueError(f"there is no study {study!r} in {name}: it has {found}")
    try:
        rows = read_json(files, f"studies/{study}/cells.json")
        if not isinstance(rows, list) or any({"key", "unit"} - set(row) for row in rows):
            raise ValueError("expected a list of rows with key and unit")
        return rows
    except (ValueError, TypeError) as error:
        path = f"{name}/studies/{study}/cells.json"
        raise ValueError(f"{path} is damaged ({error}): delete it, and the study's script writes it again") from error


def histories(storage: str | Path, keys: Iterable[str]) -> list[list[dict[str, Any]]]:
    """Of each finished run its evaluations, in order: step, lr, train_loss, test_accuracy, test_loss, …"""
    files, _ = filesystem(storage)
    results = [read_json(files, f"runs/{key}/result.json") for key in keys]
    return [result["numbers"]["history"] if result else [] for result in results]


def correct(storage: str | Path, key: str) -> np.ndarray:
    """Which test images a finished network has right: boolean [test images, and up to 7 False].

    Raises ValueError when it has not finished.
    """
    files, name = filesystem(storage)
    result, bits = read_json(files, f"runs/{key}/result.json"), _read(files, f"runs/{key}/correct.bits")
    if result is None or bits is None:
        raise ValueError(f"{key} is no finished run of {name}: a key stands in the table's column `key`")
    return np.unpackbits(np.frombuffer(bits, np.uint8)).astype(bool)


def check(frame: pd.DataFrame) -> None:
    """Raise ValueError for what is no table: other columns, no row, a row that stands twice, done without accuracy."""
    if strange := sorted(set(frame.columns) - set(SCHEMA)):
        raise ValueError(f"unknown column {', '.join(map(str, strange))}: the columns are {', '.join(SCHEMA)}")
    if lacking := [name for name in SCHEMA if name not in frame.columns]:
        raise ValueError(f"the table lacks the column {', '.join(lacking)}: it needs every one of analysis.load.SCHEMA")
    if frame.empty:
        raise ValueError("the table has no row: nothing to show")
    twice = frame[frame.duplicated(["study", "schedule", "key"])]
    if not twice.empty:
        raise ValueError(f"{len(twice)} rows stand twice (study, schedule and key are the same): {_some(twice['key'])}")
    unknown = frame[(frame["status"] == "done") & frame["test_accuracy"].isna()]
    if not unknown.empty:
        raise ValueError(f"{len(unknown)} rows are done and have no test_accuracy (NaN): {_some(unknown['key'])}")


def save(frame: pd.DataFrame, folder: Path) -> None:
    """Write results.parquet and results.csv, each whole or not at all."""
    contents = {"results.parquet": io.BytesIO(), "results.csv": io.BytesIO()}
    frame.to_parquet(contents["results.parquet"], index=False)
    frame.to_csv(contents["results.csv"], index=False)
    for name, content in contents.items():
        write(folder / name, content.getvalue())


def filesystem(storage: str | Path) -> tuple[fs.FileSystem, str]:
    """What reads below a storage, and how messages spell it. Raises ValueError when there is none."""
    if is_remote(storage):
        name = str(storage).rstrip("/")
        if not re.match("s3://[^/]", name):
            raise ValueError(f"storage must be a local folder or s3://bucket/prefix, got {str(storage)!r}")
        base, path = fs.FileSystem.from_uri(name)
        there = bool(base.get_file_info(fs.FileSelector(path, allow_not_found=True)))
    else:
        name = str(Path(storage))
        base, path = fs.LocalFileSystem(), str(Path(storage).absolute())
        there = Path(storage).is_dir()
    if not there:
        raise ValueError(f"there is no storage at {name}")
    return fs.SubTreeFileSystem(path, base), name


def is_remote(storage: str | Path) -> bool:
    return isinstance(storage, str) and "://" in storage


def _read(files: fs.FileSystem, path: str) -> bytes | None:
    """What a file holds; None when there is none."""
    try:
        with files.open_input_file(path) as file:
            return file.read()
    except FileNotFoundError:
        return None


def read_json(files: fs.FileSystem, path: str) -> Any:
    """What a file says; None when there is none. One replaced between S3's HEAD and GET looks cut: it is read again."""
    try:
        return json.loads(content) if (content := _read(files, path)) is not None else None
    except ValueError:
        return json.loads(content) if (content := _read(files, path)) is not None else None


def _begun(files: fs.FileSystem) -> set[str]:
    """The keys of all runs that have anything."""
    return {Path(run.path).name for run in files.get_file_info(fs.FileSelector("runs", allow_not_found=True))}


def _studies(files: fs.FileSystem) -> list[str]:
    found = files.get_file_info(fs.FileSelector("studies", allow_not_found=True))
    declared = files.get_file_info([f"{folder.path}/cells.json" for folder in found])
    return sorted(Path(file.path).parent.name for file in declared if file.is_file)


def _finished(files: fs.FileSystem, study: str, declared: list[dict[str, Any]]) -> pd.DataFrame | None:
    """The study's results.parquet, when it has exactly the cells that are declared, in order, all of them done."""
    content = _read(files, f"studies/{study}/results.parquet")
    if content is None:
        return None
    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except pa.ArrowInvalid:
        return None
    if list(frame.columns) != list(SCHEMA) or not (frame["status"] == "done").all():
        return None
    written = list(zip(frame["schedule"], frame["key"], strict=True))
    return frame.astype(SCHEMA) if written == [(row["schedule"], row["key"]) for row in declared] else None


def _some(keys: pd.Series) -> str:
    """The first keys of many."""
    return ", ".join(keys.head(3)) + (" …" if len(keys) > 3 else "")


def _row(declared: dict[str, Any], outcome: dict[str, Any], dense: dict[str, Any]) -> dict[str, Any]:
    row = {name: declared.get(name) for name in SCHEMA} | outcome
    row["dense_test_accuracy"] = dense.get("test_accuracy")
    if outcome["status"] == "done" and dense["status"] == "done":
        row["delta_test_accuracy"] = outcome["test_accuracy"] - dense["test_accuracy"]
    return row


def _outcome(files: fs.FileSystem, name: str, key: str) -> dict[str, Any]:
    """What a run's files add to its row. Any file may go while it is looked for: the study runs."""
    run = f"runs/{key}"
    try:
        if (result := read_json(files, f"{run}/result.json")) is not None:
            return _result(**result)
        if (failure := read_json(files, f"{run}/failure.json")) is not None:
            return {"status": "failed", "error": failure["error"]}
        claim = read_json(files, f"{run}/claim.json")
        trained = claim is not None and time.time() - claim["time"] < CLAIM_SECONDS
        return {"status": "running" if trained else "missing"}
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        folder = f"{name}/{run}"
        return {"status": "failed", "error": f"a file in {folder} is damaged ({error!r}): delete the folder {folder}"}


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
