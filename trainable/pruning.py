"""Magnitude pruning: from weights to nested boolean masks. Pure functions on dict[str, Tensor], on the CPU."""

from fractions import Fraction

import torch
from torch import Tensor

Weights = dict[str, Tensor]
"""Prunable weights by name, in the model's order: kernels [out, in, h, w], the classifier's [classes, features]."""
Masks = dict[str, Tensor]
"""Boolean, shaped as the weights: True = kept."""


def keep_all(weights: Weights) -> Masks:
    """The masks of an unpruned network."""
    return {name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in weights.items()}


def prune(weights: Weights, masks: Masks, density: float, structure: str) -> Masks:
    """New masks at the density asked for, each a subset of the parent's.

    Raises ValueError when nothing would be left.
    """
    return {"unstructured": unstructured, "structured": structured}[structure](weights, masks, density)


def unstructured(weights: Weights, masks: Masks, density: float) -> Masks:
    """Global magnitude: keep exactly round(density × prunable) of the largest |w|; ties keep the lower index.

    Han et al. 2015, arXiv 1506.02626, ranked over all layers together.

    >>> weights = {"a": torch.tensor([[3.0, -1.0]]), "b": torch.tensor([[1.0, -4.0]])}
    >>> unstructured(weights, keep_all(weights), 0.75)
    {'a': tensor([[True, True]]), 'b': tensor([[False,  True]])}
    """
    scores = torch.cat([_scores(weights[name], masks[name]).reshape(-1) for name in weights])
    count = round(density * scores.numel())
    if count < 1:
        raise ValueError(
            f"density {density} keeps {count} of {scores.numel():,} prunable weights: at least 1 is needed"
        )
    assert count <= int((scores >= 0).sum()), "a chain never increases its density"
    kept = torch.zeros(scores.shape, dtype=torch.bool)
    kept[torch.argsort(scores, descending=True, stable=True)[:count]] = True
    pieces = kept.split([weight.numel() for weight in weights.values()])
    return {
        name: piece.reshape(weight.shape).clone() for (name, weight), piece in zip(weights.items(), pieces, strict=True)
    }


def structured(weights: Weights, masks: Masks, density: float) -> Masks:
    """Whole output channels of convolutions and input rows of the classifier, lowest mean |w| over all layers first.

    Drops them while the density stays ≥ the one asked for; among ties the lower index is kept.

    >>> weights = {"a": torch.tensor([[[[1.0]]], [[[2.0]]], [[[3.0]]]]), "b": torch.tensor([[0.5, 9.0], [0.5, 9.0]])}
    >>> structured(weights, keep_all(weights), 0.6)["b"]
    tensor([[False,  True],
            [False,  True]])
    """
    masks = {name: mask.clone() for name, mask in masks.items()}
    groups = []  # (mean |w|, −index, mask of the group's layer with the group first, size), lowest first when sorted
    index = 0
    for name, weight in weights.items():
        layer, magnitudes = (masks[name], weight.abs()) if weight.dim() == 4 else (masks[name].T, weight.abs().T)
        means = magnitudes.reshape(len(magnitudes), -1).double().mean(1).tolist()
        for channel, mean in enumerate(means):
            if bool(layer[channel].any()):
                groups.append((mean, -index, layer[channel], layer[channel].numel()))
            index += 1
    prunable = sum(weight.numel() for weight in weights.values())
    kept, floor = count_kept(masks), Fraction(str(density)) * prunable
    for _mean, _index, group, size in sorted(groups, key=lambda entry: entry[:2]):
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


def _scores(weight: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, weight.abs(), -torch.ones((), dtype=weight.dtype))
