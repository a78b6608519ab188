"""The C heap: kept in workers, where the next decoder needs what the last one freed; given back where it crumbles."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable

from millpond._anon_memory import STATM_PATH, parse_anon_bytes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_INT_MAX = 2**31 - 1
_KEPT_BYTES = 64 << 20
"""More than any decoder of ours frees at once: ten pictures of 1920x1080 are 31 MB."""


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next decoder; elsewhere nothing happens.

    By default pictures of a closed context go back to the kernel, and those of the next one come as fresh pages: 23
    faults a frame with AV1 at GOP 30, 45 of 600 microseconds.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)


def keep_all_freed_memory() -> None:
    """Have glibc keep whatever is freed, and take large pieces from there too: no page is fresh twice.

    For processes whose pieces are of any size, as samples of a dataset are; see bench/transport.py.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _INT_MAX)


def give_back_freed_memory() -> None:
    """Have glibc return to the kernel what was freed, of all threads' heaps; elsewhere nothing happens."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


class HeapTrimmer:
    """Gives freed memory back to the kernel where a heap crumbles, in processes that are not ours to tune.

    FFmpeg's pictures are aligned memory, for which glibc looks for a piece that is larger by the alignment, and puts
    the rest aside (its bug 30723). What a picture leaves is then too small for the next one, as long as something
    small, a part of a sample table say, lies in that rest, and the heap grows instead. In 20,000 random frames of AV1
    through a cache of 100 decoders a heap with 90 MB in use came to hold 100 MB of such holes.

    Args:
        growth: Of the process's anonymous memory, over the least since the last time; more is looked into.
        share: Of the time that may be spent on it: it takes 0.5 ms, but 0.2 s with millions of pieces on the heap.
    """

    def __init__(self, growth: float = 0.01, share: float = 0.05) -> None:
        self._growth, self._share = growth, share
        self._trim = _malloc_trim()
        self._least_bytes = 0.0
        self._not_before = 0.0

    def trim_if_grown(self) -> None:
        """To be called now and then, by any thread; 10 us if there is nothing to do. Nothing happens without glibc."""
        began = time.monotonic()
        if self._trim is None or began < self._not_before:
            return
        with contextlib.suppress(OSError):  # no descriptor is left
            held = _anon_bytes()
            if held <= self._least_bytes * (1 + self._growth):
                self._least_bytes = min(self._least_bytes, held)
                return
            self._trim(0)
            ended = time.monotonic()
            self._not_before = ended + (ended - began) / self._share
            self._least_bytes = _anon_bytes()


def _malloc_trim() -> Callable[[int], int] | None:
    """glibc's; None elsewhere, and where /proc does not tell how much memory is held."""
    try:
        _anon_bytes()
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return trim


def _anon_bytes() -> int:
    """Of this process, by a descriptor of the moment: one that is kept tells a forked child of its parent."""
    with open(STATM_PATH, "rb", buffering=0) as file:
        return parse_anon_bytes(file.read(128))
