"""Event files, read back by TensorBoard's own readers."""

import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import metadata

from trainable.events import Events

PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000020000000308060000")
"""The beginning of a picture of 2 × 3."""


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0, "images": 0}).Reload()


def events(folder):
    return [event for path in sorted(folder.iterdir()) for event in EventFileLoader(str(path)).Load()]


def scalars(folder, tag):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def test_scalars(tmp_path):
    made = Events(tmp_path / "a" / "b")
    made.scalars({"accuracy/test": 0.5, "loss/train": 2.25, "loss/validation": None}, 40)
    made.scalars({"accuracy/test": 0.75}, 80)
    made.close()
    assert sorted(read(tmp_path / "a" / "b").Tags()["scalars"]) == ["accuracy/test", "loss/train"]
    assert scalars(tmp_path / "a" / "b", "accuracy/test") == [(40, 0.5), (80, 0.75)]
    assert scalars(tmp_path / "a" / "b", "loss/train") == [(40, 2.25)]


def test_opening_a_folder_again_adds_to_it(tmp_path):
    for step in (1, 2):
        made = Events(tmp_path)
        made.scalars({"x": float(step)}, step)
        made.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert sorted(scalars(tmp_path, "x")) == [(1, 1.0), (2, 2.0)]


def test_a_picture(tmp_path):
    made = Events(tmp_path)
    made.image("study/picture", PNG, 7)
    made.close()
    (found,) = [value for event in events(tmp_path) for value in event.summary.value]
    assert found.tag == "study/picture"
    assert [event.step for event in events(tmp_path) if event.summary.value] == [7]
    assert PNG in (found.image.encoded_image_string, *found.tensor.string_val)


def test_hparams(tmp_path):
    made = Events(tmp_path)
    made.hparams("digits/dense", {"strategy": "dense", "seed": 3, "sparsity_target": 0.5, "weights_from": ""})
    made.close()
    (found,) = [
        metadata.parse_session_start_info_plugin_data(value.metadata.plugin_data.content)
        for event in events(tmp_path)
        for value in event.summary.value
        if value.tag == metadata.SESSION_START_INFO_TAG
    ]
    assert {name: value.WhichOneof("kind") for name, value in found.hparams.items()} == {
        "strategy": "string_value",
        "seed": "number_value",
        "sparsity_target": "number_value",
        "weights_from": "string_value",
    }
    assert found.hparams["seed"].number_value == 3
    assert found.hparams["strategy"].string_value == "dense"


def test_values_are_there_without_closing(tmp_path):
    """Live: whoever looks while a cell trains sees values after the flush interval, five seconds."""
    made = Events(tmp_path)
    made.scalars({"x": 1.0}, 1)
    until = time.monotonic() + 9
    while time.monotonic() < until and not any(event.summary.value for event in events(tmp_path)):
        time.sleep(0.2)
        made.scalars({"y": 1.0}, 1)
    assert scalars(tmp_path, "x") == [(1, 1.0)]
    made.close()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Events(tmp_path / "file" / "below")
