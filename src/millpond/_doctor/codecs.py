"""What FFmpeg decodes here: a few frames of each codec are encoded on the spot, read back, and recognized."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from numpy.typing import NDArray
from PIL import features

from millpond._doctor.findings import Finding, Looking, error, fine, warning
from millpond._media.frames import decode_frames
from millpond._media.index import build_sample_table
from millpond._media.video_file import VideoFile
from millpond._synth import CODECS
from millpond._synth.encode import Encoding, encode_episodes, encoder_options
from millpond._synth.pattern import read_pattern
from millpond._synth.scene import Scene
from millpond.errors import DataError

_DECODERS = {"av1": ("libdav1d", "libaom-av1"), "vp9": ("vp9", "libvpx-vp9")}
"""Where others than the one named as the codec will do; FFmpeg's own for AV1 is for hardware alone."""
_EPISODE, _FRAMES, _GOP = 7, 6, 3
_HEIGHT, _WIDTH = 96, 128
_SOUND = ("aac", "mp3", "opus", "flac", "vorbis", "pcm_s16le")
_PICTURES = {"jpg": "JPEG", "zlib": "PNG", "webp": "WebP"}
_REMEDY = "pip install --force-reinstall av: its wheels bring an FFmpeg that has all of these"


def look_at_codecs(codecs: tuple[str, ...] = CODECS) -> Iterator[Finding | Looking]:
    """FFmpeg, each codec of videos, those of sound, and formats of images."""
    library = ".".join(map(str, av.library_versions["libavcodec"]))
    yield fine("FFmpeg", f"{av.ffmpeg_version_info}, libavcodec {library}, by PyAV {av.__version__}")
    for codec in codecs:
        yield Looking(f"encoding and decoding {codec}")
        yield try_codec(codec)
    yield _sound()
    yield _pictures()


def try_codec(codec: str) -> Finding:
    """Encode, decode and compare where there is an encoder; else look for the decoder."""
    subject = f"codec {codec}"
    decoder = next((name for name in _DECODERS.get(codec, (codec,)) if has_decoder(name)), None)
    if decoder is None:
        return error(subject, "FFmpeg has no decoder for it", _REMEDY)
    encoding = Encoding(codec=codec, gop=_GOP)  # type: ignore[arg-type] # as the caller has it
    if encoder_options(encoding)[0] not in av.codecs_available:
        return fine(subject, f"{decoder} is there; not tried, for want of an encoder")
    try:
        recognized = _round_trip(encoding)
    except (av.error.FFmpegError, OSError) as failure:
        return warning(subject, f"{decoder} is there; not tried, since encoding fails: {failure}", _REMEDY)
    except (DataError, ValueError) as failure:
        return error(subject, f"{decoder} gives no right frames: {failure}", _REMEDY)
    return fine(subject, f"{decoder} decoded {recognized} frames, and each was the right one")


def has_decoder(name: str) -> bool:
    """Whether FFmpeg has a decoder of this name."""
    try:
        av.codec.Codec(name, "r")
    except UnknownCodecError:
        return False
    return True


def _round_trip(encoding: Encoding) -> int:
    with tempfile.TemporaryDirectory(prefix="millpond-doctor-") as folder:
        path = Path(folder) / "clip.mp4"
        encode_episodes(path, Scene(_HEIGHT, _WIDTH, 0), 0, [(_EPISODE, _FRAMES)], encoding, lambda: None)
        pictures: list[tuple[int, int, int]] = []

        def write(frame: int, picture: NDArray[np.uint8]) -> None:
            pictures.append(read_pattern(picture))

        with VideoFile(path, build_sample_table(path)) as file:
            report = decode_frames(file, np.arange(_FRAMES), write)
    for _, failure in report.failures:
        raise failure
    if pictures != [(_EPISODE, 0, frame) for frame in range(_FRAMES)]:
        raise ValueError(f"asked for frames 0 to {_FRAMES - 1}, it gave {[frame for _, _, frame in pictures]}")
    return len(pictures)


def _sound() -> Finding:
    missing = [codec for codec in _SOUND if not has_decoder(codec)]
    if missing:
        return warning("sound", f"FFmpeg has no decoder for {', '.join(missing)}", _REMEDY)
    return fine("sound", f"decoders for {', '.join(_SOUND)}")


def _pictures() -> Finding:
    missing = [name for feature, name in _PICTURES.items() if not features.check(feature)]
    if missing:
        return warning("images", f"Pillow reads no {', '.join(missing)}", "pip install --force-reinstall pillow")
    return fine("images", f"Pillow reads {', '.join(_PICTURES.values())}")
