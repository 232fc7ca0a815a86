"""Which look at a study this is."""

import json

import pandas as pd
import pytest

from analysis import looks

NETWORK = ("digits", "resnet8-8")


@pytest.fixture
def storage(tmp_path):
    (tmp_path / "studies" / "quick").mkdir(parents=True)
    return tmp_path


def frame(*seeds, architecture="resnet8-8"):
    return pd.DataFrame({"dataset": "digits", "architecture": architecture, "seed": pd.array(seeds, dtype="Int64")})


def noted(storage):
    return json.loads((storage / "studies" / "quick" / "looks.json").read_text())


def test_every_extension_is_a_look(storage):
    assert looks.take(storage, "quick", frame(0, 0, 1, 2)) == {NETWORK: 0}
    assert looks.take(str(storage), "quick", frame(2, 1, 0)) == {NETWORK: 0}
    assert noted(storage) == {"digits/resnet8-8": [[0, 1, 2]]}
    assert looks.take(storage, "quick", frame(0, 1, 2, 3, 4)) == {NETWORK: 1}
    assert looks.take(storage, "quick", frame(7)) == {NETWORK: 2}
    assert noted(storage) == {"digits/resnet8-8": [[0, 1, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 7]]}
    assert sorted(path.name for path in (storage / "studies" / "quick").iterdir()) == ["looks.json"]


def test_fewer_seeds_are_no_look_and_nothing_is_written(storage):
    looks.take(storage, "quick", frame(0, 1, 2))
    path = storage / "studies" / "quick" / "looks.json"
    before = path.stat().st_ino
    assert looks.take(storage, "quick", frame(1)) == {NETWORK: 0}
    assert path.stat().st_ino == before


def test_networks_are_counted_by_themselves(storage):
    looks.take(storage, "quick", frame(0))
    both = pd.concat([frame(0, 1), frame(0, architecture="resnet20")])
    assert looks.take(storage, "quick", both) == {NETWORK: 1, ("digits", "resnet20"): 0}
    assert noted(storage) == {"digits/resnet8-8": [[0], [0, 1]], "digits/resnet20": [[0]]}


def test_no_seed_is_no_look(storage):
    assert looks.take(storage, "quick", frame(None)) == {NETWORK: 0}
    assert not (storage / "studies" / "quick" / "looks.json").exists()


@pytest.mark.parametrize("content", ["{", "[1]", '{"digits/resnet8-8": [0]}'])
def test_damaged(storage, content):
    path = storage / "studies" / "quick" / "looks.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"looks\.json is damaged \(.*\): restore it; deleting it forgets"):
        looks.take(storage, "quick", frame(0))
    assert path.read_text() == content
