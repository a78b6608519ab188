"""Decoders of torchcodec in a cache, and frames by time, as LeRobot has them: what benches of decoders compare with.

Imports nothing of millpond.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

import fsspec
import torch
from torchcodec.decoders import VideoDecoder


class TorchcodecCache:
    """As LeRobot's `VideoDecoderCache`, decoder and handle under the path, but bounded: the one not used for the
    longest goes first, and its handle is closed.

    Args:
        max_size: Decoders; None: no bound, as in LeRobot 0.4.4.
    """

    def __init__(self, max_size: int | None) -> None:
        self._max_size = max_size
        self._cache: OrderedDict[str, tuple[VideoDecoder, Any]] = OrderedDict()
        self._lock = Lock()

    def get_decoder(self, path: str | Path) -> VideoDecoder:
        path = str(path)
        with self._lock:
            if path in self._cache:
                self._cache.move_to_end(path)
                return self._cache[path][0]
            handle = fsspec.open(path).__enter__()
            decoder = VideoDecoder(handle, seek_mode="approximate")
            self._cache[path] = (decoder, handle)
            while self._max_size is not None and len(self._cache) > self._max_size:
                self._cache.popitem(last=False)[1][1].close()
            return decoder

    def size(self) -> int:
        return len(self._cache)

    def clear(self) -> None:
        with self._lock:
            for _, handle in self._cache.values():
                handle.close()
            self._cache.clear()


def index_at(decoder: VideoDecoder, seconds: float) -> int:
    """Which frame LeRobot takes."""
    return round(seconds * decoder.metadata.average_fps)


def decode_video_frames(
    path: str | Path, seconds: list[float], tolerance_seconds: float, *, cache: TorchcodecCache
) -> torch.Tensor:
    """The steps of LeRobot's `decode_video_frames_torchcodec`, without its conversion to floats."""
    decoder = cache.get_decoder(path)
    batch = decoder.get_frames_at(indices=[index_at(decoder, moment) for moment in seconds])
    distances = torch.cdist(torch.tensor(seconds)[:, None], batch.pts_seconds.to(torch.float32)[:, None], p=1)
    least, nearest = distances.min(1)
    if not (least < tolerance_seconds).all():
        raise ValueError(f"no frame of {path} is within {tolerance_seconds} s of {seconds}")
    return torch.stack([batch.data[k] for k in nearest])
