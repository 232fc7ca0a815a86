"""Images per second of training: the loop most people write against ours, side by side in one process.

Four ways to train one network at density 0.2 on CIFAR-10's shapes, augmentation included, measured in turn
(A B C D A B …) so that they share whatever else the machine does:

  naive          PIL images through torchvision's transforms in a DataLoader, fp32, contiguous,
                 torch.optim.SGD as it comes, param.data.mul_(mask) tensor by tensor after each step.
                 Measured with 0 and with 2 DataLoader workers; the faster of the two is the baseline
  fp32, bf16     trainable.data and trainable.training
  bf16_compiled  the same with torch.compile

A round is --steps steps after some untimed ones, a figure the median over --rounds rounds. All of them, DataLoader
workers included, run on the same --threads cores: the process is pinned to these (where the system can).

The share of the matmul peak takes 3 forward passes' worth of multiply-accumulates a step (forward, gradient to the
inputs, gradient to the weights), 2 operations each, dense: masks earn no credit. The peak is that of the fastest square
torch.matmul here, in the same precision (naive: fp32). What masking costs is measured in pairs of single steps of one
bf16 network, with and without masks, the first of a pair taking turns: the median of the ratios, minus 1.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from trainable import data, datasets, models, numerics, pruning, recipes, training
from trainable.config import DenseRun

DENSITY = 0.2
NAIVE_WORKERS = (0, 2)
WARM_UP = 3
"""Untimed steps at the start."""
LEAD_IN = 2
"""Untimed steps of each round, after another one's turn: caches, the DataLoader's queue."""
PEAK_SIZES = {"cpu": (1024, 2048, 3072), "cuda": (2048, 4096, 8192, 16384), "mps": (1024, 2048, 4096)}
PEAK_SECONDS = 0.2
"""Of repetitions a size; at least 2."""
MASKING_PAIRS = 3
"""Pairs of single steps for each step of a round."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What all measurements share."""

    run: DenseRun
    dataset: datasets.Dataset
    device: torch.device
    threads: int
    steps: int
    rounds: int


Timer = Callable[[int], float]
"""Seconds of so many training steps."""


