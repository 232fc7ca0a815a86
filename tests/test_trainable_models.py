"""Networks: the published parameter counts, the initialisation, and what each computes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainable import models


def build(architecture, classes=10, channels=3, seed=0, eps=1e-5):
    generator = torch.Generator().manual_seed(seed)
    return models.build(
        architecture,
        classes=classes,
        channels=channels,
        generator=generator,
        batch_norm_momentum=0.1,
        batch_norm_eps=eps,
    )


@pytest.mark.parametrize(
    ("architecture", "channels", "trainable", "prunable"),
    [
        ("resnet20", 3, 272_282, 270_896),  # Mikler 2021, tables 1 and 2: these four
        ("resnet56", 3, 855_578, 851_504),
        ("resnet110", 3, 1_730_522, 1_722_416),
        ("wrn16-8", 3, 10_961_370, 10_954_160),
        # 72 + 2·576 + (1152 + 2304 + 128) + (4608 + 9216 + 512) + 320, and 2·120 of batch norm, 10 biases
        ("resnet8-8", 1, 19_714, 19_464),
        # Simonyan & Zisserman's 14,710,464 kernels and 5,120 + 10 of the classifier; 2·4,224 of batch norm
        ("vgg16", 3, 14_724_042, 14_715_584),
    ],
)
def test_parameter_counts(architecture, channels, trainable, prunable):
    model = build(architecture, channels=channels)
    assert sum(parameter.numel() for parameter in model.parameters()) == trainable
    assert sum(weight.numel() for weight in models.prunable(model).values()) == prunable


@pytest.mark.parametrize("architecture", ["resnet8-4", "wrn10-1", "vgg16"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (9, 13)])
def test_any_small_image(architecture, channels, size):
    model = build(architecture, classes=7, channels=channels)
    logits = model(torch.randn(2, channels, *size))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


def test_prunable_are_kernels_and_the_classifiers_matrix():
    assert list(models.prunable(build("wrn10-1"))) == [
        "first.weight",
        "blocks.0.first.weight",
        "blocks.0.second.weight",
        "blocks.0.shortcut.weight",
        "blocks.1.first.weight",
        "blocks.1.second.weight",
        "blocks.1.shortcut.weight",
        "blocks.2.first.weight",
        "blocks.2.second.weight",
        "blocks.2.shortcut.weight",
        "classifier.weight",
    ]


@pytest.mark.parametrize("architecture", ["resnet8-8", "wrn10-2", "vgg16"])
def test_neither_biases_nor_batch_norm_are_prunable(architecture):
    model = build(architecture)
    rest = {name: tensor for name, tensor in model.named_parameters() if name not in models.prunable(model)}
    assert "classifier.bias" in rest
    assert all(tensor.dim() == 1 for tensor in rest.values())
    assert all(weight.dim() in (2, 4) for weight in models.prunable(model).values())


@pytest.mark.parametrize("architecture", ["resnet8-8", "wrn10-2", "vgg16"])
def test_he_uniform(architecture):
    """Variance 2 / fan-in: uniform within ±√(6 / fan-in), which large layers come close to."""
    for weight in models.prunable(build(architecture)).values():
        weight, fan_in = weight.detach(), weight[0].numel()
        bound = (6 / fan_in) ** 0.5
        assert weight.abs().max() <= bound
        if weight.numel() > 2_000:
            assert weight.abs().max() > 0.99 * bound
            assert float(weight.var()) == pytest.approx(2 / fan_in, rel=0.1)


@pytest.mark.parametrize("architecture", ["resnet8-8", "wrn10-2", "vgg16"])
def test_biases_zero_and_batch_norm_one(architecture):
    model = build(architecture, eps=1e-3)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
            assert (module.momentum, module.eps) == (0.1, 1e-3)
    assert (model.classifier.bias == 0).all()


def test_one_generator_one_network():
    first, again, other = (dict(build("resnet8-4", seed=seed).named_parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["first.weight"], other["first.weight"])


def test_the_global_generator_is_not_used():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build("resnet8-4")
    torch.manual_seed(2)
    again = build("resnet8-4")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    torch.manual_seed(1)
    assert torch.equal(before, torch.get_rng_state())


# What they compute, by another route


def randomise(model):
    """Batch norm with anything but 0 and 1, so that leaving it out, or its order, shows."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.dim() == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + (0.5 if "bias" not in name else -0.5))
    return model.eval()


