"""The C heap of a process that opens a decoder per segment."""

from __future__ import annotations

import contextlib
import ctypes

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