def main(argv: list[str] | None = None) -> int:
    """The command line. Exit status 0, or 2 for bad arguments."""
    options = _parser().parse_args(argv)
    try:
        setting, source = _read_setting(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result = measure(setting, source, skip_compile=options.skip_compile)
    print(json.dumps(result, allow_nan=False) if options.json else table(result))
    return 0


def measure(setting: Setting, source: str, *, skip_compile: bool) -> dict[str, Any]:
    """Everything that --json prints."""
    numbers = numerics.configure(setting.device, setting.threads, compiled=False)
    prepared = data.prepare(setting.dataset, "cifar10", 0, setting.device)
    _say(f"{setting.run.architecture} on {numbers.device}, {source} data, {setting.threads} threads")
    peaks = _matmul_peaks(setting.device)
    timers = {f"naive_{workers}": _naive(setting, prepared, workers) for workers in NAIVE_WORKERS}
    for precision in ("fp32", "bf16"):
        timers[precision] = _ours(setting, prepared, precision, numbers)
    compile_seconds = None
    if not skip_compile and (compiled := _compiled_numerics(setting)) is not None:
        _say("compiling")
        with _cold_compile_cache():
            timers["bf16_compiled"] = _ours(setting, prepared, "bf16", compiled)
            compile_seconds = timers["bf16_compiled"](1)  # its first step
    per_round = _in_turn(setting, timers)
    medians = {name: statistics.median(figures) for name, figures in per_round.items()}
    workers = max(NAIVE_WORKERS, key=lambda count: medians[f"naive_{count}"])
    naive = medians[f"naive_{workers}"]
    speeds = {"naive": naive} | {name: medians.get(name) for name in ("fp32", "bf16", "bf16_compiled")}
    operations = _training_operations(setting, prepared)
    cost, pairs = _masking_cost(setting, prepared, numbers)
    later = _matmul_peaks(setting.device)  # at both ends: another process may have disturbed one of them
    peaks = {precision: max(peak, later[precision]) for precision, peak in peaks.items()}
    return {
        "images_per_second": speeds,
        "ratio_to_naive": _each(speeds, lambda _name, speed: speed / naive),
        "share_of_matmul_peak": _each(
            speeds, lambda name, speed: speed * operations / peaks["bf16" if "bf16" in name else "fp32"]
        ),
        "masking_cost": cost,
        "masking_pairs": pairs,
        "naive_workers": workers,
        "per_round": per_round,
        "matmul_peak_tflops": {precision: peak / 1e12 for precision, peak in peaks.items()},
        "training_flops_per_image": operations,
        "compile_seconds": compile_seconds,
        "architecture": setting.run.architecture,
        "density": DENSITY,
        "batch_size": setting.run.batch_size,
        "threads": setting.threads,
        "steps": setting.steps,
        "rounds": setting.rounds,
        "data": source,
        "device": numbers.device,
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    peaks = result["matmul_peak_tflops"]
    lines = [
        f"{result['architecture']}, batch {result['batch_size']}, density {result['density']}, {result['data']} data; "
        f"{result['threads']} threads of {result['cpu']} ({result['device']})",
        f"torch {result['versions']['torch']}, Python {result['versions']['python']}, {result['date']}; "
        f"median of {result['rounds']} rounds of {result['steps']} steps",
        "",
        f"{'':16}{'images/s':>10}{'× naive':>10}{'of peak':>10}",
    ]
    for name, speed in result["images_per_second"].items():
        if speed is None:
            lines.append(f"{name:16}{'—':>10}{'—':>10}{'—':>10}")
            continue
        ratio, share = result["ratio_to_naive"][name], result["share_of_matmul_peak"][name]
        lines.append(f"{name:16}{speed:>10,.1f}{ratio:>10.2f}{share:>10.1%}")
    lines += [
        "",
        f"masking costs {result['masking_cost']:+.1%} (bf16, {result['masking_pairs']} pairs of steps)",
        f"naive: {result['naive_workers']} DataLoader workers, the faster of {' and '.join(map(str, NAIVE_WORKERS))}",
        f"matmul peak: fp32 {peaks['fp32']:.3g}, bf16 {peaks['bf16']:.3g} TFLOP/s",
    ]
    if result["compile_seconds"] is not None:
        lines.append(f"compilation: {result['compile_seconds']:.1f} s, not in the figures")
    return "\n".join(lines)


def _in_turn(setting: Setting, timers: dict[str, Timer]) -> dict[str, list[float]]:
    """Images per second of every round, by name."""
    for timer in timers.values():
        timer(WARM_UP)
    per_round: dict[str, list[float]] = {name: [] for name in timers}
    for number in range(setting.rounds):
        for name, timer in timers.items():
            per_round[name].append(setting.run.batch_size * setting.steps / timer(setting.steps))
        figures = ", ".join(f"{name} {values[-1]:,.1f}" for name, values in per_round.items())
        _say(f"round {number + 1}/{setting.rounds}: {figures} images/s")
    return per_round


def _ours(setting: Setting, prepared: data.Data, precision: str, numbers: numerics.Numerics) -> Timer:
    network, masks = _pruned_network(setting, prepared, precision, numbers)
    losses = _train(setting, prepared, network, masks)
    first = True

    def seconds(steps: int) -> float:
        nonlocal first
        lead_in, first = (0 if first else LEAD_IN), False
        return _seconds(losses, lead_in, steps, setting.device)

    return seconds


def _train(setting: Setting, prepared: data.Data, network: training.Network, masks: pruning.Masks) -> Iterator[Tensor]:
    batches = data.training_batches(prepared, setting.run.seed, 0, setting.run.batch_size)
    return training.train(network, batches, lambda step: setting.run.learning_rate, masks, start=0, stop=sys.maxsize)


def _pruned_network(
    setting: Setting, prepared: data.Data, precision: str, numbers: numerics.Numerics
) -> tuple[training.Network, pruning.Masks]:
    run = dataclasses.replace(setting.run, precision=precision)  # type: ignore[arg-type]
    network = training.build_network(run, prepared, numbers, "initialisation")
    return network, _prune(network.model)


def _prune(model: nn.Module) -> pruning.Masks:
    """Set the smallest weights to 0; returns which were kept, on the CPU."""
    weights = {name: weight.detach().cpu() for name, weight in models.prunable(model).items()}
    masks = pruning.unstructured(weights, pruning.keep_all(weights), DENSITY)
    for name, weight in models.prunable(model).items():
        weight.data.mul_(masks[name].to(weight.device))
    return masks


class _PilImages(torch.utils.data.Dataset):
    """As torchvision.datasets.CIFAR10 gives them."""

    def __init__(self, dataset: datasets.Dataset, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images, self.labels, self.transform = dataset.train_images, dataset.train_labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def _naive(setting: Setting, prepared: data.Data, workers: int) -> Timer:
    run, device = setting.run, setting.device
    mean, std = prepared.mean / 255, prepared.std / 255
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean.tolist(), std.tolist()),
        ]
    )
    loader = torch.utils.data.DataLoader(
        _PilImages(setting.dataset, transform),
        batch_size=run.batch_size,
        shuffle=True,
        drop_last=True,  # every step has a whole batch, as ours has
        num_workers=workers,
        pin_memory=device.type == "cuda",
    )
    model = models.build(
        run.architecture,
        classes=setting.dataset.classes,
        channels=3,
        generator=torch.Generator().manual_seed(run.seed),
        batch_norm_momentum=run.batch_norm_momentum,
        batch_norm_eps=run.batch_norm_eps,
    )
    model.to(device).to(memory_format=torch.contiguous_format)
    masks = {name: mask.to(device) for name, mask in _prune(model).items()}
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.SGD(
        model.parameters(), lr=run.learning_rate, momentum=0.9, nesterov=True, weight_decay=run.weight_decay
    )

    def train() -> Iterator[Tensor]:
        while True:
            for images, labels in loader:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(images.to(device)), labels.to(device))
                loss.backward()
                optimizer.step()
                for name, mask in masks.items():
                    parameters[name].data.mul_(mask)
                yield loss

    def seconds(steps: int) -> float:
        """With a DataLoader started for the occasion, so that no worker runs ahead in another one's turn."""
        losses = train()
        with _torch_as_it_comes():
            taken = _seconds(losses, LEAD_IN, steps, device)
        losses.close()  # type: ignore[attr-defined]
        return taken

    return seconds


