"""Frames by index and by time, asked for as from torchcodec's `VideoDecoder`, however they are decoded."""

from __future__ import annotations

import math
import operator
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from millpond._datasets.decoders.times_asked import nan_among, one_number, seconds_of
from millpond._datasets.frame_batch import Frame, FrameBatch, as_array, as_pictures
from millpond._datasets.frame_times import frame_ticks
from millpond._plan.sample_table import SampleTable

TIME_TOLERANCE_SECONDS = 1e-4
"""A time up to so much before a frame's own shows that frame: times that are computed, as k / fps, or kept as rounded
sums, as in meta/episodes, would else show the frame before. As `tolerance_s` of LeRobot. Where a file keeps times in
milliseconds, as MKV does, it is half of one, or every other k / 30 would show the frame before."""

_PASS_BYTES = 64 << 20
"""Of pictures that are decoded at once for whoever takes them one by one."""

Write = Callable[[int, NDArray[np.uint8]], None]


@dataclass(frozen=True, slots=True)
class VideoMetadata:
    """What is known of the frames; names as in torchcodec's `VideoStreamMetadata`.

    Attributes:
        codec: As FFmpeg calls it: "h264", "av1".
        width, height: Of a frame as delivered, rotation applied.
        num_frames: That can be asked for.
        average_fps: Over all of them.
        begin_stream_seconds: When the first frame is shown, on the clock of the file.
        end_stream_seconds: When the last one ends.
        duration_seconds: From the one to the other.
        pixel_format: In the file, such as "yuv420p"; None where the header does not say.
        rotation: Degrees counterclockwise that was applied; None for none.
        stream_index: Of the stream in the file.
    """

    codec: str
    width: int
    height: int
    num_frames: int
    average_fps: float
    begin_stream_seconds: float
    end_stream_seconds: float
    duration_seconds: float
    pixel_format: str | None
    rotation: float | None
    stream_index: int


