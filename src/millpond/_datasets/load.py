"""One clip, sound or image in one call: `load_video`, `load_audio` and `load_image`, under a time limit if one is set.

What does the work takes and gives plain values, lies at the top of this module and imports what it needs when it is
called: with a limit it runs in a worker of the guard, which finds it by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.media_by_url import UrlAccess, at_hand
from millpond._guard.timeouts import call_with_timeout
from millpond._media.media_path import MediaPath, name_of_bytes
from millpond._media.options import AudioOptions, ImageOptions, VideoOptions
from millpond._plan.frame_choice import choose_frames
from millpond._urls import redacted, scheme_of
from millpond.errors import DataError

MediaSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A path, a URL, the whole file as bytes, or a file object, which is read from where it stands to its end."""

MAX_UNASKED_BYTES = 4 << 30
"""Of frames by rate, where nothing bounds them but what the clip says of its own length."""

_Given = str | bytes | MediaPath


def load_audio(
    source: MediaSource,
    *,
    sampling_rate: int,
    mono: bool = True,
    max_seconds: float | None = None,
    timeout: float | None = None,
    storage_options: Mapping[str, Any] | None = None,
    token: str | None = None,
) -> NDArray[np.float32]:
    """Decode the first audio stream of a file.

    Args:
        source: A path, a URL, the whole file as bytes, or a binary file object, which is read to its end.
        sampling_rate: Samples per second; the stream is resampled where it has another rate.
        mono: Mix down to one channel, as `ffmpeg -ac 1` does. Stereo in phase may then exceed 1.
        max_seconds: Decode no more than so many from the beginning. None: all of it.
        timeout: Seconds, after which the process that decodes is killed. None takes MILLPOND_DECODE_TIMEOUT; if that is
            not set, or 0, it is decoded in this process, without a limit.
        storage_options: Access to what a URL names: fsspec's names, or obstore's own.
        token: A bearer token for http(s), gs and az, the user's token for hf://, a session token for s3.

    Returns:
        float32, (samples,), -1 to 1; with `mono=False` (channels, samples).

    Raises:
        ObjectMissing: Nothing there.
        CorruptMedia: No sound in it, or some of it does not decode; nothing partial is returned.
        DecodeTimeout: It took longer than `timeout`.
        FetchTimeout, UnsupportedFormat, DataError: It could not be fetched.
    """
    access = UrlAccess(storage_options, token)
    options = AudioOptions(sampling_rate=sampling_rate, mono=mono, max_seconds=max_seconds)
    samples: NDArray[np.float32] = _call(_read_audio, source, "audio", options, timeout, access)
    return samples


def load_video(
    source: MediaSource,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    times: Sequence[float] | None = None,
    max_frames: int | None = None,
    image_size: tuple[int, int] | None = None,
    interpolation: str = "bilinear",
    timeout: float | None = None,
    storage_options: Mapping[str, Any] | None = None,
    token: str | None = None,
) -> NDArray[np.uint8]:
    """Decode frames of the first video stream of a file. Give exactly one of `num_frames`, `fps` and `times`.

    Only the GOPs that hold chosen frames are decoded.

    Args:
        source: A path, a URL, the whole file as bytes, or a binary file object, which is read to its end.
        num_frames: So many frames, spread evenly over the clip; a clip with fewer repeats some.
        fps: So many frames a second, from the first on; more than the clip's own repeats frames.
        times: The frames shown at these seconds after the first, ascending.
        max_frames: With `fps`: at most the first so many.
        image_size: (height, width) to resize to; None keeps the clip's own.
        interpolation: "bilinear", "area" or "bicubic".
        timeout: Seconds, after which the process that decodes is killed. None takes MILLPOND_DECODE_TIMEOUT; if that is
            not set, or 0, it is decoded in this process, without a limit.
        storage_options: Access to what a URL names: fsspec's names, or obstore's own.
        token: A bearer token for http(s), gs and az, the user's token for hf://, a session token for s3.

    Returns:
        uint8, (T, 3, H, W), RGB, upright; channels-last in memory, as batches are.

    Raises:
        ObjectMissing: Nothing there.
        CorruptMedia: No video in it, or a frame wanted does not decode; nothing partial is returned.
        FrameTimestampError: A time lies outside of the clip.
        DecodeTimeout: It took longer than `timeout`.
        FetchTimeout, UnsupportedFormat, DataError: It could not be fetched.
    """
    if isinstance(times, str):
        raise TypeError(f"times is {times!r}, it must be a list of seconds: only a dataset has columns")
    access = UrlAccess(storage_options, token)
    options = VideoOptions(
        num_frames=num_frames,
        fps=fps,
        times=times,
        max_frames=max_frames,
        image_size=image_size,
        interpolation=interpolation,
    )
    pictures: NDArray[np.uint8] = _call(_read_video, source, "video", options, timeout, access)
    return pictures.transpose(0, 3, 1, 2)


