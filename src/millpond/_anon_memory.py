"""A process's own anonymous memory: what it has allocated, without the arena and without files."""

from __future__ import annotations

import resource

STATM_PATH = "/proc/self/statm"
"""Where Linux tells it; other platforms do not."""


def parse_anon_bytes(statm: bytes) -> int:
    """Of what `STATM_PATH` says: resident pages less shared ones (proc(5))."""
    _, resident, shared, *_ = statm.split()
    return (int(resident) - int(shared)) * resource.getpagesize()
