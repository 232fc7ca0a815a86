"""What a cell is: frozen descriptions, their rules, their parents and their keys."""

import dataclasses
import hashlib
import json
import math
import re
import types
import typing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from trainable import architectures

DATASETS = {"digits": 1_437, "cifar10": 50_000, "cifar100": 50_000}
"""Data sets known by name, with their number of training images."""
TEST_IMAGES = {"digits": 360, "cifar10": 10_000, "cifar100": 10_000}
"""The same, with their number of test images."""

NPZ_NAME = re.compile(r"[\w.-]+@[0-9a-f]{16}")
"""A user's npz enters a description as <file stem>@<first 16 hex digits of its content's SHA-256>."""


def density(sparsity: float) -> float:
    """The density of a sparsity, in its one spelling: a decimal of at most 6 places.

    >>> density(0.8), density(0.893), density(0)
    (0.2, 0.107, 1.0)

    Raises ValueError outside [0, 1).
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be in [0, 1), got {sparsity}{_percentage(sparsity)}")
    return round(1.0 - sparsity, 6)


def chain(prune_fraction: float, cycles: int, *, decimals: int = 3) -> tuple[float, ...]:
    """Densities of iterative pruning that removes a fraction of what is left in every cycle.

    The sparsity of cycle n is round(1 - (1 - prune_fraction)^n, decimals); the papers plot and release
    three decimals (Mikler 2021, arXiv 2109.09670).

    >>> chain(0.2, 4)
    (0.8, 0.64, 0.512, 0.41)
    >>> chain(0.5, 4, decimals=6)
    (0.5, 0.25, 0.125, 0.0625)

    Raises ValueError for a fraction outside (0, 1) or no cycle.
    """
    if not 0 < prune_fraction < 1:
        raise ValueError(f"prune_fraction must be in (0, 1), got {prune_fraction}{_percentage(prune_fraction)}")
    if cycles < 1:
        raise ValueError(f"cycles must be 1 or more, got {cycles}")
    return tuple(density(round(1 - (1 - prune_fraction) ** n, decimals)) for n in range(1, cycles + 1))


@dataclass(frozen=True, kw_only=True)
class DenseRun:
    """Training of an unpruned network from its initialisation."""

    dataset: str
    """digits, cifar10, cifar100, or a user's npz as <stem>@<digest> (see trainable.datasets.register)."""
    architecture: str
    """A name of trainable.architectures: resnet20, wrn16-8, vgg16, resnet8-8 …"""
    seed: int
    """Everything random: initialisation, data order, augmentation. 0 or more."""
    steps: int
    """T, optimizer updates. 1 or more."""
    batch_size: int
    """Images a step. 2 or more (batch norm needs two)."""
    learning_rate: float
    """At step 0. Above 0."""
    drops: tuple[int, ...]
    """Steps from which the learning rate is multiplied by drop_factor, once each. Increasing, within 1 … T − 1."""
    drop_factor: float
    """In (0, 1]. 1, and no drops, for schedules other than step."""
    momentum: float = 0.9
    """Of SGD, in [0, 1)."""
    nesterov: bool = True
    """Nesterov's momentum instead of the plain (heavy-ball) one."""
    weight_decay: float
    """Added to the gradient of every parameter, times the parameter. 0 or more."""
    batch_norm_momentum: float
    """Weight of the newest batch in the running statistics (PyTorch's sense), in (0, 1]."""
    batch_norm_eps: float
    """Added to the variance. Above 0."""
    val_examples: int = 0
    """Images held out for validation, training images unless val_from says: a stratified split. 0 or more."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """fp32, or bf16: forward and backward under bfloat16 autocast, weights and updates in fp32."""
    schedule: Literal["step", "linear", "cosine", "one-cycle"] = field(default="step", metadata={"absent": "step"})
    """Of the learning rate: step drops, or from learning_rate towards 0 as trainable.schedules has it."""
    warmup: int = field(default=0, metadata={"absent": 0})
    """Steps in which the rate rises to learning_rate, for schedules other than step. 0 … T − 1."""
    init: Literal["he-uniform", "truncated-normal"] = field(default="he-uniform", metadata={"absent": "he-uniform"})
    """Of kernels and the classifier: variance 2/fan-in, uniform; or 1/fan-in, normal cut off at two deviations."""
    shortcut_norm: bool = field(default=False, metadata={"absent": False})
    """Batch norm after a ResNet's shortcut convolutions."""
    padding: Literal["reflect", "zeros"] | None = field(default=None, metadata={"absent": None})
    """What fills the border of shifted training images; None: as the data set's recipe has it."""
    standardisation: Literal["training-set", "image"] = field(
        default="training-set", metadata={"absent": "training-set"}
    )
    """Mean 0, deviation 1: of each channel over the training images, or of each image over its own pixels."""
    val_from: Literal["train", "test"] = field(default="train", metadata={"absent": "train"})
    """Where the val_examples are taken from: the training images, or the test images, of which the rest is the test."""

    def __post_init__(self) -> None:
        _take_types(self)
        if self.dataset not in DATASETS and not NPZ_NAME.fullmatch(self.dataset):
            choices = f"choose from {', '.join(DATASETS)}, or the path of an npz file"
            raise ValueError(f"unknown data set {self.dataset!r}: {choices}")
        architectures.parse(self.architecture)
        _require(self.seed >= 0, "seed must be 0 or more", self.seed)
        _require(self.steps >= 1, "steps must be 1 or more", self.steps)
        _require(self.batch_size >= 2, "batch_size must be 2 or more", self.batch_size)
        _require(0 < self.learning_rate < math.inf, "learning_rate must be above 0 and finite", self.learning_rate)
        if list(self.drops) != sorted(set(self.drops)) or any(not 0 < drop < self.steps for drop in self.drops):
            rule = f"drops must be increasing steps within 1 … steps − 1 = {self.steps - 1}"
            raise ValueError(f"{rule}, got {list(self.drops)}")
        _require(0 < self.drop_factor <= 1, "drop_factor must be in (0, 1]", self.drop_factor)
        _require(0 <= self.momentum < 1, "momentum must be in [0, 1)", self.momentum)
        _require(not self.nesterov or self.momentum > 0, "nesterov needs a momentum above 0", self.momentum)
        _require(0 <= self.weight_decay < math.inf, "weight_decay must be 0 or more and finite", self.weight_decay)
        _require(0 < self.batch_norm_momentum <= 1, "batch_norm_momentum must be in (0, 1]", self.batch_norm_momentum)
        _require(0 < self.batch_norm_eps < math.inf, "batch_norm_eps must be above 0 and finite", self.batch_norm_eps)
        _require(self.val_examples >= 0, "val_examples must be 0 or more", self.val_examples)
        source = {"train": DATASETS, "test": TEST_IMAGES}[self.val_from]
        images, kind = source.get(self.dataset, math.inf), {"train": "training", "test": "test"}[self.val_from]
        rule = f"val_examples must be fewer than the {images} {kind} images of {self.dataset}"
        _require(self.val_examples < images, rule, self.val_examples)
        held_out = self.val_from == "train" or self.val_examples > 0
        _require(held_out, "val_from 'test' needs val_examples above 0", self.val_examples)
        _require(0 <= self.warmup < self.steps, f"warmup must be in 0 … steps − 1 = {self.steps - 1}", self.warmup)
        if self.schedule == "step":
            _require(self.warmup == 0, "warmup is for the schedules linear, cosine and one-cycle only", self.warmup)
        else:
            _require(self.drops == (), f"schedule {self.schedule!r} has no drops", list(self.drops))
            _require(self.drop_factor == 1, f"schedule {self.schedule!r} needs drop_factor 1", self.drop_factor)
        resnet = architectures.parse(self.architecture).family == "resnet"
        _require(resnet or not self.shortcut_norm, "shortcut_norm is for resnet architectures", self.architecture)

    @property
    def iteration(self) -> int:
        """Place in the chain: a dense run is at 0."""
        return 0

    @property
    def budget(self) -> int:
        """Steps that this cell trains."""
        return self.steps


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """A retraining strategy: where the weights come from, where the learning-rate clock restarts, for how long."""

    weights_from: int | Literal["fresh"] | None
    """A step of the dense run; fresh: a new initialisation; None: keep the weights."""
    lr_from: int | None
    """Step of the dense schedule at which a replay starts, 0 … T; None for the other shapes."""
    budget: int
    """t, optimizer updates. 1 or more. A clock that runs past T stays at the last learning rate."""
    shape: Literal["replay", "linear", "cosine", "scaled", "one-cycle", "adaptive-linear", "constant"] = "replay"
    """replay the dense schedule from lr_from on, or scale all of it to the budget; or stay at peak_lr, or go from there
    towards 0 on a line, half a cosine, one cycle; adaptive-linear: on a line from what pruning makes of peak_lr."""
    peak_lr: float | None = None
    """Learning rate after the warm-up, for the shapes other than replay and scaled; the highest there can be for
    adaptive-linear. Above 0."""
    warmup: int = 0
    """Steps in which the rate rises to its peak, for the shapes other than replay. Fewer than budget."""
    momentum: Literal["fresh", "with_weights"] = "fresh"
    """Momentum buffers: zeros (Mikler 2021), or from the same State as the weights (Renda et al. 2020)."""
    gradual: tuple[int, ...] = field(default=(), metadata={"absent": ()})
    """Prune while training, not before: (first, last, every), 0 ≤ first < last < budget. From step first on, each so
    many steps, on a cubic to the density asked for, which step last starts with. Empty: all at once, before."""

    def __post_init__(self) -> None:
        _take_types(self)
        _require(self.budget >= 1, "retraining budget must be 1 step or more", self.budget)
        if isinstance(self.weights_from, int):
            _require(
                self.weights_from >= 0, "weights_from must be a step of the dense run, 0 or more", self.weights_from
            )
        if self.shape == "replay":
            rule = "shape 'replay' needs lr_from, a step of the dense schedule"
            _require(self.lr_from is not None, rule, self.lr_from)
            if self.lr_from is not None and self.lr_from < 0:
                rule = "a learning-rate clock cannot start before step 0 (learning-rate rewinding needs budget ≤ T)"
                raise ValueError(f"{rule}, got lr_from = {self.lr_from}")
            _require(self.warmup == 0, "warmup is for the shapes other than replay", self.warmup)
        else:
            rule = f"shape {self.shape!r} has no lr_from: its clock starts at its own 0"
            _require(self.lr_from is None, rule, self.lr_from)
            rule = f"warmup must be in 0 … budget − 1 = {self.budget - 1}"
            _require(0 <= self.warmup < self.budget, rule, self.warmup)
        if self.shape in ("replay", "scaled"):
            _require(self.peak_lr is None, f"shape {self.shape!r} has no peak_lr: it has the dense rates", self.peak_lr)
        else:
            rule = f"shape {self.shape!r} needs a peak_lr above 0 and finite"
            _require(self.peak_lr is not None and 0 < self.peak_lr < math.inf, rule, self.peak_lr)
        if self.shape == "adaptive-linear":
            rule = (
                "shape 'adaptive-linear' needs the parent's weights (weights_from None): its peak is measured on them"
            )
            _require(self.weights_from is None, rule, self.weights_from)
            _require(not self.gradual, "shape 'adaptive-linear' needs pruning at once (no gradual)", list(self.gradual))
        if self.gradual:
            whole = len(self.gradual) == 3 and self.gradual[2] >= 1
            rule = f"gradual must be (first, last, every) with 0 ≤ first < last < budget = {self.budget} and every ≥ 1"
            _require(whole and 0 <= self.gradual[0] < self.gradual[1] < self.budget, rule, list(self.gradual))
            _require(self.weights_from != "fresh", "gradual pruning starts from a State of the dense run", "fresh")


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """One prune–retrain, with its whole past: the dense run and the density of every earlier cycle."""

    dense: DenseRun
    densities: tuple[float, ...]
    """Density after each cycle of the chain, this one last. In (0, 1], never increasing, at most 6 decimals."""
    retraining: Retraining
    """The same in every cycle of the chain."""
    structure: Literal["unstructured", "structured"] = "unstructured"
    """Single weights, or whole output channels."""
    mask: Literal["magnitude", "random", "random-in-layers", "magnitude-in-layers", "erk"] = field(
        default="magnitude", metadata={"absent": "magnitude"}
    )
    """What is kept: the largest of all layers together; any; any, but of each layer as many as magnitude keeps; the
    largest of each layer, all at one density; the largest of each layer, at Erdős–Rényi-kernel densities."""
    parent_step: int | None = field(default=None, metadata={"absent": None})
    """Step of the dense run whose weights the first cycle prunes, 0 … T − 1; None: the last."""

    def __post_init__(self) -> None:
        _take_types(self)
        _require(len(self.densities) > 0, "densities must name one density or more", list(self.densities))
        for value in self.densities:
            _require(0 < value <= 1, "density must be in (0, 1]", value)
            if round(value, 6) != value:
                raise ValueError(f"density must have at most 6 decimals (make it by density(sparsity)), got {value}")
        if list(self.densities) != sorted(self.densities, reverse=True):
            raise ValueError(f"densities of a chain must never increase, got {list(self.densities)}")
        weights_from, lr_from, last = self.retraining.weights_from, self.retraining.lr_from, self.dense.steps
        if isinstance(weights_from, int):
            _require(weights_from <= last, f"weights_from must be a step of the dense run, 0 … {last}", weights_from)
        if lr_from is not None:
            _require(lr_from <= last, f"lr_from must be in 0 … {last}, where the schedule is at its last rate", lr_from)
        if self.retraining.gradual:
            rule = "gradual pruning reaches its density inside one run, densities must name one: no chain"
            _require(len(self.densities) == 1, rule, list(self.densities))
        if self.structure == "structured":
            rule = "structured masks are magnitude, random, random-in-layers or magnitude-in-layers"
            _require(self.mask != "erk", rule, self.mask)
        if self.parent_step is not None:
            rule = f"parent_step must be a step of the dense run before its last, 0 … {last - 1}, or None"
            _require(0 <= self.parent_step < last, rule, self.parent_step)
            unused = self.retraining.gradual and weights_from is not None
            _require(not unused, "gradual pruning from a step of the dense run has no parent_step", self.parent_step)

    @property
    def density(self) -> float:
        """Density asked for, after this cycle."""
        return self.densities[-1]

    @property
    def iteration(self) -> int:
        """Place in the chain: 1 is the first cycle after the dense run."""
        return len(self.densities)

    @property
    def budget(self) -> int:
        """Steps that this cell trains."""
        return self.retraining.budget

    @property
    def seed(self) -> int:
        """The dense run's."""
        return self.dense.seed


