"""The only training loop, dense and retraining alike, and evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable import models
from trainable.config import DenseRun
from trainable.data import Batches, Data, Split
from trainable.numerics import Numerics, compile_forward
from trainable.pruning import Masks
from trainable.randomness import generator
from trainable.schedules import Schedule

EVALUATION_BATCH = 500
"""Images. A constant, since it can change a loss's last bits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A model on its device, with what updates it."""

    model: nn.Module
    forward: nn.Module
    """The model, or its compiled form with the same parameters."""
    optimizer: torch.optim.SGD
    autocast: torch.dtype | None
    """bfloat16 under precision bf16, else None."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    accuracy: float
    """Fraction of images classified right."""
    loss: float
    """Mean cross-entropy, nats."""
    correct: Tensor
    """Per image, boolean [N], on the CPU."""


def build_network(run: DenseRun, data: Data, numerics: Numerics, *stream: int | str) -> Network:
    """A network as initialised from stream (seed, *stream), momentum zero, on the data's device."""
    model = models.build(
        run.architecture,
        classes=data.classes,
        channels=data.image_shape[0],
        generator=generator(run.seed, *stream),
        batch_norm_momentum=run.batch_norm_momentum,
        batch_norm_eps=run.batch_norm_eps,
        init=run.init,
        shortcut_norm=run.shortcut_norm,
    ).to(data.device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=run.learning_rate,
        momentum=run.momentum,
        nesterov=run.nesterov,
        weight_decay=run.weight_decay,
        foreach=True,
    )
    for parameter in model.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    forward = compile_forward(model, numerics.compile)
    autocast = torch.bfloat16 if run.precision == "bf16" else None
    return Network(model=model, forward=forward, optimizer=optimizer, autocast=autocast)


def train(
    network: Network, batches: Batches, schedule: Schedule, masks: Masks, *, start: int, stop: int
) -> Iterator[Tensor]:
    """Make the updates of steps start … stop − 1; yields each one's batch loss, before the update, on the device.

    Gradients of pruned weights are set to 0. With weights and momentum that are 0 there, weight decay and momentum
    keep them exactly 0, and one multiplication a step is all that masking costs.
    """
    model, optimizer = network.model, network.optimizer
    masked = [(parameter, masks[name]) for name, parameter in model.named_parameters() if name in masks]
    masked = [(parameter, mask) for parameter, mask in masked if not mask.all()]
    kept = [torch.empty_like(parameter).copy_(mask) for parameter, mask in masked]
    for step in range(start, stop):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        images, labels = batches(step)
        loss = F.cross_entropy(_logits(network, images), labels)
        loss.backward()
        if masked:
            torch._foreach_mul_([parameter.grad for parameter, _ in masked], kept)  # type: ignore[misc, arg-type]
        optimizer.step()
        optimizer.zero_grad()
        yield loss.detach()


def evaluate(network: Network, data: Data, split: Split) -> Evaluation:
    """Accuracy and loss with batch norm's running statistics; leaves the network as it was."""
    network.model.eval()
    losses, correct = [], []
    with torch.no_grad():
        for images, labels in zip(
            split.images.split(EVALUATION_BATCH), split.labels.split(EVALUATION_BATCH), strict=True
        ):
            logits = _logits(network, data.standardise(images))
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
            correct.append(logits.argmax(1) == labels)
    network.model.train()
    right = torch.cat(correct).cpu()
    return Evaluation(
        accuracy=int(right.sum()) / len(right), loss=float(torch.cat(losses).cpu().double().mean()), correct=right
    )


def _logits(network: Network, images: Tensor) -> Tensor:
    with torch.autocast(images.device.type, network.autocast, enabled=network.autocast is not None):
        return network.forward(images).float()
