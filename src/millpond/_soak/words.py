"""Amounts, rates and times of a soak, for people."""

from __future__ import annotations

from millpond._soak.kinds import MIB, Bound, Kind
from millpond._soak.verdict import Judgement, Verdict

_FAR_SECONDS = 10 * 365 * 86_400.0
REACHED = {
    Bound.MEMORY: "out of memory",
    Bound.SWAP: "out of swap",
    Bound.SHARED_FILES: "/dev/shm full",
    Bound.DESCRIPTORS: "EMFILE",
    Bound.THREADS: "EAGAIN (no more threads)",
}
"""What a program meets at the limit."""


def said_of(kind: Kind, judgement: Judgement) -> str:
    """The verdict in words: "growing by 2.4 a minute (2.3 to 2.5): EMFILE in 5 d 20 h at this rate"."""
    if judgement.verdict is Verdict.GROWING:
        return _said_of_growth(kind, judgement)
    if judgement.verdict is Verdict.TOO_SHORT:
        enough = judgement.enough_seconds
        return "too short to say" + (f": {duration_in_words(enough)} beyond the warm-up may tell" if enough else "")
    trend = judgement.trend
    most = f": at most {rate_in_words(kind, trend.high)}" if trend is not None and trend.high > 0.0 else ""
    return ("flat by now: it has levelled off" if judgement.has_levelled_off else "flat") + most


def _said_of_growth(kind: Kind, judgement: Judgement) -> str:
    trend = judgement.trend
    assert trend is not None
    said = f"growing by {rate_in_words(kind, trend.slope)}"
    seconds = judgement.seconds_to_limit
    if seconds is None or seconds > _FAR_SECONDS:
        return said
    return f"{said}: {REACHED[kind.bound]} in {duration_in_words(seconds)} at this rate"


def level_in_words(kind: Kind, judgement: Judgement) -> str:
    """The amount; a dash where there was no look after the warm-up."""
    return amount_in_words(kind, judgement.level) if judgement.num_looks else "-"


def rate_in_words(kind: Kind, per_second: float) -> str:
    """ "72.0 MiB a minute", "12 an hour"."""
    least = MIB if kind.is_bytes else 1.0
    seconds, unit = next(
        (
            (seconds, unit)
            for seconds, unit in ((60.0, "a minute"), (3600.0, "an hour"))
            if per_second * seconds > least
        ),
        (86_400.0, "a day"),
    )
    return f"{amount_in_words(kind, per_second * seconds)} {unit}"


def amount_in_words(kind: Kind, value: float) -> str:
    """ "1.4 GiB", "512.0 MiB", "12"."""
    if not kind.is_bytes:
        return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
    return f"{value / 2**30:,.1f} GiB" if value >= 2**30 else f"{value / MIB:,.1f} MiB"


def duration_in_words(seconds: float) -> str:
    """The two largest units: "5 d 20 h", "3 min 20 s", "0 s"."""
    left = round(seconds)
    parts = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        parts.append((count, unit))
    first = next((at for at, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count or unit == parts[first][1])
