"""Amounts as people write them: "8GiB" and "10m"."""

from __future__ import annotations

import math
import re

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 1 << 10, "MIB": 1 << 20}
_UNITS |= {"GIB": 1 << 30, "TIB": 1 << 40}
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)\s*([smhd]))+", re.IGNORECASE)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.IGNORECASE)


def parse_bytes(size: float | str) -> int:
    """A number of bytes from "2GiB", "500 MB" or a number; TypeError or ValueError names what is accepted."""
    if isinstance(size, int | float) and not isinstance(size, bool) and math.isfinite(size):
        return int(size)
    if not isinstance(size, str):
        raise TypeError(f"a size is a number of bytes or a text such as '2GiB', not {size!r}")
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-zA-Z]*)\s*", size)
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{size!r} is no size: write a number with one of B, KB, MB, GB, TB, KiB, MiB, GiB, TiB")
    bytes_ = float(match[1]) * unit
    if not math.isfinite(bytes_):
        raise ValueError(f"{size!r} is no size: it is more than any machine has")
    return int(bytes_)


def size_in_words(num_bytes: int) -> str:
    """ "7.9 GiB", or "512 MiB": for people."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"


def parse_seconds(duration: float | str) -> float:
    """Seconds from a number, or from a text such as "3600", "90s", "10m", "1h30m".

    Raises:
        ValueError: It is neither, or not more than 0.
    """
    text = str(duration).strip()
    if _DURATION.fullmatch(text.replace(" ", "")):
        seconds = sum(float(number) * _SECONDS[unit.lower()] for number, unit in _PART.findall(text))
    else:
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
    if isinstance(duration, bool) or not 0 < seconds < float("inf"):
        raise ValueError(f"{duration!r} is no duration; write seconds, or a text such as '90s', '10m' or '1h30m'")
    return seconds
