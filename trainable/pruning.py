"""Magnitude pruning: from weights to nested boolean masks. Pure functions on dict[str, Tensor], on the CPU."""

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

Weights = dict[str, Tensor]
"""Prunable weights by name, in the model's order: kernels [out, in, h, w], the classifier's [classes, features]."""
Masks = dict[str, Tensor]
"""Boolean, shaped as the weights: True = kept."""
Scores = dict[str, Tensor]
"""What to rank by, by name of the weights, 0 or more: the largest are kept."""
Rule = Callable[[Weights, Masks, float, torch.Generator | None], Masks]


def keep_all(weights: Weights) -> Masks:
    """The masks of an unpruned network."""
    return {name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in weights.items()}


def prune(
    weights: Weights,
    masks: Masks,
    density: float,
    structure: str,
    mask: str = "magnitude",
    random: torch.Generator | None = None,
) -> Masks:
    """New masks at the density asked for, each a subset of the parent's. random: for the masks that leave it to chance.

    Raises ValueError when nothing would be left.
    """
    return RULES[structure, mask](weights, masks, density, random)


def unstructured(weights: Weights, masks: Masks, density: float, scores: Scores | None = None) -> Masks:
    """Global magnitude: keep exactly round(density × prunable) of the largest |w|; ties keep the lower index.

    Han et al. 2015, arXiv 1506.02626, ranked over all layers together. scores: to rank by instead of |w|, 0 or more.

    >>> weights = {"a": torch.tensor([[3.0, -1.0]]), "b": torch.tensor([[1.0, -4.0]])}
    >>> unstructured(weights, keep_all(weights), 0.75)
    {'a': tensor([[True, True]]), 'b': tensor([[False,  True]])}
    """
    return _largest(_magnitudes(weights) if scores is None else scores, masks, _count(masks, density))


def structured(weights: Weights, masks: Masks, density: float, scores: Scores | None = None) -> Masks:
    """Whole output channels of convolutions and input rows of the classifier, lowest mean |w| over all layers first.

    Drops them while the density stays ≥ the one asked for; among ties the lower index is kept. scores: to rank the
    channels of each layer by instead, [channels].

    >>> weights = {"a": torch.tensor([[[[1.0]]], [[[2.0]]], [[[3.0]]]]), "b": torch.tensor([[0.5, 9.0], [0.5, 9.0]])}
    >>> structured(weights, keep_all(weights), 0.6)["b"]
    tensor([[False,  True],
            [False,  True]])
    """
    masks = {name: mask.clone() for name, mask in masks.items()}
    scores = _channel_means(weights) if scores is None else scores
    groups = []  # (score, −index, mask of the group, size), lowest first when sorted
    index = 0
    for name, mask in masks.items():
        layer = _by_channel(mask)
        for channel, score in enumerate(scores[name].tolist()):
            if bool(layer[channel].any()):
                groups.append((score, -index, layer[channel], layer[channel].numel()))
            index += 1
    prunable = sum(weight.numel() for weight in weights.values())
    kept, floor = count_kept(masks), Fraction(str(density)) * prunable
    for _score, _index, group, size in sorted(groups, key=lambda entry: entry[:2]):
        if kept - size < floor:
            break
        group.fill_(False)
        kept -= size
    return masks


def count_kept(masks: Masks) -> int:
    """Weights kept, over all layers."""
    return sum(int(mask.sum()) for mask in masks.values())


def apply(masks: Masks, tensors: Weights) -> Weights:
    """The tensors with exact zeros (never −0) where the masks are False; tensors without a mask as they are."""
    return {
        name: torch.where(masks[name], tensor, torch.zeros((), dtype=tensor.dtype)) if name in masks else tensor
        for name, tensor in tensors.items()
    }


def norm_drop(weights: Weights, before: Masks, after: Masks) -> float:
    """d1 of Zimmer, Spiegel & Pokutta 2023, arXiv 2111.00843: ‖W − W pruned‖ / (‖W‖·√s), 0 when nothing is cut.

    W are the prunable weights that the first masks keep, s the fraction of them that the second ones cut. It is the
    norm cut off, in units of what is cut when all weights are equally large.

    >>> weights = {"a": torch.tensor([[3.0, 4.0, 0.0, 12.0]])}
    >>> norm_drop(weights, keep_all(weights), {"a": torch.tensor([[False, True, True, True]])})  # 3 / 13 · √4
    0.46153846153846156
    """
    kept, left = count_kept(before), count_kept(after)
    whole = sum(float(weight[before[name]].double().square().sum()) for name, weight in weights.items())
    cut = sum(float(weight[before[name] & ~after[name]].double().square().sum()) for name, weight in weights.items())
    return math.sqrt(cut / whole / ((kept - left) / kept)) if left < kept and whole > 0 else 0.0


def apportion(count: int, shares: dict[str, int], most: dict[str, int]) -> dict[str, int]:
    """Split a count in proportion to shares, none more than its most, by largest remainders; ties favour the first.

    What a full one cannot take, the others share. Σ most must be count or more.

    >>> apportion(10, {"a": 1, "b": 1, "c": 2}, {"a": 9, "b": 2, "c": 9})
    {'a': 3, 'b': 2, 'c': 5}
    """
    assert count <= sum(most.values())
    exact: dict[str, Fraction] = {}
    while len(exact) < len(shares):
        open_ = {name: share for name, share in shares.items() if name not in exact}
        unit = Fraction(count - sum(map(int, exact.values())), sum(open_.values()))
        full = {name: Fraction(most[name]) for name, share in open_.items() if share * unit > most[name]}
        exact |= full or {name: share * unit for name, share in open_.items()}
    split = {name: int(exact[name]) for name in shares}
    remainders = sorted(shares, key=lambda name: split[name] - exact[name])
    for name in remainders[: count - sum(split.values())]:
        split[name] += 1
    return split


