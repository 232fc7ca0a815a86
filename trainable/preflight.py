"""What a machine needs before it trains its first cell: the driver's storage, and the driver's code."""

import contextlib
import hashlib
import platform
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainable import provenance
from trainable.store import Store, write

PACKAGES = ("trainable", "sweeps", "analysis")


class Unfit(Exception):
    """This machine can't train for this launch: what is wrong, and how to mend it."""


@dataclass(frozen=True, kw_only=True)
class Driver:
    """What the machine that started the study has, and every other one must."""

    token: str
    """Name and content of a file in the storage."""
    versions: dict[str, str]
    source: str
    """source_digest()."""


@contextlib.contextmanager
def mark(store: Store) -> Iterator[Driver]:
    """Leave a mark in the storage while a study runs, for other machines to find.

    Raises OSError when the storage can't be written, read or deleted from.
    """
    _probe(store)
    driver = Driver(token=secrets.token_hex(8), versions=provenance.versions(), source=source_digest())
    path = store.root / "probes" / driver.token
    write(path, driver.token.encode())
    try:
        yield driver
    finally:
        path.unlink(missing_ok=True)


def check(storage: str, driver: Driver) -> None:
    """See that this machine has what the driver has. Raises Unfit; OSError when the storage can't be used."""
    here = f"machine {platform.node()}"
    try:
        store = Store(storage, patient=True)
        found = (store.root / "probes" / driver.token).read_bytes()
    except (ValueError, FileNotFoundError) as error:
        raise Unfit(
            f"{here} does not see the storage {storage} that the study was started with ({error}): "
            "use a file system that all machines share, or s3://bucket/prefix"
        ) from error
    if found != driver.token.encode():
        raise Unfit(f"{here} reads something else from the storage {storage} than was written")
    _probe(store)
    if differing := _differences(driver.versions, provenance.versions()):
        raise Unfit(f"{here} has other versions than the driver ({differing}): install both from constraints.txt")
    if source_digest() != driver.source:
        raise Unfit(
            f"{here} has other source files of {', '.join(PACKAGES)} than the driver: bring the project to every "
            "machine again (ray up), or start with ray job submit --working-dir ."
        )


def source_digest() -> str:
    """Of the packages' Python files, 16 hexadecimal digits."""
    top, sha = Path(__file__).parent.parent, hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((top / package).glob("*.py")):
            sha.update(f"{package}/{path.name}".encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()[:16]


def _probe(store: Store) -> None:
    """Write, read and delete a file."""
    path = store.root / "probes" / f"{platform.node()}-{secrets.token_hex(4)}"
    write(path, b"probe")
    if path.read_bytes() != b"probe":
        raise OSError(f"{path} holds something else than was written")
    path.unlink(missing_ok=True)  # a delete that a server answers late is tried again, and finds nothing


def _differences(theirs: dict[str, str], ours: dict[str, str]) -> str:
    """Versions that differ; what stands behind a plus says for which accelerator a package was built."""
    names = sorted(theirs.keys() | ours.keys())
    pairs = ((name, theirs.get(name, "none"), ours.get(name, "none")) for name in names)
    return ", ".join(f"{name} {b} here, {a} there" for name, a, b in pairs if a.split("+")[0] != b.split("+")[0])
