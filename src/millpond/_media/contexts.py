"""Codec contexts: made for one stream and one strictness, and kept by their thread for the next run of the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
from av.video.codeccontext import VideoCodecContext

from millpond._media.containers import DECODER_LIMITS
from millpond._values import StreamParameters

MAX_KEPT = 4
"""Contexts that a thread keeps: cameras of a robot that are read in turn."""

MAX_KEPT_PIXELS = 2 << 20
"""The pixels of a picture of each, summed up: a context of 640x480 holds 2.3 (AV1) to 4.8 MB (H.264), one of 1920x1080,
which is just within the bound, seven times that."""

Key = tuple[Any, ...]


class _Kept(threading.local):
    """The idle contexts of this thread by key, the one used last at the end. Nobody else ever touches them."""

    def __init__(self) -> None:
        self.contexts: dict[Key, VideoCodecContext] = {}


_kept = _Kept()


class LentContext:
    """A context that one run has to itself.

    Attributes:
        context: To be fed and drained.
        is_fresh: It was never fed before.
        is_spoilt: Set it where a next run would not find the context as if it were fresh.
    """

    def __init__(self, context: VideoCodecContext, *, is_fresh: bool) -> None:
        self.context = context
        self.is_fresh = is_fresh
        self.is_spoilt = False


@contextmanager
def lend_context(stream: StreamParameters, *, starts_clean: bool, fresh: bool) -> Iterator[LentContext]:
    """Lend a context; it is kept where the block ends without an error, drained, and not spoilt.

    Args:
        stream: Whose packets it will be fed; no others, ever.
        starts_clean: As for `make_context`.
        fresh: None that was fed before.
    """
    kept, key = _kept.contexts, _key(stream, starts_clean)
    context = None if fresh else kept.pop(key, None)
    lent = LentContext(context or make_context(stream, starts_clean=starts_clean), is_fresh=context is None)
    yield lent
    if not lent.is_spoilt:
        lent.context.flush_buffers()
        kept.pop(key, None)  # there is another where a picture was written by a run within this one
        kept[key] = lent.context
        if lent.is_fresh:
            _keep_within_bounds(kept)


def make_context(stream: StreamParameters, *, starts_clean: bool) -> VideoCodecContext:
    """Make a fresh single-threaded decoder that knows all that the container says.

    Args:
        stream: Whose packets it will be fed; no others, ever.
        starts_clean: The first packet refreshes everything, so that any error is a real one.
    """
    context = av.CodecContext.create(stream.codec_name, "r")
    assert isinstance(context, VideoCodecContext)
    if stream.extradata:
        context.extradata = stream.extradata
    context.width, context.height = stream.width, stream.height
    # else up to 55 levels off where the container alone says it
    context.color_range = stream.color_range
    context.colorspace = stream.colorspace
    context.color_primaries = stream.color_primaries
    context.color_trc = stream.color_trc
    context.thread_count = 1
    # "explode" rejects damage, but also good H.264 that starts at an open GOP, whose first references are missing
    context.options = DECODER_LIMITS | ({"err_detect": "explode"} if starts_clean else {})
    return context


def _key(stream: StreamParameters, starts_clean: bool) -> Key:
    """All that `make_context` makes of its arguments."""
    return (
        stream.codec_name,
        stream.extradata,
        stream.width,
        stream.height,
        stream.color_range,
        stream.colorspace,
        stream.color_primaries,
        stream.color_trc,
        starts_clean,
    )


def _keep_within_bounds(kept: dict[Key, VideoCodecContext]) -> None:
    while len(kept) > MAX_KEPT or sum(context.width * context.height for context in kept.values()) > MAX_KEPT_PIXELS:
        del kept[next(iter(kept))]