def load_image(
    source: MediaSource,
    *,
    image_size: tuple[int, int] | None = None,
    interpolation: str = "bilinear",
    timeout: float | None = None,
    storage_options: Mapping[str, Any] | None = None,
    token: str | None = None,
) -> NDArray[np.uint8]:
    """Decode an image: PNG, JPEG, WebP or whatever else Pillow reads; of an animation the first picture.

    Args:
        source: A path, a URL, the whole file as bytes, or a binary file object, which is read to its end.
        image_size: (height, width) to resize to; None keeps the image's own.
        interpolation: "bilinear", "area" or "bicubic".
        timeout: Seconds, after which the process that decodes is killed. None takes MILLPOND_DECODE_TIMEOUT; if that is
            not set, or 0, it is decoded in this process, without a limit.
        storage_options: Access to what a URL names: fsspec's names, or obstore's own.
        token: A bearer token for http(s), gs and az, the user's token for hf://, a session token for s3.

    Returns:
        uint8, (3, H, W), RGB; alpha is dropped, the EXIF orientation applied; channels-last in memory, as batches are.

    Raises:
        ObjectMissing: Nothing there.
        CorruptMedia: It does not decode, is cut short, or is too large to be an image.
        DecodeTimeout: It took longer than `timeout`.
        FetchTimeout, UnsupportedFormat, DataError: It could not be fetched.
    """
    access = UrlAccess(storage_options, token)
    options = ImageOptions(image_size=image_size, interpolation=interpolation)
    picture: NDArray[np.uint8] = _call(_read_image, source, "image", options, timeout, access)
    return picture.transpose(2, 0, 1)


def _call(
    function: Callable[..., Any],
    source: MediaSource,
    kind: str,
    options: object,
    timeout: float | None,
    access: UrlAccess,
) -> Any:
    given, name = _given(source, kind)
    return call_with_timeout(function, given, options, access, timeout=timeout, item=name)


def _given(source: MediaSource, kind: str) -> tuple[_Given, str]:
    """What can travel to another process, wherever that runs, and what errors call it."""
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if not isinstance(path, str):
            raise TypeError(f"a path must be text, not {path!r}")
        if scheme_of(path) is not None:
            return path, str(MediaPath(path, redacted(path)))
        named = MediaPath(os.path.abspath(path) if path else path, MediaPath.of(path).label)
        return named, str(named)
    if not isinstance(source, bytes | bytearray | memoryview):
        read = getattr(source, "read", None)
        if read is None:
            raise TypeError(f"a {type(source).__name__} is no path, URL, bytes or binary file object")
        source = read()
        if not isinstance(source, bytes | bytearray | memoryview):
            raise TypeError("the file object gives text: open it with mode 'rb'")
    data = source if isinstance(source, bytes) else bytes(source)
    return data, name_of_bytes(len(data), kind)


def _read_audio(source: _Given, options: AudioOptions, access: UrlAccess) -> NDArray[np.float32]:
    from millpond._media.audio import decode_audio

    with at_hand(source, access) as local:
        samples = decode_audio(
            local, sampling_rate=options.sampling_rate, mono=options.mono, max_seconds=options.max_seconds
        ).samples
    return samples[0] if options.mono else samples


def _read_image(source: _Given, options: ImageOptions, access: UrlAccess) -> NDArray[np.uint8]:
    from millpond._media.clip_source import read_named_media
    from millpond._media.images import decode_image, resize_image

    with at_hand(source, access) as local:
        picture = decode_image(*read_named_media(local, kind="image"))
    if options.image_size is None:
        return picture
    return resize_image(picture, options.image_size, interpolation=options.interpolation)


def _read_video(source: _Given, options: VideoOptions, access: UrlAccess) -> NDArray[np.uint8]:
    """uint8, (T, H, W, 3)."""
    from millpond._media.clip_source import open_clip
    from millpond._media.frames import decode_chosen

    with at_hand(source, access) as local, open_clip(local) as clip:
        assert not isinstance(options.times, str)
        chosen = choose_frames(
            clip.table.frame_seconds,
            num_frames=options.num_frames,
            fps=options.fps,
            times=options.times,
            max_frames=options.max_frames,
        )
        shape = (len(chosen), *(options.image_size or clip.table.picture_size), 3)
        if options.num_frames is None and options.times is None and options.max_frames is None:
            _require_room(shape, str(clip.path))
        pictures = np.empty(shape, np.uint8)
        decode_chosen(
            clip.file,
            chosen,
            pictures.__setitem__,
            image_size=options.image_size,
            interpolation=options.interpolation,
        )
    return pictures


def _require_room(shape: tuple[int, ...], name: str) -> None:
    wanted_bytes = int(np.prod(shape, dtype=np.float64))
    if wanted_bytes > MAX_UNASKED_BYTES:
        raise DataError(
            f"{name} says that it lasts so long that it makes {shape[0]:,} frames, {wanted_bytes:,} bytes (limit "
            f"{MAX_UNASKED_BYTES:,}); pass max_frames or a smaller image_size",
            wanted_bytes=wanted_bytes,
            limit_bytes=MAX_UNASKED_BYTES,
        )