class Functional:
    """A network's tensors by name, and the two operations on them."""

    def __init__(self, model):
        self.tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}

    def conv(self, x, name, stride=1):
        kernel = self.tensors[f"{name}.weight"]
        return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def norm(self, x, name):
        """Batch norm by its definition, in evaluation."""
        mean, var, scale, offset = (
            self.tensors[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5) ** 0.5 * scale + offset

    def classify(self, x):
        return x.mean((2, 3)) @ self.tensors["classifier.weight"].T + self.tensors["classifier.bias"]


def relu(x):
    return x.clamp(min=0)


def test_resnet_adds_a_convolved_shortcut_before_the_last_activation():
    model = randomise(build("resnet8-4"))
    net, images = Functional(model), torch.randn(2, 3, 12, 8)
    x = relu(net.norm(net.conv(images, "first"), "norm"))
    for block, stride in ((0, 1), (1, 2), (2, 2)):
        inside = relu(net.norm(net.conv(x, f"blocks.{block}.first", stride), f"blocks.{block}.first_norm"))
        inside = net.norm(net.conv(inside, f"blocks.{block}.second"), f"blocks.{block}.second_norm")
        x = relu(inside + (x if block == 0 else net.conv(x, f"blocks.{block}.shortcut", stride)))
    torch.testing.assert_close(model(images), net.classify(x), rtol=1e-4, atol=1e-4)


def wide(net, images, shortcut_takes):
    """A wrn16-1: two blocks a group. shortcut_takes: of (raw, activated), what the projection sees."""
    x = net.conv(images, "first")
    for number in range(6):
        name, stride = f"blocks.{number}", 2 if number in (2, 4) else 1
        activated = relu(net.norm(x, f"{name}.first_norm"))
        inside = net.conv(activated, f"{name}.first", stride)
        inside = net.conv(relu(net.norm(inside, f"{name}.second_norm")), f"{name}.second")
        first_of_its_group = number % 2 == 0
        x = inside + (net.conv(shortcut_takes(x, activated), f"{name}.shortcut", stride) if first_of_its_group else x)
    return net.classify(relu(net.norm(x, "norm")))


def test_wide_resnets_projection_takes_the_activated_input_the_identity_the_raw_one():
    model = randomise(build("wrn16-1"))
    net, images = Functional(model), torch.randn(2, 3, 12, 8)
    with torch.no_grad():
        expected = wide(net, images, lambda raw, activated: activated)
        torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(model(images), wide(net, images, lambda raw, activated: raw), rtol=0.05)


# Multiply–accumulates


def macs(architecture, channels, size):
    model = build(architecture, channels=channels)
    positions = models.output_positions(model, (channels, *size))
    assert positions.keys() == models.prunable(model).keys()
    return sum(weight.numel() * positions[name] for name, weight in models.prunable(model).items())


def test_output_positions_of_a_small_resnet():
    positions = models.output_positions(build("resnet8-8", channels=1), (1, 8, 12))
    assert positions == {
        "first.weight": 96,
        "blocks.0.first.weight": 96,
        "blocks.0.second.weight": 96,
        "blocks.1.first.weight": 24,
        "blocks.1.second.weight": 24,
        "blocks.1.shortcut.weight": 24,
        "blocks.2.first.weight": 6,
        "blocks.2.second.weight": 6,
        "blocks.2.shortcut.weight": 6,
        "classifier.weight": 1,
    }


def test_macs_by_hand():
    # kernels × pixels of each stage: (72 + 1152)·64 + 3584·16 + 14336·4 + 320
    assert macs("resnet8-8", 1, (8, 8)) == 193_344
    # 3·16·9·1024 + 6·2,359,296 + (1,179,648 + 5·2,359,296 + 131,072)·2 + 640; the literature's 40.8 million
    assert macs("resnet20", 3, (32, 32)) == 40_813_184


def test_counting_positions_leaves_the_network_as_it_was():
    model = build("resnet8-4").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    models.output_positions(model, (3, 8, 8))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_weights_lie_channels_last():
    weight = build("resnet8-4").blocks[1].first.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(weight.stride(), (36, 1, 12, 4))  # [8, 4, 3, 3], channels innermost


# As other sources build them


def test_batch_norm_after_shortcuts():
    """192 more parameters in ResNet-20, as Mikler's released code has it: 2·(32 + 64)."""

    def parameters(shortcut_norm):
        model = models.build(
            "resnet20",
            classes=10,
            channels=3,
            generator=torch.Generator().manual_seed(0),
            batch_norm_momentum=0.1,
            batch_norm_eps=1e-5,
            shortcut_norm=shortcut_norm,
        )
        return model, dict(model.named_parameters())

    (_, without), (model, normed) = parameters(False), parameters(True)
    assert sum(p.numel() for p in normed.values()) - sum(p.numel() for p in without.values()) == 192
    assert all(torch.equal(normed[name], tensor) for name, tensor in without.items())
    randomise(model)
    images = torch.randn(2, 3, 8, 8)
    net, block = Functional(model), model.blocks[3]
    x = torch.randn(2, 16, 8, 8)
    inside = relu(net.norm(net.conv(x, "blocks.3.first", 2), "blocks.3.first_norm"))
    inside = net.norm(net.conv(inside, "blocks.3.second"), "blocks.3.second_norm")
    shortcut = net.norm(net.conv(x, "blocks.3.shortcut", 2), "blocks.3.shortcut_norm")
    torch.testing.assert_close(block(x), relu(inside + shortcut), rtol=1e-4, atol=1e-4)
    assert model(images).shape == (2, 10)


def test_truncated_normal():
    """TensorFlow's variance_scaling: cut off at two deviations, variance 1 / fan-in after that."""
    model = models.build(
        "resnet20",
        classes=10,
        channels=3,
        generator=torch.Generator().manual_seed(0),
        batch_norm_momentum=0.1,
        batch_norm_eps=1e-5,
        init="truncated-normal",
    )
    for weight in models.prunable(model).values():
        weight, fan_in = weight.detach(), weight[0].numel()
        assert weight.abs().max() <= 2 / 0.87962566 / fan_in**0.5
        if weight.numel() > 2_000:
            assert float(weight.var()) == pytest.approx(1 / fan_in, rel=0.1)