Cell = DenseRun | Cycle


def dense_run(cell: Cell) -> DenseRun:
    """The dense run that a cell starts from, or is."""
    return cell if isinstance(cell, DenseRun) else cell.dense


def parent(cell: Cell) -> Cell | None:
    """The cell whose final State a cycle prunes; None for a dense run."""
    if isinstance(cell, DenseRun):
        return None
    if cell.iteration == 1:
        return cell.dense
    return dataclasses.replace(cell, densities=cell.densities[:-1])


def lineage(cell: Cell) -> tuple[Cell, ...]:
    """A cell and all that it stands on, the dense run first."""
    above = parent(cell)
    return (cell,) if above is None else (*lineage(above), cell)


def states_read(cell: Cell) -> tuple[tuple[Cell, int], ...]:
    """The States a cell starts from, as (run, step): what it prunes and, when it rewinds, the dense run's.

    Gradual pruning reads the one that it starts from only.
    """
    above = parent(cell)
    if above is None:
        return ()
    assert isinstance(cell, Cycle)
    pruned = (above, above.budget)
    if cell.iteration == 1 and cell.parent_step is not None:
        pruned = (above, cell.parent_step)
    step = cell.retraining.weights_from
    begun = (cell.dense, step) if isinstance(step, int) else pruned
    return (begun,) if begun == pruned or cell.retraining.gradual else (pruned, begun)


