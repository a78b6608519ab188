"""VideoDecoderCache against a model of it: any order of asking, leasing, clearing and dropping."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from millpond import VideoDecoderCache
from millpond._datasets.decoders.opening import Entry
from open_videos import no_video

KEYS = st.sampled_from("abcdef")


class _Odd(Exception):
    """Why an entry does not open."""


class CacheMachine(RuleBasedStateMachine):
    """What is kept is a list of entries, the one used last at its end; what is leased is another."""

    @initialize(max_size=st.none() | st.integers(1, 4), max_bytes=st.none() | st.integers(1, 30))
    def begin(self, max_size: int | None, max_bytes: int | None) -> None:
        self.cache = VideoDecoderCache(max_size, max_bytes)
        self.max_size, self.max_bytes = max_size, max_bytes
        self.kept: list[tuple[str, Entry]] = []
        self.leases: list[tuple[AbstractContextManager[Entry], Entry]] = []
        self.every: list[Entry] = []
        self.books = [0, 0, 0]

    @rule(key=KEYS, nbytes=st.integers(0, 12))
    def get(self, key: str, nbytes: int) -> None:
        lease, entry = self._lease(key, nbytes)
        assert not entry.file_handle.closed
        lease.__exit__(None, None, None)

    @rule(key=KEYS, nbytes=st.integers(0, 12))
    def begin_lease(self, key: str, nbytes: int) -> None:
        self.leases.append(self._lease(key, nbytes))

    @rule(which=st.integers(0, 50), fails=st.booleans())
    def end_lease(self, which: int, fails: bool) -> None:
        if self.leases:
            lease, _ = self.leases.pop(which % len(self.leases))
            try:
                lease.__exit__(*((_Odd, _Odd(), None) if fails else (None, None, None)))
            except _Odd:
                assert fails

    @rule(key=KEYS)
    def fail_to_open(self, key: str) -> None:
        def fail() -> Entry:
            raise _Odd

        is_kept = key in dict(self.kept)
        try:
            with self.cache.lease_entry(key, fail):
                assert is_kept
        except _Odd:
            assert not is_kept
        self._count(key)

    @rule(keys=st.sets(KEYS))
    def drop(self, keys: set[str]) -> None:
        self.cache.drop(lambda key: key in keys)
        self.kept = [(key, entry) for key, entry in self.kept if key not in keys]

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.kept = []

    @rule(key=KEYS)
    def close_behind_its_back(self, key: str) -> None:
        for kept, entry in self.kept:
            if kept == key and all(leased is not entry for _, leased in self.leases):
                entry.file_handle.close()
                assert entry.file_handle.closed
                with self.cache.lease_entry(key, self._open(1)) as another:
                    assert another is not entry
                self.kept = [pair for pair in self.kept if pair[1] is not entry]
                self.books[1] += 1
                self._keep(key, another)

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        assert list(self.cache._cache.items()) == self.kept
        assert all(a is b for a, (_, b) in zip(self.cache._cache.values(), self.kept, strict=True))
        alive = [entry for _, entry in self.kept] + [entry for _, entry in self.leases]
        for entry in self.every:
            is_alive = any(entry is one for one in alive)
            contents: Any = entry.file_handle.contents
            assert (entry.file_handle.closed, contents.times_closed) == (not is_alive, int(not is_alive))
        told = self.cache.statistics()
        assert [told.hits, told.misses, told.evictions] == self.books
        assert told.open == sum(not entry.file_handle.closed for entry in self.every)
        assert told.nbytes == sum(entry.decoder.nbytes for _, entry in self.kept)
        assert len(self.cache) == len(self.kept)
        assert not self.cache._opening

    def teardown(self) -> None:
        if hasattr(self, "cache"):
            self.cache.clear()
            for lease, _ in self.leases:
                lease.__exit__(None, None, None)
            assert all(entry.file_handle.closed for entry in self.every)

    def _lease(self, key: str, nbytes: int) -> tuple[AbstractContextManager[Entry], Entry]:
        lease = self.cache.lease_entry(key, self._open(nbytes))
        entry = lease.__enter__()
        expected = dict(self.kept).get(key)
        assert expected is None or entry is expected
        if not self._count(key):
            self._keep(key, entry)
        return lease, entry

    def _open(self, nbytes: int) -> Any:
        def open_it() -> Entry:
            self.every.append(no_video(nbytes=nbytes))
            return self.every[-1]

        return open_it

    def _count(self, key: str) -> bool:
        """A hit or a miss; what is hit moves to the end."""
        is_kept = key in dict(self.kept)
        self.books[0 if is_kept else 1] += 1
        self.kept.sort(key=lambda pair: pair[0] == key)
        return is_kept

    def _keep(self, key: str, entry: Entry) -> None:
        self.kept.append((key, entry))
        while len(self.kept) > 1 and self._is_over():
            self.kept.pop(0)
            self.books[2] += 1

    def _is_over(self) -> bool:
        nbytes = sum(entry.decoder.nbytes for _, entry in self.kept)
        too_many = self.max_size is not None and len(self.kept) > self.max_size
        return too_many or (self.max_bytes is not None and nbytes > self.max_bytes)


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
