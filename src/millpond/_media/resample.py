"""Decoded audio frames in, samples of one rate and layout out; bounded, whatever the frames claim."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from millpond._media.media_path import MediaPath
from millpond.errors import CorruptMedia

MAX_AUDIO_BYTES = 4 << 30
"""Of samples from one call: 18 hours of mono at 16 kHz. A megabyte of packed silence can claim that."""

MAX_SOURCE_RATE = 1_536_000
MAX_RATE_RATIO = 192
"""Of the rate wanted to the stream's, or the other way round. Beyond these a header is wrong, and the resampler's
tables, or what it makes of one megabyte, fill gigabytes. Sound for ears has 4 to 768 kHz."""


# Since PyAV 19. Threads of a filter would be waited for by a forked child that collects it, where they do not exist.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if hasattr(av.AudioResampler, "threads") else {}


class Resampled:
    """Collects the sound of one stream; used by one thread.

    Args:
        path: Named in errors.
        rate: Samples per second wanted; None: those of the first frame.
        mono: Mixed down; else as many channels as the first frame has.

    Attributes:
        num_samples: That came out so far; some wait in the resampler until `flush`.
    """

    def __init__(self, path: MediaPath, rate: int | None, mono: bool) -> None:
        self._path = path
        self._rate = rate or 0
        self._layout: str | av.AudioLayout | None = "mono" if mono else None
        self._resampler: av.AudioResampler | None = None
        self._source: tuple[str, str, int] | None = None
        self._parts: list[NDArray[np.float32]] = []
        self.num_samples = 0

    @property
    def rate(self) -> int:
        """Samples per second; 0 before the first frame where none was wanted."""
        return self._rate

    @property
    def is_empty(self) -> bool:
        """Nothing came out yet."""
        return not self._parts

    def add(self, frame: av.AudioFrame) -> None:
        """Take one frame.

        Raises:
            CorruptMedia: Its rate cannot be, or all of it together would be too large.
        """
        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        if source != self._source:
            # the first frame, or a recording that changes within: `ffmpeg` makes a new filter then, too
            self.flush()
            self._rate = self._rate or frame.sample_rate
            self._layout = self._layout or frame.layout
            self._require_plausible_rate(frame.sample_rate)
            self._resampler = av.AudioResampler("fltp", self._layout, self._rate, **_ONE_THREAD)
            self._source = source
        assert self._resampler is not None
        self._take(self._resampler.resample(frame))

    def add_silence(self, like: av.AudioFrame, num_samples: int) -> None:
        """Take silence in the form of a frame, counted at its rate; at most a second of it at a time."""
        silence = av.AudioFrame(format=like.format.name, layout=like.layout.name, samples=num_samples)
        silence.sample_rate, silence.time_base = like.sample_rate, like.time_base
        for plane in silence.planes:
            plane.update(bytes([0x80 if like.format.name.startswith("u8") else 0]) * plane.buffer_size)
        self.add(silence)

    def flush(self) -> None:
        """Get what the resampler holds back. A frame that is added afterwards begins anew."""
        if self._resampler is not None:
            self._take(self._resampler.resample(None))
            self._resampler, self._source = None, None

    def samples(self) -> NDArray[np.float32]:
        """float32, (C, N), its own memory; not to be asked for while `is_empty`."""
        return np.concatenate(self._parts, axis=1, dtype=np.float32)

    def _take(self, pieces: list[av.AudioFrame]) -> None:
        for piece in pieces:
            self.num_samples += piece.samples
            require_room(self.num_samples * len(piece.layout.channels), str(self._path))
            self._parts.append(np.asarray(piece.to_ndarray(), np.float32))

    def _require_plausible_rate(self, source_rate: int) -> None:
        ratio = max(self._rate, source_rate) / max(min(self._rate, source_rate), 1)
        if not 1 <= source_rate <= MAX_SOURCE_RATE or ratio > MAX_RATE_RATIO:
            raise CorruptMedia(
                f"{self._path} says that it has {source_rate:,} samples a second (limit {MAX_SOURCE_RATE:,}, and "
                f"{MAX_RATE_RATIO} times more or less than the {self._rate:,} wanted); it is not decoded",
                path=self._path.label,
                sampling_rate=source_rate,
            )


def require_room(num_values: int, what: str) -> None:
    """Raise CorruptMedia if so many float32 values are more than `MAX_AUDIO_BYTES`."""
    if 4 * num_values > MAX_AUDIO_BYTES:
        raise CorruptMedia(
            f"{what} would be more than {MAX_AUDIO_BYTES:,} bytes of samples, which no clip is; pass max_seconds",
            limit_bytes=MAX_AUDIO_BYTES,
        )
