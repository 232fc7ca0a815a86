"""What a machine is compared with before its first cell."""

import dataclasses
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainable import preflight, provenance
from trainable.preflight import Unfit
from trainable.store import Store

PROJECT = Path(preflight.__file__).parent.parent
HERE = f"^machine {platform.node()} "


def files(store: Store) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


@pytest.fixture
def driver(empty):
    with preflight.mark(empty) as driver:
        yield driver


def test_a_mark_for_the_time_of_a_launch(empty):
    with preflight.mark(empty) as driver:
        (mark,) = files(empty)
        assert (mark.name, mark.read_text()) == (driver.token, driver.token)
        with preflight.mark(empty) as other:
            for _ in range(2):
                preflight.check(str(empty.root), driver)
            preflight.check(str(empty.root), other)
        assert files(empty) == [mark]
    assert files(empty) == []


def test_what_the_driver_has(driver):
    assert driver.versions == provenance.versions()
    assert {"python", "torch", "ray"} <= driver.versions.keys()
    assert driver.source == preflight.source_digest()


def test_a_bucket(s3):
    store = Store(s3.uri)
    with preflight.mark(store) as driver:
        preflight.check(s3.uri, driver)
    assert store.root.below() == {}


# The storage


def test_a_storage_that_is_not_seen(tmp_path, driver):
    elsewhere = str(tmp_path / "elsewhere")
    words = (
        f"{HERE}does not see the storage {elsewhere} that the study was started with .*: "
        "use a file system that all machines share, or s3://bucket/prefix$"
    )
    with pytest.raises(Unfit, match=words):
        preflight.check(elsewhere, driver)
    assert not Path(elsewhere).exists()


def test_a_storage_that_can_not_be(tmp_path, driver):
    (tmp_path / "file").touch()
    with pytest.raises(Unfit, match=r"does not see the storage .*is not a folder"):
        preflight.check(str(tmp_path / "file" / "storage"), driver)


def test_a_storage_that_holds_something_else(empty, driver):
    (empty.root / "probes" / driver.token).write_text("stale")
    with pytest.raises(Unfit, match=f"{HERE}reads something else from the storage {empty.root} than was written$"):
        preflight.check(str(empty.root), driver)


def test_a_storage_that_can_not_be_written(empty, driver, monkeypatch):
    def full(path, content):
        raise OSError("No space left on device")

    monkeypatch.setattr(preflight, "write", full)
    with pytest.raises(OSError, match="No space left on device"):
        preflight.check(str(empty.root), driver)
    with pytest.raises(OSError, match="No space left on device"), preflight.mark(empty):
        pass


def test_a_storage_that_changes_what_is_written(empty, monkeypatch):
    (empty.root / "probes").mkdir(parents=True)
    monkeypatch.setattr(preflight, "write", lambda path, content: path.write_bytes(content[:1]))
    with pytest.raises(OSError, match=r"probes/.* holds something else than was written"), preflight.mark(empty):
        pass


# Versions


@pytest.mark.parametrize(
    ("package", "version", "words"),
    [
        ("torch", "0.4", r"torch \S+ here, 0.4 there"),
        ("python", "3.7.1", rf"python {platform.python_version()} here, 3.7.1 there"),
        ("left-pad", "1.0", r"left-pad none here, 1.0 there"),
    ],
)
def test_another_version(empty, driver, package, version, words):
    other = dataclasses.replace(driver, versions=driver.versions | {package: version})
    with pytest.raises(Unfit, match=rf"{HERE}has other versions than the driver \({words}\): install both from const"):
        preflight.check(str(empty.root), other)


def test_a_package_that_the_driver_has_not(empty, driver):
    versions = {name: version for name, version in driver.versions.items() if name != "safetensors"}
    with pytest.raises(Unfit, match=r"\(safetensors \S+ here, none there\)"):
        preflight.check(str(empty.root), dataclasses.replace(driver, versions=versions))


def test_a_build_for_another_accelerator_is_the_same_version(empty, driver):
    """A head without a GPU has torch for the CPU; what is computed says on which device, in its numerics."""
    versions = driver.versions | {"torch": f"{driver.versions['torch'].split('+')[0]}+cu999"}
    preflight.check(str(empty.root), dataclasses.replace(driver, versions=versions))


# Source


def test_the_digest_of_the_source():
    """Of every Python file's name and content, in order."""
    sha = hashlib.sha256()
    for package in ("trainable", "sweeps", "analysis"):
        for name in sorted(path.name for path in (PROJECT / package).iterdir() if path.suffix == ".py"):
            sha.update(f"{package}/{name}\0".encode() + (PROJECT / package / name).read_bytes())
    assert preflight.source_digest() == sha.hexdigest()[:16]


def change(path: Path) -> None:
    path.write_text(path.read_text() + "\n")


@pytest.mark.parametrize(
    ("action", "fits"),
    [
        (lambda copy: None, True),
        (lambda copy: change(copy / "sweeps/study.py"), False),
        (lambda copy: (copy / "analysis/extra.py").touch(), False),
        (lambda copy: (copy / "trainable/strategies.py").unlink(), False),
        (lambda copy: (copy / "trainable/notes.txt").touch(), True),
    ],
)
def test_a_copy_of_the_project(empty, driver, tmp_path, action, fits):
    """On another machine, or from `ray job submit`: at another place, with the same files or not."""
    copy = tmp_path / "copy"
    for package in preflight.PACKAGES:
        shutil.copytree(PROJECT / package, copy / package)
    action(copy)
    script = (
        "import json, sys\n"
        "from trainable import preflight\n"
        "try:\n"
        "    preflight.check(sys.argv[1], preflight.Driver(**json.loads(sys.argv[2])))\n"
        "except preflight.Unfit as error:\n"
        "    print(error)\n"
    )
    arguments = [str(empty.root), json.dumps(dataclasses.asdict(driver))]
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=True,
    )
    words = (
        f"machine {platform.node()} has other source files of trainable, sweeps, analysis than the driver: bring the "
        "project to every machine again (ray up), or start with ray job submit --working-dir .\n"
    )
    assert run.stdout == ("" if fits else words)
