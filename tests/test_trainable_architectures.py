"""The grammar of architecture names."""

import pytest

from trainable.architectures import Architecture, parse


@pytest.mark.parametrize(
    ("name", "family", "depth", "width"),
    [
        ("resnet8-8", "resnet", 8, 8),
        ("resnet20", "resnet", 20, 16),
        ("resnet110", "resnet", 110, 16),
        ("wrn10-1", "wrn", 10, 1),
        ("wrn28-10", "wrn", 28, 10),
        ("vgg16", "vgg", 16, 64),
    ],
)
def test_names(name, family, depth, width):
    assert parse(name) == Architecture(family=family, depth=depth, width=width)


@pytest.mark.parametrize(
    "name",
    ["", "ResNet20", "resnet", "resnet2", "resnet20-", "resnet20-0", "resnet020", "wrn16", "wrn4-8", "vgg19", " vgg16"],
)
def test_other_names(name):
    with pytest.raises(ValueError, match=r"architecture .*(choose from|depth is)"):
        parse(name)
