"""Dense runs as the sources state them (DESIGN §10)."""

from trainable import recipes
from trainable.config import DenseRun


def test_digits():
    assert recipes.digits(7) == DenseRun(
        dataset="digits",
        architecture="resnet8-8",
        seed=7,
        steps=400,
        batch_size=64,
        learning_rate=0.1,
        drops=(200, 300),
        drop_factor=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=0.0002,
        batch_norm_momentum=0.1,
        batch_norm_eps=0.00001,
        val_examples=0,
        precision="fp32",
    )
    assert recipes.REWIND_POINT_DIGITS == 44


def test_cifar_resnet():
    assert recipes.cifar_resnet("resnet56", 2, dataset="cifar100", precision="bf16") == DenseRun(
        dataset="cifar100",
        architecture="resnet56",
        seed=2,
        steps=72_000,
        batch_size=128,
        learning_rate=0.1,
        drops=(36_000, 54_000),
        drop_factor=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=0.0002,
        batch_norm_momentum=0.003,
        batch_norm_eps=0.00001,
        val_examples=0,
        precision="bf16",
    )
    assert recipes.REWIND_POINT_CIFAR == 8_000


def test_wide_resnet():
    assert recipes.wide_resnet("wrn16-8", 0) == DenseRun(
        dataset="cifar10",
        architecture="wrn16-8",
        seed=0,
        steps=80_000,
        batch_size=128,
        learning_rate=0.1,
        drops=(32_000, 48_000, 64_000),
        drop_factor=0.2,
        momentum=0.9,
        nesterov=True,
        weight_decay=0.0004,
        batch_norm_momentum=0.1,
        batch_norm_eps=0.001,
        val_examples=0,
        precision="fp32",
    )
