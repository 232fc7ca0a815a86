"""Batches: a pure function of the step, in passes, augmented as NumPy would."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from trainable import data, datasets, recipes

CPU = torch.device("cpu")


def made(count=50, shape=(12, 10, 3), name="mine@0123456789abcdef", val_examples=0):
    """A random data set whose images are not square, prepared; and its training images."""
    random = np.random.default_rng(1)
    arrays = {
        "train_images": random.integers(0, 256, (count, *shape), dtype=np.uint8),
        "train_labels": np.arange(count) % 5,
        "test_images": random.integers(0, 256, (9, *shape), dtype=np.uint8),
        "test_labels": np.arange(9) % 5,
    }
    dataset = datasets.check(arrays, "made")
    return data.prepare(dataset, name, val_examples, CPU), arrays["train_images"]


def stream(text):
    """The generator that a path of seed, iteration, purpose, number stands for."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))


def order(count, seed, iteration, passes):
    return np.concatenate(
        [torch.randperm(count, generator=stream(f"{seed}/{iteration}/order/{n}")).numpy() for n in range(passes)]
    )


# Order


@pytest.mark.parametrize("batch_size", [2, 16, 50, 64, 120])  # divides 50 or not; smaller, larger, more than two passes
def test_batches_are_the_stream_cut_into_pieces(batch_size):
    """Labels number the images here, so that they tell which were taken."""
    prepared, _ = made()
    batches = data.training_batches(numbered(prepared), 3, 1, batch_size)
    stream_of_images = order(50, 3, 1, 50)
    for step in range(20):
        images, labels = batches(step)
        assert len(images) == len(labels) == batch_size
        np.testing.assert_array_equal(labels.numpy(), stream_of_images[batch_size * step : batch_size * (step + 1)])


def numbered(prepared):
    fields = {**vars(prepared), "labels": torch.arange(len(prepared.labels))}
    return data.Data(**fields)


def test_every_pass_has_every_image_once():
    prepared, _ = made()
    batches = data.training_batches(numbered(prepared), 0, 0, 7)
    taken = np.concatenate([batches(step)[1].numpy() for step in range(50)]).reshape(7, 50)
    for row in taken:
        np.testing.assert_array_equal(np.sort(row), np.arange(50))
    assert len({tuple(row) for row in taken}) == 7


def test_a_batch_depends_on_nothing_but_its_step(digits):
    forwards = data.training_batches(digits, 5, 1, 64)
    expected = {step: forwards(step) for step in range(30)}
    again = data.training_batches(digits, 5, 1, 64)
    torch.manual_seed(99)
    for step in (29, 0, 22, 23, 22, 7):  # 22 straddles the first two passes of 1,437 images
        images, labels = again(step)
        assert torch.equal(images, expected[step][0])
        assert torch.equal(labels, expected[step][1])


def test_another_seed_or_iteration_is_another_stream(digits):
    first = data.training_batches(digits, 5, 1, 64)(0)[1]
    assert torch.equal(data.training_batches(digits, 5, 1, 64)(0)[1], first)
    assert not torch.equal(data.training_batches(digits, 5, 2, 64)(0)[1], first)
    assert not torch.equal(data.training_batches(digits, 6, 1, 64)(0)[1], first)


# Augmentation


