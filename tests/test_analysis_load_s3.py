"""A study in an S3 bucket reads as the same study in a folder does.

The server below speaks the S3 protocol to pyarrow's own client. (moto's would do, but its botocore wants
python-dateutil < 3.)
"""

import io
import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pandas as pd
import pytest

from analysis.load import load, read_json
from trainable import recipes, strategies
from trainable.columns import columns
from trainable.config import Cycle, describe, key
from trainable.store import numbers_digest

DENSE = recipes.digits(0)
CELLS = [
    ("dense", DENSE),
    *(
        ("one-shot", Cycle(dense=DENSE, densities=(density,), retraining=strategies.lr_rewinding(DENSE)))
        for density in (0.5, 0.25, 0.1, 0.05, 0.02)
    ),
]


class Server(ThreadingHTTPServer):
    """Speaks as much of the S3 protocol as reading needs: objects by bucket/key, in memory."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.seconds = 0.0
        """What every answer takes."""
        self.lock = threading.Lock()
        self.now = self.most = 0
        """Requests under way at one time."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        time.sleep(self.server.seconds)
        with self.server.lock:
            self.server.now -= 1
        self._route()

    def _route(self) -> None:
        url = urlsplit(self.path)
        name, query = unquote(url.path).strip("/"), parse_qs(url.query)
        self.server.asked.append(name)
        if "list-type" in query:
            self._answer(200, listing(self.server.objects, name, query))
        elif name in self.server.objects:
            self._object(self.server.objects[name])
        else:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def _object(self, content: bytes) -> None:
        asked = self.headers.get("Range")
        if asked is None:
            return self._answer(200, content)
        first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
        part = content[first : last + 1]
        return self._answer(206, part, {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(content)}"})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        last_modified = {"Last-Modified": "Mon, 23 Nov 2026 08:00:00 GMT", "Content-Length": str(len(content))}
        for name, value in (last_modified | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def listing(objects: dict[str, bytes], bucket: str, query: dict[str, list[str]]) -> bytes:
    """ListObjectsV2, all on one page: keys below the prefix, those with a further delimiter as common prefixes."""
    prefix, delimiter = (query.get(name, [""])[0] for name in ("prefix", "delimiter"))
    rest = [
        (name, name.removeprefix(f"{bucket}/{prefix}")) for name in objects if name.startswith(f"{bucket}/{prefix}")
    ]
    folders = {tail.split(delimiter)[0] + delimiter for _, tail in rest if delimiter and delimiter in tail}
    keys = [(name, tail) for name, tail in rest if not (delimiter and delimiter in tail)]
    entries = [
        f"<Contents><Key>{escape(prefix + tail)}</Key><Size>{len(objects[name])}</Size>"
        "<LastModified>2026-11-23T08:00:00.000Z</LastModified></Contents>"
        for name, tail in keys
    ]
    entries += [f"<CommonPrefixes><Prefix>{escape(prefix + folder)}</Prefix></CommonPrefixes>" for folder in folders]
    count = f"<KeyCount>{len(entries)}</KeyCount><IsTruncated>false</IsTruncated>"
    return f"<ListBucketResult><Name>{bucket}</Name>{count}{''.join(entries)}</ListBucketResult>".encode()


@pytest.fixture
def server(monkeypatch):
    """An empty bucket; the environment says where."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def result(accuracy):
    """A result.json."""
    numbers = {"density": 0.5, "macs": 500, "dense_macs": 1000, "test_accuracy": accuracy, "test_loss": 0.25}
    numbers |= {"val_accuracy": None, "max_test_accuracy": accuracy}
    provenance = {
        "numerics": {"device": "cpu", "threads": 1, "compile": False},
        "numerics_mixed": False,
        "train_seconds": 3.5,
        "images_per_second": 1000.0,
        "resumed_at": [],
        "git_commit": "abc",
        "versions": {"torch": "2.6"},
        "finished_at": "2026-11-23T08:00:00+00:00",
        "numbers_digest": numbers_digest(numbers),
    }
    return json.dumps({"numbers": numbers, "provenance": provenance}).encode()


def files_of(rows, unfinished=()):
    """The files of a study of these rows by their path in a storage: all done but the named outcomes."""
    declared = [{"study": "quick", "protocol_name": "digits", **columns(cell, schedule)} for schedule, cell in rows]
    files = {"studies/quick/cells.json": json.dumps(declared).encode()}
    for place, (_, cell) in enumerate(rows):
        files[f"runs/{key(cell)}/cell.json"] = json.dumps(describe(cell)).encode()
        files[f"runs/{key(cell)}/result.json"] = result(0.9 - 0.01 * place)
    for place, name, content in unfinished:
        del files[f"runs/{key(rows[place][1])}/result.json"]
        files[f"runs/{key(rows[place][1])}/{name}"] = json.dumps(content).encode()
    return files


def put(server, folder, files):
    """The same files in bucket/some/prefix and in a folder; returns the table that the folder gives."""
    server.objects.update({f"bucket/some/prefix/{path}": content for path, content in files.items()})
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return load(folder, "quick")


def parquet(frame):
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def asked_for_runs(server):
    return any("/runs/" in path for path in server.asked)


def test_a_study_under_way(server, tmp_path):
    under_way = [
        (1, "failure.json", {"error": "diverged"}),
        (2, "claim.json", {"time": time.time()}),
        (3, "claim.json", {"time": time.time() - 121}),
    ]
    local = put(server, tmp_path / "storage", files_of(CELLS, under_way))
    assert list(local["status"]) == ["done", "failed", "running", "missing", "done", "done"]
    for storage in ("s3://bucket/some/prefix", "s3://bucket/some/prefix/"):
        pd.testing.assert_frame_equal(load(storage, "quick"), local)


def test_many_readers_at_once(server, tmp_path):
    retraining = strategies.lr_rewinding(DENSE)
    rows = [
        ("one-shot", Cycle(dense=DENSE, densities=(round(1 - place / 100, 6),), retraining=retraining))
        for place in range(1, 65)
    ]
    local = put(server, tmp_path / "storage", files_of(rows))
    server.seconds = 0.05
    pd.testing.assert_frame_equal(load("s3://bucket/some/prefix", "quick"), local)
    assert server.most > 12


def test_a_complete_table_is_taken_at_once(server, tmp_path):
    local = put(server, tmp_path / "storage", files_of(CELLS))
    server.objects["bucket/some/prefix/studies/quick/results.parquet"] = parquet(local)
    pd.testing.assert_frame_equal(load("s3://bucket/some/prefix", "quick"), local)
    assert not asked_for_runs(server)


def stale(local):
    """Tables that are not all of the study."""
    return {
        "a cell less": parquet(local.iloc[:-1]),
        "another order": parquet(local.iloc[::-1]),
        "a cell not done": parquet(local.assign(status=local["status"].where(local.index != 3, "running"))),
        "another schedule": parquet(local.assign(schedule="iterative")),
        "a column less": parquet(local.drop(columns="device")),
        "cut": parquet(local)[:-100],
        "empty": b"",
    }


@pytest.mark.parametrize(
    "what", ["a cell less", "another order", "a cell not done", "another schedule", "a column less", "cut", "empty"]
)
def test_another_table_is_not(server, tmp_path, what):
    local = put(server, tmp_path / "storage", files_of(CELLS))
    server.objects["bucket/some/prefix/studies/quick/results.parquet"] = stale(local)[what]
    pd.testing.assert_frame_equal(load("s3://bucket/some/prefix", "quick"), local)
    assert asked_for_runs(server)


def test_the_table_of_a_folder_is_never_taken(server, tmp_path):
    """It is being written beside the runs; those are read in no time."""
    local = put(server, tmp_path / "storage", files_of(CELLS))
    (tmp_path / "storage/studies/quick/results.parquet").write_bytes(parquet(local.assign(test_accuracy=0.5)))
    pd.testing.assert_frame_equal(load(tmp_path / "storage", "quick"), local)


def test_a_damaged_file_is_named(server, tmp_path):
    files = files_of(CELLS)
    files[f"runs/{key(CELLS[2][1])}/result.json"] = b"{"
    put(server, tmp_path / "storage", files)
    frame = load("s3://bucket/some/prefix", "quick")
    assert list(frame["status"]) == ["done", "done", "failed", "done", "done", "done"]
    folder = f"s3://bucket/some/prefix/runs/{key(CELLS[2][1])}"
    assert frame["error"].iloc[2].startswith(f"a file in {folder} is damaged (")
    assert frame["error"].iloc[2].endswith(f"): delete the folder {folder}")
    server.objects["bucket/some/prefix/studies/quick/cells.json"] = b"["
    with pytest.raises(ValueError, match=r"^s3://bucket/some/prefix/studies/quick/cells.json is damaged \("):
        load("s3://bucket/some/prefix", "quick")


def test_what_there_is(server, tmp_path):
    put(server, tmp_path / "storage", files_of(CELLS))
    with pytest.raises(ValueError, match=r"^there is no storage at s3://bucket/nowhere$"):
        load("s3://bucket/nowhere", "quick")
    with pytest.raises(ValueError, match=r"^there is no study 'full' in s3://bucket/some/prefix: it has quick$"):
        load("s3://bucket/some/prefix", "full")
    for storage in ("gs://bucket/prefix", "s3://", "s3:///prefix"):
        message = rf"^storage must be a local folder or s3://bucket/prefix, got '{storage}'$"
        with pytest.raises(ValueError, match=message):
            load(storage, "quick")


def test_a_file_replaced_while_it_is_read():
    """Its size is that of the file before."""
    contents = [b'{"time": 1', b'{"time": 12}']

    class Files:
        def open_input_file(self, path):
            return io.BytesIO(contents.pop(0))

    assert read_json(Files(), "claim.json") == {"time": 12}
