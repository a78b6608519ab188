"""Which columns of a manifest hold media, and what arrays a sample is made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millpond._datasets.base import VALIDITY_FIELD
from millpond._datasets.manifest_columns import Column
from millpond._media.options import AudioOptions, ImageOptions, VideoOptions
from millpond._urls import path_of_file_url, redacted, scheme_of
from millpond._values import Field
from millpond.errors import CorruptMedia, ObjectMissing

VIDEO, SECONDS, VIDEO_LENGTH = "video", "video_seconds", "video_length"
AUDIO, AUDIO_LENGTH = "audio", "audio_length"
IMAGE = "image"

Size = tuple[int, int]


@dataclass(frozen=True)
class ClipMedia:
    """What is read of each row.

    Attributes:
        video: How; None: no frames are wanted.
        audio: How.
        image: How.
        columns: VIDEO, AUDIO and IMAGE, as far as they are wanted, to the column that holds the paths.
    """

    video: VideoOptions | None
    audio: AudioOptions | None
    image: ImageOptions | None
    columns: Mapping[str, str]

    @property
    def times_column(self) -> str | None:
        """The column that says which frames of each clip are wanted."""
        times = None if self.video is None else self.video.times
        return times if isinstance(times, str) else None

    @property
    def sound_is_the_clip_s(self) -> bool:
        """Frames and sound are of one file: the sound is aligned to the frames."""
        return self.columns.get(VIDEO) is not None and self.columns.get(VIDEO) == self.columns.get(AUDIO)

    def source(self, medium: str, values: Mapping[str, Any], folder: str) -> str:
        """The path or URL of a medium.

        Args:
            medium: VIDEO, AUDIO or IMAGE.
            values: Column to value of the row.
            folder: Relative paths are relative to it.

        Raises:
            ObjectMissing: The row has none.
            CorruptMedia: It has something else there.
        """
        column = self.columns[medium]
        value = values[column]
        if value is None or value == "":
            raise ObjectMissing(f"nothing stands in column {column!r}", column=column)
        if not isinstance(value, str) or "\0" in value:
            raise CorruptMedia(
                f"column {column!r} holds {shortened(value)}, which is neither a path nor a URL", column=column
            )
        if scheme_of(value) == "file":
            return path_of_file_url(value)
        return os.path.join(folder, value) if is_local(value) else value

    @property
    def num_frames_varies(self) -> bool:
        """Whether clips may give different numbers of frames."""
        return self.video is not None and (self.video.fps is not None or self.times_column is not None)

    @property
    def must_survey(self) -> bool:
        """Whether the options leave something open that only the clips themselves can tell."""
        return self.frames_are_open or self.video_size_is_open or self.audio_is_open or self.image_size_is_open

    @property
    def frames_are_open(self) -> bool:
        """The most frames of a clip are not known."""
        return self.video is not None and self.video.fps is not None and self.video.max_frames is None

    @property
    def video_size_is_open(self) -> bool:
        """Frames keep the clips' own size."""
        return self.video is not None and self.video.image_size is None

    @property
    def audio_is_open(self) -> bool:
        """The longest sound, or its channels, are not known."""
        return self.audio is not None and (self.audio.max_seconds is None or not self.audio.mono)

    @property
    def image_size_is_open(self) -> bool:
        """Images keep their own size."""
        return self.image is not None and self.image.image_size is None

    def decides_survey(self) -> list[Any]:
        """What decides on the outcome of a survey, as plain JSON."""
        audio = self.audio and (self.audio.sampling_rate, self.audio.mono, self.audio.max_seconds)
        video = self.video and (self.video.fps, self.frames_are_open, self.video_size_is_open)
        return [sorted(self.columns.items()), video, audio, self.image_size_is_open]


def asked_columns(
    video: VideoOptions | None, audio: AudioOptions | None, image: ImageOptions | None
) -> dict[str, tuple[str, ...]]:
    """The columns that may hold each medium, the first that is there does: what is known before the manifest is read.

    Sound without a column of its own is that of the clips.
    """
    asked: dict[str, tuple[str, ...]] = {}
    for medium, options in ((VIDEO, video), (AUDIO, audio), (IMAGE, image)):
        if options is not None:
            asked[medium] = (medium,) if options.column is None else (options.column,)
    if AUDIO in asked and VIDEO in asked and audio is not None and audio.column is None:
        asked[AUDIO] += asked[VIDEO]
    return asked


