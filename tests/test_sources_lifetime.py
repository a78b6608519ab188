"""A store begins its thread when it is first used, and nothing of it is left when it is closed, collected or forked."""

from __future__ import annotations

import asyncio
import gc
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from millpond._sources.limits import FetchLimits
from millpond._sources.object_store import ObjectStore
from millpond._sources.threads import DaemonThreads
from millpond._values import ByteRange
from millpond.errors import ClosedError, UsageError
from programs import environment_of_tests, forked
from store_server import StoreServer, serving_store

DATA = bytes(range(256)) * 4
WANTED = ByteRange(10, 1000)
PATIENCE_SECONDS = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StoreServer]:
    (tmp_path / "a").write_bytes(DATA)
    with serving_store(tmp_path) as running:
        yield running


def fetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("millpond-")]


def test_nothing_heavy_is_imported_by_a_store_that_never_fetches() -> None:
    code = """
import sys, pickle
from millpond._sources.object_store import ObjectStore
import millpond
store = pickle.loads(pickle.dumps(ObjectStore("s3://bucket/x", storage_options={"key": "k", "secret": "s"})))
millpond.RangeFetcher("https://example.org/x").close()
print({"obstore", "fsspec", "tenacity", "asyncio", "boto3", "ssl", "aiohttp"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


def test_no_thread_begins_before_the_first_request_and_none_is_left_after_close(server: StoreServer) -> None:
    store = ObjectStore(server.url)
    assert not fetch_threads()
    store.read("a", WANTED)
    assert [thread.name for thread in fetch_threads()] == ["millpond-fetch"]
    store.close()
    store.close()
    assert not fetch_threads()


def test_a_store_that_was_closed_opens_again(server: StoreServer) -> None:
    store = ObjectStore(server.url)
    for _ in range(3):
        assert store.read("a", WANTED) == DATA[10:1000]
        store.close()
    assert store.statistics.requests == 3


def test_a_store_that_is_collected_ends_its_thread(server: StoreServer) -> None:
    store = ObjectStore(server.url)
    future = store.submit("a", WANTED)
    future.result(PATIENCE_SECONDS)
    threads = fetch_threads()
    del store
    gc.collect()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert not fetch_threads()


def test_a_store_may_be_collected_in_its_own_thread(server: StoreServer) -> None:
    stores = [ObjectStore(server.url)]
    gone = threading.Event()

    def collect(_: object) -> None:
        stores.clear()
        gc.collect()
        gone.set()

    with server.held():
        stores[0].submit("a", WANTED).add_done_callback(collect)
        threads = fetch_threads()
    assert gone.wait(PATIENCE_SECONDS)
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def test_a_store_that_is_collected_waits_for_nobody(server: StoreServer) -> None:
    """A finalizer runs in any thread, and in that may be held what a callback wants."""
    stores = [ObjectStore(server.url)]
    lock, told = threading.Lock(), threading.Event()

    def tell(_: object) -> None:
        with lock:
            told.set()

    with server.held():
        stores[0].submit("a", WANTED).add_done_callback(tell)
        threads = fetch_threads()
        with lock:
            stores.clear()
            gc.collect()
        assert told.wait(PATIENCE_SECONDS)
    for thread in threads:
        thread.join(PATIENCE_SECONDS)


def test_close_cancels_what_is_in_flight(server: StoreServer) -> None:
    store = ObjectStore(server.url)
    with server.held():
        futures = [store.submit("a", WANTED) for _ in range(20)]
        server.wait_until(lambda counts: counts.requests == 20)
        store.close()
        for future in futures:
            with pytest.raises(CancelledError):
                future.result(0)


def test_a_store_that_was_closed_for_good_opens_no_more(server: StoreServer) -> None:
    store = ObjectStore(server.url)
    assert store.read("a", WANTED)
    store.close(for_good=True)
    store.close()
    server.forget()
    for call in (
        lambda: store.submit("a", WANTED),
        lambda: store.identity("a"),
        lambda: store.read_ranges("a", [WANTED]),
    ):
        with pytest.raises(ClosedError):
            call()
    assert not server.counts.requests


def test_whoever_waits_for_a_store_that_is_closed_is_told(server: StoreServer) -> None:
    store = ObjectStore(server.url)
    told: list[BaseException] = []

    def wait() -> None:
        try:
            store.read("a", WANTED)
        except BaseException as error:  # noqa: BLE001 - it is looked at below
            told.append(error)

    waiting = threading.Thread(target=wait)
    with server.held():
        waiting.start()
        server.wait_until(lambda counts: counts.requests == 1)
        store.close()
        waiting.join(PATIENCE_SECONDS)
    assert [type(error) for error in told] == [ClosedError]


def test_a_future_that_is_cancelled_takes_its_request_along(server: StoreServer) -> None:
    with ObjectStore(server.url) as store, server.held():
        future = store.submit("a", WANTED)
        server.wait_until(lambda counts: counts.open_connections == 1)
        assert future.cancel()
        server.wait_until(lambda counts: counts.open_connections == 0)
        assert server.counts.requests == 1


def test_callbacks_run_in_the_thread_of_the_store(server: StoreServer) -> None:
    names: list[str] = []
    called = threading.Event()
    with ObjectStore(server.url) as store:

        def tell(_: object) -> None:
            names.append(threading.current_thread().name)
            called.set()

        with server.held():  # one that is done already would call at once, in this thread
            store.submit("a", WANTED).add_done_callback(tell)
        assert called.wait(PATIENCE_SECONDS)
    assert names == ["millpond-fetch"]


def test_a_store_may_be_closed_in_a_callback(server: StoreServer) -> None:
    store = ObjectStore(server.url)
    closed = threading.Event()

    def close(_: object) -> None:
        store.close()
        closed.set()

    with server.held():
        store.submit("a", WANTED).add_done_callback(close)
    assert closed.wait(PATIENCE_SECONDS)


def test_many_threads_may_use_one_store(server: StoreServer) -> None:
    wrong: list[int] = []
    with ObjectStore(server.url) as store:

        def read(first: int) -> None:
            starts = range(first, 900, 8)
            wrong.extend(i for i in starts if store.read("a", ByteRange(i, i + 100)) != DATA[i : i + 100])

        threads = [threading.Thread(target=read, args=(first,)) for first in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert not wrong


def test_a_pickled_copy_has_connections_and_counts_of_its_own(server: StoreServer) -> None:
    server.set(bearer="sesame")
    with ObjectStore(server.url, token="sesame", limits=FetchLimits(max_tries=3)) as store:
        store.read("a", WANTED)
        with pickle.loads(pickle.dumps(store)) as copy:
            assert copy.read("a", WANTED) == DATA[10:1000]
            assert copy.statistics.requests == 1
            assert repr(copy) == repr(store)
            assert "sesame" not in repr(copy)


def test_a_forked_child_is_told_what_to_do_instead(server: StoreServer) -> None:
    with ObjectStore(server.url) as store:
        store.read("a", WANTED)

        def in_child() -> bytes:
            said = []
            for mine in (store, ObjectStore(server.url)):
                with pytest.raises(
                    UsageError, match=r"was forked .* multiprocessing_context=\"spawn\".* or use"
                ) as caught:
                    mine.read("a", WANTED)
                said.append(type(caught.value).__name__)
                mine.close()
            return " ".join(said).encode()

        with forked(in_child) as result:
            assert result() == b"UsageError UsageError"
        assert store.read("a", WANTED) == DATA[10:1000]


def test_a_forked_child_may_collect_a_store_of_its_parent(server: StoreServer) -> None:
    stores = [ObjectStore(server.url)]
    stores[0].read("a", WANTED)

    def in_child() -> bytes:
        stores.clear()
        gc.collect()
        return b"collected"

    with forked(in_child) as result:
        assert result() == b"collected"
    assert stores[0].read("a", WANTED) == DATA[10:1000]
    stores[0].close()


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "store.close()"])
def test_a_program_ends_though_a_store_is_open_and_a_request_hangs(ending: str, server: StoreServer) -> None:
    server.set(slow=1.0)
    code = f"""
