"""What a study will do before it does it: what is missing, what that costs, and what its seeds can decide.

Neither torch nor Ray is needed for it.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from statistics import median
from typing import Any

from sweeps.jobs import Jobs
from trainable import architectures
from trainable.columns import Schedule
from trainable.config import Cell, DenseRun, dense_run, key, lineage, states_read
from trainable.remote import Place
from trainable.store import Store, each

PAPER = {"resnet20": 59.0, "resnet56": 28.6, "resnet110": 15.9, "wrn16-8": 17.4}
"""Steps a second of 128 CIFAR images: Mikler 2021, arXiv 2109.09670, table 4."""
PAPER_BATCH = 128
PAPER_SOURCE = "Mikler 2021, table 4 (TensorFlow 2.4, one RTX 3080)"
SAMPLES = 50
"""Results of one kind that are read for their throughput, at most."""
FOREIGN_RUNS = 1_000
"""Runs of other studies that are looked at for throughputs, at most."""
LEVEL = 0.04
"""Of the first look at a claim."""
HOLM = 3
"""Strategies compared under Holm's correction: the first of them is tested at LEVEL / 3."""

Kind = tuple[str, str, str]
"""What a throughput belongs to: images, architecture, precision."""


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """How fast one kind of cell trains."""

    images: str
    """cifar for both CIFARs, otherwise the data set."""
    architecture: str
    precision: str
    images_per_second: float | None
    """Of one trial; None: nothing is known."""
    source: str
    steps: int
    """To train and to replay."""
    hours: float | None
    """Of one trial at a time."""


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """How many seeds an architecture has on a data set."""

    dataset: str
    architecture: str
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cost of a study from here on."""

    cells: int
    """Distinct, with all that they stand on."""
    cells_done: int
    cells_failed: int
    """Failed before, and tried again: they count among the missing."""
    cells_resumable: int
    """With a State in progress: they count among the missing."""
    cells_missing: int
    dense_runs: int
    """Distinct, done or not."""
    states: int
    """That stay: of dense runs the last and the rewind points, of cycles the last one's of a chain."""
    steps_to_train: int
    """Of what is missing, less what resume States already hold."""
    steps_if_separate: int
    """If every missing row trained its dense run and its earlier cycles itself, as plain trials do."""
    replays: int
    """States that are needed of finished runs and were not kept."""
    steps_to_replay: int
    hours: float | None
    """Of one trial at a time; None: some throughput is unknown."""
    longest_hours: float | None
    """Of the longest chain of what is missing: no number of machines is quicker."""
    throughputs: tuple[Throughput, ...]
    disk_bytes: int
    """Of the States that stay, about; a running trial has two more at most, an inner cycle's and a resume State."""
    disk_bytes_with_keep_states: int
    """When inner cycles' States stay too."""
    seeds: tuple[Seeds, ...]
    """With those that the study was declared with earlier."""