def expected_batch(images, chosen, mean, std, seed, step, *, shift, mode, flip):
    """One image after the other, by NumPy: pad, crop, mirror, standardise."""
    generator = stream(f"{seed}/1/augmentation/{step}")
    corners = torch.randint(2 * shift + 1, (2, len(chosen), 1), generator=generator)[..., 0].numpy()
    mirrored = (
        (torch.rand((len(chosen), 1), generator=generator)[:, 0] < 0.5).numpy() if flip else [False] * len(chosen)
    )
    height, width = images.shape[1:3]
    rows = []
    for index, top, left, mirror in zip(chosen, *corners, mirrored, strict=True):
        padded = np.pad(images[index], ((shift, shift), (shift, shift), (0, 0)), mode=mode)
        crop = padded[top : top + height, left : left + width]
        rows.append(crop[:, ::-1] if mirror else crop)
    return ((np.stack(rows) - mean) / std).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_cifar_is_reflected_cropped_and_mirrored(channels):
    prepared, images = made(shape=(12, 10, channels))
    batches = data.training_batches(prepared, 8, 1, 32)
    mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
    for step in range(4):
        chosen = order(50, 8, 1, 4)[32 * step : 32 * (step + 1)]
        expected = expected_batch(images, chosen, mean, std, 8, step, shift=4, mode="reflect", flip=True)
        np.testing.assert_allclose(batches(step)[0].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_digits_are_shifted_by_at_most_one_pixel_and_filled_with_zeros(digits):
    images = datasets.load("digits", "nowhere", "nowhere").train_images
    batches = data.training_batches(digits, 2, 1, 64)
    mean, std = images.mean((0, 1, 2)), images.std((0, 1, 2))
    chosen = order(1437, 2, 1, 1)[:64]
    expected = expected_batch(images, chosen, mean, std, 2, 0, shift=1, mode="constant", flip=False)
    np.testing.assert_allclose(batches(0)[0].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_every_shift_and_both_mirrors_occur():
    """A picture with one bright pixel in the middle shows where it went."""
    prepared, _ = made(shape=(17, 17, 1))
    picture = np.zeros((50, 17, 17, 1), np.uint8)
    picture[:, 8, 8] = 255
    padded = torch.from_numpy(np.pad(picture, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect"))
    prepared = data.Data(**{**vars(prepared), "padded": padded})
    batches = data.training_batches(prepared, 0, 0, 1000)
    images, _ = batches(0)
    places = np.unravel_index(images.reshape(1000, -1).argmax(1).numpy(), (17, 17))
    assert {tuple(place) for place in zip(*map(list, places), strict=True)} == {
        (row, column) for row in range(4, 13) for column in range(4, 13)
    }


def test_images_of_a_batch_are_channels_last(digits):
    images, labels = data.training_batches(digits, 0, 0, 16)(0)
    assert (images.shape, images.dtype, labels.dtype) == ((16, 1, 8, 8), torch.float32, torch.int64)
    prepared, _ = made()
    assert data.training_batches(prepared, 0, 0, 16)(0)[0].is_contiguous(memory_format=torch.channels_last)


# Standardisation and splits


def test_standardisation_is_of_the_images_trained_on():
    prepared, images = made(val_examples=10)
    dataset_labels = np.arange(50) % 5
    train, held_out = datasets.validation_split(dataset_labels, 10)
    np.testing.assert_allclose(prepared.mean.numpy(), images[train].mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(prepared.std.numpy(), images[train].std((0, 1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(prepared.val.images.numpy(), images[held_out])
    np.testing.assert_array_equal(prepared.val.labels.numpy(), dataset_labels[held_out])
    assert len(prepared.labels) == 40
    whole = prepared.standardise(torch.from_numpy(images[train]))
    np.testing.assert_allclose(whole.mean((0, 2, 3)).numpy(), 0, atol=1e-5)
    np.testing.assert_allclose(whole.std((0, 2, 3), correction=0).numpy(), 1, rtol=1e-5)


def test_a_constant_channel_is_not_divided_by_zero():
    arrays = {
        "train_images": np.full((10, 8, 8, 1), 7, np.uint8),
        "train_labels": np.arange(10) % 2,
        "test_images": np.full((2, 8, 8, 1), 8, np.uint8),
        "test_labels": np.arange(2),
    }
    prepared = data.prepare(datasets.check(arrays, "flat"), "flat@0123456789abcdef", 0, CPU)
    assert prepared.standardise(prepared.test.images).unique().tolist() == [1.0]


def test_shape_and_classes(digits):
    prepared, _ = made()
    assert (prepared.image_shape, prepared.classes, prepared.val) == ((3, 12, 10), 5, None)
    assert (digits.image_shape, digits.classes, len(digits.test.labels)) == ((1, 8, 8), 10, 360)


def test_too_many_validation_images_of_a_users_file():
    with pytest.raises(ValueError, match="val_examples must be fewer than the 50 training images, got 50"):
        made(val_examples=50)


# As a run asks for them


def small_run(**fields):
    return replace(recipes.digits(0), **fields)


def digits_for(**fields):
    run = small_run(**fields)
    return run, data.prepare_for(run, datasets.load("digits", "nowhere", "nowhere"), CPU)


@pytest.mark.parametrize(("padding", "mode"), [("reflect", "reflect"), ("zeros", "constant"), (None, "constant")])
def test_borders(padding, mode):
    _, prepared = digits_for(padding=padding)
    images = datasets.load("digits", "nowhere", "nowhere").train_images
    expected = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)
    np.testing.assert_array_equal(prepared.padded.numpy(), expected)


def test_each_image_standardised_by_itself():
    """As TensorFlow's per_image_standardization: (x − mean) / max(deviation, 1 / √pixels)."""
    _, prepared = digits_for(standardisation="image")
    images = prepared.test.images[:5].clone()
    images[4] = 7  # one colour: deviation 0
    found = prepared.standardise(images).permute(0, 2, 3, 1).numpy()
    for image, standardised in zip(images.numpy().astype(np.float64), found, strict=True):
        expected = (image - image.mean()) / max(image.std(), 1 / np.sqrt(64))
        np.testing.assert_allclose(standardised, expected, atol=1e-5)


def test_validation_images_of_the_test():
    _, prepared = digits_for(val_examples=80, val_from="test")
    source = datasets.load("digits", "nowhere", "nowhere")
    np.testing.assert_array_equal(prepared.labels.numpy(), source.train_labels)
    assert (len(prepared.val.labels), len(prepared.test.labels), prepared.val_examples) == (80, 280, 80)
    both = np.concatenate([prepared.val.images.numpy(), prepared.test.images.numpy()]).reshape(360, -1)
    np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(source.test_images.reshape(360, -1), axis=0))
    assert np.bincount(prepared.val.labels.numpy()).tolist() == [8] * 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"val_examples": 10}, "val_examples is 10, but the data was prepared with 0"),
        ({"padding": "reflect"}, "padding is reflect, but the data was prepared with zeros"),
        ({"standardisation": "image"}, "standardisation is image, but the data was prepared with training-set"),
    ],
)
def test_data_made_for_another_run(fields, message):
    run, made = digits_for()
    made.require_made_for(run)
    made.require_made_for(replace(run, padding="zeros"))  # what the digits have anyway
    with pytest.raises(ValueError, match=message):
        made.require_made_for(replace(run, **fields))


def test_data_with_other_validation_images():
    _, made = digits_for(val_examples=10)
    with pytest.raises(ValueError, match="val_from is test, but the data was prepared with train"):
        made.require_made_for(small_run(val_examples=10, val_from="test"))
