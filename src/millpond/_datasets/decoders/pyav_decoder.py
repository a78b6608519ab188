"""Frames by the packet decoder: a sample table, and a codec context that is lent for each call."""

from __future__ import annotations

import contextlib
import threading
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.decoders.frame_decoder import Write
from millpond._datasets.decoders.handles import Handle
from millpond._datasets.decoders.stream_decoder import StreamDecoder
from millpond._media.frames import decode_frames
from millpond._media.video_file import VideoFile
from millpond._plan.sample_table import SampleTable


class PyAVDecoder(StreamDecoder):
    """Decodes frames of one video with FFmpeg's decoders, packet by packet; `get_decoder` of a cache makes it.

    `decoder[i]`, `decoder[a:b]`, `get_frames_at`, `get_frames_played_at` and the others are torchcodec's; `metadata`
    says what is known of the video. Any thread. It works until the cache evicts it, which `cache.lease(path)` prevents.

    Args:
        table: Of the stream; its own from now on: it learns CRC-32s.
        handle: What it reads through.
        image_size: (height, width) that pictures are resized to; None keeps theirs.
        interpolation: "bilinear", "area" or "bicubic".

    Attributes:
        video: For datasets: what it decodes; for whoever does so by himself, under `lock` and while the handle is in
            use; then he closes its container.
        lock: For datasets: of the container, which is one thread's at a time; a context of the packet decoder is lent
            to one call.
    """

    def __init__(
        self,
        table: SampleTable,
        handle: Handle,
        *,
        image_size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
    ) -> None:
        super().__init__(table, handle, image_size)
        self.video = VideoFile(handle.path, table, handle.contents)
        self.video.goes_on = True
        self._interpolation = interpolation
        self.lock: AbstractContextManager[object] = (
            threading.Lock() if table.backend == "container" else contextlib.nullcontext()
        )
        handle.also_close(self.video.close_container)

    def _decode(self, positions: NDArray[np.int64], write: Write) -> None:
        """See `FrameDecoder`."""
        with self._handle.in_use(), self.lock:
            try:
                report = decode_frames(
                    self.video, positions, write, image_size=self._picture_size, interpolation=self._interpolation
                )
            finally:
                self.video.close_container()  # a live one holds 5 MB and a descriptor, and a hundred are kept
        if len(report.rows):  # from now on packets that change are noticed
            self.table.crc[report.rows] = report.crcs
            self.table.crc_known[report.rows] = True
        if report.failures:
            failed, error = report.failures[0]
            raise self._told(error, int(positions[failed[0]]))
