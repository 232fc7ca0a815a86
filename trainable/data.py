"""A data set as uint8 tensors on one device, and its batches as a pure function of the step."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from trainable import datasets
from trainable.randomness import generator

Batches = Callable[[int], tuple[Tensor, Tensor]]
"""step → (standardised images float32 [B, C, H, W], channels last; labels int64 [B])."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to a training image: a property of the data set."""

    shift: int
    """Largest translation, pixels, in each direction: pad by so much, then crop at random."""
    padding: str
    """NumPy's name of what fills the border: reflect, or constant (zeros)."""
    flip: bool
    """Mirror half of the images horizontally."""


CIFAR = Augmentation(shift=4, padding="reflect", flip=True)
"""Mikler 2021, arXiv 2109.09670, §3.2.1."""
AUGMENTATIONS = {
    "digits": Augmentation(shift=1, padding="constant", flip=False),
    "cifar10": CIFAR,
    "cifar100": CIFAR,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images to evaluate on."""

    images: Tensor
    """uint8 [N, H, W, C]."""
    labels: Tensor
    """int64 [N]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Everything that a cell sees of a data set, on one device."""

    padded: Tensor
    """Training images with their border, uint8 [N, H + 2·shift, W + 2·shift, C]."""
    labels: Tensor
    """int64 [N]."""
    val: Split | None
    test: Split
    mean: Tensor
    """Of the training images, float32 [C]."""
    std: Tensor
    classes: int
    augmentation: Augmentation
    digest: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        height, width, channels = self.test.images.shape[1:]
        return channels, height, width

    @property
    def val_examples(self) -> int:
        """Training images that are held out."""
        return 0 if self.val is None else len(self.val.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def standardise(self, images: Tensor) -> Tensor:
        """uint8 [B, H, W, C] to float32 [B, C, H, W] of mean 0 and standard deviation 1, channels last."""
        return ((images.float() - self.mean) / self.std).permute(0, 3, 1, 2)


def prepare(dataset: datasets.Dataset, name: str, val_examples: int, device: torch.device) -> Data:
    """A data set on a device, split, padded and standardised by the images trained on; a user's npz as CIFAR is."""
    augmentation = AUGMENTATIONS.get(name, CIFAR)
    train, held_out = datasets.validation_split(dataset.train_labels, val_examples)
    images = dataset.train_images[train]
    border = (augmentation.shift, augmentation.shift)
    padded = np.pad(images, ((0, 0), border, border, (0, 0)), mode=augmentation.padding)  # type: ignore[call-overload]
    mean, std = _moments(images)
    val = _split(dataset.train_images[held_out], dataset.train_labels[held_out], device) if val_examples else None
    return Data(
        padded=torch.from_numpy(padded).to(device),
        labels=torch.from_numpy(dataset.train_labels[train]).to(device),
        val=val,
        test=_split(dataset.test_images, dataset.test_labels, device),
        mean=torch.tensor(mean, dtype=torch.float32, device=device),
        std=torch.tensor(std, dtype=torch.float32, device=device),
        classes=dataset.classes,
        augmentation=augmentation,
        digest=dataset.digest,
    )


def training_batches(data: Data, seed: int, iteration: int, batch_size: int) -> Batches:
    """The batches of one cell, the same for every strategy: a pure function of (seed, iteration, step).

    The stream is the passes' permutations one after the other; step s takes its images B·s … B·s + B − 1, so that
    batches straddle passes and all have B images.
    """
    count = len(data.labels)

    @lru_cache(maxsize=2)
    def order(number: int) -> Tensor:
        return torch.randperm(count, generator=generator(seed, iteration, "order", number))

    def batches(step: int) -> tuple[Tensor, Tensor]:
        first, last = batch_size * step, batch_size * (step + 1)
        passes = range(first // count, (last - 1) // count + 1)
        pieces = [order(number)[max(first - number * count, 0) : last - number * count] for number in passes]
        chosen = torch.cat(pieces).to(data.device, non_blocking=True)
        images = _augment(data, chosen, generator(seed, iteration, "augmentation", step))
        return data.standardise(images), data.labels[chosen]

    return batches


def _augment(data: Data, chosen: Tensor, random: torch.Generator) -> Tensor:
    """Random crops, and mirrored ones, of padded images: uint8 [B, H, W, C]."""
    shift, (_, height, width) = data.augmentation.shift, data.image_shape
    corner = torch.randint(2 * shift + 1, (2, len(chosen), 1), generator=random)
    rows, columns = corner[0] + torch.arange(height), corner[1] + torch.arange(width)
    if data.augmentation.flip:
        mirrored = torch.rand((len(chosen), 1), generator=random) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = rows.to(data.device, non_blocking=True), columns.to(data.device, non_blocking=True)
    return data.padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation [C] of uint8 images [N, H, W, C], exact: from the counts of the 256 values."""
    values = np.arange(256.0)
    counts = np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[3])])
    total = counts.sum(1)
    mean = counts @ values / total
    std = np.sqrt(counts @ values**2 / total - mean**2)
    return mean, np.where(std > 0, std, 1.0)


def _split(images: np.ndarray, labels: np.ndarray, device: torch.device) -> Split:
    return Split(images=torch.from_numpy(images).to(device), labels=torch.from_numpy(labels).to(device))
