"""Functions that stand for LeRobot's: the same signature, the same results, the frames from millpond's decoder."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from millpond._datasets.decoders.by_time import decode_video_frames
from millpond._datasets.decoders.cache import VideoDecoderCache
from millpond.errors import FrameTimestampError

_ARGUMENTS = {"video_path", "timestamps", "tolerance_s", "return_uint8"}
# What only says how LeRobot decodes; the frames are the same.
_MEANS = {"backend", "log_loaded_timestamps", "decoder_cache"}
_BACKENDS = (None, "torchcodec", "pyav", "video_reader")


def stand_in(
    theirs: Callable[..., Any], mismatch: type[Exception], their_cache: type | None, cache: VideoDecoderCache
) -> Callable[..., Any]:
    """Make a function for the place of one of LeRobot's.

    What millpond does not do in its way goes to `theirs`: depth, an open file, a decoder cache of another kind than
    LeRobot's own, a backend or an argument that is not known here.

    Args:
        theirs: `decode_video_frames` or one of those that it calls, of whatever version.
        mismatch: LeRobot's `FrameTimestampError`.
        their_cache: LeRobot's own `VideoDecoderCache`, where it has one.
        cache: What is used where a call brings none of millpond's.

    Returns:
        A function that gives uint8 if `return_uint8` says so, else float32 in [0, 1]; (T, 3, H, W).
    """
    signature = inspect.signature(theirs)

    @functools.wraps(theirs)
    def decode(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        given = call.arguments
        if not _is_ours(given, signature, their_cache):
            return theirs(*args, **kwargs)
        brought = given.get("decoder_cache")
        try:
            return decode_video_frames(
                given["video_path"],
                given["timestamps"],
                given["tolerance_s"],
                return_uint8=given.get("return_uint8", False),
                cache=brought if isinstance(brought, VideoDecoderCache) else cache,
            )
        except FrameTimestampError as error:
            raise mismatch(str(error)) from error

    return decode


def _is_ours(given: Mapping[str, Any], signature: inspect.Signature, their_cache: type | None) -> bool:
    """Whether a call asks for nothing but what `decode_video_frames` does."""
    brought = given.get("decoder_cache")
    return (
        isinstance(given["video_path"], (str, os.PathLike))
        and given.get("backend") in _BACKENDS
        and (brought is None or isinstance(brought, VideoDecoderCache) or type(brought) is their_cache)
        and not any(
            _says_something(value, signature.parameters[name])
            for name, value in given.items()
            if name not in _ARGUMENTS | _MEANS
        )
    )


def _says_something(value: Any, parameter: inspect.Parameter) -> bool:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return bool(value)
    return value is not parameter.default