def plan(
    jobs: Jobs, store: Store, rows: Iterable[tuple[Schedule, Cell]] | None = None, declared: Iterable[Cell] = ()
) -> Plan:
    """The plan of the jobs. rows: the study's, which separate trials would train; None: every cell of the jobs.

    declared: the study's cells that are there already, chosen now or not: they only count for its verdicts.
    """
    cells, missing = jobs.cells, {run_key: cell for run_key, cell in jobs.cells.items() if run_key not in jobs.done}
    asked = cells if rows is None else {key(cell): cell for _, cell in rows}
    found = store.look(missing)
    under_way = [run_key for run_key in missing if found[run_key].resumable]
    steps = each(lambda run_key: store.resume_step(missing[run_key]), under_way)
    resumed = {run_key: step for run_key, step in zip(under_way, steps, strict=True) if step is not None}
    left = {run_key: max(0, cell.budget - resumed.get(run_key, 0)) for run_key, cell in missing.items()}
    replays = _replays(missing, jobs, store)
    throughputs = _throughputs(cells, left, replays, jobs, store)
    every, staying = _states(cells.values(), inner=True), _states(cells.values(), inner=False)
    dense_runs = [cell for cell in cells.values() if isinstance(cell, DenseRun)]
    return Plan(
        cells=len(cells),
        cells_done=len(cells) - len(missing),
        cells_failed=sum(found[run_key].failed for run_key in missing),
        cells_resumable=len(resumed),
        cells_missing=len(missing),
        dense_runs=len(dense_runs),
        states=sum(staying.values()),
        steps_to_train=sum(left.values()),
        steps_if_separate=sum(
            sum(member.budget for member in lineage(cell)) for run_key, cell in asked.items() if run_key in missing
        ),
        replays=len(replays),
        steps_to_replay=sum(replays.values()),
        hours=_sum_or_none(known.hours for known in throughputs.values()),
        longest_hours=_longest_hours(missing, left, throughputs),
        throughputs=tuple(throughputs.values()),
        disk_bytes=_bytes(staying),
        disk_bytes_with_keep_states=_bytes(every),
        seeds=_seeds([*map(dense_run, declared), *dense_runs]),
    )


def verdict(seeds: int) -> str:
    """What a number of seeds can decide: the exact sign-flip test of n units has no p-value below 2^-n.

    >>> verdict(3)
    '3 seeds: no verdict per architecture can be reached; 5 are needed, 7 under Holm over three'
    """
    alone, holm = (math.ceil(math.log2(1 / level)) for level in (LEVEL, LEVEL / HOLM))
    count = f"{seeds} seed{'' if seeds == 1 else 's'}"
    if seeds < alone:
        return f"{count}: no verdict per architecture can be reached; {alone} are needed, {holm} under Holm over three"
    if seeds < holm:
        return f"{count}: a verdict per architecture can be reached, but not under Holm over three: {holm} are needed"
    return f"{count}: a verdict per architecture can be reached, under Holm over three too"


