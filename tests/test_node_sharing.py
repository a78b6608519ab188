"""Ranks on one host: a sidecar is made once, a byte fetched once, and nobody waits for ever, whoever dies or stops."""

from __future__ import annotations

import json
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import millpond._datasets.remote_files as remote_files
from millpond import LeRobotDataset
from millpond._datasets.columns import ColumnStore
from millpond._locks import Claim
from millpond._media import sidecars
from millpond._media.header_copy import BEGIN_BYTES
from millpond._media.sidecars import FileVersion, SidecarStore
from millpond._sources import cached_ranges, range_cache, shared_blocks
from millpond._sources.object_store import ObjectStore
from millpond._sources.range_cache import RangeCache
from millpond._values import ByteRange, FileIdentity
from programs import Program, program
from store_server import StoreServer, serving_store
from streamed import MANY, Batches, Held, loader_of, rows_of, taken
from synthesized import DATA_PATH, FRONT, WRIST, MakeDataset

PATIENCE_SECONDS = 60.0
BLOCK_BYTES = 1000
DATA = bytes(range(251)) * 80
VERSION = FileVersion("/a", FileIdentity(1, 1))


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are small, and nobody gives up waiting, however slow the machine is."""
    monkeypatch.setattr(shared_blocks, "BLOCK_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(shared_blocks, "_PATIENCE", 1.0)
    monkeypatch.setattr(sidecars, "_MAKE_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(cached_ranges, "_FINISH_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(cached_ranges, "_LOOK_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(range_cache, "_LOCK_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def in_vain(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when somebody has found what they want claimed."""
    event, take = threading.Event(), Claim.take

    def noted(claim: Claim, numbers: range) -> list[range]:
        taken = take(claim, numbers)
        if not taken:
            event.set()
        return taken

    monkeypatch.setattr(Claim, "take", noted)
    return event


# ---- claims


def test_what_one_has_claimed_another_has_not(tmp_path: Path) -> None:
    one, other = Claim(tmp_path / "new" / "claims"), Claim(tmp_path / "new" / "claims")
    assert one.take(range(2**62, 2**62 + 10)) == [range(2**62, 2**62 + 10)]
    assert other.take(range(2**62 + 7, 2**62 + 13)) == [range(2**62 + 10, 2**62 + 13)]
    assert one.take(range(2**62 + 12, 2**62 + 14)) == [range(2**62 + 13, 2**62 + 14)]
    one.release()
    one.release()
    assert other.take(range(2**62, 2**62 + 3)) == [range(2**62, 2**62 + 3)]
    assert one.take(range(3)) == []  # it was for good
    other.release()
    assert (tmp_path / "new" / "claims").stat().st_size == 0


def test_where_nothing_can_be_locked_everybody_gets_everything(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "claims", None):
        claims = [Claim(path), Claim(path)]
        assert [claim.take(range(5)) for claim in claims] == [[range(5)]] * 2
        for claim in claims:
            claim.release()


# ---- sidecars


def kept_by(store: SidecarStore) -> Callable[[], str | None]:
    def find() -> str | None:
        kept = store.load(VERSION, "x")
        return None if kept is None else kept.facts["made by"]

    return find


def test_of_all_who_want_a_sidecar_one_makes_it(tmp_path: Path) -> None:
    store, start = SidecarStore(tmp_path), threading.Barrier(4)

    def want(number: int) -> str:
        def make() -> str:
            store.save(VERSION, "x", {}, {"made by": f"{number}"})
            return f"{number}"

        start.wait(PATIENCE_SECONDS)
        return store.once(VERSION, "x", kept_by(store), make)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(want, range(4)))) == 1


def test_a_maker_that_was_stopped_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecars, "_MAKE_SECONDS", 0.01)
    store, told = SidecarStore(tmp_path), list[int]()
    with store.making(store.path_of(VERSION, "x", "").name):
        assert store.once(VERSION, "x", kept_by(store), lambda: "me", lambda: told.append(1)) == "me"
    assert told