import sys, time
from millpond._sources.object_store import ObjectStore
from millpond._values import ByteRange
store = ObjectStore(sys.argv[1])
future = store.submit("a", ByteRange(0, 10))
{ending}
"""
    command = [sys.executable, "-c", code, server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment_of_tests(), check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_for_blocking_calls_are_few_and_end() -> None:
    threads = DaemonThreads(3, "millpond-test")
    gate = threading.Event()
    futures = [threads.submit(lambda: gate.wait(PATIENCE_SECONDS)) for _ in range(20)]
    assert len(fetch_threads()) == 3
    assert sum(not future.running() for future in futures) >= 17
    gate.set()
    assert all(future.result(PATIENCE_SECONDS) for future in futures)
    threads.end(finish_seconds=PATIENCE_SECONDS)
    assert not fetch_threads()
    assert threads.submit(lambda: None).cancelled()


def test_threads_that_end_cancel_what_waits() -> None:
    threads = DaemonThreads(1, "millpond-test")
    begun, gate = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        gate.wait(PATIENCE_SECONDS)

    first, second = threads.submit(work), threads.submit(work)
    assert begun.wait(PATIENCE_SECONDS)
    threads.end()
    assert second.cancelled()
    gate.set()
    first.result(PATIENCE_SECONDS)


def test_calls_that_nobody_waits_for_any_more_take_no_threads_from_others() -> None:
    threads = DaemonThreads(2, "millpond-test")
    begun, gate = threading.Semaphore(0), threading.Event()

    def hang() -> bool:
        begun.release()
        return gate.wait(PATIENCE_SECONDS)

    async def give_up_and_go_on() -> str:
        for _ in range(5):
            waiting = asyncio.ensure_future(threads.run(hang))
            await asyncio.sleep(0)
            assert begun.acquire(timeout=PATIENCE_SECONDS)
            waiting.cancel()
            await asyncio.wait([waiting])
        return await asyncio.wait_for(threads.run(lambda: "done"), PATIENCE_SECONDS)

    assert asyncio.run(give_up_and_go_on()) == "done"
    gate.set()
    threads.end(finish_seconds=PATIENCE_SECONDS)
    assert not fetch_threads()


def test_a_file_system_that_hangs_is_read_again_once_it_is_well(hanging: type[Hanging]) -> None:
    """Through fsspec, whose calls cannot be interrupted."""
    with ObjectStore("hanging://") as store:
        for _ in range(20):
            future = store.submit("a", WANTED)
            assert hanging.begun.acquire(timeout=PATIENCE_SECONDS)
            assert future.cancel()
        hanging.is_well = True
        assert store.submit("a", WANTED).result(PATIENCE_SECONDS) == DATA[10:1000]
        hanging.gate.set()


def test_a_file_system_is_asked_for_several_ranges_at_once(hanging: type[Hanging]) -> None:
    with ObjectStore("hanging://") as store:
        futures = [store.submit("a", WANTED) for _ in range(16)]
        for _ in futures:
            assert hanging.begun.acquire(timeout=PATIENCE_SECONDS)
        hanging.gate.set()
        assert [future.result(PATIENCE_SECONDS) for future in futures] == [DATA[10:1000]] * 16


class Hanging(MemoryFileSystem):  # type: ignore[misc]
    """Its reads wait for a gate, unless it is well."""

    protocol = "hanging"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    is_well = False
    gate = threading.Event()
    begun = threading.Semaphore(0)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("hanging://").strip("/")

    def cat_file(self, *arguments: Any, **options: Any) -> bytes:
        if not self.is_well:
            self.begun.release()
            assert self.gate.wait(PATIENCE_SECONDS)
        found: bytes = super().cat_file(*arguments, **options)
        return found


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hanging]]:
    for name, value in {"is_well": False, "gate": threading.Event(), "begun": threading.Semaphore(0)}.items():
        monkeypatch.setattr(Hanging, name, value)
    fsspec.register_implementation("hanging", Hanging, clobber=True)
    Hanging().pipe("/a", DATA)
    yield Hanging
    Hanging.store.clear()