def _seconds(steps: Iterator[Tensor], lead_in: int, count: int, device: torch.device) -> float:
    for _ in range(lead_in):
        next(steps)
    _synchronise(device)
    start = time.perf_counter()
    for _ in range(count):
        next(steps)
    _synchronise(device)
    return time.perf_counter() - start


def _masking_cost(setting: Setting, prepared: data.Data, numbers: numerics.Numerics) -> tuple[float, int]:
    """Time of a step with masks ÷ of the same without, minus 1; and from how many pairs."""
    _say("what masking costs")
    network, masks = _pruned_network(setting, prepared, "bf16", numbers)
    steps = {
        "masked": _train(setting, prepared, network, masks),  # one network: also the addresses are the same
        "dense": _train(setting, prepared, network, pruning.keep_all(masks)),
    }
    for losses in steps.values():
        _seconds(losses, 0, WARM_UP, setting.device)
    ratios = []
    for pair in range(MASKING_PAIRS * setting.steps * setting.rounds):
        order = ("masked", "dense") if pair % 2 else ("dense", "masked")
        taken = {name: _seconds(steps[name], 0, 1, setting.device) for name in order}
        ratios.append(taken["masked"] / taken["dense"])
    return statistics.median(ratios) - 1, len(ratios)


def _matmul_peaks(device: torch.device) -> dict[str, float]:
    return {"fp32": _matmul_peak(device, torch.float32), "bf16": _matmul_peak(device, torch.bfloat16)}