def resolve_columns(asked: Mapping[str, tuple[str, ...]], columns: tuple[Column, ...]) -> dict[str, str]:
    """The column of each medium; ValueError where there is none."""
    names = [column.name for column in columns]
    found = {medium: next((name for name in wanted if name in names), None) for medium, wanted in asked.items()}
    missing = [medium for medium, name in found.items() if name is None]
    if missing:
        medium = missing[0]
        raise ValueError(
            f"the manifest has no column {asked[medium][0]!r} for {medium}=; it has {_listed(names)}: name one of them "
            f"with column= in the options of {medium}="
        )
    return {medium: name for medium, name in found.items() if name is not None}


@dataclass(frozen=True)
class ClipShapes:
    """Sizes of a sample's arrays, which all samples share: of the longest, where lengths vary.

    Attributes:
        num_frames: Frames of a clip.
        video_size: (height, width).
        audio_samples: Samples of sound.
        audio_channels: 0: there is no axis of channels.
        image_size: (height, width).
    """

    num_frames: int = 0
    video_size: Size = (0, 0)
    audio_samples: int = 0
    audio_channels: int = 0
    image_size: Size = (0, 0)


def known_shapes(media: ClipMedia, columns: tuple[Column, ...]) -> ClipShapes:
    """What the options and the manifest say of the arrays; 0 where only the clips can tell.

    Raises:
        ValueError: The column of times is not there, or is none.
    """
    frames, video_size, samples, image_size = 0, (0, 0), 0, (0, 0)
    if media.video is not None:
        frames, video_size = _most_frames(media, media.video, columns), media.video.image_size or (0, 0)
    if media.audio is not None and media.audio.max_seconds is not None:
        samples = max(round(media.audio.max_seconds * media.audio.sampling_rate), 1)
    if media.image is not None:
        image_size = media.image.image_size or (0, 0)
    return ClipShapes(frames, video_size, samples, 0, image_size)


def _most_frames(media: ClipMedia, options: VideoOptions, columns: tuple[Column, ...]) -> int:
    if options.num_frames is not None:
        return options.num_frames
    if options.fps is not None:
        return options.max_frames or 0
    if not isinstance(options.times, str):
        return len(options.times or ())
    others = [column for column in columns if column.name not in media.columns.values()]
    column = next((column for column in others if column.name == options.times), None)
    if column is None:
        raise ValueError(
            f"the manifest has no column {options.times!r} of times; it has {_listed([c.name for c in others])}"
        )
    if not column.longest:
        raise ValueError(f"column {column.name!r} holds no lists of seconds, which times= needs")
    return min(column.longest, options.max_frames or column.longest)


def media_fields(media: ClipMedia, shapes: ClipShapes) -> tuple[Field, ...]:
    """The arrays that media make of a sample."""
    fields: list[Field] = []
    if media.video is not None:
        length = VIDEO_LENGTH if media.num_frames_varies else None
        fields += [
            Field(VIDEO, (shapes.num_frames, *shapes.video_size, 3), "uint8", frames=True, length=length),
            Field(SECONDS, (shapes.num_frames,), "float64", length=length),
        ]
        fields += [Field(VIDEO_LENGTH, (), "int64")] if length is not None else []
    if media.audio is not None:
        channels = (shapes.audio_channels,) if shapes.audio_channels else ()
        fields += [
            Field(AUDIO, (shapes.audio_samples, *channels), "float32", length=AUDIO_LENGTH),
            Field(AUDIO_LENGTH, (), "int64"),
        ]
    if media.image is not None:
        fields.append(Field(IMAGE, (*shapes.image_size, 3), "uint8", frames=True))
    return tuple(fields)


def passed_columns(media: ClipMedia, columns: tuple[Column, ...], fields: tuple[Field, ...]) -> tuple[Column, ...]:
    """The columns that go into batches as they are: all but those of media.

    Raises:
        ValueError: One has the name of something else in a batch.
    """
    passed = tuple(column for column in columns if column.name not in media.columns.values())
    taken = {field.name for field in fields} | {VALIDITY_FIELD}
    for column in passed:
        if column.name in taken:
            raise ValueError(
                f"the manifest has a column {column.name!r}, which is the name of something else in a batch; rename it"
            )
    return passed


def presentable(value: Any) -> Any:
    """A path as it stands in the manifest; of a URL nothing that may be secret; what is no text as it is."""
    return redacted(value) if isinstance(value, str) and not is_local(value) else value


def is_local(source: str) -> bool:
    """A path, no URL."""
    return scheme_of(source) is None


def shortened(value: Any) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:20]))
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 20 else shown or "none"
