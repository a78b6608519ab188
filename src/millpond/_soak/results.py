"""What a soak found: the verdict of each series, and of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from millpond._soak.kinds import KIND_OF, KINDS, Bound
from millpond._soak.series import Series
from millpond._soak.verdict import CONFIDENCE, Judgement, Verdict, judge
from millpond._soak.words import said_of

GROWING_CODE = 1
_SHELL_SIGNAL_BASE = 128
_BY_SHARING = frozenset({"rss_bytes", "uss_bytes"})
"""RSS counts a shared page in each process, USS in none: they move when sharing does, and where the PSS is known to be
flat a rise of theirs is no growth."""
_BY_FILES = _BY_SHARING | {"pss_bytes"}
"""Pages of files that are mapped (a dataset that is read so) are given back when memory is wanted: where the rest is
flat, so are these."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a soak came to its end.

    Attributes:
        by: "itself" (the command, or the process, ended), "duration", or the name of a signal that this process got.
        signal_number: Of that signal; 0: none.
        exit_code: Of the command, as `subprocess` has it; None where nobody knows.
        num_left_behind: Processes that the command had left when it ended by itself; they were ended.
    """

    by: str
    signal_number: int = 0
    exit_code: int | None = None
    num_left_behind: int = 0


@dataclass(frozen=True, slots=True)
class SoakResult:
    """Verdicts, and what they stand on.

    Attributes:
        judgements: By the name of the series.
        series: What they judge.
        ending: Of the soak.
        facts: What else the JSON says: what ran, how it was looked at, what that cost.
    """

    judgements: Mapping[str, Judgement]
    series: Mapping[str, Series]
    ending: Ending
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Growing if anything of the tree's own is, too short if anything may be; else flat."""
        if not self.judgements:
            return Verdict.TOO_SHORT  # the command ended before the first look
        found = {judgement.verdict for name, judgement in self.judgements.items() if self.counts(name)}
        return next((verdict for verdict in (Verdict.GROWING, Verdict.TOO_SHORT) if verdict in found), Verdict.FLAT)

    def counts(self, name: str) -> bool:
        """Whether a series is held against the tree."""
        is_by_sharing = name in _BY_SHARING and self._is_flat("pss_bytes")
        is_by_files = name in _BY_FILES and self._is_flat("held_bytes")
        return not (KIND_OF[name].is_others or is_by_sharing or is_by_files)

    def _is_flat(self, name: str) -> bool:
        return name in self.judgements and self.judgements[name].verdict is Verdict.FLAT

    def said(self, name: str) -> str:
        """The verdict on a series in words, and whether it matters."""
        judgement = self.judgements[name]
        is_plain = self.counts(name) or judgement.verdict is Verdict.FLAT
        return said_of(KIND_OF[name], judgement) + ("" if is_plain else " (not held against the command)")

    @property
    def exit_code(self) -> int:
        """1 where something grows; else 128 + n after signal n to this process, and else the command's own."""
        if self.verdict is Verdict.GROWING:
            return GROWING_CODE
        if self.ending.signal_number:
            return _SHELL_SIGNAL_BASE + self.ending.signal_number
        code = self.ending.exit_code or 0
        if self.ending.by != "itself":
            return 0  # it was this process that ended it
        return code if code >= 0 else _SHELL_SIGNAL_BASE - code

    def as_dict(self) -> dict[str, Any]:
        """For `soak.json`."""
        return {
            "verdict": self.verdict.value,
            "exit_code": self.exit_code,
            "ended_by": self.ending.by,
            "command_exit_code": self.ending.exit_code,
            "left_behind": self.ending.num_left_behind,
            "confidence": CONFIDENCE,
            **self.facts,
            "series": {name: self._series_dict(name) for name in self.judgements},
        }

    def _series_dict(self, name: str) -> dict[str, Any]:
        kind, judgement, series = KIND_OF[name], self.judgements[name], self.series[name]
        trend = judgement.trend
        per_hour = (
            {} if trend is None else {"slope": trend.slope * 3600, "low": trend.low * 3600, "high": trend.high * 3600}
        )
        return {
            "title": kind.title,
            "verdict": judgement.verdict.value,
            "said": said_of(kind, judgement),
            "counts": self.counts(name),
            "unit": kind.unit,
            "per_hour": per_hour,
            "level": judgement.level if judgement.num_looks else None,
            "last": series.last,
            "peak": series.peak,
            "noise": None if trend is None else trend.noise,
            "blocks": None if trend is None else trend.num_values,
            "limit": judgement.limit,
            "limit_is": kind.bound.value,
            "seconds_to_limit": judgement.seconds_to_limit,
            "enough_seconds": judgement.enough_seconds,
            "looks": series.num_looks,
            "looks_judged_seconds": judgement.span_seconds,
        }


def judge_all(
    series: Mapping[str, Series], rooms: Mapping[Bound, float], warmup_seconds: float
) -> dict[str, Judgement]:
    """Judge every series that was looked at, in the order of `KINDS`."""
    judgements = {}
    for kind in KINDS:
        if kind.name in series:
            times, values = series[kind.name].points(since_seconds=warmup_seconds)
            room = rooms.get(kind.bound)
            limit = None if room is None else (series[kind.name].last or 0.0) + room
            judgements[kind.name] = judge(kind, times, values, limit)
    return judgements


def names_with(result: SoakResult, verdict: Verdict) -> Sequence[str]:
    """Series of the tree's own with this verdict."""
    return [name for name, judged in result.judgements.items() if judged.verdict is verdict and result.counts(name)]
