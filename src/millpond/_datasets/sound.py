"""`millpond.decode_audio`: the sound of a path, a URL or bytes, with the time of its first sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from millpond._datasets.media_by_url import UrlAccess, at_hand
from millpond._values import no_progress

if TYPE_CHECKING:
    from millpond._media.audio import Audio
    from millpond._media.clip_source import Source


def decode_audio(
    source: Source,
    *,
    sampling_rate: int | None = None,
    mono: bool = False,
    start_seconds: float | None = None,
    max_seconds: float | None = None,
    progress: Callable[[], None] = no_progress,
    storage_options: Mapping[str, Any] | None = None,
    token: str | None = None,
) -> Audio:
    """Decode the first audio stream of a file.

    It goes through the container, which alone knows how many samples an encoder put in front and behind, and through a
    resampler that is flushed: the samples are those of the `ffmpeg` command.

    Args:
        source: A path, a URL, or the whole file as bytes.
        sampling_rate: Samples per second wanted; None keeps the stream's own.
        mono: Mix down to one channel, as `ffmpeg -ac 1` does: stereo by 1 / sqrt(2) a channel, so sound in phase
            may exceed 1.
        start_seconds: Align to this time of the clip, say that of its first video frame: sample i is then heard at
            start_seconds + i / rate. Sound before it is cut off, missing sound is silence, also within the stream.
        max_seconds: Only so much; what comes behind is not decoded.
        progress: Called per packet, and per part fetched.
        storage_options: Access to what a URL names: fsspec's names, or obstore's own.
        token: A bearer token for http(s), gs and az, the user's token for hf://, a session token for s3.

    Raises:
        ObjectMissing: No file there.
        CorruptMedia: No audio in it, or some of it does not decode; nothing partial is returned.
        FetchTimeout, UnsupportedFormat, DataError: It could not be fetched.
    """
    from millpond._media import audio

    with at_hand(source, UrlAccess(storage_options, token), progress) as local:
        return audio.decode_audio(
            local,
            sampling_rate=sampling_rate,
            mono=mono,
            start_seconds=start_seconds,
            max_seconds=max_seconds,
            progress=progress,
        )
