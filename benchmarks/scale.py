"""How a study grows: trivial cells through the real searcher and a real Tuner, four at a time on logical resources.

A hundred cells are a seed's: a dense run, and three strategies at 22 densities in one shot and in a chain of eleven
cycles; each trains two steps of two images at most. Measured is the study's own process from plan to report (claims,
States, table, event files and all), each number of cells in a new process and storage.
"""

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

from sweeps import study
from trainable import recipes, strategies
from trainable.arguments import Parser, positive
from trainable.columns import Schedule
from trainable.config import Cell, Cycle, chain

RESOURCES = {"CPU": 4, "GPU": 1}
"""What Ray is told that this machine has."""
GROWING = ("plan_seconds", "plan_cpu_seconds", "wall_seconds", "driver_cpu_seconds", "driver_peak_megabytes")


def rows() -> Iterator[tuple[Schedule, Cell]]:
    """Trivial cells without end, parents first."""
    for seed in count():
        recipe = recipes.digits(seed)
        dense = dataclasses.replace(recipe, architecture="resnet8-4", steps=2, drops=(1,), batch_size=2)
        yield "dense", dense
        for retraining in (
            strategies.fine_tuning(dense, 1),
            strategies.weight_rewinding(dense, 1),
            strategies.lr_rewinding(dense),
        ):
            for percent in range(3, 91, 4):
                yield "one-shot", Cycle(dense=dense, densities=(percent / 100,), retraining=retraining)
            for cycles in range(1, 12):
                yield "iterative", Cycle(dense=dense, densities=chain(0.2, cycles), retraining=retraining)


def measure(cells: int, storage: str) -> dict[str, float]:
    """Plan a study of so many cells, then train it in this process and Ray's."""
    declared = study.Study(name="scale", protocol_name="scale", rows=tuple(islice(rows(), cells)))
    parser = argparse.ArgumentParser()
    study.add_options(parser, name="scale")
    options = parser.parse_args(["--storage", storage, "--dry-run"])
    began, cpu_began = time.perf_counter(), time.process_time()
    assert study.command(options, lambda _: declared) == 0
    planned, cpu_planned = time.perf_counter(), time.process_time()
    options.dry_run = False
    assert study.command(options, lambda _: declared) == 0
    return {
        "plan_seconds": planned - began,
        "plan_cpu_seconds": cpu_planned - cpu_began,
        "wall_seconds": time.perf_counter() - planned,
        "driver_cpu_seconds": time.process_time() - cpu_planned,
        "driver_peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measured(cells: int) -> dict[str, Any]:
    """What measure() says in a process of its own, under "measured"; where and with what it ran."""
    with tempfile.TemporaryDirectory() as storage:
        command = [sys.executable, __file__, "--cells", str(cells), "--measure", storage]
        environment = os.environ | {"RAY_OVERRIDE_RESOURCES": json.dumps(RESOURCES)}
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        if run.returncode != 0:
            raise RuntimeError(f"the study of {cells} cells failed:\n{run.stderr}")
        provenance = json.loads(next(Path(storage).glob("runs/*/result.json")).read_bytes())["provenance"]
    found = json.loads(run.stdout.splitlines()[-1])
    return {"measured": found, "device": provenance["numerics"]["device"], "versions": provenance["versions"]}


def growth(results: dict[int, dict[str, float]]) -> dict[str, dict[str, float]]:
    """What each cell more has cost, from each number of cells to the next: equal figures are linear growth."""
    return {
        f"{few} to {many}": {
            f"{name}_per_cell": (results[many][name] - results[few][name]) / (many - few) for name in GROWING
        }
        for few, many in pairwise(sorted(results))
    }


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--cells", type=positive, nargs="+", default=[100, 1000, 10000], metavar="N")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.cells[0], options.measure)))
        return 0
    cells: dict[int, dict[str, float]] = {}
    about: dict[str, Any] = {}
    for number in options.cells:
        about = measured(number)
        cells[number] = about.pop("measured")
        print(f"{number} cells: {_spelled(cells[number])}", file=sys.stderr, flush=True)
    grown = growth(cells)
    for span, rates in grown.items():
        print(f"{span} cells: {_spelled(rates)}", file=sys.stderr)
    if options.json:
        machine = {"logical_resources": RESOURCES, "cores": os.cpu_count(), "date": str(date.today())}
        print(json.dumps({"n": 1, "cells": cells, "growth": grown, **about, **machine}, indent=1))
    return 0


def _spelled(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


if __name__ == "__main__":
    sys.exit(main())
