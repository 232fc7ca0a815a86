"""The training loop and evaluation, against plain ones."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainable import pruning
from trainable.data import Split, training_batches
from trainable.schedules import schedule
from trainable.training import build_network, evaluate, train

STEPS = range(12, 18)
"""Around the drop at 15, and few: rounding differences grow from step to step."""


def plain_training(run, digits, model, masks):
    """The loop that everyone writes: the update rule by hand, masks multiplied onto the weights after it."""
    batches = training_batches(digits, run.seed, 0, run.batch_size)
    buffers = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    losses = []
    for step in STEPS:
        images, labels = batches(step)
        loss = -model(images).log_softmax(1)[torch.arange(len(labels)), labels].mean()
        model.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        rate = 0.1 if step < 15 else 0.01
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                gradient = parameter.grad + run.weight_decay * parameter
                buffers[name] = run.momentum * buffers[name] + gradient
                parameter -= rate * (gradient + run.momentum * buffers[name] if run.nesterov else buffers[name])
                if name in masks:
                    parameter *= masks[name]
    return losses


@pytest.mark.parametrize(
    "changes",
    [{}, {"nesterov": False}, {"nesterov": False, "momentum": 0.0}, {"weight_decay": 0.0}, {"weight_decay": 0.05}],
)
@pytest.mark.parametrize("density", [1, 0.3])
def test_training_is_plain_sgd(tiny, digits, numerics, changes, density):
    run = replace(tiny, **changes)
    ours, plain = (build_network(run, digits, numerics, 0, "init") for _ in range(2))
    weights = {name: tensor.detach() for name, tensor in ours.model.named_parameters() if tensor.dim() > 1}
    masks = pruning.unstructured(weights, pruning.keep_all(weights), density)
    with torch.no_grad():
        for network in (ours, plain):
            for name, parameter in network.model.named_parameters():
                parameter *= masks.get(name, 1)
    batches = training_batches(digits, run.seed, 0, run.batch_size)
    losses = [float(loss) for loss in train(ours, batches, schedule(run), masks, start=STEPS.start, stop=STEPS.stop)]
    assert losses == pytest.approx(plain_training(run, digits, plain.model, masks), rel=1e-4)
    for parameter, other in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-3, atol=1e-4)


def test_the_loss_is_that_before_the_update(tiny, digits, numerics):
    network = build_network(tiny, digits, numerics, 0, "init")
    images, labels = training_batches(digits, 3, 0, 16)(0)
    model = build_network(tiny, digits, numerics, 0, "init").model
    expected = float(F.cross_entropy(model(images), labels).detach())
    batches = training_batches(digits, 3, 0, 16)
    assert float(next(train(network, batches, schedule(tiny), {}, start=0, stop=1))) == expected


def test_starting_later_takes_later_batches_at_later_rates(tiny, digits, numerics):
    asked = []

    def batches(step):
        asked.append(step)
        return training_batches(digits, 3, 0, 16)(step)

    network = build_network(tiny, digits, numerics, 0, "init")
    rates = []
    for _ in train(network, batches, schedule(tiny), {}, start=14, stop=17):
        rates.append(network.optimizer.param_groups[0]["lr"])
    assert asked == [14, 15, 16]
    assert rates == [0.1, 0.01, 0.01]


# Evaluation


def test_evaluation_against_a_plain_one(tiny, digits, numerics):
    """1,200 images: three pieces of which the last is smaller. In float64, one image after the other."""
    network = build_network(tiny, digits, numerics, 0, "init")
    for _ in train(network, training_batches(digits, 3, 0, 16), schedule(tiny), {}, start=0, stop=20):
        pass
    split = Split(
        images=digits.test.images.repeat(4, 1, 1, 1)[:1200],
        labels=torch.cat([digits.test.labels, digits.test.labels.roll(1)]).repeat(2)[:1200],
    )
    found = evaluate(network, digits, split)

    model = build_network(tiny, digits, numerics, 0, "init").model
    model.load_state_dict(network.model.state_dict())
    model = model.double().eval()
    images = (split.images.numpy() - digits.mean.numpy().astype(float)) / digits.std.numpy().astype(float)
    with torch.no_grad():
        logits = np.stack([model(torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy() for image in images])
    labels = split.labels.numpy()
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(1200), labels]
    right = logits.argmax(1) == labels
    assert found.loss == pytest.approx(losses.mean(), rel=1e-5)
    assert (found.correct.numpy() == right).mean() > 0.999  # a tie in float32 may fall the other way
    assert found.accuracy == found.correct.numpy().sum() / 1200


def test_evaluation_leaves_the_network_as_it_was(tiny, digits, numerics):
    network = build_network(tiny, digits, numerics, 0, "init")
    before = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    evaluate(network, digits, digits.test)
    assert network.model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.model.state_dict().items())
    assert all(parameter.grad is None for parameter in network.model.parameters())


def test_bf16_is_autocast_with_weights_in_fp32(tiny, digits, numerics):
    full, half = (build_network(replace(tiny, precision=p), digits, numerics, 0, "init") for p in ("fp32", "bf16"))
    batches = training_batches(digits, 3, 0, 16)
    first, second = (next(train(network, batches, schedule(tiny), {}, start=0, stop=1)) for network in (full, half))
    assert first.dtype == second.dtype == torch.float32
    assert float(first) != float(second)
    assert float(second) == pytest.approx(float(first), rel=0.02)
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}


def test_precisions_start_from_the_same_weights(tiny, digits, numerics):
    full, half = (build_network(replace(tiny, precision=p), digits, numerics, 0, "init") for p in ("fp32", "bf16"))
    assert all(torch.equal(a, b) for a, b in zip(full.model.parameters(), half.model.parameters(), strict=True))
