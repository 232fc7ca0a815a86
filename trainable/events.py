"""TensorBoard event files, without torch and without Ray."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from trainable.remote import Place

PUT_SECONDS = 30.0
"""Between two times that a remote storage gets the event file, which is put whole."""


class Events:
    """One run of TensorBoard: a folder; opening it again adds to it, in a file of its own."""

    def __init__(self, folder: Place) -> None:
        self._folder = folder
        self._scratch = None if isinstance(folder, Path) else tempfile.TemporaryDirectory(prefix="rewind-events-")
        self._local = Path(str(folder) if self._scratch is None else self._scratch.name)
        self._writer = EventFileWriter(str(self._local), flush_secs=5)
        self._put_at = time.monotonic()

    def scalars(self, values: Mapping[str, float | None], step: int) -> None:
        """Add values by tag at a step; None is left out."""
        tags = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if value is not None]
        self._add(Summary(value=tags), step)

    def image(self, tag: str, png: bytes, step: int) -> None:
        """Add a picture."""
        image = Summary.Image(encoded_image_string=png, colorspace=4)
        self._add(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def hparams(self, name: str, values: Mapping[str, str | float | bool]) -> None:
        """Say what the run is: the columns of TensorBoard's HParams table."""
        self._add(hparams_summary.hparams_pb(dict(values), trial_id=name), 0)

    def close(self) -> None:
        """Raises OSError when a remote storage can't be written for minutes."""
        self._writer.close()
        if self._scratch is not None:
            try:
                self._put()
            finally:
                self._scratch.cleanup()

    def _add(self, summary: Summary, step: int) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        if self._scratch is not None and time.monotonic() - self._put_at > PUT_SECONDS:
            self._writer.flush()
            self._put()

    def _put(self) -> None:
        for path in self._local.iterdir():
            (self._folder / path.name).write_bytes(path.read_bytes())
        self._put_at = time.monotonic()
