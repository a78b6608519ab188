"""What the headers of one row's media say: how much they make at most, and in what size.

Nothing is decoded, but for a PNG with texts, one of which may say how it is turned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import av
import av.error

from millpond._datasets.clip_media import AUDIO, IMAGE, VIDEO, ClipMedia, Size, is_local
from millpond._datasets.clip_reader import ClipSource
from millpond._datasets.media_by_url import UrlAccess, at_hand
from millpond._media.clip_source import local_media, open_clip, read_media
from millpond._media.containers import open_container, packets_of, pick_audio_stream, reason_of
from millpond._media.images import size_of_image
from millpond._media.media_path import MediaPath
from millpond._plan.frame_choice import choose_frames
from millpond.errors import CorruptMedia

SLACK_SECONDS = 0.1
"""More room than a header asks for: times are rounded, and a resampler gives some samples more."""


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What one row's media make. 0 where something is not wanted, or not open."""

    num_frames: int = 0
    video_size: Size = (0, 0)
    audio_samples: int = 0
    audio_channels: int = 0
    image_size: Size = (0, 0)

    def to_row(self) -> list[int]:
        """As integers, to be kept."""
        return [self.num_frames, *self.video_size, self.audio_samples, self.audio_channels, *self.image_size]

    @classmethod
    def from_row(cls, row: list[int]) -> RowFacts:
        """The same again."""
        frames, height, width, samples, channels, tall, wide = row
        return cls(frames, (height, width), samples, channels, (tall, wide))


def look_at_row(source: ClipSource, sample: int) -> RowFacts:
    """Open what a row names, in whichever process this runs.

    Raises:
        DataError: It cannot be read; or another of `ROW_ERRORS`.
    """
    media = source.media
    values = source.table.values(sample)
    facts = RowFacts()
    if media.video is not None and (media.frames_are_open or media.video_size_is_open or _sound_needs_clip(media)):
        facts = _look_at_clip(source, media.source(VIDEO, values, source.folder))
    if media.audio_is_open and not media.sound_is_the_clip_s:
        sound = media.source(AUDIO, values, source.folder)
        with at_hand(sound, source.access) as local, local_media(local, kind="audio") as path:
            samples, channels = _sound_of(path, media, None)
        facts = replace(facts, audio_samples=samples, audio_channels=channels)
    if media.image_size_is_open:
        facts = replace(facts, image_size=_image_size_of(media.source(IMAGE, values, source.folder), source.access))
    return facts


def _sound_needs_clip(media: ClipMedia) -> bool:
    return media.audio_is_open and media.sound_is_the_clip_s


def _look_at_clip(source: ClipSource, path: str) -> RowFacts:
    options = source.media.video
    assert options is not None
    facts = RowFacts()
    if is_local(path):
        source.sidecars.require_same_clip(path)
    with at_hand(path, source.access) as local, open_clip(local, store=source.sidecars.store) as clip:
        if source.media.frames_are_open:
            chosen = choose_frames(clip.table.frame_seconds, fps=options.fps)
            facts = replace(facts, num_frames=len(chosen))
        if source.media.video_size_is_open:
            facts = replace(facts, video_size=clip.table.picture_size)
        if _sound_needs_clip(source.media):
            seconds = clip.table.frame_seconds
            samples, channels = _sound_of(clip.path, source.media, float(seconds[0]) if len(seconds) else 0.0)
            facts = replace(facts, audio_samples=samples, audio_channels=channels)
    return facts


def _sound_of(path: MediaPath, media: ClipMedia, start_seconds: float | None) -> tuple[int, int]:
    """Samples that the sound makes at most, and its channels where they are kept (0 else)."""
    options = media.audio
    assert options is not None
    try:
        with open_container(path) as container:
            stream = pick_audio_stream(container, path)
            channels = 0 if options.mono else stream.codec_context.channels
            if options.max_seconds is not None:
                return round(options.max_seconds * options.sampling_rate), channels
            seconds = _seconds_of(container, stream, start_seconds)
    except av.error.FFmpegError as error:
        raise CorruptMedia(f"{path} does not open as audio: {reason_of(error)}", path=path.label) from error
    return math.ceil((max(seconds, 0.0) + SLACK_SECONDS) * options.sampling_rate), channels


def _seconds_of(container: Any, stream: Any, start_seconds: float | None) -> float:
    """From `start_seconds`, or the first packet, to the end of the last one."""
    tick = float(stream.time_base)
    if "mp4" in container.format.name and stream.duration:
        first = (stream.start_time or 0) * tick
        stop = first + stream.duration * tick
    else:
        first, stop = _span_of(packets_of(container, stream), tick)
    return float(stop - (first if start_seconds is None else min(start_seconds, stop)))


def _span_of(packets: Iterator[Any], tick: float) -> tuple[float, float]:
    """When the first packet begins and the last one ends; by their durations where that is later."""
    first, stop, total = math.inf, -math.inf, 0.0
    for packet in packets:
        duration = (packet.duration or 0) * tick
        total += duration
        if packet.pts is not None:
            first, stop = min(first, packet.pts * tick), max(stop, packet.pts * tick + duration)
    first = first if math.isfinite(first) else 0.0
    return first, max(stop, first + total)


def _image_size_of(source: str, access: UrlAccess) -> Size:
    with at_hand(source, access) as local:
        return size_of_image(read_media(local, kind="image"), MediaPath.of(source))
