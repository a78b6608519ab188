"""Opening a container that a stranger may have written."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from typing import Any, TypeVar

import av
import av.audio
import av.container
import av.error
import av.stream

from millpond._media.media_path import MediaPath
from millpond._media.sparse_file import SparseFile
from millpond.errors import CorruptMedia

StreamT = TypeVar("StreamT", bound=av.stream.Stream)

MAX_FRAME_PIXELS = 35_651_584
"""8192x4352, the largest picture of any level of H.264 (6.2), VP9 (6.2) and AV1 (6.3), and of HEVC up to 6.2. Decoders
refuse a larger one before they make room for it: a header of 65,535x65,535 would take 6 GB a picture."""

DECODER_LIMITS = {"max_pixels": str(MAX_FRAME_PIXELS)}
"""Options of every video decoder."""

_LISTS = ("hls", "dash", "concat", "imf", "webm_dash_manifest", "vobsub", "rtsp", "sdp", "rtp", "lavfi")
"""Formats that name other files, streams or programs to read: a clip may not send us there."""


_LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""A title that is no UTF-8 is no reason not to decode; PyAV 19 thinks so, too."""


def open_container(path: MediaPath) -> av.container.InputContainer:
    """Open a local file with FFmpeg. Whoever calls closes it.

    Raises:
        av.error.FFmpegError: It is no media, or a list of other files.
    """
    container: av.container.InputContainer = av.open(
        f"file:{os.path.abspath(path.path)}",  # else a name with a colon is taken for a protocol
        mode="r",
        options=dict(DECODER_LIMITS),
        container_options={"format_whitelist": _formats()},
        **_LENIENT,
    )
    return container


def open_sparse(file: SparseFile) -> av.container.InputContainer:
    """Open an MP4 whose media are not looked at. Whoever calls closes it."""
    container: av.container.InputContainer = av.open(
        file, mode="r", format="mov", options=dict(DECODER_LIMITS), **_LENIENT
    )
    return container


def keep_only(container: av.container.InputContainer, chosen: av.stream.Stream) -> None:
    """Have every other stream give no packets."""
    for other in container.streams:
        if other.index != chosen.index:
            other.discard = av.stream.Discard.all


def pick_audio_stream(container: av.container.InputContainer, path: MediaPath) -> av.audio.AudioStream:
    """The first audio stream; every other stream is told to give no packets.

    Raises:
        CorruptMedia: There is none, or none that can be decoded.
    """
    if not container.streams.audio:
        raise CorruptMedia(f"{path} has no audio stream", path=path.label)
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise CorruptMedia(f"{path} has sound of a codec that is not known", path=path.label)
    keep_only(container, stream)
    return stream


def packets_of(container: av.container.InputContainer, stream: StreamT) -> Iterator[av.Packet[StreamT]]:
    """Demux one stream.

    Raises:
        av.error.FFmpegError: The file does not read; or a stream begins in the middle of it, for which PyAV has no
            place (its own IndexError).
    """
    try:
        yield from container.demux(stream)  # type: ignore[misc]  # its stub knows single kinds of streams only
    except IndexError as error:
        raise av.error.InvalidDataError(0, "a stream begins in the middle of the file") from error


def reason_of(error: av.error.FFmpegError) -> str:
    """What went wrong, without FFmpeg's name for the file, which may be that of a memfd."""
    return error.strerror or str(error)


@functools.cache
def _formats() -> str:
    return ",".join(sorted(av.formats_available.difference(_LISTS)))
