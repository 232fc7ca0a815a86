"""Fixtures that several test files share. Torch is imported in them only: some tests need none."""

import shutil
from pathlib import Path

import pytest

from trainable.config import DenseRun

TINY = DenseRun(
    dataset="digits",
    architecture="resnet8-4",
    seed=3,
    steps=30,
    batch_size=16,
    learning_rate=0.1,
    drops=(15, 24),
    drop_factor=0.1,
    weight_decay=2e-4,
    batch_norm_momentum=0.1,
    batch_norm_eps=1e-5,
)
"""A dense run of 0.2 s: learning rate 0.1, 0.01 from step 15 on, 0.001 from step 24 on."""


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny():
    return TINY


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's digits as prepared for training, on the CPU."""
    import torch

    from trainable import data, datasets

    return data.prepare(datasets.load("digits", "nowhere", "nowhere"), "digits", 0, torch.device("cpu"))


@pytest.fixture(scope="session")
def numerics():
    import torch

    from trainable.numerics import configure

    return configure(torch.device("cpu"), 1, False)


@pytest.fixture(scope="session")
def _trained(tmp_path_factory, digits, numerics):
    from trainable import cycle
    from trainable.store import Store

    root = tmp_path_factory.mktemp("trained")
    for _ in cycle.run(TINY, Store(root), digits, numerics, keep=frozenset({0, 10}), eval_every=10):
        pass
    return root


@pytest.fixture
def store(tmp_path, _trained):
    """A storage of its own in which the tiny dense run is done, with its States at 0, 10 and 30."""
    from trainable.store import Store

    shutil.copytree(_trained, tmp_path / "storage")
    return Store(tmp_path / "storage")


@pytest.fixture
def empty(tmp_path):
    """A storage with nothing in it."""
    from trainable.store import Store

    return Store(tmp_path / "empty")


@pytest.fixture(scope="session")
def cpu_name():
    """The processor's name, where /proc says it."""
    import platform
    import re

    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.*?)\s*$", path.read_text(), re.M) if path.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


@pytest.fixture(scope="session")
def data_folder():
    """Files that tests keep."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def _moto():
    """An S3-protocol server on this machine: its address."""
    import logging
    import os

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # moto reads it once a process: test_cluster_yaml.py asks for it, whichever comes first.
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def s3(_moto, monkeypatch):
    """An empty bucket behind a front that can fail: its uri, and the front (tests/s3_front.py) as a process."""
    from uuid import uuid4

    import boto3

    variables = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (variables | {"AWS_EC2_METADATA_DISABLED": "true"}).items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid4().hex[:12]}"
    host, port = _moto
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket=bucket)
    front = Front(port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
    front.uri = f"s3://{bucket}/prefix"
    yield front
    front.kill()


class Front:
    """A process between a client and the S3 server: it can be killed and started again, as a server can."""

    def __init__(self, behind: int) -> None:
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.behind, self.process = behind, None
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self, fail_every: int = 0) -> None:
        import subprocess
        import sys

        script = Path(__file__).parent / "s3_front.py"
        command = [sys.executable, str(script), str(self.port), str(self.behind), str(fail_every)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """As kill -9 does."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