class FrameDecoder(ABC):
    """Decodes frames of one stream, or of a part of it. Any thread.

    Indices count from the first frame, negative ones from the last. Seconds are those of the file. Frames that are
    asked for together are decoded front to back, each GOP once, whatever their order, and come in the order asked for.

    Args:
        table: Of the stream.
        frames: int64, (n,), ascending: presentation indices in the table that can be asked for; None: all.
        image_size: (height, width) of the pictures; None: the stream's own.
        name: What errors call it.
    """

    def __init__(
        self,
        table: SampleTable,
        frames: NDArray[np.int64] | None = None,
        *,
        image_size: tuple[int, int] | None = None,
        name: str,
    ) -> None:
        self.table = table
        self._name = name
        self._picture_size = image_size or table.picture_size
        chosen: Any = slice(None) if frames is None else frames
        numerator, denominator = table.stream.time_base
        tick = numerator / denominator
        self._early_seconds = max(TIME_TOLERANCE_SECONDS, 0.5001 * tick if tick <= 1e-3 else 0.0)
        self._seconds = table.frame_seconds[chosen]
        self._durations = (frame_ticks(table).astype(np.float64) * numerator / denominator)[chosen]
        self.metadata = self._metadata()

    def __len__(self) -> int:
        return len(self._seconds)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name}: {len(self)} frames)"

    def __getitem__(self, key: Any) -> Any:
        """Frames as uint8, (3, H, W) for an index, (N, 3, H, W) for a slice."""
        if isinstance(key, slice):
            return self._frames(np.arange(*key.indices(len(self)))).data
        return self._frames(self._position(key)).data[0]

    def __iter__(self) -> Iterator[Any]:
        """Every frame in order, uint8 (3, H, W): many are decoded at once, also where the container cannot be cut."""
        step = max(_PASS_BYTES // (3 * math.prod(self._picture_size)), 1)
        for start in range(0, len(self), step):
            pictures = self.pictures(np.arange(start, min(start + step, len(self))))
            for k in range(len(pictures)):
                yield as_pictures(pictures[k : k + 1].copy())[0]  # whoever keeps one must not keep them all

    def get_frame_at(self, index: int) -> Frame:
        """The frame of an index.

        Raises:
            TypeError: No integer.
            IndexError: There is no such frame.
            DataError: It does not decode.
            ClosedError: The decoder is closed.
        """
        return _single(self._frames(self._position(index)))

    def get_frames_at(self, indices: Any) -> FrameBatch:
        """The frames of several indices, in that order: a list, an array or a tensor. Raises as `get_frame_at` does."""
        return self._frames(self._positions(indices))

    def get_frames_in_range(self, start: int, stop: int, step: int = 1) -> FrameBatch:
        """The frames of a slice."""
        return self._frames(np.arange(*slice(start, stop, step).indices(len(self))))

    def get_frame_played_at(self, seconds: float) -> Frame:
        """The frame that is shown at a time of the file.

        Up to 0.1 ms before its own time a frame is shown already (in a file that keeps milliseconds, as MKV does, up to
        half of one), so that times that were rounded show the frame that is meant; torchcodec shows the one before.

        Raises:
            TypeError, ValueError: No number of seconds; a list, or NaN.
            IndexError: None is shown then.
            DataError: It does not decode.
            ClosedError: The decoder is closed.
        """
        if np.ndim(seconds):
            raise TypeError(
                f"one frame is asked for by a number of seconds, not by {reprlib.repr(seconds)}; several by "
                "get_frames_played_at"
            )
        wanted = one_number("seconds", seconds)
        if math.isnan(wanted):
            raise ValueError("seconds is nan: give seconds")
        return _single(self.get_frames_played_at([wanted]))

    def get_frames_played_at(self, seconds: Any) -> FrameBatch:
        """The frames shown at several times, in that order. Raises as `get_frame_played_at` does."""
        wanted = seconds_of("seconds", seconds)
        if (reason := nan_among("seconds", wanted)) is not None:
            raise ValueError(reason)
        begin, end = self.metadata.begin_stream_seconds, self.metadata.end_stream_seconds
        beyond = np.flatnonzero(~((wanted >= begin - self._early_seconds) & (wanted < end)))
        if len(beyond):
            raise IndexError(
                f"{self._name} shows no frame at {wanted[beyond[0]]:.6f} s: in its file it lasts from {begin:.6f} to "
                f"{end:.6f} s"
            )
        return self._frames(self._shown_at(wanted))

    def get_frames_played_in_range(
        self, start_seconds: float, stop_seconds: float, fps: float | None = None
    ) -> FrameBatch:
        """The frames shown from one time up to another, the one that is shown at the beginning included.

        A time that is as near to a frame's own as `get_frame_played_at` allows for is taken for that.

        Args:
            start_seconds: On the clock of the file.
            stop_seconds: Not included.
            fps: So many frames a second instead, those shown at start + k / fps, some of them repeated or left out;
                their `pts_seconds` are those times. None gives each frame once.

        Raises:
            TypeError: No numbers.
            ValueError: They are no range of the times at which frames are shown.
            DataError: A frame does not decode.
            ClosedError: The decoder is closed.
        """
        start, stop = one_number("start_seconds", start_seconds), one_number("stop_seconds", stop_seconds)
        begin, end = self.metadata.begin_stream_seconds, self.metadata.end_stream_seconds
        if not (begin - self._early_seconds <= start < end and start <= stop <= end + self._early_seconds):
            raise ValueError(
                f"{self._name} is shown from {begin:.6f} to {end:.6f} s, which has no part from {start:.6f} to "
                f"{stop:.6f} s"
            )
        if fps is not None:
            rate = one_number("fps", fps, "frames a second")
            if not (rate > 0 and math.isfinite(rate)):
                raise ValueError(f"fps must be positive and finite, not {fps!r}")
            count = math.floor((stop - start) * rate + 0.5)  # as torchcodec counts
            times = start + np.arange(count) / rate
            pictures = as_pictures(self.pictures(self._shown_at(times)))
            return FrameBatch(pictures, as_array(times), as_array(np.full(count, 1 / rate)))
        if start == stop:
            return self._frames(np.arange(0))
        first = int(self._shown_at(np.array([start]))[0])
        after = int(np.searchsorted(self._seconds, stop - self._early_seconds))
        return self._frames(np.arange(first, max(after, first + 1)))

    def get_all_frames(self, fps: float | None = None) -> FrameBatch:
        """Every frame, all of them in memory at once; `for picture in decoder` keeps a few. `fps` as in a range."""
        if fps is None:
            return self._frames(np.arange(len(self)))
        return self.get_frames_played_in_range(
            self.metadata.begin_stream_seconds, self.metadata.end_stream_seconds, fps
        )

    @abstractmethod
    def _decode(self, positions: NDArray[np.int64], write: Write) -> None:
        """Decode some frames.

        Args:
            positions: int64, (n,), ascending and unique, 0 to len - 1.
            write: `write(j, picture)` takes that of positions[j]: uint8, (H, W, 3), RGB, upright: a view of memory
                that is never written again, perhaps with gaps between its lines.

        Raises:
            DataError: One of them does not decode.
            ClosedError: The decoder is closed.
        """

    def _shown_at(self, seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        """int64, (n,): which frame is shown at each time, all of them within the stream."""
        return np.searchsorted(self._seconds, seconds + self._early_seconds, side="right") - 1

    def _position(self, index: Any) -> NDArray[np.int64]:
        if np.ndim(index):
            raise TypeError(f"one frame is asked for by an integer, not by {index!r}; several by get_frames_at")
        return self._positions([index])

    def _positions(self, indices: Any) -> NDArray[np.int64]:
        if hasattr(indices, "dtype"):
            wanted = np.asarray(indices)
            if wanted.size and wanted.dtype.kind not in "iu":
                raise TypeError(f"frames are asked for by integers, not by {wanted.dtype}")
            if wanted.ndim > 1:
                raise TypeError(f"frames are asked for by one row of integers, not by {wanted.shape}")
            if not wanted.ndim:
                raise _no_list(indices)
            numbers = wanted.tolist()
        elif not hasattr(indices, "__iter__"):
            raise _no_list(indices)
        else:  # Python's integers have no bound, and numpy makes floats of some
            numbers = [index if type(index) is int else _whole(index) for index in indices]
        count = len(self)
        for number in numbers:
            if not -count <= number < count:
                raise IndexError(f"{self._name} has {count} frames, and no frame {number}")
        return np.array([number + count if number < 0 else number for number in numbers], np.int64)

    def _frames(self, positions: NDArray[np.int64]) -> FrameBatch:
        return FrameBatch(
            as_pictures(self.pictures(positions)),
            as_array(self._seconds[positions]),
            as_array(self._durations[positions]),
        )

    def pictures(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """For datasets: decode some frames.

        Args:
            positions: int64, (n,), 0 to len - 1, in any order.

        Returns:
            uint8, (n, H, W, 3), RGB, upright.

        Raises:
            DataError: One of them does not decode.
            ClosedError: The decoder is closed.
        """
        if len(positions) == 1:
            return self._picture(positions).reshape(1, *self._picture_size, 3)
        pictures = np.empty((len(positions), *self._picture_size, 3), np.uint8)
        if (positions[1:] > positions[:-1]).all():
            self._decode(positions, pictures.__setitem__)
        else:
            unique, inverse = np.unique(positions, return_inverse=True)
            rows: list[list[int]] = [[] for _ in unique]
            for row, j in enumerate(inverse.tolist()):
                rows[j].append(row)

            def write(j: int, picture: NDArray[np.uint8]) -> None:
                for row in rows[j]:
                    pictures[row] = picture

            self._decode(unique, write)
        return pictures

    def _picture(self, position: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The picture of a single frame, as it is: a copy would take 2 to 5 % of a random frame."""
        written: dict[int, NDArray[np.uint8]] = {}
        self._decode(position, written.__setitem__)
        return np.ascontiguousarray(written[0])

    def _metadata(self) -> VideoMetadata:
        stream = self.table.stream
        height, width = self._picture_size
        begin, end = float(self._seconds[0]), float(self._seconds[-1] + self._durations[-1])
        return VideoMetadata(
            codec=av.codec.Codec(stream.codec_name, "r").canonical_name,
            width=width,
            height=height,
            num_frames=len(self),
            average_fps=len(self) / (end - begin),
            begin_stream_seconds=begin,
            end_stream_seconds=end,
            duration_seconds=end - begin,
            pixel_format=stream.pix_fmt or None,
            rotation=float(stream.rotation_degrees) if stream.rotation_degrees else None,
            stream_index=stream.stream_index,
        )


def _no_list(index: Any) -> TypeError:
    return TypeError(f"frames are asked for by a list of integers, not by {reprlib.repr(index)}; one by get_frame_at")


def _whole(index: Any) -> int:
    kind = f"{type(index).__name__} {getattr(index, 'dtype', '')}"
    try:
        if "bool" not in kind:  # True passes for an integer, that of torch, too
            return operator.index(index)
    except TypeError:
        pass
    raise TypeError(f"frames are asked for by integers, not by {index!r}")


def _single(batch: FrameBatch) -> Frame:
    return Frame(batch.data[0], float(batch.pts_seconds[0]), float(batch.duration_seconds[0]))
