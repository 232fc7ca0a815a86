"""State: weights, batch-norm statistics, momentum buffers and the step counter, together; snapshot, restore, bytes."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from trainable import pruning
from trainable.pruning import Masks


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """A network between two steps. Tensors lie on the CPU, contiguous."""

    step: int
    """Updates made in this cell."""
    weights: dict[str, Tensor]
    """Every parameter by name."""
    statistics: dict[str, Tensor]
    """Batch norm's buffers by name."""
    momentum: dict[str, Tensor]
    """SGD's buffers, by parameter name."""
    masks: Masks
    """Boolean, by name of the prunable weight: True = kept."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Beside the tensors, as JSON: numerics, the data set's digest, what an adaptive rate is made from; while in
    progress a tally of Records and sums."""

    @property
    def prunable(self) -> dict[str, Tensor]:
        """The weights that masks are for, in their order."""
        return {name: self.weights[name] for name in self.masks}

    def digest(self) -> str:
        """SHA-256 of the tensors and the step, hexadecimal."""
        sha = hashlib.sha256(str(self.step).encode())
        for name, tensor in sorted(_flat(self).items()):
            sha.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
            sha.update(tensor.numpy().tobytes())
        return sha.hexdigest()


def snapshot(model: nn.Module, optimizer: torch.optim.SGD, masks: Masks, step: int) -> State:
    """A copy of a network in training."""
    return State(
        step=step,
        weights={name: _copy(parameter) for name, parameter in model.named_parameters()},
        statistics={name: _copy(buffer) for name, buffer in model.named_buffers()},
        momentum={
            name: _copy(optimizer.state[parameter]["momentum_buffer"]) for name, parameter in model.named_parameters()
        },
        masks=masks,
    )


def restore(state: State, model: nn.Module, optimizer: torch.optim.SGD) -> None:
    """Put a State into a network and its optimizer, in place."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state.weights[name])
            buffer = torch.empty_like(parameter).copy_(state.momentum[name])
            optimizer.state[parameter]["momentum_buffer"] = buffer
        for name, buffer in model.named_buffers():
            buffer.copy_(state.statistics[name])


def zero_momentum(state: State) -> State:
    """The State with fresh momentum buffers."""
    return replace(state, momentum={name: torch.zeros_like(buffer) for name, buffer in state.momentum.items()})


def masked(state: State, masks: Masks) -> State:
    """The State under new masks: weights and momentum are 0 where they are False."""
    weights, momentum = pruning.apply(masks, state.weights), pruning.apply(masks, state.momentum)
    return replace(state, weights=weights, momentum=momentum, masks=masks)


def to_bytes(state: State) -> bytes:
    """A safetensors file: masks as bits, one metadata entry (several come out in random order), a checksum in it."""
    notes = {"step": state.step, "order": list(state.masks), "notes": state.notes}
    metadata = {"state": json.dumps(notes | {"checksum": _checksum(state)}, sort_keys=True, allow_nan=False)}
    return safetensors.torch.save(_flat(state), metadata=metadata)


def from_bytes(content: bytes) -> State:
    """The State in a safetensors file. Raises ValueError for a file that does not parse or whose checksum is off."""
    try:
        length = int.from_bytes(content[:8], "little")
        notes = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["state"])
        tensors = safetensors.torch.load(content)
        groups: dict[str, dict[str, Tensor]] = {"weights": {}, "statistics": {}, "momentum": {}, "masks": {}}
        for name, tensor in tensors.items():
            group, _, inner = name.partition("/")
            groups[group][inner] = tensor
        # In the model's order, which decides ties: the file has its own.
        groups["masks"] = {name: _unpack(groups["masks"][name], groups["weights"][name]) for name in notes["order"]}
        state = State(step=notes["step"], notes=notes["notes"], **groups)
        checksum = notes["checksum"]
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"it does not parse: {error!r}") from error
    if _checksum(state) != checksum:
        raise ValueError("its checksum is off")
    return state


def _checksum(state: State) -> str:
    """SHA-256 of all that a file holds, hexadecimal."""
    notes = json.dumps([state.digest(), list(state.masks), state.notes], sort_keys=True, allow_nan=False)
    return hashlib.sha256(notes.encode()).hexdigest()


def _flat(state: State) -> dict[str, Tensor]:
    groups = {"weights": state.weights, "statistics": state.statistics, "momentum": state.momentum}
    tensors = {f"{group}/{name}": tensor for group, members in groups.items() for name, tensor in members.items()}
    return tensors | {f"masks/{name}": _pack(mask) for name, mask in state.masks.items()}


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format).contiguous()


def _pack(mask: Tensor) -> Tensor:
    """Bits of a boolean tensor, eight to a byte, highest first, as numpy.packbits."""
    bits = torch.nn.functional.pad(mask.reshape(-1).to(torch.uint8), (0, -mask.numel() % 8)).reshape(-1, 8)
    return (bits << torch.arange(7, -1, -1, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def _unpack(packed: Tensor, like: Tensor) -> Tensor:
    bits = (packed[:, None] >> torch.arange(7, -1, -1, dtype=torch.uint8)) & 1
    return bits.reshape(-1)[: like.numel()].reshape(like.shape).bool()
