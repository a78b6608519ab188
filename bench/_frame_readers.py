"""Frames of open files by number, from PyAV and from decord2, as one would write it who cares: files stay open, the
least recently used ones are closed beyond a cap; one thread a decoder; frames in ascending order decode a GOP once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import av
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""(3, H, W); channels last in memory."""
Reader = TypeVar("Reader")


class _Open(Generic[Reader]):
    """The least recently used one goes first."""

    def __init__(self, open_one: Callable[[str], Reader], max_size: int) -> None:
        self._open_one, self._max_size = open_one, max_size
        self._readers: OrderedDict[str, Reader] = OrderedDict()

    def __getitem__(self, path: str) -> Reader:
        if path not in self._readers:
            self._readers[path] = self._open_one(path)
        self._readers.move_to_end(path)
        if len(self._readers) > self._max_size:
            self._readers.popitem(last=False)
        return self._readers[path]

    def clear(self) -> None:
        self._readers.clear()


class _PyavFile:
    """Knows when each frame is shown, and which are keyframes, by one pass over the packets."""

    def __init__(self, path: str) -> None:
        self._container: Any = av.open(path)
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1
        packets = [packet for packet in self._container.demux(self._stream) if packet.size]
        self._pts = np.sort([packet.pts for packet in packets])
        self._keyframe_pts = np.sort([packet.pts for packet in packets if packet.is_keyframe])
        self._decoded: Any = None
        self._at = -1

    def frames(self, indices: Sequence[int]) -> list[Picture]:
        """Ascending."""
        return [self._frame(int(self._pts[index])) for index in indices]

    def _frame(self, pts: int) -> Picture:
        keyframe = int(self._keyframe_pts[np.searchsorted(self._keyframe_pts, pts, side="right") - 1])
        if not keyframe <= self._at < pts:
            self._container.seek(keyframe, stream=self._stream)
            self._decoded = self._container.decode(self._stream)
        for frame in self._decoded:
            if frame.pts >= pts:
                self._at = pts
                return np.moveaxis(frame.to_ndarray(format="rgb24"), -1, 0)
        raise ValueError(f"no frame at {pts}")


class PyavReaders:
    """PyAV: seek to the keyframe, and decode up to the frame."""

    def __init__(self, max_size: int) -> None:
        self._files = _Open(_PyavFile, max_size)

    def frames(self, path: str, indices: Sequence[int]) -> list[Picture]:
        return self._files[path].frames(indices)

    def clear(self) -> None:
        self._files.clear()


class DecordReaders:
    """decord2: `VideoReader.get_batch`, which finds the keyframes itself."""

    def __init__(self, max_size: int) -> None:
        from decord import VideoReader

        self._files = _Open(lambda path: VideoReader(path, num_threads=1), max_size)

    def frames(self, path: str, indices: Sequence[int]) -> list[Picture]:
        return list(np.moveaxis(self._files[path].get_batch(list(indices)).asnumpy(), -1, 1))

    def clear(self) -> None:
        self._files.clear()