def describe(cell: Cell) -> dict[str, Any]:
    """The complete description as plain JSON values, defaults included: what cell.json holds and key() hashes."""
    kind = "dense" if isinstance(cell, DenseRun) else "cycle"
    return {"kind": kind, **_plain(cell)}


@lru_cache(maxsize=100_000)
def key(cell: Cell) -> str:
    """The identity of a cell: 20 hex digits of the SHA-256 of its canonical description.

    Values enter in their field's declared type (1 as 1.0 where a float is declared). A field with
    metadata={"absent": value} is left out while it has that value, so that a later field keeps older keys.
    """
    canonical = json.dumps(describe(cell), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


def from_description(description: Any) -> Cell:
    """The cell of a description, as describe() gives it; fields with a default may be left out.

    Raises ValueError for an unknown kind, an unknown or missing field, a value of the wrong type or against a rule.
    """
    if not isinstance(description, dict):
        raise ValueError(f"a cell's description must be a JSON object, got {type(description).__name__}")
    fields = dict(description)
    kind = fields.pop("kind", None)
    if kind not in ("dense", "cycle"):
        raise ValueError(f"a cell's kind must be 'dense' or 'cycle', got {kind!r}")
    return _build(DenseRun if kind == "dense" else Cycle, fields, kind)


def coerce(value: Any, declared: Any, name: str) -> Any:
    """A value in its declared type, or ValueError: ints become floats where floats are declared, lists tuples."""
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin in (types.UnionType, typing.Union):
        for option in arguments:
            try:
                return coerce(value, option, name)
            except ValueError:
                continue
    elif origin is Literal:
        if type(value) is str and value in arguments:
            return value
    elif origin is tuple:
        if isinstance(value, list | tuple):
            return tuple(coerce(item, arguments[0], f"each of {name}") for item in value)
    elif declared is types.NoneType:
        if value is None:
            return None
    elif declared is int:
        if _is_number(value) and int(value) == value:
            return int(value)
    elif declared is float:
        if _is_number(value):
            return float(value) + 0.0  # −0.0 is 0.0
    elif type(value) is declared:
        return value
    raise ValueError(f"{name} must be {_spelled(declared)}, got {value!r}")


def _plain(instance: Any) -> dict[str, Any]:
    plain = {}
    for entry in dataclasses.fields(instance):
        value = getattr(instance, entry.name)
        if "absent" in entry.metadata and value == entry.metadata["absent"]:
            continue
        plain[entry.name] = (
            _plain(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        )
    return plain


def _build(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a JSON object, got {values!r}")
    hints = _hints(cls)
    fields = {entry.name: entry for entry in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - set(fields)):
        raise ValueError(f"unknown field {', '.join(unknown)} of {where}: its fields are {', '.join(fields)}")
    arguments: dict[str, Any] = {}
    for name, entry in fields.items():
        if name in values:
            nested = dataclasses.is_dataclass(hints[name])
            arguments[name] = (
                _build(hints[name], values[name], name) if nested else coerce(values[name], hints[name], name)
            )
        elif "absent" in entry.metadata:
            arguments[name] = entry.metadata["absent"]
        elif entry.default is dataclasses.MISSING:
            raise ValueError(f"{where} lacks the field {name}")
    return cls(**arguments)


@lru_cache
def _hints(cls: type) -> dict[str, Any]:
    """A dataclass's types by field: found out once, for a study has many cells."""
    return typing.get_type_hints(cls)


def _take_types(instance: Any) -> None:
    """Bring every field to its declared type, so that a description has one spelling in memory as on disk."""
    cls: type = type(instance)
    hints = _hints(cls)
    for entry in dataclasses.fields(instance):
        value = coerce(getattr(instance, entry.name), hints[entry.name], entry.name)
        object.__setattr__(instance, entry.name, value)


def _is_number(value: Any) -> bool:
    kind = type(value)
    numpy_number = kind.__module__ == "numpy" and kind.__name__.startswith(("int", "uint", "float"))
    return kind is int or ((kind is float or numpy_number) and math.isfinite(value))


def _spelled(declared: Any) -> str:
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin is tuple:
        return f"a list, each {_spelled(arguments[0])}"
    if arguments:
        return " or ".join(_spelled(option) for option in arguments)
    names = {
        int: "a whole number",
        float: "a finite number",
        bool: "true or false",
        str: "a string",
        types.NoneType: "None",
    }
    return names.get(declared, declared.__name__)


def _require(holds: bool, rule: str, value: Any) -> None:
    if not holds:
        shown = int(value) if isinstance(value, float) and value == int(value) else value
        raise ValueError(f"{rule}, got {shown!r}{_percentage(value) if rule.startswith('density') else ''}")


def _percentage(value: Any) -> str:
    return ": is it a percentage?" if 1 < value <= 100 else ""