def _matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of the fastest square matrix product."""
    best = 0.0
    for size in PEAK_SIZES[device.type]:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        torch.matmul(left, right)
        times: list[float] = []
        while len(times) < 2 or sum(times) < PEAK_SECONDS:
            _synchronise(device)
            start = time.perf_counter()
            torch.matmul(left, right)
            _synchronise(device)
            times.append(time.perf_counter() - start)
        best = max(best, 2 * size**3 / min(times))
    return best


def _training_operations(setting: Setting, prepared: data.Data) -> int:
    """Floating-point operations of one image's forward and backward pass through the dense network's products."""
    model = models.build(
        setting.run.architecture,
        classes=prepared.classes,
        channels=prepared.image_shape[0],
        generator=torch.Generator(),
        batch_norm_momentum=setting.run.batch_norm_momentum,
        batch_norm_eps=setting.run.batch_norm_eps,
    )
    positions = models.output_positions(model, prepared.image_shape)
    macs = sum(weight.numel() * positions[name] for name, weight in models.prunable(model).items())
    return 3 * 2 * macs


def _compiled_numerics(setting: Setting) -> numerics.Numerics | None:
    try:
        return numerics.configure(setting.device, setting.threads, compiled=True)
    except ValueError as error:
        _say(f"bf16_compiled is not measured: {error}")
        return None


@contextmanager
def _cold_compile_cache() -> Iterator[None]:
    """So that compile_seconds is what a fresh machine takes."""
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["TORCHINDUCTOR_CACHE_DIR"]
            if before is not None:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = before


@contextmanager
def _torch_as_it_comes() -> Iterator[None]:
    """The naive loop's switches on CUDA: not deterministic, TF32 in convolutions. Nothing changes on a CPU."""
    deterministic, tf32 = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.allow_tf32 = tf32


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet20", help="as trainable.architectures names them")
    parser.add_argument("--threads", type=_positive, help="of torch and all else, on as many cores (default: all)")
    parser.add_argument("--steps", type=_positive, default=20, help="timed steps a round (default: %(default)s)")
    parser.add_argument("--rounds", type=_positive, default=7, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="images a step (default: %(default)s)")
    parser.add_argument("--data-root", type=Path, help="folder with cifar10.npz (default: random images)")
    parser.add_argument("--device", help="cpu, cuda, cuda:N, mps (default: cuda where there is one, else cpu)")
    parser.add_argument("--skip-compile", action="store_true", help="leave bf16_compiled out")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    return parser


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, got {text!r}")
    return int(text)


def _read_setting(options: argparse.Namespace) -> tuple[Setting, str]:
    """What to measure, and where its data are from: cifar10, or random. Pins the process to its cores."""
    run = recipes.cifar_resnet(options.architecture, seed=0)
    run = dataclasses.replace(run, batch_size=options.batch_size)
    cores = _cores()
    threads = len(cores) if options.threads is None else options.threads
    if threads > len(cores):
        raise ValueError(f"threads must be at most the {len(cores)} cores that this process may use, got {threads}")
    device = numerics.choose_device(options.device)
    if options.data_root is None:
        dataset, source = _random_images(), "random"
    else:
        path = options.data_root / "cifar10.npz"
        if not path.is_file():
            raise ValueError(f"{path} is not there: leave --data-root out to measure with random images")
        dataset, source = datasets.load("cifar10", options.data_root, options.data_root), "cifar10"
    count = len(dataset.train_labels)
    if run.batch_size > count:
        raise ValueError(f"batch_size must be at most the {count} training images, got {run.batch_size}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores[:threads])
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # 2 workers, on purpose, on 1 core
    setting = Setting(
        run=run, dataset=dataset, device=device, threads=threads, steps=options.steps, rounds=options.rounds
    )
    return setting, source


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _random_images() -> datasets.Dataset:
    """CIFAR-10's shapes and types."""
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for part, count in (("train", 50_000), ("test", 10_000)):
        arrays[f"{part}_images"] = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = random.integers(0, 10, count)
    return datasets.check(arrays, "random images")


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _each(speeds: dict[str, float | None], figure: Callable[[str, float], float]) -> dict[str, float | None]:
    return {name: None if speed is None else figure(name, speed) for name, speed in speeds.items()}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
