"""Ranges on disk: found as they were kept, never wrong, never more than the bound, whoever else writes or dies."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kept_ranges import ETAG, NAME, data_of, find, keep
from millpond._sources import cached_ranges, range_cache
from millpond._sources.object_store import ObjectStore
from millpond._sources.range_cache import RangeCache
from millpond._sources.statistics import FetchStatistics
from millpond._values import ByteRange, FileIdentity
from programs import environment_of_tests, forked, start_python
from store_server import StoreServer, serving_store

PATIENCE_SECONDS = 60.0


def size_of(folder: Path) -> int:
    """Of all files, while nobody writes."""
    cache = RangeCache(folder, 1)
    while True:
        with cache._locked() as lock:
            if lock is not None:  # else a writer has it that this machine lets stand still
                return sum(os.stat(f"{place}/{name}").st_size for place, _, names in os.walk(folder) for name in names)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is written, what is kept is found, and who waits for the lock gets it, however slow the machine is."""
    monkeypatch.setattr(cached_ranges, "_FINISH_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(cached_ranges, "_LOOK_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(range_cache, "_LOCK_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def cache(tmp_path: Path) -> RangeCache:
    return RangeCache(tmp_path / "ranges", 100_000)


def test_a_range_is_found_as_it_was_kept(cache: RangeCache) -> None:
    keep(cache, 7)
    assert find(cache, 7) == data_of(7)
    assert pickle.loads(pickle.dumps(cache)).find(NAME, ETAG, ByteRange(7, 1007)) == data_of(7)
    assert RangeCache(cache.folder, 1).find(NAME, ETAG, ByteRange(7, 1007)) == data_of(7)


@pytest.mark.parametrize(("name", "identity", "wanted"), [
    ("s3://bucket/b", ETAG, ByteRange(7, 1007)),
    (NAME, FileIdentity(10_000, 0, '"b"'), ByteRange(7, 1007)),
    (NAME, FileIdentity(9_999, 0, '"a"'), ByteRange(7, 1007)),
    (NAME, FileIdentity(10_000, 5), ByteRange(7, 1007)),
    (NAME, ETAG, ByteRange(7, 1006)),
    (NAME, ETAG, ByteRange(8, 1007)),
])  # fmt: skip
def test_nothing_else_is_found(name: str, identity: FileIdentity, wanted: ByteRange, cache: RangeCache) -> None:
    keep(cache, 7)
    assert cache.find(name, identity, wanted) is None


def test_a_version_that_tells_nothing_apart_is_not_kept(cache: RangeCache) -> None:
    nothing = FileIdentity(10_000, 0)
    cache.keep(NAME, nothing, [(ByteRange(0, 4), b"abcd")])
    assert cache.find(NAME, nothing, ByteRange(0, 4)) is None
    assert not cache.folder.exists()


@pytest.mark.parametrize("how", ["torn", "longer", "flipped", "empty", "foreign", "of another length"])
def test_what_is_not_what_was_kept_is_dropped(how: str, cache: RangeCache) -> None:
    keep(cache, 7)
    (path,) = cache.folder.glob("*/*.range")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[500] ^= 1
    path.write_bytes({"torn": whole[:700], "longer": whole + b"x", "flipped": bytes(flipped), "empty": b"",
                      "foreign": b"what is this" * 100, "of another length": whole[:-4]}[how])  # fmt: skip
    assert find(cache, 7) is None
    assert not path.exists()
    keep(cache, 7)
    assert find(cache, 7) == data_of(7)


def test_the_bound_holds_at_every_moment_and_the_last_used_stay(cache: RangeCache) -> None:
    for i in range(300):
        keep(cache, i)
        if i % 7 == 0 or i > 280:
            assert size_of(cache.folder) <= 100_000
        assert find(cache, i) == data_of(i)
        os.utime(cache._path_of(NAME, ETAG, ByteRange(i, i + 1000)), ns=(i, i))  # clocks of file systems are coarse
        assert find(cache, 0) == data_of(0)  # used each time
    kept = [i for i in range(300) if find(cache, i) is not None]
    assert kept[0] == 0
    assert kept[1:] == list(range(300 - len(kept) + 1, 300))
    assert len(kept) >= 85


def test_a_bound_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        RangeCache(tmp_path, 0)


def test_what_is_larger_than_all_is_not_kept(cache: RangeCache) -> None:
    keep(cache, 0)
    keep(cache, 1, 100_000)
    assert find(cache, 1, 100_000) is None
    assert find(cache, 0) == data_of(0)


def test_a_smaller_bound_holds_from_the_first_write_on(cache: RangeCache) -> None:
    for i in range(80):
        keep(cache, i)
    smaller = RangeCache(cache.folder, 10_000)
    keep(smaller, 100)
    assert size_of(cache.folder) <= 10_000
    assert find(smaller, 100) == data_of(100)


def test_the_bound_holds_to_the_last_byte(cache: RangeCache) -> None:
    keep(cache, 0)
    sum_size = (cache.folder / "lock").stat().st_size
    three = sum_size + 3 * (size_of(cache.folder) - sum_size)
    for max_bytes, kept in [(three, 3), (three - 1, 2)]:
        bounded = RangeCache(cache.folder, max_bytes)
        for i in range(10, 13):
            keep(bounded, i)
        assert size_of(cache.folder) <= max_bytes
        assert sum(find(bounded, i) is not None for i in (0, 10, 11, 12)) == kept
        for path in cache.folder.glob("*/*.range"):
            path.unlink()


@pytest.mark.parametrize("words", [b"", b"torn", b"mpsum__1" + bytes(12)])
def test_a_sum_that_is_torn_is_counted_anew(words: bytes, cache: RangeCache) -> None:
    for i in range(80):
        keep(cache, i)
    (cache.folder / "lock").write_bytes(words)
    for i in range(80, 120):
        keep(cache, i)
        assert size_of(cache.folder) <= 100_000


def test_what_others_put_there_is_left_alone(cache: RangeCache) -> None:
    keep(cache, 0)
    (path,) = cache.folder.glob("*/*.range")
    others = [cache.folder / "notes.txt", path.parent / "notes.txt"]
    for other in others:
        other.write_bytes(b"x" * 99_500)
    for i in range(200):
        keep(cache, i)
    assert all(other.exists() for other in others)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_cannot_be_written_is_told_once(
    number: int, cache: RangeCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep(cache, 0)
    replacing = os.replace

    def full(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING, "millpond"):
        for i in range(1, 5):
            keep(cache, i)
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot keep ranges in {cache.folder} ({os.strerror(number)}): what is not there yet is fetched each time"
    ]
    monkeypatch.setattr(os, "replace", replacing)
    assert find(cache, 0) == data_of(0)
    assert find(cache, 1) is None
    assert not (cache.folder / "writing").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = RangeCache(tmp_path / "file" / "ranges", 1000)
    keep(cache, 0, 10)
    assert "cannot keep ranges" in caplog.text
    assert find(cache, 0, 10) is None


def test_a_writer_that_is_stopped_keeps_nobody(cache: RangeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_cache, "_LOCK_SECONDS", 0.02)
    keep(cache, 0)
    with open(cache.folder / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keep(cache, 1)
        assert find(cache, 1) is None
        assert find(cache, 0) == data_of(0)
    keep(cache, 1)
    assert find(cache, 1) == data_of(1)


_WRITER = """
import sys
from pathlib import Path
from kept_ranges import RangeCache, data_of, find, keep
cache = RangeCache(Path(sys.argv[1]), 100_000)
for round in range(int(sys.argv[3])):
    for i in range(int(sys.argv[2]), int(sys.argv[2]) + 150):
        keep(cache, i)
        assert find(cache, i) in (None, data_of(i))
        if i % 25 == 0 and round < 10:
            print(i, flush=True)
"""


def test_several_processes_write_and_read_one_folder(cache: RangeCache) -> None:
    writers = [start_python(_WRITER, str(cache.folder), str(first), "2") for first in (0, 100, 200)]
    for writer in writers:
        with writer:
            assert writer.stdout is not None
            for _ in writer.stdout:  # while it goes on, and so do the others
                assert size_of(cache.folder) <= 100_000
        assert writer.returncode == 0
    found = [i for i in range(350) if find(cache, i) is not None]
    assert len(found) >= 80
    assert all(find(cache, i) == data_of(i) for i in found)


def test_a_writer_may_be_killed_at_any_moment(cache: RangeCache) -> None:
    for attempt in range(3):
        with start_python(_WRITER, str(cache.folder), str(attempt * 10), "1000000") as writer:
            assert writer.stdout is not None
            for _ in range(3 + attempt):
                assert writer.stdout.readline()  # it is well under way
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        for i in range(attempt * 10, attempt * 10 + 150):
            assert find(cache, i) in (None, data_of(i))
            keep(cache, 1000 + i)
            assert i % 15 or size_of(cache.folder) <= 100_000


def test_a_writer_that_was_killed_amid_a_file_leaves_nothing_for_long(cache: RangeCache) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from kept_ranges import RangeCache, keep
os.replace = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
keep(RangeCache(Path(sys.argv[1]), 100_000), 5)
"""
    keep(cache, 0)
    command = [sys.executable, "-c", code, str(cache.folder)]
    done = subprocess.run(command, env=environment_of_tests(), timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (cache.folder / "writing").exists()
    again = RangeCache(cache.folder, 100_000)
    assert find(again, 5) is None
    keep(again, 5)
    assert not (cache.folder / "writing").exists()
    assert find(again, 5) == data_of(5)


def test_a_writer_that_was_killed_when_its_range_was_in_place_had_it_counted(cache: RangeCache) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from kept_ranges import RangeCache, keep
cache, replace = RangeCache(Path(sys.argv[1]), 100_000), os.replace
keep(cache, 5)
def replace_and_die(*arguments):
    replace(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace_and_die
keep(cache, 6)
"""
    keep(cache, 0)  # from now on this one believes the sum
    command = [sys.executable, "-c", code, str(cache.folder)]
    done = subprocess.run(command, env=environment_of_tests(), timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == -signal.SIGKILL
    assert find(cache, 6) == data_of(6)
    for i in range(100, 300):
        keep(cache, i)
        assert i < 190 or size_of(cache.folder) <= 100_000


def test_a_child_that_was_forked_amid_a_write_that_failed_does_not_hold_the_lock(
    cache: RangeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        wait, go = os.pipe()
        stack.callback(os.close, wait)

        def in_child() -> bytes:
            os.close(go)
            return os.read(wait, 1) + b"ended"

        def fork_and_fail(*arguments: object) -> None:
            results.append(stack.enter_context(forked(in_child)))  # as another thread may do meanwhile
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        results: list[Callable[[], bytes]] = []
        with monkeypatch.context() as patch:
            patch.setattr(RangeCache, "_write", fork_and_fail)
            keep(cache, 0)
        other = RangeCache(cache.folder, 100_000)
        monkeypatch.setattr(range_cache, "_LOCK_SECONDS", 0.0)  # the lock is free, or never will be
        keep(other, 1)
        os.close(go)
        assert results[0]() == b"ended"
    assert find(other, 1) == data_of(1)


DATA = bytes(range(256)) * 400


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    (tmp_path / "a").write_bytes(DATA)
    with serving_store(tmp_path) as running:
        yield running


def test_a_store_fetches_nothing_that_is_kept(server: StoreServer, cache: RangeCache) -> None:
    cache = RangeCache(cache.folder, 1_000_000)
    wanted = [ByteRange(i * 20_000, i * 20_000 + 5000) for i in range(5)]
    expected = [DATA[one.start : one.stop] for one in wanted]
    for attempt in range(2):
        with ObjectStore(server.url, cache=cache) as store:
            identity = store.identity("a")
            server.forget()
            assert store.read_ranges("a", [*wanted, ByteRange(3, 3)], identity=identity) == [*expected, b""]
            assert server.counts.requests == (0 if attempt else 1)
            assert store.statistics.bytes_from_cache == (25_000 if attempt else 0)
    with ObjectStore(server.url, cache=cache) as store:
        assert store.read("a", wanted[0], identity=identity) == expected[0]
        assert bytes(store.submit("a", wanted[1], identity=identity).result(PATIENCE_SECONDS)) == expected[1]
        assert store.statistics == FetchStatistics(bytes_from_cache=10_000)


def test_a_store_keeps_nothing_of_a_version_that_is_not_named(server: StoreServer, cache: RangeCache) -> None:
    with ObjectStore(server.url, cache=cache) as store:
        store.read("a", ByteRange(0, 100))
        store.read_ranges("a", [ByteRange(0, 100)])
    assert not cache.folder.exists()


def test_no_secret_is_in_the_folder(server: StoreServer, cache: RangeCache) -> None:
    cache = RangeCache(cache.folder, 1_000_000)
    with ObjectStore(f"{server.url.replace('//', '//ann:hunter2@')}?sig=sesame", cache=cache) as store:
        store.read("a", ByteRange(0, 100), identity=store.identity("a"))
    with ObjectStore(f"{server.url}?sig=another", cache=cache) as store:  # the same object, signed anew
        store.read("a", ByteRange(0, 100), identity=store.identity("a"))
        assert store.statistics.bytes_from_cache == 100
    held = b"".join(path.read_bytes() + str(path).encode() for path in cache.folder.rglob("*") if path.is_file())
    assert b"hunter2" not in held
    assert b"sesame" not in held


def test_a_slow_disk_holds_no_fetch_up(server: StoreServer, cache: RangeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(RangeCache, "keep", lambda *arguments: gate.wait(PATIENCE_SECONDS))
    store = ObjectStore(server.url, cache=cache)
    identity = store.identity("a")
    for i in range(100):
        assert store.read("a", ByteRange(i, i + 10), identity=identity) == DATA[i : i + 10]
    gate.set()
    store.close()
