"""How a chunk ended, in words and as an exit code."""

from __future__ import annotations

import signal

import pytest

from millpond._sweep.exits import exit_code_of, exit_in_words
from millpond._sweep.orders import ChunkOutcome, EndedBy

GIB = 1 << 30


def ended(exit_code: int | None, ended_by: EndedBy = EndedBy.ITSELF, **others: object) -> ChunkOutcome:
    return ChunkOutcome(1, exit_code, ended_by, peak_rss_bytes=8 * GIB, **others)  # type: ignore[arg-type]


WORDS = [
    (ended(0), "exited with code 0"),
    (ended(3), "exited with code 3"),
    (ended(-9), "killed by SIGKILL (9), possibly out of memory (peak RSS 8.0 GiB)"),
    (
        ended(-9, oom_kills=1),
        "killed by SIGKILL (9), out of memory: the cgroup counted 1 OOM kill meanwhile (peak RSS 8.0 GiB)",
    ),
    (ended(1, oom_kills=2), "exited with code 1: the cgroup counted 2 OOM kills meanwhile (peak RSS 8.0 GiB)"),
    (ended(-11), "killed by SIGSEGV (11)"),
    (ended(-40), "killed by signal 40"),
    (ended(137), "exited with code 137, as a shell says of SIGKILL (9), possibly out of memory (peak RSS 8.0 GiB)"),
    (ended(139), "exited with code 139, as a shell says of SIGSEGV (11)"),
    (ended(255), "exited with code 255"),
    (ended(-15, EndedBy.TIMEOUT, duration_seconds=60.04), "ended at its timeout, after 60.0 s"),
    (ended(-15, EndedBy.BUDGET, peak_pss_bytes=64 << 20), "ended over its memory budget, at 64 MiB"),
    (ended(-2, EndedBy.CANCELLED), "cancelled"),
    (ended(None, EndedBy.CANCELLED), "cancelled"),
    (ended(None, EndedBy.LOST, problem="the keeper died"), "lost: the keeper died"),
    (ended(None, problem="cannot start 'x'"), "cannot start 'x'"),
    (ended(-9, EndedBy.TIMEOUT, problem="2 were stuck"), "ended at its timeout, after 0.0 s; 2 were stuck"),
]


@pytest.mark.parametrize(("outcome", "words"), WORDS, ids=[words for _, words in WORDS])
def test_an_end_has_words(outcome: ChunkOutcome, words: str) -> None:
    assert exit_in_words(outcome) == words


CODES = [
    (ended(0), 0),
    (ended(3), 3),
    (ended(-signal.SIGSEGV), 139),
    (ended(0, EndedBy.TIMEOUT), 124),
    (ended(0, EndedBy.CANCELLED), 1),
    (ended(-signal.SIGINT, EndedBy.CANCELLED), 130),
    (ended(None, EndedBy.LOST), 1),
    (ended(None), 127),
]


@pytest.mark.parametrize(("outcome", "code"), CODES)
def test_an_end_has_a_code_and_none_but_a_good_one_is_zero(outcome: ChunkOutcome, code: int) -> None:
    assert exit_code_of(outcome) == code
