"""What last bits depend on: said, and asked for with an error that explains."""

import pytest
import torch

from trainable import provenance
from trainable.numerics import Numerics, choose_device, compile_forward, configure


def test_numerics_of_a_cpu(cpu_name):
    threads = torch.get_num_threads()
    found = configure(torch.device("cpu"), threads, False)
    assert found == Numerics(
        device=f"{cpu_name} {torch.backends.cpu.get_cpu_capability()}",
        threads=threads,
        layout="channels-last",
        compile=False,
        torch=torch.__version__,
    )
    assert configure(torch.device("cpu"), None, False) == found


def test_a_cpu_without_proc(monkeypatch):
    """On a Mac: Python's own word for the processor."""

    def missing(self, *arguments, **options):
        raise FileNotFoundError(self)

    monkeypatch.setattr("pathlib.Path.read_text", missing)
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    capability = torch.backends.cpu.get_cpu_capability()
    assert configure(torch.device("cpu"), None, False).device == f"arm64 {capability}"


def test_threads_are_set():
    before = torch.get_num_threads()
    try:
        assert configure(torch.device("cpu"), 2, False).threads == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_compiling_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match=r"torch\.compile needs a C\+\+ compiler .*this machine has none"):
        configure(torch.device("cpu"), None, True)


def test_not_compiled_is_the_model_itself():
    model = torch.nn.Linear(2, 2)
    assert compile_forward(model, False) is model


def test_a_device_that_is_none():
    with pytest.raises(ValueError, match=r"device 'quantum' can't be used \(.*\): choose from cpu, cuda, cuda:N, mps"):
        choose_device("quantum")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_a_device_that_is_not_there():
    with pytest.raises(ValueError, match=r"device 'cuda' can't be used \(.+\): choose from cpu"):
        choose_device("cuda")
    assert choose_device(None) == torch.device("cpu")


def test_versions_and_commit():
    assert {"python", "numpy", "safetensors"} <= provenance.versions().keys()
    commit = provenance.git_commit()
    assert commit is None or len(commit.rstrip("+")) == 40
