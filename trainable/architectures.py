"""The grammar of architecture names: resnet20, resnet8-8, wrn16-8, vgg16."""

import re
from dataclasses import dataclass
from typing import Literal

CHOICES = (
    "resnet{6n+2} (resnet20, resnet32, resnet44, resnet56, resnet110), "
    "resnet{6n+2}-{first width} (resnet8-8), wrn{6n+4}-{k} (wrn16-8, wrn28-10), vgg16"
)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    family: Literal["resnet", "wrn", "vgg"]
    depth: int
    """Layers with weights on the longest path, as the name counts them."""
    width: int
    """resnet: channels of the first stage; wrn: the widening factor k; vgg: channels of the first layer."""


def parse(name: str) -> Architecture:
    """The architecture that a name stands for.

    Raises ValueError for a name outside the grammar.

    >>> parse("resnet20")
    Architecture(family='resnet', depth=20, width=16)
    >>> parse("wrn16-8")
    Architecture(family='wrn', depth=16, width=8)
    """
    if name == "vgg16":
        return Architecture(family="vgg", depth=16, width=64)
    if match := re.fullmatch(r"resnet([1-9]\d{0,3})(?:-([1-9]\d{0,3}))?", name):
        depth, width = int(match[1]), int(match[2] or 16)
        if depth >= 8 and depth % 6 == 2:
            return Architecture(family="resnet", depth=depth, width=width)
        raise ValueError(
            f"architecture {name!r}: a CIFAR ResNet's depth is 6n + 2 (8, 14, 20, 32, 44, 56, 110), got {depth}"
        )
    if match := re.fullmatch(r"wrn([1-9]\d{0,3})-([1-9]\d{0,3})", name):
        depth, width = int(match[1]), int(match[2])
        if depth >= 10 and depth % 6 == 4:
            return Architecture(family="wrn", depth=depth, width=width)
        raise ValueError(f"architecture {name!r}: a wide ResNet's depth is 6n + 4 (10, 16, 22, 28, 40), got {depth}")
    raise ValueError(f"unknown architecture {name!r}: choose from {CHOICES}")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a network is made of, counted."""

    kernels: tuple[int, ...]
    """Weights of each convolution, and last of the classifier's matrix: what pruning ranks."""
    norms: tuple[int, ...]
    """Channels of each batch norm."""
    classes: int
    """The classifier's biases."""

    @property
    def prunable(self) -> int:
        """Convolution kernels and the classifier's matrix."""
        return sum(self.kernels)

    @property
    def trainable(self) -> int:
        """All that the optimizer updates: the prunable, the classifier's biases, batch norm's scales and shifts."""
        return self.prunable + self.classes + 2 * sum(self.norms)


def parameters(name: str, *, channels: int, classes: int, shortcut_norm: bool = False) -> Parameters:
    """Count a network's parameters without building it; channels are the images'. shortcut_norm: of a ResNet.

    Raises ValueError for a name outside the grammar.

    >>> counted = parameters("resnet20", channels=3, classes=10)
    >>> counted.trainable, counted.prunable
    (272282, 270896)
    """
    spec = parse(name)
    count = {"resnet": _resnet, "wrn": _wide_resnet, "vgg": _vgg}[spec.family]
    kernels, norms, features = count(spec, channels)
    norms += [2 * spec.width, 4 * spec.width] if shortcut_norm else []
    return Parameters(kernels=(*kernels, features * classes), norms=tuple(norms), classes=classes)


def _resnet(spec: Architecture, channels: int) -> tuple[list[int], list[int], int]:
    """Weights of the kernels, channels of the batch norms, features that the classifier sees; as trainable.models."""
    kernels, norms, inputs = [9 * channels * spec.width], [spec.width], spec.width
    for outputs in (spec.width, 2 * spec.width, 4 * spec.width):
        for _ in range((spec.depth - 2) // 6):
            shortcut = [] if inputs == outputs else [inputs * outputs]
            kernels += [9 * inputs * outputs, 9 * outputs**2, *shortcut]
            norms += [outputs, outputs]
            inputs = outputs
    return kernels, norms, inputs


def _wide_resnet(spec: Architecture, channels: int) -> tuple[list[int], list[int], int]:
    kernels, norms, inputs = [9 * channels * 16], [], 16
    for outputs in (16 * spec.width, 32 * spec.width, 64 * spec.width):
        for block in range((spec.depth - 4) // 6):
            shortcut = [inputs * outputs] if block == 0 else []
            kernels += [9 * inputs * outputs, 9 * outputs**2, *shortcut]
            norms += [inputs, outputs]
            inputs = outputs
    return kernels, [*norms, inputs], inputs


def _vgg(spec: Architecture, channels: int) -> tuple[list[int], list[int], int]:
    norms = [spec.width * factor for factor in (1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 8)]
    kernels = [9 * inputs * outputs for inputs, outputs in zip([channels, *norms], norms, strict=False)]
    return kernels, norms, norms[-1]
