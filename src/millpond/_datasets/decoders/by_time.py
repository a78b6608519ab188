"""Frames of a video by their times, as LeRobot asks for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.decoders.cache import VideoDecoderCache, default_cache, require_cache
from millpond._datasets.decoders.opening import DecoderBackend
from millpond._datasets.decoders.times_asked import nan_among, one_number, seconds_of
from millpond._datasets.frame_batch import as_pictures
from millpond.errors import FrameTimestampError, retold


def decode_video_frames(
    path: str | os.PathLike[str],
    timestamps: Sequence[float] | NDArray[np.floating[Any]],
    tolerance_s: float,
    backend: DecoderBackend | None = None,
    return_uint8: bool = True,
    cache: VideoDecoderCache | None = None,
) -> Any:
    """Decode the frames nearest to some times, as `decode_video_frames` of LeRobot does.

    Times are matched in float64 with those of all frames of the file, so a frame that is found is the nearest there is.

    Args:
        path: A path, or a URL.
        timestamps: (T,), seconds on the clock of the file, in any order, repetitions allowed.
        tolerance_s: The greatest distance of a frame from the time asked for, in seconds.
        backend: "pyav" or "torchcodec"; None takes the cache's.
        return_uint8: False gives float32 from 0 to 1, as LeRobot does.
        cache: Keeps the decoder; None takes the one of this process, whose bound MILLPOND_VIDEO_DECODER_CACHE_SIZE
            sets.

    Returns:
        (T, 3, H, W), RGB, upright, in the order of `timestamps`; a tensor where torch is installed, else an array.

    Raises:
        TypeError: Times, tolerance or cache are none.
        ValueError: The tolerance is less than 0.
        FrameTimestampError: No frame is within the tolerance of a time.
        DataError: The file cannot be read, or a frame does not decode; see `VideoDecoderCache.get_decoder`.
    """
    tolerance = one_number("tolerance_s", tolerance_s)
    if not tolerance >= 0:
        raise ValueError(f"tolerance_s must be a number of seconds, 0 or more, not {tolerance_s!r}")
    seconds = seconds_of("timestamps", timestamps)
    require_cache(cache)
    with (default_cache() if cache is None else cache).lease(path, backend=backend) as decoder:
        try:
            if (reason := nan_among("timestamps", seconds)) is not None:
                raise FrameTimestampError(reason)
            frames = decoder.table.frames_at(seconds, tolerance)
        except FrameTimestampError as error:
            raise retold(error, str(decoder.path), path=decoder.path.label) from None
        pictures = as_pictures(decoder.pictures(frames))
    if return_uint8:
        return pictures
    return pictures.astype(np.float32) / 255 if isinstance(pictures, np.ndarray) else pictures / 255.0