def test_an_error_of_who_makes_it_is_theirs(tmp_path: Path) -> None:
    store = SidecarStore(tmp_path)

    def fail() -> str:
        raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        store.once(VERSION, "x", kept_by(store), fail)
    assert store.once(VERSION, "x", kept_by(store), lambda: "me") == "me"


# ---- ranges


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    (tmp_path / "a").write_bytes(DATA)
    with serving_store(tmp_path, hang_seconds=PATIENCE_SECONDS) as running:
        yield running


@contextmanager
def stores(server: StoreServer, folder: Path, number: int = 2) -> Iterator[list[ObjectStore]]:
    """As many stores with one cache, and a server that was asked for nothing yet."""
    with ExitStack() as stack:
        made = [ObjectStore(server.url, cache=RangeCache(folder, 1 << 20)) for _ in range(number)]
        yield [stack.enter_context(store) for store in made]


@pytest.fixture
def identity(server: StoreServer) -> FileIdentity:
    with ObjectStore(server.url) as store:
        found = store.identity("a")
    server.forget()
    return found


def test_a_range_that_two_want_is_fetched_once(
    server: StoreServer, identity: FileIdentity, tmp_path: Path, in_vain: threading.Event
) -> None:
    wanted = ByteRange(1500, 3500)
    with stores(server, tmp_path / "ranges") as (one, other):
        with server.held():
            futures = [one.submit("a", wanted, identity=identity)]
            server.wait_until(lambda counts: counts.requests == 1)
            futures.append(other.submit("a", wanted, identity=identity))
            assert in_vain.wait(PATIENCE_SECONDS)
            futures.append(one.submit("a", ByteRange(1600, 1700), identity=identity))
        found = [bytes(future.result(PATIENCE_SECONDS)) for future in futures]
        assert found == [DATA[1500:3500], DATA[1500:3500], DATA[1600:1700]]
        assert (one.statistics.bytes_fetched, one.statistics.bytes_from_cache) == (3000, 100)
        assert (other.statistics.bytes_fetched, other.statistics.bytes_from_cache) == (0, 2000)
    assert (server.counts.requests, server.counts.bytes_sent) == (1, 3000)


def test_those_who_cut_otherwise_find_each_other_s_bytes(
    server: StoreServer, identity: FileIdentity, tmp_path: Path
) -> None:
    def read(store: ObjectStore, step: int) -> None:
        ranges = [ByteRange(at, min(at + step, len(DATA))) for at in range(0, len(DATA), step)]
        futures = [store.submit("a", one, identity=identity) for one in (ranges if step % 2 else ranges[::-1])]
        for one, future in zip(ranges if step % 2 else ranges[::-1], futures, strict=True):
            assert future.result(PATIENCE_SECONDS) == DATA[one.start : one.stop]

    with stores(server, tmp_path / "ranges", 4) as opened, ThreadPoolExecutor(4) as pool:
        list(pool.map(read, opened, (1333, 700, 2501, 5000)))
        assert sum(store.statistics.bytes_fetched for store in opened) == len(DATA)
    assert server.counts.bytes_sent == len(DATA)


def test_those_who_wait_hold_nobody_up(
    server: StoreServer, identity: FileIdentity, tmp_path: Path, in_vain: threading.Event
) -> None:
    with stores(server, tmp_path / "ranges", 1) as (store,):
        claim = claim_of(tmp_path / "ranges", server, identity, 1)
        waiting = [store.submit("a", ByteRange(i, 500 + i), identity=identity) for i in range(40)]
        assert in_vain.wait(PATIENCE_SECONDS)
        assert store.read("a", ByteRange(1500, 2500), identity=identity) == DATA[1500:2500]
        assert not any(future.done() for future in waiting)
        claim.release()
        assert [bytes(future.result(PATIENCE_SECONDS)) for future in waiting] == [DATA[i : 500 + i] for i in range(40)]
    assert server.counts.bytes_sent == 3000


