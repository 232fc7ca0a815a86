"""A data set as uint8 tensors on one device, and its batches as a pure function of the step."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from trainable import datasets
from trainable.config import DenseRun
from trainable.randomness import generator

Batches = Callable[[int], tuple[Tensor, Tensor]]
"""step → (standardised images float32 [B, C, H, W], channels last; labels int64 [B])."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to a training image: a property of the data set."""

    shift: int
    """Largest translation, pixels, in each direction: pad by so much, then crop at random."""
    padding: str
    """What fills the border: reflect, or zeros."""
    flip: bool
    """Mirror half of the images horizontally."""


CIFAR = Augmentation(shift=4, padding="reflect", flip=True)
"""Mikler 2021, arXiv 2109.09670, §3.2.1."""
AUGMENTATIONS = {
    "digits": Augmentation(shift=1, padding="zeros", flip=False),
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
    val_from: str = "train"
    """Which images the held-out ones were: train, or test."""
    standardisation: str = "training-set"
    """Mean and deviation of the training images by channel (mean, std), or of each image by itself: image."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        height, width, channels = self.test.images.shape[1:]
        return channels, height, width

    @property
    def val_examples(self) -> int:
        """Images that are held out."""
        return 0 if self.val is None else len(self.val.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def standardise(self, images: Tensor) -> Tensor:
        """uint8 [B, H, W, C] to float32 [B, C, H, W] of mean 0 and standard deviation 1, channels last."""
        pixels = images.float()
        if self.standardisation == "image":
            mean = pixels.mean((1, 2, 3), keepdim=True)
            # As TensorFlow's per_image_standardization: an image of one colour is divided by 1 / √pixels.
            std = pixels.std((1, 2, 3), correction=0, keepdim=True).clamp(min=pixels[0].numel() ** -0.5)
        else:
            mean, std = self.mean, self.std
        return ((pixels - mean) / std).permute(0, 3, 1, 2)

    def require_made_for(self, run: DenseRun) -> None:
        """Raise ValueError when these are not the images as a run asks for them."""
        made = {
            "val_examples": self.val_examples,
            "val_from": self.val_from,
            "padding": self.augmentation.padding,
            "standardisation": self.standardisation,
        }
        asked = {
            "val_examples": run.val_examples,
            "val_from": run.val_from,
            "padding": augmentation(run.dataset, run.padding).padding,
            "standardisation": run.standardisation,
        }
        for field, value in asked.items():
            if value != made[field]:
                raise ValueError(f"{field} is {value}, but the data was prepared with {made[field]}")


def augmentation(name: str, padding: str | None) -> Augmentation:
    """A data set's, a user's npz as CIFAR's, with the border that a run asks for."""
    own = AUGMENTATIONS.get(name, CIFAR)
    return own if padding is None else dataclasses.replace(own, padding=padding)


def prepare_for(run: DenseRun, dataset: datasets.Dataset, device: torch.device) -> Data:
    """A data set on a device as a run asks for it."""
    return prepare(
        dataset,
        run.dataset,
        run.val_examples,
        device,
        val_from=run.val_from,
        padding=run.padding,
        standardisation=run.standardisation,
    )


def prepare(
    dataset: datasets.Dataset,
    name: str,
    val_examples: int,
    device: torch.device,
    *,
    val_from: str = "train",
    padding: str | None = None,
    standardisation: str = "training-set",
) -> Data:
    """A data set on a device, split, padded, and its images' moments measured; a user's npz as CIFAR is.

    val_from, padding, standardisation: as the fields of config.DenseRun.
    """
    rest, held_out = datasets.validation_split(dataset.labels_of(val_from), val_examples)
    train = rest if val_from == "train" else np.arange(len(dataset.train_labels))
    test = rest if val_from == "test" else np.arange(len(dataset.test_labels))
    shifted = augmentation(name, padding)
    images = dataset.train_images[train]
    border = (shifted.shift, shifted.shift)
    mode = {"reflect": "reflect", "zeros": "constant"}[shifted.padding]
    padded = np.pad(images, ((0, 0), border, border, (0, 0)), mode=mode)  # type: ignore[call-overload]
    mean, std = _moments(images)
    return Data(
        padded=torch.from_numpy(padded).to(device),
        labels=torch.from_numpy(dataset.train_labels[train]).to(device),
        val=_split(dataset, val_from, held_out, device) if val_examples else None,
        test=_split(dataset, "test", test, device),
        mean=torch.tensor(mean, dtype=torch.float32, device=device),
        std=torch.tensor(std, dtype=torch.float32, device=device),
        classes=dataset.classes,
        augmentation=shifted,
        digest=dataset.digest,
        val_from=val_from,
        standardisation=standardisation,
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


def _split(dataset: datasets.Dataset, part: str, chosen: np.ndarray, device: torch.device) -> Split:
    images, labels = dataset.images_of(part)[chosen], dataset.labels_of(part)[chosen]
    return Split(images=torch.from_numpy(images).to(device), labels=torch.from_numpy(labels).to(device))
