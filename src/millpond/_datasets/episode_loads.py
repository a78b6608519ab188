"""Threads that fetch the bytes of episodes into the room there is, and the calls that wait for them.

Nobody waits under the lock, and no code of a user runs under it, destructors included: a decoder that is collected ends
its lease in whatever thread and at whatever moment, so its finalizer reaches the `Bell` and nothing else.
"""

from __future__ import annotations

import contextlib
import copy
import operator
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, TracebackType
from typing import Any

from millpond._datasets.episode_room import Call, Key, Load, Room
from millpond._datasets.episode_waits import Bell, Patience, too_large
from millpond.errors import ClosedError, MillpondError

Fetch = Callable[[int, str], tuple[Any, int, Any]]
"""`fetch(episode, camera) -> (payload, num_bytes, decoder)`."""

Told = Mapping[Key, tuple[int, bool]]
"""How many bytes each key will take, and whether that is certain."""


@dataclass(frozen=True, slots=True)
class EpisodeCacheStatistics:
    """What an episode cache did so far.

    Attributes:
        hits: Decoders asked for whose bytes were there.
        misses: Fetches that brought the bytes of an episode's camera.
        errors: Fetches that failed.
        bytes_fetched: By those that did not.
        prefetch_submitted: Episodes of which anything had to be fetched when they were submitted.
        prefetch_waits: Calls of `ensure_ready` that had to wait.
        evictions: Times that the bytes of an episode's camera had to go.
        bytes_used: Of what is there and what is on its way.
        peak_bytes: The most that this ever was; never more than `max_bytes`.
        max_bytes: The limit.
    """

    hits: int
    misses: int
    errors: int
    bytes_fetched: int
    prefetch_submitted: int
    prefetch_waits: int
    evictions: int
    bytes_used: int
    peak_bytes: int
    max_bytes: int