def claim_of(folder: Path, server: StoreServer, identity: FileIdentity, num_blocks: int) -> Claim:
    """The first blocks of the object, as one has them who fetches them."""
    claim = RangeCache(folder, 1).claim()
    first = shared_blocks._first_number(f"{server.url}/a#", identity)
    assert claim.take(range(first, first + num_blocks)) == [range(first, first + num_blocks)]
    return claim


def test_who_was_stopped_is_not_waited_for_for_ever(
    server: StoreServer, identity: FileIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_blocks, "_PATIENCE", 0.0005)
    claim = claim_of(tmp_path / "ranges", server, identity, 2)
    with stores(server, tmp_path / "ranges") as (one, other):
        assert one.read("a", ByteRange(500, 4500), identity=identity) == DATA[500:4500]
        one.close()
        assert other.read("a", ByteRange(500, 4500), identity=identity) == DATA[500:4500]  # it was kept
    claim.release()
    assert server.counts.bytes_sent == 5000


def test_who_was_waited_for_in_vain_is_not_waited_for_again(
    server: StoreServer, identity: FileIdentity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claim_of(tmp_path / "ranges", server, identity, 1)
    with stores(server, tmp_path / "ranges", 1) as (store,):
        for patience in (0.0005, 1.0):  # of which the second would be a minute
            monkeypatch.setattr(shared_blocks, "_PATIENCE", patience)
            assert store.read("a", ByteRange(0, 500), identity=identity) == DATA[:500]
            forgotten, engine = threading.Event(), store._engine
            assert engine is not None
            assert engine._shared is not None
            store.forget("a", ByteRange(0, 500), identity=identity)
            engine._shared._cached.after_writing(forgotten.set)
            assert forgotten.wait(PATIENCE_SECONDS)
    claim.release()
    assert server.counts.bytes_sent == 2000


def test_who_gives_up_waiting_leaves_nothing_claimed(
    server: StoreServer, identity: FileIdentity, tmp_path: Path, in_vain: threading.Event
) -> None:
    claim = claim_of(tmp_path / "ranges", server, identity, 1)
    with stores(server, tmp_path / "ranges") as (one, other):
        with server.held():
            cancelled = [one.submit("a", ByteRange(at, at + 500), identity=identity) for at in (0, 3000)]
            server.wait_until(lambda counts: counts.requests == 1)
            assert in_vain.wait(PATIENCE_SECONDS)
            assert all(future.cancel() for future in cancelled)
        claim.release()
        assert other.read("a", ByteRange(0, 5000), identity=identity) == DATA[:5000]


def test_a_full_cache_rounds_nothing_up(server: StoreServer, identity: FileIdentity, tmp_path: Path) -> None:
    cache = RangeCache(tmp_path / "ranges", 4000)
    for at in range(0, 20_000, 4000):
        with ObjectStore(server.url, cache=cache) as store:
            assert store.read("a", ByteRange(at, at + 2000), identity=identity) == DATA[at : at + 2000]
    assert cache.is_full
    server.forget()
    with ObjectStore(server.url, cache=cache) as store:
        assert store.read("a", ByteRange(500, 3700), identity=identity) == DATA[500:3700]
    assert server.counts.bytes_sent == 3200


# ---- processes


_FETCHER = """
import sys
from pathlib import Path
from millpond._sources import shared_blocks
from millpond._sources.object_store import ObjectStore
from millpond._sources.range_cache import RangeCache
from millpond._values import ByteRange
shared_blocks.BLOCK_BYTES = 1000
with ObjectStore(sys.argv[1], cache=RangeCache(Path(sys.argv[2]), 1 << 20)) as store:
    store.read("a", ByteRange(0, 5000), identity=store.identity("a"))
"""


def test_when_the_fetcher_is_killed_who_waits_takes_over(
    server: StoreServer, identity: FileIdentity, tmp_path: Path, in_vain: threading.Event
) -> None:
    server.script("/a", "hang")
    with program(_FETCHER, tmp_path / "temporary", server.url, str(tmp_path / "ranges")) as first:
        server.wait_until(lambda counts: counts.requests == 2)  # HEAD, and what is not answered
        with stores(server, tmp_path / "ranges", 1) as (store,):
            waiting = store.submit("a", ByteRange(500, 4500), identity=identity)
            assert in_vain.wait(PATIENCE_SECONDS)
            assert server.counts.requests == 2
            first.process.send_signal(signal.SIGKILL)
            assert waiting.result(PATIENCE_SECONDS) == DATA[500:4500]
    assert (server.counts.requests, server.counts.bytes_sent) == (3, 5000)


_RANK = """
import json, sys
from millpond._sources import shared_blocks
shared_blocks.BLOCK_BYTES = 1000
import test_node_sharing as tests
print(json.dumps(tests.report_of(sys.argv[1], sys.argv[2], int(sys.argv[3]))), flush=True)
"""


def digests_of(batches: Batches) -> dict[str, int]:
    """Of each sample, by its index as JSON has it."""
    rows = rows_of(batches)
    return {str(i): zlib.crc32(row[FRONT].tobytes() + row[WRIST].tobytes()) for i, row in rows.items()}


def report_of(root: str, cache_dir: str, seed: int) -> dict[str, Any]:
    """Open a dataset, read an epoch of it, and say what that took."""
    made = {"tables": 0, "columns": 0}
    with pytest.MonkeyPatch.context() as patch:
        _count(patch, made, "tables", remote_files, "table_by_header")
        _count(patch, made, "columns", ColumnStore, "_convert")
        dataset = LeRobotDataset(root, cache_dir=cache_dir)
    with loader_of(dataset, num_workers=0, seed=seed) as loader:
        digests = digests_of(taken(loader))
        told = loader.statistics().counters
    dataset.close()
    return {**made, "digests": digests, "fetched": told["bytes_fetched"], "cached": told["bytes_from_cache"]}


def _count(patch: pytest.MonkeyPatch, counts: dict[str, int], what: str, owner: Any, name: str) -> None:
    function = getattr(owner, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        counts[what] += 1
        return function(*arguments, **options)

    patch.setattr(owner, name, counted)


@contextmanager
def rank(folder: Path, url: str, cache_dir: Path) -> Iterator[Program]:
    """Another process of the host that does what `report_of` does, and prints it."""
    with program(_RANK, folder, url, str(cache_dir), "1") as running:
        yield running


def test_two_ranks_make_and_fetch_everything_once(synth: MakeDataset, tmp_path: Path) -> None:
    root = synth(**MANY)
    expected = digests_of(taken(loader_of(LeRobotDataset(root), num_workers=0)))
    with serving_store(root) as server, rank(tmp_path / "temporary", server.url, tmp_path / "cache") as other:
        reports = [report_of(server.url, str(tmp_path / "cache"), 2), json.loads(other.line())]
        assert other.ended()[0] == 0
    assert [report["digests"] for report in reports] == [expected, expected]
    assert (sum(one["tables"] for one in reports), sum(one["columns"] for one in reports)) == (8, 4)
    of_videos = sum(size for path, size in server.counts.bytes_by_path.items() if path.endswith(".mp4"))
    begins = 2 * 8 * BEGIN_BYTES  # by which each process learns what version is there
    assert of_videos <= begins + sum(path.stat().st_size for path in root.rglob("*.mp4"))


def test_when_a_rank_is_killed_amid_making_and_fetching_another_takes_over(
    synth: MakeDataset, tmp_path: Path, in_vain: threading.Event
) -> None:
    root = synth(**MANY)
    expected = digests_of(taken(loader_of(LeRobotDataset(root), num_workers=0)))
    with serving_store(root) as server, ThreadPoolExecutor(1) as pool:
        held = Held(server, DATA_PATH)
        with rank(tmp_path / "temporary", server.url, tmp_path / "cache") as first:
            assert held.has_come.wait(PATIENCE_SECONDS)
            second = pool.submit(report_of, server.url, str(tmp_path / "cache"), 2)
            assert in_vain.wait(PATIENCE_SECONDS)
            first.process.send_signal(signal.SIGKILL)
            first.process.wait(PATIENCE_SECONDS)
        held.release()
        assert second.result(PATIENCE_SECONDS)["digests"] == expected
