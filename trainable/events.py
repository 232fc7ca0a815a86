"""TensorBoard event files, without torch and without Ray."""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class Events:
    """One run of TensorBoard: a folder; opening it again adds to it."""

    def __init__(self, folder: Path) -> None:
        self._writer = EventFileWriter(str(folder), flush_secs=5)

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
        self._writer.close()

    def _add(self, summary: Summary, step: int) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
