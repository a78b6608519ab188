"""What crumbles on the C heap goes back to the kernel, seldom enough."""

from __future__ import annotations

import ctypes
import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from millpond import VideoDecoderCache
from millpond._datasets.decoders import cache as cache_module
from millpond._media import heap
from millpond._media.heap import HeapTrimmer
from open_videos import no_video
from programs import run_python

HAS_GLIBC = hasattr(ctypes.CDLL(None), "malloc_trim")

HOLES = """
import ctypes
from millpond._media.heap import HeapTrimmer, _anon_bytes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
trimmer = HeapTrimmer(share=1)
trimmer.trim_if_grown()
pieces = []
for _ in range(1000):
    pieces.append(libc.malloc(60_000))  # below the size from which glibc maps
    ctypes.memset(pieces[-1], 1, 60_000)
    libc.malloc(5_000)  # stays, and keeps what is freed around it apart
for piece in pieces:
    libc.free(piece)
before = _anon_bytes()
trimmer.trim_if_grown()
print((before - _anon_bytes()) // 1_000_000)
"""


class Counted:
    """A stand-in for malloc_trim, a clock and an amount of memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0, freed: int = 0) -> None:
        self.now, self.held, self.trims = 100.0, 1000, 0
        self._seconds, self._freed = seconds, freed
        monkeypatch.setattr(heap, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(heap, "_anon_bytes", lambda: self.held)
        monkeypatch.setattr(heap, "_malloc_trim", lambda: self._trim)

    def _trim(self, pad: int) -> int:
        assert pad == 0
        self.trims += 1
        self.now += self._seconds
        self.held -= self._freed
        return 1


@pytest.mark.skipif(not HAS_GLIBC, reason="this C library has no malloc_trim")
def test_holes_go_back_to_the_kernel(tmp_path: Path) -> None:
    assert 50 <= int(run_python(["-c", HOLES], directory=tmp_path).stdout) <= 65


def test_memory_that_has_not_grown_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    trimmer = HeapTrimmer(growth=0.01)
    for held, trims in ((1000, 1), (1010, 1), (1011, 2), (1021, 2), (900, 2), (909, 2), (910, 3)):
        counted.held = held
        trimmer.trim_if_grown()
        assert counted.trims == trims, held


def test_growth_counts_from_what_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch, freed=200)
    trimmer = HeapTrimmer(growth=0.5)
    trimmer.trim_if_grown()
    assert counted.held == 800
    counted.held = 1200
    trimmer.trim_if_grown()
    assert counted.trims == 1
    counted.held = 1201
    trimmer.trim_if_grown()
    assert (counted.trims, counted.held) == (2, 1001)


def test_no_more_than_its_share_of_the_time_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch, seconds=0.5)
    trimmer = HeapTrimmer(share=0.25)
    while counted.now < 200:
        counted.held *= 2
        trimmer.trim_if_grown()
        counted.now += 0.125
    assert counted.trims * 0.5 == pytest.approx(100 * 0.25 / 1.25, rel=0.1)


def test_where_no_descriptor_is_left_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    trimmer = HeapTrimmer()

    def no_descriptor() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(heap, "_anon_bytes", no_descriptor)
    trimmer.trim_if_grown()
    assert counted.trims == 0


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    HeapTrimmer().trim_if_grown()


def test_a_decoder_that_is_opened_looks_after_the_heap_and_one_that_is_there_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    class Recorded(HeapTrimmer):
        def trim_if_grown(self) -> None:
            calls.append("look")

    monkeypatch.setattr(cache_module, "_heap", Recorded())
    cache = VideoDecoderCache(max_size=2)
    for key in (1, 2, 1, 2, 3, 3):
        with cache.lease_entry(key, no_video):
            calls.append("use")
    assert calls == ["look", "use", "look", "use", "use", "use", "look", "use", "use"]
    cache.clear()
