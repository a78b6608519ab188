"""Sound: one stream of a file, decoded through its container and resampled."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass

import av
import av.audio
import av.container
import av.error
import numpy as np
from numpy.typing import NDArray

from millpond.errors import CorruptMedia, ObjectMissing


@dataclass(frozen=True, slots=True)
class Audio:
    """Decoded sound.

    Attributes:
        samples: float32, (C, N), -1 to 1, CPU; its own memory.
        sampling_rate: Samples per second.
        first_seconds: When the first sample is heard; MP3 and cut clips do not start at 0.
    """

    samples: NDArray[np.float32]
    sampling_rate: int
    first_seconds: float

    @property
    def duration_seconds(self) -> float:
        """N over the sampling rate."""
        return int(self.samples.shape[1]) / self.sampling_rate


def load_audio(
    source: str | os.PathLike[str] | bytes, *, sampling_rate: int | None = None, mono: bool = False
) -> Audio:
    """Decode the first audio stream of a file.

    It goes through the container, which alone knows how many samples an encoder put in front and behind, and through a
    resampler that is flushed: the samples are those of the `ffmpeg` command.

    Args:
        source: A path, or the whole file as bytes.
        sampling_rate: Samples per second wanted; None keeps the stream's own.
        mono: Mix down to one channel, as `ffmpeg -ac 1` does: stereo by 1 / sqrt(2) a channel, so sound in phase
            may exceed 1.

    Raises:
        ObjectMissing: No file there.
        CorruptMedia: No audio in it, or some of it does not decode; nothing partial is returned.
    """
    if sampling_rate is not None and sampling_rate <= 0:
        raise ValueError(f"sampling_rate is {sampling_rate}, it must be positive or None")
    name = f"{len(source)} bytes of audio" if isinstance(source, bytes) else repr(os.fspath(source))
    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source), mode="r") as container:
            return _decode(container, name, sampling_rate, mono)
    except FileNotFoundError:
        raise ObjectMissing(f"no file at {name}", path=name) from None
    except (av.error.FFmpegError, ValueError) as error:
        # ValueError: the layout or rate changes within the stream
        raise CorruptMedia(f"{name} does not decode as audio: {error}", path=name) from error


def _decode(container: av.container.InputContainer, name: str, sampling_rate: int | None, mono: bool) -> Audio:
    if not container.streams.audio:
        raise CorruptMedia(f"{name} has no audio stream", path=name)
    stream = container.streams.audio[0]
    stream.codec_context.thread_count = 1
    resampler: av.AudioResampler | None = None
    first_seconds, parts, rate, num_packets = 0.0, [], 0, 0
    for packet in container.demux(stream):
        num_packets += packet.size > 0
        for frame in packet.decode():
            if resampler is None:
                rate = sampling_rate or frame.sample_rate
                resampler = av.AudioResampler("fltp", "mono" if mono else frame.layout, rate)
                first_seconds = 0.0 if frame.time is None else frame.time
            parts += [piece.to_ndarray() for piece in resampler.resample(frame)]
    _require_whole(stream, num_packets, name)
    if resampler is None:
        raise CorruptMedia(f"{name}: no audio frame decodes", path=name)
    parts += [piece.to_ndarray() for piece in resampler.resample(None)]
    return Audio(np.concatenate(parts, axis=1, dtype=np.float32), rate, first_seconds)


def _require_whole(stream: av.audio.AudioStream, num_packets: int, name: str) -> None:
    """An MP4 that was cut short ends early without an error; its index tells."""
    expected = len(stream.index_entries)
    if "mp4" in stream.container.format.name and num_packets < expected:
        raise CorruptMedia(
            f"{name} is cut short: {num_packets} of {expected} audio packets are there; fetch or write the file again",
            path=name,
        )
