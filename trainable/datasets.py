"""Find, check and digest a data set: four NumPy arrays, from an npz file or from what makes one. No torch here."""

import contextlib
import hashlib
import io
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainable.config import DATASETS, NPZ_NAME
from trainable.remote import Place, S3Path
from trainable.store import locked, write

ARRAYS = "train_images uint8 [N, H, W, C] or [N, H, W], train_labels integer [N], test_images, test_labels"


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A checked data set."""

    train_images: np.ndarray
    """uint8 [N, H, W, C]."""
    train_labels: np.ndarray
    """int64 [N], 0 … classes − 1."""
    test_images: np.ndarray
    test_labels: np.ndarray
    digest: str
    """First 16 hex digits of the SHA-256 of the four arrays, whatever the file's compression."""

    @property
    def classes(self) -> int:
        return int(self.train_labels.max()) + 1

    def labels_of(self, part: str) -> np.ndarray:
        """Of train or test."""
        return {"train": self.train_labels, "test": self.test_labels}[part]

    def images_of(self, part: str) -> np.ndarray:
        """Of train or test."""
        return {"train": self.train_images, "test": self.test_images}[part]


def load(name: str, data_root: str | Path, storage_datasets: str | Place) -> Dataset:
    """The data set of a description's name.

    digits ships with scikit-learn; the others are looked for at <data_root>/<name>.npz, then in the storage's datasets
    folder (a remote one's file is kept in this machine's cache); cifar10 and cifar100 are at last downloaded by
    torchvision (checksummed) and kept as <data_root>/<name>.npz. Raises ValueError when it can't be had, with the ways
    to provide it, or is damaged.
    """
    if name == "digits":
        return _digits()
    stem, _, digest = name.partition("@")
    others = []
    stored = (Path(storage_datasets) if isinstance(storage_datasets, str) else storage_datasets) / f"{name}.npz"
    candidates = [Path(data_root) / f"{stem}.npz", stored]
    for path in candidates:
        if not path.exists():
            continue
        dataset = _read_cached(path) if isinstance(path, S3Path) else read(path)
        if digest and dataset.digest != digest:
            others.append(f"{path} is {stem}@{dataset.digest}")
            continue
        if name in DATASETS:
            _check_cifar(name, dataset, path)
        return dataset
    where = " nor at ".join(str(path) for path in candidates)
    if name not in DATASETS:
        found = f" ({'; '.join(others)})" if others else ""
        raise ValueError(f"data set {name!r} (file stem @ digest of its content) is not at {where}{found}")
    try:
        return _download(name, Path(data_root))
    except Exception as error:  # whatever torchvision raises without a network: say the ways on
        raise ValueError(
            f"data set {name!r} is not at {where}, and its download failed ({error}). "
            f"Ways to provide it: --data-root with a folder that holds {name}.npz ({ARRAYS}), "
            f"or a network from which torchvision can download it"
        ) from error


def provide(name: str, dataset: Dataset, storage_datasets: Place) -> None:
    """Put a data set where every machine finds it, once. Raises ValueError when another one of its name is there."""
    if name == "digits":
        return
    target = storage_datasets / f"{name}.npz"
    if not target.exists():
        _write_npz(target, dataset)
        return
    there = _read_cached(target) if isinstance(target, S3Path) else read(target)
    if there.digest != dataset.digest:
        raise ValueError(
            f"{target} is another {name} ({there.digest}) than this machine's ({dataset.digest}): "
            "delete one of them, or use another storage"
        )


def _read_cached(path: S3Path) -> Dataset:
    """A remote file's data set, by a copy on this machine, which is made anew when it can't be read."""
    stat = path.stat()
    version = hashlib.sha256(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rewind-sweeps"
    copy = cache / f"{path.name.removesuffix('.npz')}-{version}.npz"
    with locked(cache / "lock"):  # several trials begin at once: one of them copies
        if copy.exists():
            with contextlib.suppress(ValueError):
                return read(copy)
        write(copy, path.read_bytes())
    try:
        return read(copy)
    except ValueError as error:
        copy.unlink(missing_ok=True)
        raise ValueError(f"{path}: {error}") from error


def read(path: Path) -> Dataset:
    """The data set in an npz file. Raises ValueError when it is not one: the file, the rule, what was found."""
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged file makes NumPy and zipfile raise almost anything
        raise ValueError(
            f"{path} is not a readable npz file of plain arrays ({error}): it must hold {ARRAYS}"
        ) from error
    return check(arrays, str(path))


def check(arrays: dict[str, np.ndarray], origin: str) -> Dataset:
    """Four arrays as a data set. Raises ValueError with the rule that they break and what was found."""
    names = ("train_images", "train_labels", "test_images", "test_labels")
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"{origin} lacks {', '.join(missing)}: it must hold {ARRAYS}")
    images, labels = {}, {}
    for part in ("train", "test"):
        images[part] = _images(arrays[f"{part}_images"], f"{origin}: {part}_images")
        labels[part] = _labels(arrays[f"{part}_labels"], len(images[part]), f"{origin}: {part}_labels")
    if images["train"].shape[1:] != images["test"].shape[1:]:
        shapes = f"{list(images['train'].shape)} and {list(images['test'].shape)}"
        raise ValueError(f"{origin}: training and test images must have one shape, got {shapes}")
    classes = np.unique(labels["train"])
    if not np.array_equal(classes, np.arange(len(classes))) or len(classes) < 2:
        raise ValueError(
            f"{origin}: train_labels must be 0 … classes − 1, each present, 2 or more, got {classes[:12].tolist()}"
        )
    if labels["test"].max() >= len(classes):
        raise ValueError(
            f"{origin}: test_labels must be 0 … {len(classes) - 1} as in training, got {labels['test'].max()}"
        )
    parts = {
        "train_images": images["train"],
        "train_labels": labels["train"],
        "test_images": images["test"],
        "test_labels": labels["test"],
    }
    return Dataset(**parts, digest=_digest(parts))


