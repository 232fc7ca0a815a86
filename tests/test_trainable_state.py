"""States as bytes: there and back, always the same ones, and never a damaged one."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from trainable import pruning, state
from trainable.state import State
from trainable.training import build_network

SCRIPT = """
import hashlib, torch
from trainable import state
generator = torch.Generator().manual_seed(11)
def draw(*shape): return torch.randn(shape, generator=generator)
weights = {"conv.weight": draw(3, 5, 1, 1), "norm.weight": draw(5), "classifier.weight": draw(3, 3)}
found = state.State(
    step=7,
    weights=weights,
    statistics={"norm.running_mean": draw(5), "norm.num_batches_tracked": torch.tensor(7)},
    momentum={name: draw(*tensor.shape) for name, tensor in weights.items()},
    masks={"conv.weight": draw(3, 5, 1, 1) > 0, "classifier.weight": draw(3, 3) > 0},
    notes={"numerics": {"threads": 1}, "tally": {"loss_sum": 0.1, "records": []}, "data": "0123"},
)
"""
"""A small State whose masks of 15 and 9 bits fill no whole number of bytes; as text, for another process."""


@pytest.fixture
def made():
    names = {}
    exec(SCRIPT, names)
    return names["found"]


def tensors(found):
    groups = {name: getattr(found, name) for name in ("weights", "statistics", "momentum", "masks")}
    return {(group, name): tensor for group, members in groups.items() for name, tensor in members.items()}


def assert_same(one, other):
    assert (one.step, one.notes) == (other.step, other.notes)
    assert tensors(one).keys() == tensors(other).keys()
    for place, tensor in tensors(one).items():
        assert tensor.dtype == tensors(other)[place].dtype
        assert torch.equal(tensor, tensors(other)[place]), place


def parse(content):
    """(metadata, {name: (dtype, raw bytes)}) by the format: 8 bytes of length, a JSON header, the data."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    data = content[8 + length :]
    return metadata, {name: (entry["dtype"], data[slice(*entry["data_offsets"])]) for name, entry in header.items()}


def test_round_trip(made):
    assert_same(state.from_bytes(state.to_bytes(made)), made)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 4964])
def test_masks_are_bits(size):
    mask = torch.rand(size, generator=torch.Generator().manual_seed(size)) > 0.5
    weights = {"a": torch.ones(size)}
    found = State(step=0, weights=weights, statistics={}, momentum={}, masks={"a": mask})
    content = state.to_bytes(found)
    assert parse(content)[1]["masks/a"] == ("U8", np.packbits(mask.numpy()).tobytes())
    assert torch.equal(state.from_bytes(content).masks["a"], mask)


def test_exactly_one_metadata_entry_without_time_or_place(made):
    metadata, _ = parse(state.to_bytes(made))
    assert list(metadata) == ["state"]
    assert json.loads(metadata["state"])["notes"] == made.notes


def test_the_same_bytes_twice_and_in_another_process(made):
    content = state.to_bytes(made)
    assert state.to_bytes(made) == content
    reordered = replace(
        made,
        weights=dict(reversed(made.weights.items())),
    )
    assert state.to_bytes(reordered) == content
    script = SCRIPT + "print(hashlib.sha256(state.to_bytes(found)).hexdigest())"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    other = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == hashlib.sha256(content).hexdigest()


def test_the_digest_is_of_tensors_and_step_alone(made):
    assert replace(made, notes={}).digest() == made.digest()
    assert replace(made, step=8).digest() != made.digest()
    for group in ("weights", "statistics", "momentum"):
        members = dict(getattr(made, group))
        name = next(iter(members))
        members[name] = members[name] + 1
        assert replace(made, **{group: members}).digest() != made.digest()
    masks = {name: ~mask for name, mask in made.masks.items()}
    assert replace(made, masks=masks).digest() != made.digest()


# Damage


@pytest.mark.parametrize("length", [0, 4, 8, 100, -1])
def test_a_truncated_file(made, length):
    with pytest.raises(ValueError, match="it does not parse"):
        state.from_bytes(state.to_bytes(made)[:length])


def test_no_state_at_all():
    for content in (b"\xff" * 100, b"\x02\x00\x00\x00\x00\x00\x00\x00{}", b"\x02\x00\x00\x00\x00\x00\x00\x00[]"):
        with pytest.raises(ValueError, match="it does not parse"):
            state.from_bytes(content)


def test_a_flipped_byte_in_the_tensors(made):
    content = state.to_bytes(made)
    first = 8 + int.from_bytes(content[:8], "little")
    for position in range(first, len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0x80  # the lowest bits may only fill a mask's last byte
        with pytest.raises(ValueError, match="its checksum is off"):
            state.from_bytes(bytes(damaged))


def test_a_flipped_byte_in_the_header_is_never_another_state(made):
    """Names, shapes, the step, and the notes too: a resume State's hold the Records of a result."""
    content = state.to_bytes(made)
    wrong = []
    for position in range(8 + int.from_bytes(content[:8], "little")):
        damaged = bytearray(content)
        damaged[position] ^= 0x01
        try:
            assert_same(state.from_bytes(bytes(damaged)), made)
        except ValueError:
            continue
        except Exception as error:
            wrong.append((position, repr(error)))
    assert wrong == []


# From and into a network


def test_snapshot_and_restore(tiny, digits, numerics):
    network = build_network(tiny, digits, numerics, 0, "init")
    masks = pruning.keep_all(dict(network.model.named_parameters()))
    for batch in range(2):
        loss = network.model(digits.standardise(digits.test.images[batch * 20 :][:20])).square().sum()
        loss.backward()
        network.optimizer.step()
        network.optimizer.zero_grad()
    before = state.snapshot(network.model, network.optimizer, masks, 2)
    assert before.weights.keys() == before.momentum.keys() == dict(network.model.named_parameters()).keys()
    assert before.statistics.keys() == dict(network.model.named_buffers()).keys()
    assert all(tensor.is_contiguous() for tensor in tensors(before).values())
    assert all(buffer.any() for buffer in before.momentum.values())

    other = build_network(tiny, digits, numerics, 5, "init")
    state.restore(before, other.model, other.optimizer)
    assert_same(state.snapshot(other.model, other.optimizer, masks, 2), before)
    assert other.model.blocks[1].first.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_snapshot_is_a_copy(tiny, digits, numerics):
    network = build_network(tiny, digits, numerics, 0, "init")
    taken = state.snapshot(network.model, network.optimizer, {}, 0)
    digest = taken.digest()
    with torch.no_grad():
        for tensor in [*network.model.parameters(), *network.model.buffers()]:
            tensor.add_(1)
    assert taken.digest() == digest


def test_zero_momentum(made):
    fresh = state.zero_momentum(made)
    assert all((buffer == 0).all() for buffer in fresh.momentum.values())
    assert made.momentum["norm.weight"].any()
    assert_same(replace(fresh, momentum=made.momentum), made)
