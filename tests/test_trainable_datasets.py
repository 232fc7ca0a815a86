"""Data sets: what is refused and with which words, digests, where they are looked for, the validation split."""

import os
import urllib.request

import numpy as np
import pytest

from trainable import datasets

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "train_images": RANDOM.integers(0, 256, (40, 9, 8, 3), dtype=np.uint8),
    "train_labels": np.arange(40) % 4,
    "test_images": RANDOM.integers(0, 256, (8, 9, 8, 3), dtype=np.uint8),
    "test_labels": np.arange(8) % 4,
}


def npz(folder, name="mine", save=np.savez, **changes):
    path = folder / f"{name}.npz"
    save(path, **{**ARRAYS, **changes})
    return path


def test_a_good_file(tmp_path):
    dataset = datasets.read(npz(tmp_path))
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(getattr(dataset, name), array)
    assert dataset.classes == 4
    assert dataset.train_labels.dtype == np.int64
    assert len(dataset.digest) == 16


def test_images_without_channels_have_one(tmp_path):
    path = npz(tmp_path, train_images=ARRAYS["train_images"][..., 0], test_images=ARRAYS["test_images"][..., :1])
    dataset = datasets.read(path)
    assert dataset.train_images.shape == (40, 9, 8, 1)
    assert dataset.test_images.shape == (8, 9, 8, 1)


def floats(name, value=None):
    array = ARRAYS[name].astype(float)
    if value is not None:
        array.flat[3] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (floats("train_images"), r"train_images must be uint8, got float64$"),
        (floats("test_images", np.nan), r"test_images must be uint8, got float64 with NaN"),
        ({"train_images": ARRAYS["train_images"].astype(np.int16)}, r"train_images must be uint8, got int16"),
        ({"train_images": ARRAYS["train_images"][:, 0, 0]}, r"train_images must be \[N, H, W, C\].*got \[40, 3\]"),
        ({"train_images": ARRAYS["train_images"].transpose(0, 3, 1, 2)}, r"with C 1 or 3 .*got \[40, 3, 9, 8\]"),
        ({"train_images": ARRAYS["train_images"][:, :7]}, r"8 pixels or more a side, got \[40, 7, 8, 3\]"),
        ({"test_images": ARRAYS["test_images"][:0]}, r"test_images must be .*got \[0, 9, 8, 3\]"),
        ({"test_images": ARRAYS["test_images"][:, :8]}, r"must have one shape, got \[40, 9, 8, 3\] and \[8, 8, 8, 3\]"),
        (floats("train_labels"), r"train_labels must be integers, got float64$"),
        (floats("test_labels", np.nan), r"test_labels must be integers, got float64 with NaN"),
        ({"train_labels": ARRAYS["train_labels"][:-1]}, r"train_labels must be one label an image, \[40\], got \[39\]"),
        (
            {"test_labels": ARRAYS["test_labels"][:, None]},
            r"test_labels must be one label an image, \[8\], got \[8, 1\]",
        ),
        ({"train_labels": ARRAYS["train_labels"] - 1}, r"train_labels must be 0 … classes − 1, got -1"),
        ({"train_labels": ARRAYS["train_labels"] + 1}, r"train_labels must be 0 … .*each present.*got \[1, 2, 3, 4\]"),
        ({"train_labels": ARRAYS["train_labels"] * 2}, r"each present.*got \[0, 2, 4, 6\]"),
        ({"train_labels": ARRAYS["train_labels"] * 0}, r"2 or more, got \[0\]"),
        ({"test_labels": ARRAYS["test_labels"] + 1}, r"test_labels must be 0 … 3 as in training, got 4"),
        ({"test_labels": ARRAYS["test_labels"] - 1}, r"test_labels must be 0 … classes − 1, got -1"),
    ],
)
def test_arrays_against_a_rule(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"mine\.npz: .*{message}"):
        datasets.read(npz(tmp_path, **changes))


def test_missing_arrays(tmp_path):
    np.savez(tmp_path / "x.npz", train_images=ARRAYS["train_images"], test_labels=ARRAYS["test_labels"])
    with pytest.raises(ValueError, match=r"x\.npz lacks train_labels, test_images: it must hold train_images uint8 \["):
        datasets.read(tmp_path / "x.npz")


