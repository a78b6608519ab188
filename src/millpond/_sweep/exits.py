"""How a chunk ended, in words and as an exit code for a shell."""

from __future__ import annotations

import signal

from millpond._amounts import size_in_words
from millpond._sweep.orders import ChunkOutcome, EndedBy

_TIMED_OUT_CODE = 124
"""As timeout(1) has it."""
_SHELL_SIGNAL_BASE = 128
_NOT_STARTED_CODE = 127


def signal_in_words(number: int) -> str:
    """ "killed by SIGKILL (9)"."""
    try:
        return f"killed by {signal.Signals(number).name} ({number})"
    except ValueError:  # the real-time signals between the first and the last have no name
        return f"killed by signal {number}"


def exit_in_words(outcome: ChunkOutcome) -> str:
    """Why it ended, for ledgers and reports: "killed by SIGKILL (9), possibly out of memory (peak RSS 7.9 GiB)"."""
    if outcome.ended_by is EndedBy.LOST:
        return f"lost: {outcome.problem}"
    if outcome.exit_code is None and outcome.ended_by is EndedBy.ITSELF:
        return outcome.problem
    words = _ending(outcome)
    return f"{words}; {outcome.problem}" if outcome.problem else words


def exit_code_of(outcome: ChunkOutcome) -> int:
    """For a shell: the child's own, 128 + n for signal n, 124 for a timeout, 127 where it did not start.

    Never 0 for a chunk that did not end by itself.
    """
    if outcome.ended_by is EndedBy.TIMEOUT:
        return _TIMED_OUT_CODE
    if outcome.exit_code is None:
        return _NOT_STARTED_CODE if outcome.ended_by is EndedBy.ITSELF else 1
    if outcome.exit_code < 0:
        return _SHELL_SIGNAL_BASE - outcome.exit_code
    return outcome.exit_code or int(outcome.ended_by is not EndedBy.ITSELF)


def _ending(outcome: ChunkOutcome) -> str:
    if outcome.ended_by is EndedBy.TIMEOUT:
        return f"ended at its timeout, after {outcome.duration_seconds:.1f} s"
    if outcome.ended_by is EndedBy.BUDGET:
        return f"ended over its memory budget, at {size_in_words(outcome.peak_pss_bytes)}"
    return "cancelled" if outcome.ended_by is EndedBy.CANCELLED else _own_end(outcome)


def _own_end(outcome: ChunkOutcome) -> str:
    code = outcome.exit_code or 0
    if code < 0:
        return signal_in_words(-code) + _memory_in_words(outcome, is_kill=code == -signal.SIGKILL)
    as_signal = code - _SHELL_SIGNAL_BASE
    if as_signal in {int(number) for number in signal.Signals}:
        words = f"exited with code {code}, as a shell says of {signal.Signals(as_signal).name} ({as_signal})"
        return words + _memory_in_words(outcome, is_kill=as_signal == signal.SIGKILL)
    return f"exited with code {code}" + _memory_in_words(outcome, is_kill=False)


def _memory_in_words(outcome: ChunkOutcome, *, is_kill: bool) -> str:
    peak = f"peak RSS {size_in_words(outcome.peak_rss_bytes)}"
    if outcome.oom_kills:
        kills = "1 OOM kill" if outcome.oom_kills == 1 else f"{outcome.oom_kills} OOM kills"
        verdict = ", out of memory" if is_kill else ""
        return f"{verdict}: the cgroup counted {kills} meanwhile ({peak})"
    return f", possibly out of memory ({peak})" if is_kill else ""
