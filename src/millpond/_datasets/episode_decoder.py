"""Frames of one camera of an episode, decoded from its bytes in memory; asked for as from a decoder of torchcodec."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.decoders.frame_decoder import FrameDecoder, Write
from millpond._datasets.episode_bytes import EpisodeBytes
from millpond._media.frames import decode_frames
from millpond._media.packets import PacketReader
from millpond._media.video_file import VideoFile
from millpond.errors import DataError, retold


class EpisodeDecoder(FrameDecoder):
    """Decodes frames of one camera of an episode. Any thread; it holds its bytes, and no open file.

    Indices count from the episode's first frame. Seconds are those of the file, in which an episode begins at the
    `from_timestamp` that meta/episodes tells.

    Args:
        payload: The bytes.
        episode, camera: What errors name.
    """

    def __init__(self, payload: EpisodeBytes, *, episode: int, camera: str) -> None:
        super().__init__(payload.table, payload.frames, name=f"episode {episode} of camera {camera!r}")
        self._payload = payload
        self._episode, self._camera = episode, camera
        self._video = VideoFile(payload.path, payload.table, payload)
        # a container is one thread's at a time; a context of the packet decoder lives for one call
        self._lock = threading.Lock() if payload.table.backend == "container" else contextlib.nullcontext()
        weakref.finalize(self, self._video.close).atexit = False

    def check(self) -> None:
        """Look at the packets, and decode the first keyframe.

        Raises:
            DataError: A packet is damaged, or the frame does not decode. Frames that were not tried may not, either.
        """
        table, frames = self.table, self._payload.frames
        if table.backend == "container":
            return  # it was decoded from front to back when its table was made
        gops = np.unique(np.searchsorted(table.gop_starts, frames, side="right") - 1)
        for run in np.split(gops, np.flatnonzero(np.diff(gops) > 1) + 1):
            bounds = table.gop_starts[[run[0], run[-1] + 1]]
            last_row = int(table.frame_rows[frames[slice(*np.searchsorted(frames, bounds))]].max())
            rows = table.feed_rows(int(run[0]), int(run[-1]) + 1, last_row=last_row)
            try:
                deque(PacketReader(self._video, None).packets(rows), maxlen=0)
            except DataError as damage:
                raise self._told(damage) from None
        keyframe = table.gop_starts[gops[:1]]  # perhaps before the episode: it costs one frame, the first up to a GOP
        for _, error in decode_frames(self._video, keyframe, lambda j, picture: None).failures:
            raise self._told(error)

    def _decode(self, positions: NDArray[np.int64], write: Write) -> None:
        """See `FrameDecoder`."""
        with self._lock:
            self._video.preroll_gops = self._payload.preroll_gops
            report = decode_frames(self._video, self._payload.frames[positions], write)
            self._payload.preroll_gops = self._video.preroll_gops
        if report.failures:
            failed, error = report.failures[0]
            raise self._told(error, frame=int(positions[failed[0]]))

    def _told(self, error: DataError, **facts: int) -> DataError:
        frame = "".join(f"{name} {number} of " for name, number in facts.items())
        return retold(error, f"{frame}{self._name}", episode=self._episode, camera=self._camera, **facts)
