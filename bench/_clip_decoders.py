"""How frames of a clip are had from each library: those shown at given times, resized, uint8 (T, H, W, 3).

Each as its own documentation has it for a worker among others: one thread a decoder, resized where it does that itself,
no frame twice. Workers of torch's DataLoader import this; it imports nothing of millpond.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

Source = str | bytes
"""A path, or the bytes of a file."""

Frames = NDArray[np.uint8]
Decode = Callable[[Source, Sequence[float], Sequence[int], tuple[int, int]], Any]
"""(clip, seconds, the same as indices of frames, (height, width)) -> uint8 (T, H, W, 3)."""


def by_torchcodec(clip: Source, seconds: Sequence[float], indices: Sequence[int], size: tuple[int, int]) -> Any:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    decoder = VideoDecoder(clip, dimension_order="NHWC", seek_mode="approximate", transforms=[Resize(size)])
    return decoder.get_frames_played_at(list(seconds)).data


def by_pyav(clip: Source, seconds: Sequence[float], indices: Sequence[int], size: tuple[int, int]) -> Frames:
    """From the front to the last frame wanted: clips are short, and hardly a GOP of them goes unasked."""
    import av

    height, width = size
    frames = np.empty((len(indices), height, width, 3), np.uint8)
    with av.open(BytesIO(clip) if isinstance(clip, bytes) else clip) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        wanted = 0
        for number, frame in enumerate(container.decode(stream)):
            if number == indices[wanted]:
                small = frame.reformat(width, height, "rgb24", interpolation="BILINEAR")
                while wanted < len(indices) and indices[wanted] == number:
                    frames[wanted] = small.to_ndarray()
                    wanted += 1
            if wanted == len(indices):
                return frames
    raise ValueError(f"{wanted} of {len(indices)} frames")


def by_decord(clip: Source, seconds: Sequence[float], indices: Sequence[int], size: tuple[int, int]) -> Frames:
    from decord import VideoReader

    height, width = size
    source = BytesIO(clip) if isinstance(clip, bytes) else clip
    reader = VideoReader(source, width=width, height=height, num_threads=1)
    frames: Frames = reader.get_batch(list(indices)).asnumpy()
    return frames


def by_spdl(clip: Source, seconds: Sequence[float], indices: Sequence[int], size: tuple[int, int]) -> Any:
    """Frames in SPDL's own buffer, of which it gathers a batch at once.

    FFmpeg's filter picks frames before it resizes them. `spdl.io.sample_decode_video`, which is made for this, gives
    the same pixels and resizes all that it decodes: it takes 1.3 to 2.8 times the CPU, for clips of some seconds.
    """
    import spdl.io

    height, width = size
    picked = "+".join(f"eq(n\\,{index})" for index in indices)
    wanted = spdl.io.get_video_filter_desc(
        filter_desc=f"select={picked},scale=w={width}:h={height}:flags=bilinear", pix_fmt="rgb24"
    )
    frames = spdl.io.decode_packets(spdl.io.demux_video(clip), filter_desc=wanted)
    if len(frames) != len(indices):
        raise ValueError(f"{len(frames)} of {len(indices)} frames")
    return frames


DECODERS: dict[str, Decode] = {"torchcodec": by_torchcodec, "PyAV": by_pyav, "decord2": by_decord, "SPDL": by_spdl}