UNREADABLE = r"mine\.npz is not a readable npz file of plain arrays .*: it must hold train_images"


def test_a_pickled_array_is_not_unpickled(tmp_path):
    path = npz(tmp_path, train_labels=ARRAYS["train_labels"].astype(object))
    with pytest.raises(ValueError, match=UNREADABLE):
        datasets.read(path)


def damage(path, kind):
    content = bytearray(path.read_bytes())
    if kind == "empty":
        content = b""
    elif kind == "text":
        content = b"train_images,train_labels\n"
    elif kind == "truncated":
        content = content[: len(content) // 2]
    elif kind == "flipped byte":  # in compressed pixels: zlib's own error, or the archive's checksum's
        content[len(content) // 4] ^= 0xFF
    elif kind == "compression":  # an unknown method in the local and the central header of train_images
        for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            content[content.index(mark) + offset] = 77
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "flipped byte", "compression"])
def test_a_damaged_file(tmp_path, kind):
    path = npz(tmp_path, save=np.savez_compressed)
    damage(path, kind)
    with pytest.raises(ValueError, match=UNREADABLE):
        datasets.read(path)


def test_no_damage_ever_gives_another_data_set(tmp_path):
    """Each byte in turn is another: the content is the same (a date in the archive), or the file is refused."""
    changes = {name: array * 0 for name, array in ARRAYS.items() if "images" in name}  # short, and zlib has work to do
    path = npz(tmp_path, save=np.savez_compressed, **changes)
    content, digest = path.read_bytes(), datasets.read(path).digest
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        try:
            assert datasets.read(path).digest == digest
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_a_single_array_is_no_archive(tmp_path):
    with (tmp_path / "mine.npz").open("wb") as file:
        np.save(file, ARRAYS["train_images"])
    with pytest.raises(ValueError, match=UNREADABLE):
        datasets.read(tmp_path / "mine.npz")


def test_a_folder_and_a_missing_file(tmp_path):
    (tmp_path / "mine.npz").mkdir()
    with pytest.raises(ValueError, match=UNREADABLE):
        datasets.read(tmp_path / "mine.npz")
    with pytest.raises(ValueError, match=r"absent\.npz is not a readable npz file .*No such file"):
        datasets.read(tmp_path / "absent.npz")


# Digests and names


def test_the_digest_is_of_the_content_not_of_the_file(tmp_path):
    plain, packed = npz(tmp_path, "plain"), npz(tmp_path, "packed", save=np.savez_compressed)
    assert plain.read_bytes() != packed.read_bytes()
    narrow = npz(tmp_path, "narrow", train_labels=ARRAYS["train_labels"].astype(np.uint8))
    assert datasets.read(plain).digest == datasets.read(packed).digest == datasets.read(narrow).digest


@pytest.mark.parametrize("name", ARRAYS)
def test_the_digest_changes_with_every_array(tmp_path, name):
    array = ARRAYS[name].copy()
    array[[0, 1]] = array[[1, 0]]
    assert datasets.read(npz(tmp_path, **{name: array})).digest != datasets.read(npz(tmp_path, "same")).digest


def test_the_digits_never_change():
    """Pinned: scikit-learn's file and split are part of what every result on digits means."""
    assert datasets.load("digits", "nowhere", "nowhere").digest == "38405805f515424d"


def test_register_puts_a_copy_once(tmp_path):
    storage = tmp_path / "storage" / "datasets"
    name = datasets.register(npz(tmp_path, "my data"), storage)
    digest = datasets.read(tmp_path / "my data.npz").digest
    assert name == f"my-data@{digest}"
    assert os.listdir(storage) == [f"my-data@{digest}.npz"]
    before = (storage / f"{name}.npz").stat()
    assert datasets.register(tmp_path / "my data.npz", storage) == name
    assert (storage / f"{name}.npz").stat() == before
    assert datasets.read(storage / f"{name}.npz").digest == digest


def test_register_writes_nothing_for_a_bad_file(tmp_path):
    with pytest.raises(ValueError, match="must be uint8"):
        datasets.register(npz(tmp_path, **floats("train_images")), tmp_path / "storage")
    assert not (tmp_path / "storage").exists()


