"""What changes only the last bits: device, threads, layout, compile, torch version. Recorded, and set in one place."""

import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Numerics:
    device: str
    """Name and capability, as "NVIDIA H200 9.0" or "Intel(R) Xeon(R) Processor AVX512"."""
    threads: int
    """Of torch on the CPU."""
    layout: str
    compile: bool
    torch: str
    """Its version."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def choose_device(name: str | None) -> torch.device:
    """The device of a name (cpu, cuda, cuda:1, mps); None: CUDA where there is one. ValueError if it is not there."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read at the first tensor: huge pages; fp32 on a CPU gains 10 %
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} can't be used ({reason}): choose from cpu, cuda, cuda:N, mps") from error
    return device


def configure(device: torch.device, threads: int | None, compiled: bool) -> Numerics:
    """Make this process deterministic on a device, and say what its last bits depend on.

    Sets torch's global switches: threads (None: leave), and on CUDA deterministic algorithms without TF32.
    Raises ValueError when torch.compile is asked for and the machine has no compiler.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if compiled and not any(
        shutil.which(name) for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++") if name
    ):
        raise ValueError(
            "torch.compile needs a C++ compiler (g++ or clang++) and this machine has none: install one or leave it out"
        )
    name = f"{_cpu()} {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        major, minor = torch.cuda.get_device_capability(device)
        name = f"{torch.cuda.get_device_name(device)} {major}.{minor}"
    return Numerics(
        device=name, threads=torch.get_num_threads(), layout="channels-last", compile=compiled, torch=torch.__version__
    )


def _cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def compile_forward(model: nn.Module, compiled: bool) -> nn.Module:
    """The module to call: the model itself, or its compiled form, which shares its parameters."""
    return torch.compile(model) if compiled else model  # type: ignore[return-value]
