"""Where the data of rows goes: into the loader's sink, padded to the longest, or into arrays of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import FrameWriter, Sink
from millpond._datasets.clip_media import AUDIO, AUDIO_LENGTH, IMAGE, SECONDS, VIDEO, VIDEO_LENGTH
from millpond._values import Field

_ARRAYS = (SECONDS, VIDEO_LENGTH, AUDIO, AUDIO_LENGTH)


class SinkRows:
    """The rows of one call of `Reader.read`.

    Pictures go to the sink as they come. Other arrays are put together for all rows, and given to it at the end.

    Args:
        fields: Of a sample, by name.
        count: Rows.
        sink: Takes everything.
    """

    def __init__(self, fields: Mapping[str, Field], count: int, sink: Sink) -> None:
        self._sink = sink
        self._arrays = {n: np.zeros((count, *fields[n].shape), fields[n].dtype) for n in _ARRAYS if n in fields}
        if VIDEO in fields:
            self._steps, *shape = fields[VIDEO].shape
            window = np.arange(count * self._steps, dtype=np.int32).reshape(count, self._steps)
            self._write_frame = sink.frame_writer(VIDEO, window)
            self._black = np.zeros(shape, np.uint8)
        if IMAGE in fields:
            self._write_image = sink.frame_writer(IMAGE, np.arange(count, dtype=np.int32)[:, None])

    def row(self, position: int) -> SinkRow:
        """One of the rows."""
        return SinkRow(self, position)

    def begin_video(self, position: int, num_frames: int) -> FrameWriter:
        """A writer for the frames of a row; the rest of its steps is black, whatever lay there before."""
        first, write = position * self._steps, self._write_frame
        for step in range(num_frames, self._steps):
            write(first + step, self._black)
        return lambda step, picture: write(first + step, picture)

    def put_in_row(self, position: int, name: str, value: Any) -> None:
        """An array, or an image, of one row."""
        if name == IMAGE:
            self._write_image(position, value)
        elif name in self._arrays:
            target = self._arrays[name][position, ...]
            if target.ndim:
                target[: len(value)] = value
            else:
                target[...] = value

    def finish(self, failed: NDArray[np.int64], numbers: Mapping[str, NDArray[Any]]) -> None:
        """Give the arrays to the sink.

        Args:
            failed: int64, (n,): rows that have no data.
            numbers: Columns of the manifest, (L, ...).
        """
        for name, values in {**self._arrays, **numbers}.items():
            values[failed] = 0
            self._sink.put(name, values)


class SinkRow:
    """One row of `SinkRows`; see `clip_decode.RowSink`."""

    def __init__(self, rows: SinkRows, position: int) -> None:
        self._rows = rows
        self._position = position

    def begin_video(self, num_frames: int) -> FrameWriter:
        """See `RowSink`."""
        return self._rows.begin_video(self._position, num_frames)

    def put(self, name: str, value: Any) -> None:
        """See `RowSink`."""
        self._rows.put_in_row(self._position, name, value)


class OwnRow:
    """One row in arrays of its own, of true lengths; see `clip_decode.RowSink`.

    Args:
        fields: Of a sample, by name.

    Attributes:
        arrays: Those of media, as delivered: pictures are (..., 3, H, W).
    """

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = fields
        self.arrays: dict[str, NDArray[Any]] = {}

    def begin_video(self, num_frames: int) -> FrameWriter:
        """See `RowSink`."""
        pictures = np.empty((num_frames, *self._fields[VIDEO].shape[1:]), np.uint8)
        self.arrays[VIDEO] = np.moveaxis(pictures, -1, -3)

        def write(step: int, picture: NDArray[np.uint8]) -> None:
            pictures[step] = picture

        return write

    def put(self, name: str, value: Any) -> None:
        """See `RowSink`."""
        if name not in self._fields:
            return
        array = np.ascontiguousarray(value, self._fields[name].dtype).reshape(np.shape(value))
        self.arrays[name] = np.moveaxis(array, -1, -3) if name == IMAGE else array
