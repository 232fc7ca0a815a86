"""How two cells differ, in words."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from trainable.columns import run_name, schedule_of
from trainable.config import Cell, Cycle, DenseRun, dense_run, key

NONE = {
    "weights_from": "the parent's, kept",
    "lr_from": "none, the shape has its own",
    "peak_lr": "none",
    "padding": "the data set's own",
    "parent_step": "the last",
}
"""What None means, by field."""
STEP_OF_THE_DENSE_RUN = ("weights_from", "lr_from", "parent_step")


def as_text(a: Cell, b: Cell) -> str:
    """Both names, then a line for each field that differs."""
    lines = [f"A: {run_name(a, schedule_of(a))}", f"B: {run_name(b, schedule_of(b))}"]
    if key(a) == key(b):
        return "\n".join([*lines, f"They are one cell, key {key(a)}."])
    return "\n".join([*lines, *differences(a, b)])


def differences(a: Cell, b: Cell) -> Iterator[str]:
    """A sentence for each field that differs, those of the dense runs first.

    >>> from trainable import recipes, strategies
    >>> dense = recipes.digits(0)
    >>> one = Cycle(dense=dense, densities=(0.2,), retraining=strategies.fine_tuning(dense, 100))
    >>> list(differences(one, dataclasses.replace(one, densities=(0.5, 0.2), mask="random")))
    ['densities of the cycle: 0.2 in A, 0.5, then 0.2 in B', 'mask of the cycle: magnitude in A, random in B']
    """
    yield from _fields("dense run", dense_run(a), dense_run(b))
    if isinstance(a, Cycle) and isinstance(b, Cycle):
        yield from _fields("retraining", a.retraining, b.retraining)
        yield from _fields("cycle", a, b)
    elif type(a) is not type(b):
        kinds = ["the dense run itself" if isinstance(cell, DenseRun) else "pruned and retrained" for cell in (a, b)]
        yield f"A is {kinds[0]}, B is {kinds[1]}"


def _fields(part: str, a: Any, b: Any) -> Iterator[str]:
    for field in dataclasses.fields(a):
        ours, theirs = getattr(a, field.name), getattr(b, field.name)
        if ours != theirs and not dataclasses.is_dataclass(ours):
            name = field.name.replace("_", " ")
            yield f"{name} of the {part}: {_spelled(field.name, ours)} in A, {_spelled(field.name, theirs)} in B"


def _spelled(name: str, value: Any) -> str:
    if value is None:
        return NONE[name]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "gradual" and value:
        return "from step {:,} to {:,} every {:,}".format(*value)
    if isinstance(value, tuple):
        return ", then ".join(f"{item:,}" for item in value) or "none"
    if isinstance(value, int):
        return f"step {value:,} of the dense run" if name in STEP_OF_THE_DENSE_RUN else f"{value:,}"
    return str(value)
