"""Frames of one camera of an episode, decoded from its bytes in memory; asked for as from a decoder of torchcodec."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from millpond._datasets.episode_bytes import EpisodeBytes
from millpond._datasets.frame_batch import Frame, FrameBatch, as_array, as_pictures
from millpond._datasets.frame_times import frame_ticks
from millpond._media.frames import decode_frames
from millpond._media.packets import PacketReader
from millpond._media.video_file import VideoFile
from millpond._plan.sample_table import SampleTable
from millpond.errors import DataError, retold

TIME_TOLERANCE_SECONDS = 1e-4
"""A time up to so much before a frame's own shows that frame: the times in meta/episodes are rounded sums, and at their
word an episode would begin with the last frame of the one before. As `tolerance_s` of LeRobot."""


@dataclass(frozen=True, slots=True)
class EpisodeVideoMetadata:
    """What is known of an episode's frames; names as in torchcodec's `VideoStreamMetadata`.

    Attributes:
        codec: As FFmpeg calls it: "h264", "av1".
        width, height: Of a frame as delivered, rotation applied.
        num_frames: Of the episode.
        average_fps: Over the episode.
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


class EpisodeDecoder:
    """Decodes frames of one camera of an episode. Any thread; it holds its bytes, and no open file.

    It is asked as torchcodec's `VideoDecoder` is. Indices count from the episode's first frame, negative ones from its
    last. Seconds are those of the file, in which an episode begins at the `from_timestamp` that meta/episodes tells.
    Frames that are asked for together are decoded front to back, each GOP once, whatever their order.

    Args:
        payload: The bytes.
        episode, camera: What errors name.
    """

    def __init__(self, payload: EpisodeBytes, *, episode: int, camera: str) -> None:
        table = payload.table
        self._payload = payload
        self._episode, self._camera = episode, camera
        self._seconds = table.frame_seconds[payload.frames]
        self._durations = _durations(table)[payload.frames]
        self._video = VideoFile(payload.path, table, payload)
        # a container is one thread's at a time; a context of the packet decoder lives for one call
        self._lock = threading.Lock() if table.backend == "container" else contextlib.nullcontext()
        weakref.finalize(self, self._video.close).atexit = False
        self.metadata = self._metadata()

    def __len__(self) -> int:
        return len(self._payload.frames)

    def __repr__(self) -> str:
        return f"EpisodeDecoder(episode {self._episode}, camera {self._camera!r}: {len(self)} frames)"

    def __getitem__(self, key: Any) -> Any:
        """Frames as uint8, (3, H, W) for an index, (N, 3, H, W) for a slice."""
        if isinstance(key, slice):
            return self._frames(np.arange(*key.indices(len(self)))).data
        return self._frames(self._positions([key])).data[0]

    def get_frame_at(self, index: int) -> Frame:
        """The frame of an index.

        Raises:
            IndexError: The episode has no such frame.
            DataError: It does not decode.
        """
        return _single(self._frames(self._positions([index])))

    def get_frames_at(self, indices: Any) -> FrameBatch:
        """The frames of several indices, in that order: a list, an array or a tensor. Raises as `get_frame_at` does."""
        return self._frames(self._positions(indices))

    def get_frames_in_range(self, start: int, stop: int, step: int = 1) -> FrameBatch:
        """The frames of a slice."""
        return self._frames(np.arange(*slice(start, stop, step).indices(len(self))))

    def get_frame_played_at(self, seconds: float) -> Frame:
        """The frame that is shown at a time of the file.

        Raises:
            IndexError: The episode does not show any then.
            DataError: It does not decode.
        """
        return _single(self.get_frames_played_at([seconds]))

    def get_frames_played_at(self, seconds: Any) -> FrameBatch:
        """The frames shown at several times, in that order. Raises as `get_frame_played_at` does."""
        wanted = np.asarray(seconds, np.float64).reshape(-1)
        begin, end = self.metadata.begin_stream_seconds, self.metadata.end_stream_seconds
        beyond = np.flatnonzero(~((wanted >= begin - TIME_TOLERANCE_SECONDS) & (wanted < end)))
        if len(beyond):
            raise IndexError(
                f"episode {self._episode} of camera {self._camera!r} shows no frame at {wanted[beyond[0]]:.6f} s: in "
                f"its file it lasts from {begin:.6f} to {end:.6f} s"
            )
        return self._frames(np.searchsorted(self._seconds, wanted + TIME_TOLERANCE_SECONDS, side="right") - 1)

    def check(self) -> None:
        """Look at the packets, and decode the first keyframe.

        Raises:
            DataError: A packet is damaged, or the frame does not decode. Frames that were not tried may not, either.
        """
        table, frames = self._payload.table, self._payload.frames
        if table.backend == "container":
            return  # it was decoded from front to back when its table was made
        gops = np.unique(np.searchsorted(table.gop_starts, frames, side="right") - 1)
        for run in np.split(gops, np.flatnonzero(np.diff(gops) > 1) + 1):
            stop_frame = int(frames[frames < table.gop_starts[run[-1] + 1]][-1]) + 1
            rows = table.feed_rows(int(run[0]), int(run[-1]) + 1, stop_frame=stop_frame)
            try:
                deque(PacketReader(self._video, None).packets(rows), maxlen=0)
            except DataError as damage:
                raise self._told(damage) from None
        keyframe = table.gop_starts[gops[:1]]  # perhaps before the episode: it costs one frame, the first up to a GOP
        for _, error in decode_frames(self._video, keyframe, lambda j, picture: None).failures:
            raise self._told(error)

    def _positions(self, indices: Any) -> NDArray[np.int64]:
        wanted = np.asarray(indices)
        if wanted.size and wanted.dtype.kind not in "iu":
            raise TypeError(f"frames are asked for by integers or a slice, not by {wanted.dtype}")
        wanted = wanted.reshape(-1).astype(np.int64)
        beyond = np.flatnonzero((wanted < -len(self)) | (wanted >= len(self)))
        if len(beyond):
            raise IndexError(
                f"episode {self._episode} of camera {self._camera!r} has {len(self)} frames, and no frame "
                f"{wanted[beyond[0]]}"
            )
        return np.where(wanted < 0, wanted + len(self), wanted)

    def _frames(self, positions: NDArray[np.int64]) -> FrameBatch:
        pictures = np.empty((len(positions), *self._payload.table.picture_size, 3), np.uint8)
        unique, inverse = np.unique(positions, return_inverse=True)
        rows: list[list[int]] = [[] for _ in unique]
        for row, j in enumerate(inverse.tolist()):
            rows[j].append(row)

        def write(j: int, picture: NDArray[np.uint8]) -> None:
            for row in rows[j]:
                pictures[row] = picture

        with self._lock:
            self._video.preroll_gops = self._payload.preroll_gops
            report = decode_frames(self._video, self._payload.frames[unique], write)
            self._payload.preroll_gops = self._video.preroll_gops
        if report.failures:
            failed, error = report.failures[0]
            raise self._told(error, frame=int(unique[failed[0]]))
        return FrameBatch(
            as_pictures(pictures), as_array(self._seconds[positions]), as_array(self._durations[positions])
        )

    def _told(self, error: DataError, **facts: int) -> DataError:
        frame = "".join(f"{name} {number} of " for name, number in facts.items())
        return retold(
            error,
            f"{frame}episode {self._episode} of camera {self._camera!r}",
            episode=self._episode,
            camera=self._camera,
            **facts,
        )

    def _metadata(self) -> EpisodeVideoMetadata:
        table, stream = self._payload.table, self._payload.table.stream
        height, width = table.picture_size
        begin, end = float(self._seconds[0]), float(self._seconds[-1] + self._durations[-1])
        return EpisodeVideoMetadata(
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


def _durations(table: SampleTable) -> NDArray[np.float64]:
    numerator, denominator = table.stream.time_base
    return frame_ticks(table).astype(np.float64) * numerator / denominator


def _single(batch: FrameBatch) -> Frame:
    return Frame(batch.data[0], float(batch.pts_seconds[0]), float(batch.duration_seconds[0]))