class EpisodeLoads:
    """The loads of one cache. Any thread of the process that made it.

    Threads are started as loads need them, and end after `close` or `abandon`.

    Args:
        room: For the bytes; used under the lock of this object, and by nobody else.
        lease_timeout_seconds: How long a call waits while no room can come but from leases. None: for ever.
        fetch: Gives the function that fetches; None once its owner is gone, whom threads hold no longer than a fetch.
    """

    def __init__(self, room: Room, lease_timeout_seconds: float | None, fetch: Callable[[], Fetch | None]) -> None:
        self.room = room
        self.bell = Bell()
        self._lease_timeout_seconds = lease_timeout_seconds
        self._fetch = fetch
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._submitted: set[int] = set()
        self._errors: dict[Key, tuple[BaseException, TracebackType | None]] = {}
        self._closed = False
        self._hits = self._misses = self._failures = self._bytes_fetched = self._submissions = self._waits = 0

    def statistics(self) -> EpisodeCacheStatistics:
        """What was done so far."""
        with self._lock:
            return EpisodeCacheStatistics(
                hits=self._hits,
                misses=self._misses,
                errors=self._failures,
                bytes_fetched=self._bytes_fetched,
                prefetch_submitted=self._submissions,
                prefetch_waits=self._waits,
                evictions=self.room.evictions,
                bytes_used=self.room.bytes_used,
                peak_bytes=self.room.peak_bytes,
                max_bytes=self.room.max_bytes,
            )

    def submit(self, episode: int, told: Told) -> None:
        """Fetch what is not there, behind everything submitted before; what had failed is tried again."""
        with self._changing():
            self._submitted.add(episode)
            is_new = False
            for key in told:
                self._errors.pop(key, None)
                is_new |= self._demand(key, told)
                self.room.expect(key)
            self._refuse_too_large(tuple(told))
            self._submissions += is_new
        self.bell.ring()  # an error may be gone that somebody was to see

    def was_submitted(self, episode: int) -> bool:
        """Whether `submit` was ever called for it."""
        with self._lock:
            self._require_open()
            return episode in self._submitted

    def is_ready(self, keys: Sequence[Key]) -> bool:
        """Whether all are there at this moment."""
        with self._lock:
            self._require_open()
            return all(key in self.room.entries for key in keys)

    def wait_until_ready(self, keys: Sequence[Key], told: Callable[[], Told]) -> None:
        """Wait until all are there at once. What had to be fetched again for it is kept until it was taken.

        Raises:
            BaseException: What the fetch of one of them raised.
            EpisodeTooLarge: They never will be.
            ArenaFull: All room is leased, for too long.
            ClosedError: Closed, perhaps meanwhile.
        """
        self._wait(tuple(keys), told, self.room.touch, expects=True)

    def take(self, key: Key, told: Callable[[], Told]) -> tuple[Any, Any]:
        """Wait for one key, and lease it: its payload, and the decoder that came with it, for whoever is first.

        Raises as `wait_until_ready` does. Else the lease must be ended.
        """
        taken: list[tuple[Any, Any]] = []

        def take(key: Key) -> None:
            taken.append(self.room.take(key))
            self.room.lease(key)

        waited = self._wait((key,), told, take, expects=False)
        with self._lock:
            self._hits += not waited
        return taken[0]

    def lease(self, keys: Sequence[Key], told: Callable[[], Told]) -> None:
        """Wait for all of these, and lease them. Raises as `wait_until_ready` does. Else the leases must be ended."""
        self._wait(tuple(keys), told, self.room.lease, expects=False)

    def abandon(self) -> None:
        """Have the threads end. Neither locks nor blocks: this is what a finalizer may call."""
        self._closed = True
        for _ in range(self.room.max_running):  # a thread may just be starting
            self.bell.work.put(None)

    def close(self) -> None:
        """Let go of everything, and wake whoever waits, with ClosedError; `join` waits for fetches that go on."""
        with self._lock:
            self.room.clear()
            dropped, self.room.dropped = self.room.dropped, []
            errors, self._errors = self._errors, {}
            self.abandon()
        self.bell.ring()
        del dropped, errors

    def join(self) -> None:
        """After `close`: wait for the threads to end."""
        for thread in tuple(self._threads):
            if thread is not threading.current_thread():
                thread.join()

    def _wait(
        self, keys: tuple[Key, ...], told: Callable[[], Told], then: Callable[[Key], None], *, expects: bool
    ) -> bool:
        """Wait until all keys are there, and at that moment do something with each; whether there was a wait."""
        with self._changing():
            for key in keys:
                if key[0] not in self._submitted:
                    self._errors.pop(key, None)  # that call told its caller; this one tries again
            if self._complete(keys, then):
                return False
            self._waits += expects
        sizes = told()
        patience = Patience(self._lease_timeout_seconds, keys)
        call, waiter = Call(keys), self.bell.join()
        try:
            with self._lock:
                self.room.enter(call)
            while True:
                with self._changing():
                    for key in keys:
                        if self._demand(key, sizes) and expects:
                            self.room.expect(key)
                    self._refuse_too_large(keys)
                    if self._complete(keys, then):
                        return True
                if patience.wait(waiter, self.room):
                    with self._lock:
                        self._collect_leases()
                        patience.require_room(self.room)
        finally:
            self.bell.leave(waiter)
            with contextlib.suppress(ClosedError), self._changing():
                self.room.leave(call)

    def _complete(self, keys: tuple[Key, ...], then: Callable[[Key], None]) -> bool:
        """Under the lock: whether all are there, and `then` was called for each. Raises what went wrong with one."""
        for key in keys:
            if key in self._errors:
                raise _as_raised(*self._errors[key])
        if not all(key in self.room.entries for key in keys):
            return False
        for key in keys:
            then(key)
        return True

    def _demand(self, key: Key, told: Told) -> bool:
        """Under the lock: have it fetched, unless it is there, on its way, or known not to come."""
        if key in self.room.entries or key in self.room.loads or key in self._errors:
            return False
        self.room.enqueue(key, *told[key])
        return True

    def _refuse_too_large(self, keys: tuple[Key, ...]) -> None:
        """Under the lock: do not wait for what can never be there at once."""
        wanted_bytes = self.room.size_of(keys)
        if wanted_bytes <= self.room.max_bytes:
            return
        error = too_large(keys, wanted_bytes, self.room.max_bytes)
        for key in keys:
            if self.room.cancel(key):
                self._errors[key] = error, None

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock; then let go of what had to go, and after that begin what may begin."""
        dropped: list[Any] = []
        admitted: list[Load] = []
        try:
            with self._lock:
                self._require_open()
                self._collect_leases()
                try:
                    yield
                finally:
                    self.bell.is_room_awaited = bool(self.room.loads)  # from now on the end of a lease is heard
                    self._collect_leases()
                    admitted = self._staffed(self.room.admit())
                    dropped, self.room.dropped = self.room.dropped, []
        finally:
            dropped.clear()
            for load in admitted:
                self.bell.work.put(load)

    def _collect_leases(self) -> None:
        while self.bell.ended_leases:
            self.room.end_lease(self.bell.ended_leases.popleft())

    def _staffed(self, admitted: list[Load]) -> list[Load]:
        """Under the lock: start the threads that loads need."""
        try:
            while len(self._threads) < self.room.num_running:
                thread = threading.Thread(target=_run, args=(self,), name="millpond-episodes", daemon=True)
                thread.start()
                self._threads.append(thread)
        except RuntimeError as error:  # the system gives no more threads: those that are there do the work
            if not self._threads:
                for load in admitted:
                    self._fail(load, error)
                self.bell.ring()
                return []
        return admitted

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError("this episode cache is closed")

    def work(self, load: Load) -> None:
        """In a thread of ours: fetch."""
        fetch = self._fetch()
        try:
            if fetch is None:
                return
            payload, num_bytes, decoder = fetch(*load.key)
            num_bytes = operator.index(num_bytes)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is for those who wait
            _forget_locals(error)
            with contextlib.suppress(ClosedError), self._changing():
                self._fail(load, error)
            self.bell.ring()
            return
        finally:
            del fetch  # what runs its owner's destructor must not hold the lock
        with contextlib.suppress(ClosedError), self._changing():
            self._settle(load, payload, num_bytes, decoder)
        del payload, decoder
        self.bell.ring()

    def look_around(self) -> bool:
        """In a thread of ours: begin what may begin by now; False once closed."""
        with contextlib.suppress(ClosedError), self._changing():
            pass
        return not self._closed

    def _settle(self, load: Load, payload: Any, num_bytes: int, decoder: Any) -> None:
        self._misses += 1
        self._bytes_fetched += num_bytes
        if not self.room.settle(load, payload, num_bytes, decoder):
            self._refuse_too_large((load.key,))

    def _fail(self, load: Load, error: BaseException) -> None:
        self._failures += 1
        self.room.fail(load)
        self._errors[load.key] = error, error.__traceback__


def _as_raised(error: BaseException, trace: TracebackType | None) -> BaseException:
    """A copy to raise: what is kept would keep the frames of whoever catches it, and the decoders that they hold."""
    kind = type(error)
    try:
        if isinstance(error, MillpondError | OSError) or not isinstance(kind.__init__, FunctionType):
            told = copy.copy(error)
        else:  # an __init__ of the user's makes its text from other arguments than `args`
            told = kind.__new__(kind, *error.args)
            told.__dict__.update(error.__dict__)
    except Exception:  # noqa: BLE001 - users' errors may be made in any way
        return error.with_traceback(trace)
    told.__cause__, told.__context__, told.__suppress_context__ = (
        error.__cause__,
        error.__context__,
        error.__suppress_context__,
    )
    return told.with_traceback(trace)


def _forget_locals(error: BaseException) -> None:
    """Of the frames that an error and its causes passed: kept with the error, they would keep what was fetched."""
    chain: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in chain:
        chain.append(one)
        traceback.clear_frames(one.__traceback__)
        one = one.__cause__ or one.__context__


def _run(loads: EpisodeLoads) -> None:
    """What a thread does."""
    while True:
        load = loads.bell.work.get()
        if load is not None:
            loads.work(load)
        elif not loads.look_around():
            return
