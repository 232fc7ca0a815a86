"""A place in an S3 bucket, with as much of pathlib.Path as a storage uses; errors that may pass are tried again."""

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar, final

from pyarrow import fs

T = TypeVar("T")

PATIENCE_SECONDS = 300.0
"""For how long what a storage could not do is tried again."""
PAUSE_SECONDS = 10.0
"""Between two tries, at most."""
FINAL = (
    "ACCESS_DENIED",
    "NO_SUCH_BUCKET",
    "INVALID_ACCESS_KEY_ID",
    "UNRECOGNIZED_CLIENT",
    "INVALID_CLIENT_TOKEN_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "EXPIRED_TOKEN",
    "InvalidBucketName",
    "NoSuchBucket",
)
"""What no waiting mends."""


class Stat(NamedTuple):
    """Named as os.stat_result's."""

    st_size: int
    """Bytes."""
    st_mtime_ns: int


@final
class S3Path:
    """s3://bucket/key. Endpoint, region and credentials are those of the usual AWS_… variables, or of the machine."""

    def __init__(self, uri: str) -> None:
        """Raises ValueError for anything but s3://bucket or s3://bucket/prefix."""
        found = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[^/?#]+)*)/?", uri)
        if found is None:
            raise ValueError(
                f"storage must be a folder or s3://bucket/prefix, got {uri!r} "
                "(another endpoint than AWS: in the variable AWS_ENDPOINT_URL)"
            )
        self._bucket, self._path = found[1], found[1] + found[2]

    def __truediv__(self, name: object) -> "S3Path":
        return S3Path(f"{self}/{name}")

    def __str__(self) -> str:
        return f"s3://{self._path}"

    def __repr__(self) -> str:
        return f"S3Path({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, S3Path) and self._path == other._path

    def __hash__(self) -> int:
        return hash(self._path)

    @property
    def name(self) -> str:
        return self._path.rpartition("/")[2]

    @property
    def parent(self) -> "S3Path":
        return S3Path(f"s3://{self._path.rpartition('/')[0]}")

    def exists(self) -> bool:
        """Whether there is such an object."""
        return self._info() is not None

    def stat(self) -> Stat:
        """st_size, bytes, and st_mtime_ns of an object. Raises FileNotFoundError."""
        info = self._info()
        if info is None:
            raise FileNotFoundError(f"there is no {self}")
        return _stat(info)

    def read_bytes(self) -> bytes:
        """Raises FileNotFoundError."""
        while True:
            content = self.read_start(None)
            if self.stat().st_size == len(content):  # what is replaced by more while it is read comes cut
                return content

    def read_start(self, count: int | None) -> bytes:
        """The first bytes, or all. Raises FileNotFoundError."""

        def read() -> bytes:
            with self._files.open_input_file(self._path) as file:
                return file.read(count)

        return patiently(read)

    def write_bytes(self, content: bytes) -> None:
        """Put an object whole, and see that it is as long as it should be."""

        def put() -> None:
            with self._files.open_output_stream(self._path) as stream:
                stream.write(content)
            info = self._files.get_file_info(self._path)
            if info.size != len(content):
                raise OSError(f"{self} has {info.size} bytes after {len(content)} were written")

        patiently(put)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove an object. Raises FileNotFoundError, unless it may be missing."""
        try:
            patiently(lambda: self._files.delete_file(self._path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_all(self) -> None:
        """Remove everything below."""
        with contextlib.suppress(FileNotFoundError):  # a second try finds what the first one has done
            patiently(lambda: self._files.delete_dir(self._path))

    def iterdir(self) -> Iterator["S3Path"]:
        """What lies directly below; nothing when there is no such place."""
        return (S3Path(f"s3://{info.path}") for info in self._listing(recursive=False))

    def below(self) -> dict[str, Stat]:
        """Every object below, by its path from here, with its stat()."""
        infos = self._listing(recursive=True)
        return {info.path.removeprefix(f"{self._path}/"): _stat(info) for info in infos if info.is_file}

    def require_bucket(self, *, patient: bool) -> None:
        """Raises OSError when the bucket can't be seen: it does not exist, or the credentials do not open it."""

        def look() -> fs.FileInfo:
            return self._files.get_file_info(self._bucket)

        info = patiently(look) if patient else look()
        if info.type == fs.FileType.NotFound:
            raise OSError(f"there is no bucket {self._bucket!r}, or it can't be seen with these credentials")

    def _info(self) -> fs.FileInfo | None:
        info = patiently(lambda: self._files.get_file_info(self._path))
        return info if info.is_file else None

    def _listing(self, *, recursive: bool) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self._path, allow_not_found=True, recursive=recursive)
        return patiently(lambda: self._files.get_file_info(selector))

    @property
    def _files(self) -> fs.S3FileSystem:
        return _client(self._bucket)


Place = Path | S3Path
"""Where something lies in a storage."""


def patiently(action: Callable[[], T]) -> T:
    """Do what asks a server for something; when it can't, for a reason that may pass, try again for five minutes.

    Raises OSError at once for what no waiting mends, and FileNotFoundError.
    """
    began, pause = time.monotonic(), 0.25
    while True:
        try:
            return action()
        except FileNotFoundError:
            raise
        except OSError as error:
            if any(word in str(error) for word in FINAL) or time.monotonic() + pause > began + PATIENCE_SECONDS:
                raise
            print(f"storage error: {error}: trying again", file=sys.stderr, flush=True)
        time.sleep(pause)
        pause = min(2 * pause, PAUSE_SECONDS)


@cache
def _client(bucket: str) -> fs.S3FileSystem:
    """The client for a bucket, in its region; small objects are put in one request."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint is None:
        return fs.S3FileSystem(region=fs.resolve_s3_region(bucket), allow_delayed_open=True)
    scheme, _, host = endpoint.rpartition("://")
    # Given so, and not left to the variable, a bucket is a part of the path, not of the host's name.
    return fs.S3FileSystem(endpoint_override=host.rstrip("/"), scheme=scheme or "https", allow_delayed_open=True)


def _stat(info: fs.FileInfo) -> Stat:
    return Stat(info.size, info.mtime_ns)
