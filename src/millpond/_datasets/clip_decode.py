"""Decodes the media of one row: frames go where they shall be as they come, the sound is aligned to them."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import FrameWriter, Progress
from millpond._datasets.clip_media import (
    AUDIO,
    AUDIO_LENGTH,
    IMAGE,
    SECONDS,
    VIDEO,
    VIDEO_LENGTH,
    ClipMedia,
    ClipShapes,
    Size,
    is_local,
    shortened,
)
from millpond._datasets.clip_sidecars import ClipSidecars
from millpond._datasets.media_by_url import MediaByUrl
from millpond._datasets.media_crc import crc_of_image, crc_of_sound
from millpond._media.audio import decode_audio
from millpond._media.clip_source import Clip, local_media, open_clip, read_media
from millpond._media.frames import COSTS, decode_chosen
from millpond._media.images import decode_image, resize_image
from millpond._media.media_path import MediaPath
from millpond._media.sidecars import version_of
from millpond._plan.frame_choice import choose_frames
from millpond.errors import CorruptMedia


class RowSink(Protocol):
    """Where the data of one row goes."""

    def begin_video(self, num_frames: int) -> FrameWriter:
        """Say how many frames come; the writer takes frame t of them, some of them more than once."""
        ...

    def put(self, name: str, value: Any) -> None:
        """An array or number of the row, as long as it is."""
        ...


class ClipDecoder:
    """Decodes rows. Opens what it needs for one row, and nothing stays open but what `urls` keeps.

    Args:
        media: What is read.
        shapes: Of the arrays.
        folder: Relative paths are relative to it.
        sidecars: What is remembered of files.
        urls: Fetches what URLs name.
    """

    def __init__(
        self, media: ClipMedia, shapes: ClipShapes, folder: str, sidecars: ClipSidecars, urls: MediaByUrl
    ) -> None:
        self._media = media
        self._shapes = shapes
        self._folder = folder
        self._sidecars = sidecars
        self._urls = urls
        self.counters: Counter[str] = Counter()

    def decode(self, values: dict[str, Any], times: Any, sink: RowSink, progress: Progress) -> None:
        """Decode everything of a row.

        Args:
            values: Column to value of the row, with its paths.
            times: What the column of times holds.
            sink: Takes the data.
            progress: Called per frame and per packet.

        Raises:
            DataError: Some of it cannot be read; what was written so far does not count.
            DeadlineExceeded, UnsupportedFormat: A URL cannot be fetched.
        """
        media = self._media
        if media.video is not None:
            source = media.source(VIDEO, values, self._folder)
            if is_local(source):
                self._sidecars.require_same_clip(source)
            store = self._sidecars.store
            with (
                self._at_hand(source, progress) as local,
                open_clip(local, store=store, progress=progress) as clip,
            ):
                self._frames(clip, times, sink, progress)
                if media.sound_is_the_clip_s:
                    self._sound(clip.path, float(clip.table.frame_seconds[0]), sink, progress)
                    _require_one_version(clip)
        if media.audio is not None and not media.sound_is_the_clip_s:
            source = media.source(AUDIO, values, self._folder)
            with (
                self._at_hand(source, progress) as local,
                local_media(local, kind="audio", progress=progress) as path,
            ):
                self._sound(path, None, sink, progress)
        if media.image is not None:
            sink.put(IMAGE, self._image(media.source(IMAGE, values, self._folder), progress))

    def _frames(self, clip: Clip, times: Any, sink: RowSink, progress: Progress) -> None:
        options = self._media.video
        assert options is not None
        table = clip.table
        if options.image_size is None:
            self._require_size(table.picture_size, self._shapes.video_size, str(clip.path))
        chosen = self._chosen(clip, times)
        done = decode_chosen(
            clip.file,
            chosen,
            sink.begin_video(len(chosen)),
            image_size=options.image_size,
            interpolation=options.interpolation,
            progress=progress,
        )
        for name in COSTS:
            self.counters[name] += int(getattr(done, name))
        if not clip.path.is_copy:
            self._sidecars.learn_packets(clip.version, done.rows, done.crcs)
        sink.put(SECONDS, table.frame_seconds[chosen] - table.frame_seconds[0])
        sink.put(VIDEO_LENGTH, len(chosen))

    def _chosen(self, clip: Clip, times: Any) -> NDArray[np.int64]:
        """Presentation indices, int64 (T,)."""
        options = self._media.video
        assert options is not None
        chosen = choose_frames(
            clip.table.frame_seconds,
            num_frames=options.num_frames,
            fps=options.fps,
            times=self._times(times) if isinstance(options.times, str) else options.times,
            max_frames=options.max_frames,
        )
        if len(chosen) > self._shapes.num_frames:
            raise CorruptMedia(
                f"{clip.path} gives {len(chosen)} frames, where {self._shapes.num_frames} were the most when the "
                "dataset was opened; open it again",
                path=clip.path.label,
                num_frames=len(chosen),
                limit_frames=self._shapes.num_frames,
            )
        return chosen

    def _times(self, times: Any) -> NDArray[np.float64]:
        column = self._media.times_column
        try:
            seconds = np.asarray(times, np.float64)
        except (TypeError, ValueError):
            seconds = np.empty(0)
        if seconds.ndim != 1 or not len(seconds):
            raise CorruptMedia(f"column {column!r} holds {shortened(times)}, not a list of seconds", column=column)
        return seconds

    def _sound(self, path: MediaPath, start_seconds: float | None, sink: RowSink, progress: Progress) -> None:
        options = self._media.audio
        assert options is not None
        remember = _nothing
        if not path.is_copy:
            kind, crc = crc_of_sound(path, start_seconds, options.max_seconds, progress)
            remember = self._sidecars.check(version_of(path.path), kind, crc)
        audio = decode_audio(
            path,
            sampling_rate=options.sampling_rate,
            mono=options.mono,
            start_seconds=start_seconds,
            max_seconds=options.max_seconds,
            progress=progress,
        )
        remember()
        samples = audio.samples[0] if options.mono else audio.samples.T
        channels = 0 if options.mono else samples.shape[1]
        if channels != self._shapes.audio_channels or len(samples) > self._shapes.audio_samples:
            raise CorruptMedia(
                f"{path} has {len(samples)} samples of sound in {max(channels, 1)} channels, where "
                f"{self._shapes.audio_samples} in {max(self._shapes.audio_channels, 1)} were the most when the dataset "
                "was opened; open it again, or give max_seconds=",
                path=path.label,
            )
        sink.put(AUDIO, samples)
        sink.put(AUDIO_LENGTH, len(samples))

    @contextlib.contextmanager
    def _at_hand(self, source: str, progress: Progress) -> Iterator[str | MediaPath]:
        """What is fetched whole is waited for, which is no decoding."""
        began_ns = time.monotonic_ns()
        with self._urls.at_hand(source, progress) as local:
            self.counters["read_ns"] += time.monotonic_ns() - began_ns
            yield local

    def _image(self, source: str, progress: Progress) -> NDArray[np.uint8]:
        """uint8, (H, W, 3)."""
        options = self._media.image
        assert options is not None
        version = version_of(source) if is_local(source) else None
        with self._at_hand(source, progress) as local:
            data = read_media(local, kind="image", progress=progress)
        remember = _nothing if version is None else self._sidecars.check(version, *crc_of_image(data))
        name = MediaPath.of(source)
        picture = decode_image(data, name)
        remember()
        self.counters["bytes_read"] += len(data)
        if options.image_size is None:
            self._require_size(picture.shape[:2], self._shapes.image_size, str(name))
            return picture
        if picture.shape[:2] == options.image_size:
            return picture
        return resize_image(picture, options.image_size, interpolation=options.interpolation)

    def _require_size(self, size: tuple[int, ...], expected: Size, name: str) -> None:
        if size != expected:
            raise CorruptMedia(
                f"{name} has pictures of {size[0]} x {size[1]}, the others {expected[0]} x {expected[1]} (height x "
                "width); give image_size= to make all pictures one size",
                picture_size=size,
                expected_size=expected,
            )


def _require_one_version(clip: Clip) -> None:
    """Frames and sound are read by two openings of a file."""
    if not clip.path.is_copy and version_of(clip.path.path) != clip.version:
        raise CorruptMedia(f"{clip.path} was replaced while it was read", path=clip.path.label)


def _nothing() -> None:
    pass