def _random_in_layers(weights: Weights, masks: Masks, density: float, random: torch.Generator | None) -> Masks:
    """Of each layer as many as global magnitude keeps."""
    kept = {name: int(mask.sum()) for name, mask in unstructured(weights, masks, density).items()}
    return _largest_in_layers(_chances(weights, random), masks, kept)


def _magnitude_in_layers(weights: Weights, masks: Masks, density: float, random: torch.Generator | None) -> Masks:
    """Every layer at one density, as far as whole weights and what the parent left allow."""
    sizes = {name: weight.numel() for name, weight in weights.items()}
    return _largest_in_layers(_magnitudes(weights), masks, _split(masks, density, sizes))


def _erk(weights: Weights, masks: Masks, density: float, random: torch.Generator | None) -> Masks:
    """A layer's kept weights in proportion to inputs + outputs + kernel height + width, 1 at most of each weight.

    Evci et al. 2020, arXiv 1911.11134 (there drawn at random; here the largest of each layer).
    """
    dimensions = {name: sum(weight.shape) for name, weight in weights.items()}
    return _largest_in_layers(_magnitudes(weights), masks, _split(masks, density, dimensions))


def _random_channels_in_layers(weights: Weights, masks: Masks, density: float, random: torch.Generator | None) -> Masks:
    """Of each layer as many channels as magnitude keeps."""
    kept = structured(weights, masks, density)
    found = {}
    for name, chances in _channel_chances(weights, random).items():
        there, left = (_by_channel(these[name]).flatten(1).any(1) for these in (masks, kept))
        chosen = _largest({name: chances}, {name: there}, int(left.sum()))[name]
        found[name] = masks[name].clone()
        _by_channel(found[name])[~chosen] = False
    return found


def _channels_in_layers(weights: Weights, masks: Masks, density: float, random: torch.Generator | None) -> Masks:
    """Each layer for itself: its density stays ≥ the one asked for."""
    return {name: structured({name: weights[name]}, {name: masks[name]}, density)[name] for name in weights}


RULES: dict[tuple[str, str], Rule] = {
    ("unstructured", "magnitude"): lambda weights, masks, density, _: unstructured(weights, masks, density),
    ("unstructured", "random"): lambda weights, masks, density, random: unstructured(
        weights, masks, density, _chances(weights, random)
    ),
    ("unstructured", "random-in-layers"): _random_in_layers,
    ("unstructured", "magnitude-in-layers"): _magnitude_in_layers,
    ("unstructured", "erk"): _erk,
    ("structured", "magnitude"): lambda weights, masks, density, _: structured(weights, masks, density),
    ("structured", "random"): lambda weights, masks, density, random: structured(
        weights, masks, density, _channel_chances(weights, random)
    ),
    ("structured", "random-in-layers"): _random_channels_in_layers,
    ("structured", "magnitude-in-layers"): _channels_in_layers,
}
"""How a mask is chosen, by structure and mask of the description."""


def _count(masks: Masks, density: float) -> int:
    """Weights to keep. Raises ValueError when it is none."""
    prunable = sum(mask.numel() for mask in masks.values())
    count = round(density * prunable)
    if count < 1:
        raise ValueError(f"density {density} keeps {count} of {prunable:,} prunable weights: at least 1 is needed")
    return count


def _split(masks: Masks, density: float, shares: dict[str, int]) -> dict[str, int]:
    return apportion(_count(masks, density), shares, {name: int(mask.sum()) for name, mask in masks.items()})


def _largest(scores: Scores, masks: Masks, count: int) -> Masks:
    """So many of what the masks keep, ranked over all layers together; ties keep the lower index."""
    ranked = torch.cat([torch.where(masks[name], scores[name], -1.0).reshape(-1) for name in masks])
    assert count <= count_kept(masks), "a chain never increases its density"
    kept = torch.zeros(ranked.shape, dtype=torch.bool)
    kept[torch.argsort(ranked, descending=True, stable=True)[:count]] = True
    pieces = kept.split([mask.numel() for mask in masks.values()])
    return {name: piece.reshape(mask.shape).clone() for (name, mask), piece in zip(masks.items(), pieces, strict=True)}


def _largest_in_layers(scores: Scores, masks: Masks, counts: dict[str, int]) -> Masks:
    return {name: _largest({name: scores[name]}, {name: mask}, counts[name])[name] for name, mask in masks.items()}


def _magnitudes(weights: Weights) -> Scores:
    return {name: weight.abs() for name, weight in weights.items()}


def _chances(weights: Weights, random: torch.Generator | None) -> Scores:
    """Uniform in [0, 1), in the order of the weights, with digits enough that ties are rare."""
    assert random is not None
    return {name: torch.rand(weight.shape, generator=random, dtype=torch.float64) for name, weight in weights.items()}


def _channel_means(weights: Weights) -> Scores:
    return {name: _by_channel(weight.abs()).flatten(1).double().mean(1) for name, weight in weights.items()}


def _channel_chances(weights: Weights, random: torch.Generator | None) -> Scores:
    return _chances(_channel_means(weights), random)  # of their shapes


def _by_channel(tensor: Tensor) -> Tensor:
    """What is pruned as a whole first: a kernel's output channels, the classifier's input features. A view."""
    return tensor if tensor.dim() == 4 else tensor.T