# Where they are looked for


def test_the_data_root_comes_before_the_storage(tmp_path):
    root, storage = tmp_path / "root", tmp_path / "storage"
    root.mkdir()
    name = datasets.register(npz(root), storage)
    assert datasets.load(name, root, storage).digest == name.split("@")[1]
    (storage / f"{name}.npz").write_bytes(b"damaged, but not needed")
    assert datasets.load(name, root, storage).digest == name.split("@")[1]


def test_the_storage_serves_when_the_data_root_holds_another_version(tmp_path):
    root, storage = tmp_path / "root", tmp_path / "storage"
    root.mkdir()
    name = datasets.register(npz(root), storage)
    npz(root, train_labels=ARRAYS["train_labels"][::-1])
    assert datasets.load(name, root, storage).digest == name.split("@")[1]


def test_no_version_has_the_digest(tmp_path):
    npz(tmp_path)
    with pytest.raises(ValueError, match=r"data set 'mine@0123456789abcdef' .*is not at .*mine\.npz nor at .*mine@01"):
        datasets.load("mine@0123456789abcdef", tmp_path, tmp_path / "storage")


def test_another_cifar10(tmp_path):
    npz(tmp_path, "cifar10")
    rule = r"cifar10\.npz is not cifar10: cifar10 has 50,?000 training images \[32, 32, 3\] in 10 classes"
    with pytest.raises(ValueError, match=rf"{rule}, got \[40, 9, 8, 3\] in 4; give it a name of its own"):
        datasets.load("cifar10", tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_data_set_that_cannot_be_had(tmp_path, monkeypatch, name):
    """Through a proxy that is not there, so that the download fails with a network too."""
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it would remember an earlier environment
    with pytest.raises(
        ValueError, match=rf"data set '{name}' is not at .*{name}\.npz nor at .*its download failed"
    ) as caught:
        datasets.load(name, tmp_path / "root", tmp_path / "storage")
    assert f"--data-root with a folder that holds {name}.npz (train_images uint8" in str(caught.value)
    assert "network from which torchvision can download" in str(caught.value)
    assert os.listdir(tmp_path) == []


# digits


def test_digits():
    dataset = datasets.load("digits", "nowhere", "nowhere")
    assert dataset.train_images.shape == (1437, 8, 8, 1)
    assert dataset.test_images.shape == (360, 8, 8, 1)
    assert dataset.train_images.max() == 16
    # 1,797 images, 174 to 183 a class: a fifth of each is 35 to 37
    assert np.bincount(dataset.test_labels).tolist() == pytest.approx([36] * 10, abs=1)
    assert np.bincount(np.concatenate([dataset.train_labels, dataset.test_labels])).tolist() == [
        178,
        182,
        177,
        183,
        181,
        182,
        181,
        179,
        174,
        180,
    ]


# The validation split


def test_the_split_is_stratified_fixed_and_disjoint():
    labels = np.repeat(np.arange(4), [400, 300, 200, 100])[RANDOM.permutation(1000)]
    train, held_out = datasets.validation_split(labels, 100)
    assert np.bincount(labels[held_out]).tolist() == [40, 30, 20, 10]
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(1000))
    for again, first in zip(datasets.validation_split(labels, 100), (train, held_out), strict=True):
        np.testing.assert_array_equal(again, first)
    assert not np.array_equal(held_out, np.arange(100))


def test_nothing_held_out():
    train, held_out = datasets.validation_split(np.array([0, 1, 1]), 0)
    assert (train.tolist(), held_out.tolist()) == ([0, 1, 2], [])


@pytest.mark.parametrize(
    ("val_examples", "message"),
    [
        (40, r"val_examples must be fewer than the 40 training images, got 40"),
        (3, r"val_examples = 3 cannot be held out class by class"),
        (38, r"val_examples = 38 cannot be held out class by class"),
    ],
)
def test_a_split_that_cannot_be(val_examples, message):
    with pytest.raises(ValueError, match=message):
        datasets.validation_split(ARRAYS["train_labels"], val_examples)
