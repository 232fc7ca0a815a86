"""One prune–retrain cycle, or one dense run: the algorithm on one page."""

import dataclasses
from collections.abc import Generator, Iterable, Iterator

from torch import Tensor

from trainable import models, pruning, state
from trainable import store as storage
from trainable.claims import Claim
from trainable.config import Cell, Cycle, DenseRun, dense_run, key, lineage, states_read
from trainable.data import Batches, Data, training_batches
from trainable.numerics import Numerics
from trainable.progress import Progress, RunInProgress
from trainable.randomness import generator
from trainable.remote import Place
from trainable.schedules import prunings
from trainable.state import State
from trainable.store import Store
from trainable.training import build_network, train


def run(
    cell: Cell,
    store: Store,
    data: Data,
    numerics: Numerics,
    *,
    keep: frozenset[int] = frozenset(),
    eval_every: int | None = None,
    resume_every: float = 60.0,
    claim: Claim | None = None,
) -> Generator[Progress]:
    """Train a cell whose States to read exist, from its resume State if there is one; nothing if it is done itself.

    Yields after every step. Closing the iterator saves the resume State, and so does every resume_every seconds.
    keep: further steps whose States are kept (rewind points); the last one always is. eval_every: steps between
    evaluations, a tenth of the budget unless told; the last step is always followed by one. claim: renewed while the
    run trains, required before it writes.

    Raises Superseded when another launch has taken the run over; Diverged when the loss is not finite; ValueError for a
    damaged file, another data set than the parent's or otherwise prepared, or a density that keeps nothing.
    """
    if eval_every is not None and eval_every < 1:
        raise ValueError(f"eval_every must be 1 or more, got {eval_every}")
    data.require_made_for(dense_run(cell))
    if store.done(cell):
        return
    store.begin(cell)
    every = max(1, cell.budget // 10) if eval_every is None else eval_every
    begun, mixed = _resumed(cell, store, data, numerics) or start(cell, store, data, numerics)
    now = RunInProgress(cell, store, data, numerics, begun, mixed=mixed, claim=claim)
    if now.step == 0 and now.step in keep:
        now.keep_state()
    batches = training_batches(data, dense_run(cell).seed, cell.iteration, dense_run(cell).batch_size)
    try:
        for loss in _updates(now, batches, cell.budget):
            now.advance(loss)
            last = now.step == cell.budget
            record = now.evaluate() if now.step % every == 0 or last else None
            if now.step in keep or last:
                now.keep_state()
            if last:
                now.finish()
            elif now.watch.read() - now.saved_at >= resume_every:
                now.save_resume()
            if claim is not None and not last:
                claim.renew(now.step)
            now.watch.stop()
            yield Progress(step=now.step, steps=cell.budget, record=record)
            now.watch.start()
    except GeneratorExit:
        if now.step < cell.budget:
            now.save_resume()
        raise


def start(cell: Cell, store: Store, data: Data, numerics: Numerics) -> tuple[State, bool]:
    """The State at step 0 of a cell, and whether what it was made from was computed under other numerics.

    A dense run: a fresh initialisation. A cycle: its parent's final weights pruned; then weights, batch-norm statistics
    and momentum of the State that the strategy names, times the mask. Gradual pruning has not begun at step 0.
    """
    if isinstance(cell, DenseRun):
        return _initial(cell, data, numerics, 0, "init"), False
    (above, step), *_ = states_read(cell)
    final = load(store, above, step, data)
    if cell.retraining.gradual:
        masks = final.masks  # pruned while it trains
    else:
        chance = generator(cell.seed, cell.iteration, "mask")
        masks = pruning.prune(final.prunable, final.masks, cell.density, cell.structure, cell.mask, chance)
    source, momentum = cell.retraining.weights_from, cell.retraining.momentum
    if source is None:
        begun = final
    elif source == "fresh":
        begun = _initial(cell.dense, data, numerics, cell.iteration, "reinit")
    else:
        begun = load(store, cell.dense, source, data)
    if momentum == "fresh":
        begun = state.zero_momentum(begun)
    adaptive = cell.retraining.shape == "adaptive-linear"
    notes = {"norm_drop": pruning.norm_drop(final.prunable, final.masks, masks)} if adaptive else {}
    pruned = dataclasses.replace(state.masked(begun, masks), step=0, notes=notes)
    return pruned, any(_mixed(source, numerics) for source in (final, begun))


def replay(cell: Cell, step: int, store: Store, data: Data, numerics: Numerics) -> Generator[Progress]:
    """Bring a finished run from its nearest earlier kept State to a step whose State was not kept, and keep it.

    Goes on to the next kept State, or the run's end, whose digest must agree. Raises ValueError, naming both numerics,
    when this machine would compute, or has computed, another network: a rewind to it would be silent otherwise.
    """
    kept, result = store.kept_steps(cell), store.result(cell)
    if step in kept:
        return
    theirs = result["provenance"]["numerics"]
    if theirs != numerics.as_dict() or result["provenance"]["numerics_mixed"]:
        raise _other_network(cell, step, theirs, numerics)
    earlier = [state_step for state_step in kept if state_step < step]
    stop = min((state_step for state_step in kept if state_step > step), default=cell.budget)
    expected = load(store, cell, stop, data).digest() if stop in kept else result["numbers"]["state_digest"]
    begun = load(store, cell, earlier[-1], data) if earlier else start(cell, store, data, numerics)[0]
    now = RunInProgress(cell, store, data, numerics, begun, mixed=False)
    found = now.state() if step == begun.step else None
    batches = training_batches(data, dense_run(cell).seed, cell.iteration, dense_run(cell).batch_size)
    for loss in _updates(now, batches, stop):
        now.advance(loss)
        if now.step == step:
            found = now.state()
        yield Progress(step=now.step, steps=stop, record=None)
    if now.state().digest() != expected:
        raise _other_network(cell, step, theirs, numerics)
    assert found is not None
    storage.write(store.state_path(cell, step), state.to_bytes(found))


def missing_states(cell: Cell, store: Store) -> list[tuple[Cell, int]]:
    """The States that a cell reads and finished ancestors did not keep, as (run, step): replay() brings them."""
    return [
        (above, step) for above, step in states_read(cell) if store.done(above) and step not in store.kept_steps(above)
    ]


def rewind_points(cells: Iterable[Cell]) -> dict[str, frozenset[int]]:
    """Steps whose States the cells will read, by key of the run that should keep them."""
    points: dict[str, set[int]] = {}
    for cell in cells:
        for above, step in states_read(cell):
            points.setdefault(key(above), set()).add(step)
    return {run_key: frozenset(steps) for run_key, steps in points.items()}


def load(store: Store, cell: Cell, step: int, data: Data) -> State:
    """A kept State. Raises ValueError for a file that is missing, damaged, or of a network trained on other data."""
    return _read(store.state_path(cell, step), data)


def check(cell: Cell, data: Data) -> None:
    """Raise ValueError, before any training, for a density somewhere in the chain that keeps not one weight."""
    model = models.build(
        dense_run(cell).architecture,
        classes=data.classes,
        channels=data.image_shape[0],
        generator=generator(0),
        batch_norm_momentum=0.1,
        batch_norm_eps=1e-5,
    )
    weights = {name: weight.detach() for name, weight in models.prunable(model).items()}
    masks = pruning.keep_all(weights)
    for cycle in lineage(cell)[1:]:
        assert isinstance(cycle, Cycle)
        pruning.prune(weights, masks, cycle.density, cycle.structure, cycle.mask, generator(0))


def _updates(now: RunInProgress, batches: Batches, stop: int) -> Iterator[Tensor]:
    """The losses of the steps up to stop, each before its update; gradual pruning comes between them.

    A State of a step is as before that step's pruning: who goes on from it prunes first.
    """
    densities = {step: density for step, density in prunings(now.cell).items() if now.step <= step < stop}
    for step in [*densities, stop]:
        yield from train(now.network, batches, now.schedule, now.masks, start=now.step, stop=step)
        if step in densities:
            now.prune(densities[step])


def _initial(run: DenseRun, data: Data, numerics: Numerics, *stream: int | str) -> State:
    network = build_network(run, data, numerics, *stream)
    masks = pruning.keep_all(models.prunable(network.model))
    begun = state.snapshot(network.model, network.optimizer, masks, 0)
    return dataclasses.replace(begun, notes={"numerics": numerics.as_dict(), "numerics_mixed": False})


def _resumed(cell: Cell, store: Store, data: Data, numerics: Numerics) -> tuple[State, bool] | None:
    path = store.resume_path(cell)
    if not path.exists():
        return None
    found = _read(path, data)
    return found, _mixed(found, numerics)


def _mixed(source: State, numerics: Numerics) -> bool:
    """Whether a State was computed, or stands on what was computed, under other numerics."""
    return source.notes["numerics"] != numerics.as_dict() or source.notes["numerics_mixed"]


def _read(path: Place, data: Data) -> State:
    try:
        found = state.from_bytes(path.read_bytes())
    except FileNotFoundError as error:
        raise storage.damaged_state(path, "it is missing") from error
    except ValueError as error:
        raise storage.damaged_state(path, str(error)) from error
    if found.notes["data"] != data.digest:
        theirs = f"{path} was trained on a data set of digest {found.notes['data']}"
        raise ValueError(f"{theirs}, this one's is {data.digest}: give the same data set, or use another storage")
    return found


def _other_network(cell: Cell, step: int, theirs: dict[str, object], numerics: Numerics) -> ValueError:
    return ValueError(
        f"the State at step {step} of run {key(cell)} was not kept and can't be computed again here: "
        f"the run's numerics were {theirs} (or mixed on the way), this machine's are {numerics.as_dict()}"
    )
