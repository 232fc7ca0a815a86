"""What the engine costs: trivial cells through the real searcher and a real Tuner; driver time and memory per cell.

python benchmarks/engine_overhead.py [--cells 100 1000] [--json]: each number of cells in a process of its own.
"""

import argparse
import dataclasses
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib import metadata


def measure(cells: int, storage: str) -> dict[str, float]:
    """Train so many dense runs of one step each in a study; seconds and memory of the driver, imports included."""
    from sweeps import study
    from trainable import recipes

    run = dataclasses.replace(recipes.digits(0), steps=1, drops=(), batch_size=2)
    rows = tuple(("dense", dataclasses.replace(run, seed=seed)) for seed in range(cells))
    parser = argparse.ArgumentParser()
    study.add_options(parser, name="overhead")
    options = parser.parse_args(["--storage", storage, "--dry-run"])
    declared = study.Study(name="overhead", protocol_name="overhead", rows=rows)
    began = time.perf_counter()
    assert study.command(options, lambda _: declared) == 0
    planned = time.perf_counter()
    options.dry_run = False
    cpu = time.process_time()
    assert study.command(options, lambda _: declared) == 0
    return {
        "plan_seconds": planned - began,
        "wall_seconds_per_cell": (time.perf_counter() - planned) / cells,
        "driver_cpu_seconds_per_cell": (time.process_time() - cpu) / cells,
        "driver_peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        found = measure(options.cells[0], options.measure)
        print(json.dumps(found), file=sys.stderr)
        return 0
    results = {}
    for cells in options.cells:
        with tempfile.TemporaryDirectory() as storage:
            command = [sys.executable, __file__, "--cells", str(cells), "--measure", storage]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
        results[str(cells)] = json.loads(run.stderr.strip().splitlines()[-1])
        if not options.json:
            print(cells, "cells:", ", ".join(f"{name} {value:.4g}" for name, value in results[str(cells)].items()))
    fewest, most = (results[str(count)] for count in (min(options.cells), max(options.cells)))
    more = max(options.cells) - min(options.cells)
    growth = (most["driver_peak_megabytes"] - fewest["driver_peak_megabytes"]) / more if more else None
    if not options.json and growth is not None:
        print(f"driver memory: {growth:.4f} MB a cell more")
    if options.json:
        versions = {name: metadata.version(name) for name in ("ray", "torch")} | {"python": platform.python_version()}
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "date": str(date.today())}
        print(
            json.dumps(
                {"cells": results, "driver_megabytes_per_cell": growth, "versions": versions, **machine}, indent=1
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
