"""Networks for small images: CIFAR ResNets, wide ResNets and VGG-16, by name."""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainable import architectures


def build(
    architecture: str,
    *,
    classes: int,
    channels: int,
    generator: torch.Generator,
    batch_norm_momentum: float,
    batch_norm_eps: float,
    init: str = "he-uniform",
    shortcut_norm: bool = False,
) -> nn.Module:
    """A freshly initialised network on the CPU: images float [B, channels, H, W], H and W ≥ 8, to logits [B, classes].

    Every kernel and the classifier's matrix are drawn from the generator in the order of the parameters, as init names
    it; biases are 0, batch-norm scales 1. shortcut_norm: batch norm after shortcut convolutions, for ResNets only.
    """
    spec = architectures.parse(architecture)
    assert spec.family == "resnet" or not shortcut_norm
    families: dict[str, Callable[..., nn.Module]] = {
        "resnet": partial(ResNet, shortcut_norm=shortcut_norm),
        "wrn": WideResNet,
        "vgg": VGG,
    }
    model = families[spec.family](spec, classes=classes, channels=channels)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum, module.eps = batch_norm_momentum, batch_norm_eps
        elif isinstance(module, nn.Conv2d | nn.Linear):
            INITS[init](module.weight, module.weight[0].numel(), generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model.to(memory_format=torch.channels_last)


def he_uniform(weight: Tensor, fan_in: int, generator: torch.Generator) -> None:
    """Uniform of variance 2 / fan-in (He et al. 2015, arXiv 1502.01852)."""
    nn.init.uniform_(weight, -math.sqrt(6 / fan_in), math.sqrt(6 / fan_in), generator=generator)


def truncated_normal(weight: Tensor, fan_in: int, generator: torch.Generator) -> None:
    """Normal, cut off at two deviations, of variance 1 / fan-in after that: TensorFlow's variance_scaling."""
    std = math.sqrt(1 / fan_in) / 0.87962566103423978  # what is left of a unit normal's deviation within ±2
    nn.init.trunc_normal_(weight, 0, std, -2 * std, 2 * std, generator=generator)


INITS = {"he-uniform": he_uniform, "truncated-normal": truncated_normal}


def prunable(model: nn.Module) -> dict[str, Tensor]:
    """The weights that pruning ranks, by name in the model's order: convolution kernels and the classifier's matrix."""
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def output_positions(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """How often each prunable weight is used on one image of shape (channels, H, W): output pixels of its layer."""
    positions = {}
    device = next(model.parameters()).device

    def remember(name: str, output: Tensor) -> None:
        positions[f"{name}.weight"] = output[0].numel() // output.shape[1]

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: remember(name, output))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, *image_shape, device=device))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return positions


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class ResNet(nn.Module):
    """CIFAR ResNet v1 (He et al. 2016, arXiv 1512.03385, §4.2); shortcuts are 1×1 convolutions."""

    def __init__(
        self, spec: architectures.Architecture, *, classes: int, channels: int, shortcut_norm: bool = False
    ) -> None:
        super().__init__()
        width = spec.width
        self.first = _conv(channels, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential()
        inputs = width
        for stage in range(3):
            outputs = width * 2**stage
            for block in range((spec.depth - 2) // 6):
                stride = 2 if stage > 0 and block == 0 else 1
                self.blocks.append(BasicBlock(inputs, outputs, stride=stride, shortcut_norm=shortcut_norm))
                inputs = outputs
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(F.relu(self.norm(self.first(images))))
        return self.classifier(features.mean((2, 3)))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, each with batch norm; the shortcut is added before the last activation."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, shortcut_norm: bool) -> None:
        super().__init__()
        self.first, self.first_norm = _conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.second, self.second_norm = _conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _conv(inputs, outputs, 1, stride)
        self.shortcut_norm = nn.BatchNorm2d(outputs) if shortcut_norm and not same else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        features = F.relu(self.first_norm(self.first(inputs)))
        return F.relu(self.second_norm(self.second(features)) + self.shortcut_norm(self.shortcut(inputs)))


class WideResNet(nn.Module):
    """Wide ResNet, pre-activation (Zagoruyko & Komodakis 2016, arXiv 1605.07146), without dropout."""

    def __init__(self, spec: architectures.Architecture, *, classes: int, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, 16, 3)
        self.blocks = nn.Sequential()
        inputs = 16
        for stage in range(3):
            outputs = 16 * spec.width * 2**stage
            for block in range((spec.depth - 4) // 6):
                stride = 2 if stage > 0 and block == 0 else 1
                self.blocks.append(PreActivationBlock(inputs, outputs, stride=stride, project=block == 0))
                inputs = outputs
        self.norm = nn.BatchNorm2d(inputs)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.norm(self.blocks(self.first(images))))
        return self.classifier(features.mean((2, 3)))


class PreActivationBlock(nn.Module):
    """Batch norm and activation before each 3×3 convolution; a projecting shortcut takes the activated input."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, project: bool) -> None:
        super().__init__()
        self.first_norm, self.first = nn.BatchNorm2d(inputs), _conv(inputs, outputs, 3, stride)
        self.second_norm, self.second = nn.BatchNorm2d(outputs), _conv(outputs, outputs, 3)
        self.shortcut = _conv(inputs, outputs, 1, stride) if project else None

    def forward(self, inputs: Tensor) -> Tensor:
        activated = F.relu(self.first_norm(inputs))
        features = self.second(F.relu(self.second_norm(self.first(activated))))
        return features + (inputs if self.shortcut is None else self.shortcut(activated))


class VGG(nn.Module):
    """VGG-16 with batch norm and one fully connected layer, as Renda et al. 2020 (arXiv 2003.02389) train it.

    Four poolings, then the mean over what is left; they round up, so that 8-pixel images pass.
    """

    def __init__(self, spec: architectures.Architecture, *, classes: int, channels: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = channels
        for stage, (factor, convolutions) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))):
            for position in range(convolutions):
                outputs = spec.width * factor
                layers[f"conv{stage}_{position}"] = _conv(inputs, outputs, 3)
                layers[f"norm{stage}_{position}"] = nn.BatchNorm2d(outputs)
                layers[f"relu{stage}_{position}"] = nn.ReLU()
                inputs = outputs
            if stage < 4:
                layers[f"pool{stage}"] = nn.MaxPool2d(2, ceil_mode=True)
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).mean((2, 3)))