def register(path: str | Path, storage_datasets: Place) -> str:
    """Put a user's npz into the storage's datasets folder, once; its name for a description, <stem>@<digest>."""
    dataset = read(Path(path))
    name = name_of(path, dataset)
    provide(name, dataset, storage_datasets)
    return name


def name_of(path: str | Path, dataset: Dataset) -> str:
    """What a user's npz is called in a description."""
    name = f"{re.sub(r'[^A-Za-z0-9_.-]', '-', Path(path).stem)}@{dataset.digest}"
    assert NPZ_NAME.fullmatch(name)
    return name


def validation_split(labels: np.ndarray, val_examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices [N − val_examples] left and [val_examples] held out: stratified, the same for every seed.

    Raises ValueError when val_examples leaves a class without an image on one side, or is not below N.
    """
    everything = np.arange(len(labels))
    if val_examples == 0:
        return everything, everything[:0]
    if val_examples < 0:
        raise ValueError(f"val_examples must be 0 or more, got {val_examples}")
    if val_examples >= len(labels):
        raise ValueError(f"val_examples must be fewer than the {len(labels)} training images, got {val_examples}")
    from sklearn.model_selection import train_test_split

    try:
        train, held_out = train_test_split(everything, test_size=val_examples, stratify=labels, random_state=0)
    except ValueError as error:
        raise ValueError(f"val_examples = {val_examples} cannot be held out class by class: {error}") from error
    return np.sort(train), np.sort(held_out)


def _digits() -> Dataset:
    """1,437 training and 360 test images uint8 [8, 8, 1] with values 0 … 16, stratified, split seed 0."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = load_digits()
    train, test = train_test_split(np.arange(len(source.target)), test_size=360, stratify=source.target, random_state=0)
    images = source.images.astype(np.uint8)
    return check(
        {
            "train_images": images[train],
            "train_labels": source.target[train],
            "test_images": images[test],
            "test_labels": source.target[test],
        },
        "digits",
    )


def _download(name: str, data_root: Path) -> Dataset:
    from torchvision import datasets as source

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        made = {"cifar10": source.CIFAR10, "cifar100": source.CIFAR100}[name]
        train, test = made(folder, train=True, download=True), made(folder, train=False)
        arrays = {
            "train_images": train.data,
            "train_labels": np.array(train.targets),
            "test_images": test.data,
            "test_labels": np.array(test.targets),
        }
    dataset = check(arrays, name)
    _write_npz(data_root / f"{name}.npz", dataset)
    return dataset


def _write_npz(path: Place, dataset: Dataset) -> None:
    content = io.BytesIO()
    np.savez_compressed(
        content,
        train_images=dataset.train_images,
        train_labels=dataset.train_labels,
        test_images=dataset.test_images,
        test_labels=dataset.test_labels,
    )
    write(path, content.getvalue())


def _check_cifar(name: str, dataset: Dataset, path: Place) -> None:
    shape, classes = dataset.train_images.shape, 100 if name == "cifar100" else 10
    if shape[1:] != (32, 32, 3) or dataset.classes != classes or len(dataset.train_images) != DATASETS[name]:
        rule = f"{name} has {DATASETS[name]} training images [32, 32, 3] in {classes} classes"
        raise ValueError(
            f"{path} is not {name}: {rule}, got {list(shape)} in {dataset.classes}; give it a name of its own"
        )


def _images(images: np.ndarray, what: str) -> np.ndarray:
    if images.dtype != np.uint8:
        nan = images.dtype.kind == "f" and np.isnan(images).any()
        raise ValueError(f"{what} must be uint8, got {images.dtype}{' with NaN' if nan else ''}")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or min(images.shape[1:3]) < 8 or len(images) < 1:
        raise ValueError(
            f"{what} must be [N, H, W, C] with C 1 or 3 and 8 pixels or more a side, got {list(images.shape)}"
        )
    return np.ascontiguousarray(images)


def _labels(labels: np.ndarray, count: int, what: str) -> np.ndarray:
    if labels.dtype.kind not in "iu":
        nan = labels.dtype.kind == "f" and np.isnan(labels).any()
        raise ValueError(f"{what} must be integers, got {labels.dtype}{' with NaN' if nan else ''}")
    if labels.shape != (count,):
        raise ValueError(f"{what} must be one label an image, [{count}], got {list(labels.shape)}")
    if labels.min() < 0:
        raise ValueError(f"{what} must be 0 … classes − 1, got {labels.min()}")
    return labels.astype(np.int64)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha.update(f"{name}{array.dtype}{list(array.shape)}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()[:16]