def state_bytes(dense: DenseRun) -> int:
    """Size of one State's file, about: weights, momentum, batch-norm statistics, masks as bits, the header."""
    # A user's images may have other channels and classes than these: it changes a network by a few percent at most.
    channels, classes = {"digits": (1, 10), "cifar100": (3, 100)}.get(dense.dataset, (3, 10))
    counted = architectures.parameters(
        dense.architecture, channels=channels, classes=classes, shortcut_norm=dense.shortcut_norm
    )
    tensors = 3 * len(counted.kernels) + 2 + 7 * len(counted.norms)  # 7: two of each of weights, momentum; statistics
    statistics = 2 * 4 * sum(counted.norms) + 8 * len(counted.norms)  # means and variances; int64 counters
    return 2 * 4 * counted.trainable + statistics + counted.prunable // 8 + 105 * tensors


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON values."""
    fields = asdict(plan)
    seeds = [{**asdict(group), "verdict": verdict(group.seeds)} for group in plan.seeds]
    return fields | {"throughputs": list(fields["throughputs"]), "seeds": seeds}


def as_text(plan: Plan) -> str:
    """The plan for people, a dozen lines."""
    return "\n".join(f"{label:<15} {text}".rstrip() for label, text in _lines(plan))


def _lines(plan: Plan) -> Iterator[tuple[str, str]]:
    retried = f", of which {plan.cells_failed} failed before" if plan.cells_failed else ""
    resumed = f", {plan.cells_resumable} under way" if plan.cells_resumable else ""
    yield "cells", f"{plan.cells:,}: {plan.cells_done:,} done, {plan.cells_missing:,} missing{retried}{resumed}"
    yield "dense runs", f"{plan.dense_runs:,}"
    yield "steps to train", f"{plan.steps_to_train:,}"
    if plan.steps_to_train:
        yield "if separate", f"{plan.steps_if_separate:,}: {plan.steps_if_separate / plan.steps_to_train:.2f} × as many"
    if plan.replays:
        states = "1 State that was" if plan.replays == 1 else f"{plan.replays:,} States that were"
        yield "to replay", f"{plan.steps_to_replay:,} steps, for {states} not kept"
    if plan.hours is None:
        yield "time", "unknown: this storage has not seen all kinds of cells yet"
    elif plan.steps_to_train:
        yield "time", f"{_duration(plan.hours)} one trial at a time; the longest chain {_duration(plan.longest_hours)}"
    for known in plan.throughputs:
        yield "", _speed(known)
    everything = _size(plan.disk_bytes_with_keep_states)
    yield (
        "disk",
        f"about {_size(plan.disk_bytes)} in {plan.states:,} States that stay ({everything} with --keep-states)",
    )
    counts = sorted({group.seeds for group in plan.seeds})
    for count in counts:
        where = ", ".join(f"{group.architecture} on {group.dataset}" for group in plan.seeds if group.seeds == count)
        yield "verdicts", verdict(count) + (f" ({where})" if len(counts) > 1 else "")


def _speed(known: Throughput) -> str:
    name = f"{known.architecture} on {known.images}" + ("" if known.precision == "fp32" else f" in {known.precision}")
    if known.images_per_second is None:
        return f"{name}: {known.steps:,} steps, {known.source}"
    assert known.hours is not None
    return f"{name}: {_duration(known.hours)} at {known.images_per_second:,.0f} images/s, {known.source}"


def _states(cells: Iterable[Cell], *, inner: bool) -> Counter[DenseRun]:
    """States that stay, by dense run; inner: also those of cycles that another one starts from."""
    cells = list(cells)
    read = {(key(run), step): dense_run(run) for cell in cells for run, step in states_read(cell)}
    dense_keys = {key(cell) for cell in cells if isinstance(cell, DenseRun)}
    last = {(key(cell), cell.budget): dense_run(cell) for cell in cells}
    places = {
        (run_key, step): dense
        for (run_key, step), dense in (read | last).items()
        if inner or run_key in dense_keys or (run_key, step) not in read
    }
    return Counter(places.values())


def _bytes(states: Counter[DenseRun]) -> int:
    return sum(count * state_bytes(dense) for dense, count in states.items())


def _replays(missing: dict[str, Cell], jobs: Jobs, store: Store) -> dict[tuple[str, int], int]:
    """Steps to compute again by (run, step) of a State that is needed and was not kept: up to the next kept one."""
    wanted = [state for cell in missing.values() for state in states_read(cell)]
    steps: dict[tuple[str, int], int] = {}
    kept: dict[str, list[int]] = {}
    while wanted:
        run, step = wanted.pop()
        run_key = key(run)
        if run_key not in jobs.done or (run_key, step) in steps:
            continue
        if run_key not in kept:
            kept[run_key] = store.kept_steps(run)
        if step in kept[run_key]:
            continue
        earlier = [other for other in kept[run_key] if other < step]
        later = [other for other in kept[run_key] if other > step]
        steps[run_key, step] = min(later, default=run.budget) - max(earlier, default=0)
        wanted += [] if earlier else states_read(run)
    return steps


def _throughputs(
    cells: dict[str, Cell],
    left: dict[str, int],
    replays: dict[tuple[str, int], int],
    jobs: Jobs,
    store: Store,
) -> dict[Kind, Throughput]:
    """Of every kind of cell that there is something to do of."""
    batches: dict[Kind, dict[int, int]] = {}
    for run_key, steps in (*left.items(), *((run_key, steps) for (run_key, _), steps in replays.items())):
        dense = dense_run(cells[run_key])
        by_batch = batches.setdefault(_kind(dense), {})
        by_batch[dense.batch_size] = by_batch.get(dense.batch_size, 0) + steps
    measured = _measured(set(batches), jobs, store)
    return {kind: _throughput(kind, by_batch, measured[kind]) for kind, by_batch in batches.items()}


def _throughput(kind: Kind, by_batch: dict[int, int], measured: list[float]) -> Throughput:
    images, architecture, precision = kind
    speed, source = None, "no result to estimate from"
    if measured:
        speed, source = median(measured), f"measured here (median of {len(measured)})"
    elif images == "cifar" and architecture in PAPER:
        speed, source = PAPER[architecture] * PAPER_BATCH, PAPER_SOURCE
    total = sum(batch * steps for batch, steps in by_batch.items())
    return Throughput(
        images=images,
        architecture=architecture,
        precision=precision,
        images_per_second=speed,
        source=source,
        steps=sum(by_batch.values()),
        hours=None if speed is None else total / speed / 3600,
    )


def _measured(kinds: set[Kind], jobs: Jobs, store: Store) -> dict[Kind, list[float]]:
    """Images a second by kind: of this study's own results, where there are none of other studies'."""
    found: dict[Kind, list[float]] = {kind: [] for kind in kinds}

    own: dict[Kind, list[str]] = {}
    for run_key in sorted(jobs.done):
        own.setdefault(_kind(dense_run(jobs.cells[run_key])), []).append(run_key)
    sampled = [(kind, run_key) for kind in found for run_key in own.get(kind, [])[:SAMPLES]]
    unseen = kinds - own.keys()
    if unseen:
        others = list(islice(store.run_keys(), FOREIGN_RUNS))
        descriptions = each(lambda run_key: _json(store.run(run_key) / "cell.json"), others)
        known = [(_kind_of(cell), run_key) for run_key, cell in zip(others, descriptions, strict=True) if cell]
        for kind in unseen:
            sampled += [(kind, run_key) for theirs, run_key in known if theirs == kind][:SAMPLES]
    results = each(lambda pair: _json(store.run(pair[1]) / "result.json"), sampled)
    for (kind, _), result in zip(sampled, results, strict=True):
        if result is not None:
            found[kind].append(result["provenance"]["images_per_second"])
    return found


def _kind(dense: DenseRun) -> Kind:
    return _images(dense.dataset), dense.architecture, dense.precision


def _kind_of(description: dict[str, Any]) -> Kind:
    dense = description.get("dense", description)
    return _images(dense["dataset"]), dense["architecture"], dense["precision"]


def _images(dataset: str) -> str:
    return "cifar" if dataset in ("cifar10", "cifar100") else dataset


def _longest_hours(missing: dict[str, Cell], left: dict[str, int], throughputs: dict[Kind, Throughput]) -> float | None:
    """Of the longest chain, each cell after its parent; replays left out."""
    if any(known.hours is None for known in throughputs.values()):
        return None
    longest = 0.0
    behind: dict[str, int] = {}
    for run_key, cell in missing.items():  # parents first
        above = lineage(cell)[-2:-1]
        behind[run_key] = left[run_key] + sum(behind.get(key(parent), 0) for parent in above)
        speed = throughputs[_kind(dense_run(cell))].images_per_second
        assert speed is not None
        longest = max(longest, behind[run_key] * dense_run(cell).batch_size / speed / 3600)
    return longest


def _seeds(dense_runs: list[DenseRun]) -> tuple[Seeds, ...]:
    seeds: dict[tuple[str, str], set[int]] = {}
    for dense in dense_runs:
        seeds.setdefault((dense.dataset, dense.architecture), set()).add(dense.seed)
    return tuple(
        Seeds(dataset=dataset, architecture=architecture, seeds=len(found))
        for (dataset, architecture), found in seeds.items()
    )


def _sum_or_none(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _json(path: Place) -> Any:
    """A JSON file, or None: whoever needs a damaged one says so, a plan only samples."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _duration(hours: float | None) -> str:
    assert hours is not None
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.1f} min" if hours >= 1 / 60 else f"{hours * 3600:.0f} s"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
