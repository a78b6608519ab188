"""Ranges kept on disk: what is found is what was kept, within a bound, whoever else reads, writes, or dies."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from millpond._sources import range_cache
from millpond._sources.object_store import ObjectStore
from millpond._sources.range_cache import RangeCache
from millpond._values import ByteRange, FileIdentity
from store_server import serving_store

NAME = "https://host/a.mp4"
VERSION = FileIdentity(10_000, 0, '"v1"')
HEAD_BYTES = 12


def data_of(number: int, size: int = 100) -> bytes:
    return bytes((number + i) % 256 for i in range(size))


def keep(cache: RangeCache, number: int, size: int = 100) -> ByteRange:
    wanted = ByteRange(1000 * number, 1000 * number + size)
    cache.keep(NAME, VERSION, wanted, data_of(number, size))
    return wanted


def kept_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.range"))


def test_what_was_kept_is_found_also_by_another_process_of_the_same_folder(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path / "ranges", 10_000)
    wanted = keep(cache, 3)
    for reader in (cache, RangeCache(tmp_path / "ranges", 10_000), pickle.loads(pickle.dumps(cache))):
        assert reader.find(NAME, VERSION, wanted) == data_of(3)


@pytest.mark.parametrize(
    ("name", "version", "wanted"),
    [
        ("https://host/b.mp4", VERSION, ByteRange(3000, 3100)),
        (NAME, FileIdentity(10_000, 0, '"v2"'), ByteRange(3000, 3100)),
        (NAME, FileIdentity(10_001, 0, '"v1"'), ByteRange(3000, 3100)),
        (NAME, FileIdentity(10_000, 1, ""), ByteRange(3000, 3100)),
        (NAME, VERSION, ByteRange(3000, 3099)),
        (NAME, VERSION, ByteRange(3001, 3100)),
    ],
)
def test_another_object_version_or_range_is_not_found(
    name: str, version: FileIdentity, wanted: ByteRange, tmp_path: Path
) -> None:
    cache = RangeCache(tmp_path, 10_000)
    keep(cache, 3)
    assert cache.find(name, version, wanted) is None


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\xee")


def _of_a_stranger(path: Path) -> None:
    path.write_bytes(b"something else")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_truncate, _flip, _of_a_stranger, _empty])
def test_a_file_that_is_not_whole_is_dropped(damage: Callable[[Path], None], tmp_path: Path) -> None:
    cache = RangeCache(tmp_path, 10_000)
    wanted = keep(cache, 1)
    (path,) = kept_files(tmp_path)
    damage(path)
    assert cache.find(NAME, VERSION, wanted) is None
    assert not path.exists()
    keep(cache, 1)
    assert cache.find(NAME, VERSION, wanted) == data_of(1)


def test_the_sum_stays_within_the_bound_and_the_least_recently_used_go(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path, 10 * (100 + HEAD_BYTES))
    wanted = [keep(cache, number) for number in range(10)]
    assert all(cache.find(NAME, VERSION, one) for one in wanted)
    for number, path in enumerate(kept_files(tmp_path)):
        os.utime(path, ns=(0, number))  # long ago
    assert cache.find(NAME, VERSION, wanted[0])  # used now
    for number in range(10, 40):
        keep(cache, number)
        assert sum(path.stat().st_size for path in kept_files(tmp_path)) <= cache.max_bytes
        assert cache.find(NAME, VERSION, wanted[0]), "the one in use went"
    assert not any(cache.find(NAME, VERSION, one) for one in wanted[1:])


def test_a_range_larger_than_the_bound_is_not_kept(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path, 1000)
    small = keep(cache, 1, 100)
    large = keep(cache, 2, 1000)
    assert cache.find(NAME, VERSION, large) is None
    assert cache.find(NAME, VERSION, small)


def test_a_bound_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RangeCache(tmp_path, 0)


@pytest.mark.parametrize("torn", ["", "12a", "-"])
def test_a_torn_sum_is_made_again(torn: str, tmp_path: Path) -> None:
    cache = RangeCache(tmp_path, 500)
    for number in range(3):
        keep(cache, number)
    (tmp_path / "total").write_text(torn)
    for number in range(3, 9):
        keep(cache, number)
        assert sum(path.stat().st_size for path in kept_files(tmp_path)) <= 500


def test_what_a_killed_writer_left_goes_when_room_is_made(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path, 300)
    left = tmp_path / ".writing-1-2"
    left.write_bytes(b"x" * 50)
    os.utime(left, (0, 0))
    for number in range(4):
        keep(cache, number)
    assert not left.exists()


def test_a_full_disk_is_told_once_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int, data: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = RangeCache(tmp_path / "ranges", 10_000)
    first = keep(cache, 0)
    monkeypatch.setattr(range_cache, "_write_all", full)
    with caplog.at_level(logging.WARNING, "millpond"):
        for number in range(1, 4):
            assert cache.find(NAME, VERSION, keep(cache, number)) is None
    assert [record.getMessage() for record in caplog.records] == [
        f"ranges are not kept in '{tmp_path / 'ranges'}' any more: [Errno 28] No space left on device; they are "
        "fetched each time"
    ]
    assert not list((tmp_path / "ranges").glob(".writing-*"))
    assert cache.find(NAME, VERSION, first) == data_of(0)


_WRITER = """
import sys
from pathlib import Path
from millpond._sources.range_cache import RangeCache
from millpond._values import ByteRange, FileIdentity

cache = RangeCache(Path(sys.argv[1]), 3000)
version = FileIdentity(10_000, 0, '"v1"')
print("ready", flush=True)
rounds = int(sys.argv[2])
number = 0
while number != rounds:
    number += 1
    at = 1000 * (number % 50)
    wanted = ByteRange(at, at + 100)
    expected = bytes((number % 50 + i) % 256 for i in range(100))
    cache.keep("https://host/a.mp4", version, wanted, expected)
    found = cache.find("https://host/a.mp4", version, wanted)
    assert found in (None, expected), found
"""


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path), "300"]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    for writer in writers:
        writer.communicate(timeout=60)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert 0 < sum(path.stat().st_size for path in kept_files(tmp_path)) <= 3000


def test_a_writer_that_is_killed_leaves_nothing_that_is_taken_for_data(tmp_path: Path) -> None:
    cache = RangeCache(tmp_path, 3000)
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path), "-1"], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=60)
        for number in range(50):
            found = cache.find(NAME, VERSION, ByteRange(1000 * number, 1000 * number + 100))
            assert found in (None, data_of(number))
        keep(cache, 60)  # no lock is held by the dead
        assert sum(path.stat().st_size for path in kept_files(tmp_path)) <= 3000


def test_a_store_with_a_cache_fetches_each_range_once(tmp_path: Path) -> None:
    content = bytes(range(256)) * 200
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a").write_bytes(content)
    wanted = [ByteRange(0, 1000), ByteRange(20_000, 21_000)]
    with serving_store(tmp_path / "served") as server:
        for round_number in range(2):
            with ObjectStore(server.url, cache=RangeCache(tmp_path / "ranges", 1 << 20)) as store:
                identity = store.identity("a")
                got = [store.read("a", one, identity=identity) for one in wanted]
                assert got == [content[one.start : one.stop] for one in wanted]
                assert store.statistics.bytes_from_cache == (2000 if round_number else 0)
                assert store.statistics.bytes_fetched == (0 if round_number else 2000)
    names = " ".join(path.name for path in (tmp_path / "ranges").iterdir())
    assert "127.0.0.1" not in names
