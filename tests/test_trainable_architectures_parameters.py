"""Parameters counted without torch, against the networks that are built."""

import pytest
import torch
from torch import nn

from trainable import models
from trainable.architectures import parameters


@pytest.mark.parametrize(
    ("architecture", "channels", "classes"),
    [
        ("resnet8-8", 1, 10),
        ("resnet20", 3, 10),
        ("resnet56", 3, 100),
        ("resnet14-5", 4, 7),
        ("wrn10-1", 3, 10),  # its first block projects although the widths agree
        ("wrn16-8", 3, 10),
        ("wrn22-2", 1, 100),
        ("vgg16", 3, 10),
        ("vgg16", 1, 26),
    ],
)
def test_as_built(architecture, channels, classes):
    with torch.device("meta"):
        model = models.build(
            architecture,
            classes=classes,
            channels=channels,
            generator=torch.Generator("cpu"),
            batch_norm_momentum=0.1,
            batch_norm_eps=1e-5,
        )
    counted = parameters(architecture, channels=channels, classes=classes)
    assert counted.trainable == sum(parameter.numel() for parameter in model.parameters())
    assert sorted(counted.kernels) == sorted(weight.numel() for weight in models.prunable(model).values())
    assert counted.kernels[-1] == model.classifier.weight.numel()
    norms = [module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert sorted(counted.norms) == sorted(norms)


def test_batch_norm_after_shortcuts():
    """Mikler's released code: 192 more in ResNet-20."""
    assert parameters("resnet20", channels=3, classes=10, shortcut_norm=True).trainable == 272_282 + 192


def test_published_counts():
    """Mikler 2021, tables 1 and 2."""
    counted = {name: parameters(name, channels=3, classes=10) for name in ("resnet56", "resnet110", "wrn16-8")}
    assert {name: (found.trainable, found.prunable) for name, found in counted.items()} == {
        "resnet56": (855_578, 851_504),
        "resnet110": (1_730_522, 1_722_416),
        "wrn16-8": (10_961_370, 10_954_160),
    }


def test_an_unknown_name():
    with pytest.raises(ValueError, match="unknown architecture 'alexnet'"):
        parameters("alexnet", channels=3, classes=10)
