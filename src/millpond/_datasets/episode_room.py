"""Who gets room for the bytes of episodes, and who must go: the arithmetic of the episode cache, without a thread.

A *key* is (episode, camera). Bytes are reserved before they are fetched, so that what is on its way counts. What must
go is decided in three steps: what was used and is no longer held, longest unused first; for a call that waits, also
what was fetched ahead and not used yet; and at last what a later call waits for. What is leased never goes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Key = tuple[int, str]
"""(episode, camera)."""


@dataclass(eq=False, slots=True)
class Load:
    """Bytes that are to be fetched, or are being fetched.

    Attributes:
        key: Whose.
        told_bytes: How many, as far as is known before.
        is_exact: It will be so many; else the index may be wrong about it.
        reserved_bytes: Kept free for it while it is being fetched.
    """

    key: Key
    told_bytes: int
    is_exact: bool
    reserved_bytes: int = 0


@dataclass(eq=False, slots=True)
class Call:
    """Somebody waits until all of these are there at once; who came first is served first."""

    keys: tuple[Key, ...]


class Room:
    """The bytes of a cache, and the loads that wait for theirs. Under one lock of whoever uses it.

    Args:
        max_bytes: Never exceeded by what is there and what is on its way, together.
        max_running: Loads at once.

    Attributes:
        max_bytes, max_running: As above.
        entries: Key to (payload, bytes), longest unused first.
        bytes_used: Of the entries and of what is reserved.
        peak_bytes: The most that were ever used.
        evictions: Entries that had to go.
        releases: Goes up whenever room was given back.
        loads: Everything that waits for room or is being fetched.
        num_running: Loads that are being fetched.
        calls: Those who wait, in the order in which they came; see `enter` and `leave`.
        dropped: What had to go, until whoever holds the lock has let go of it: destructors are not run under a lock.
    """

    def __init__(self, max_bytes: int, max_running: int) -> None:
        self.max_bytes = max_bytes
        self.max_running = max_running
        self.entries: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        self.bytes_used = 0
        self.peak_bytes = 0
        self.evictions = 0
        self.releases = 0
        self.loads: dict[Key, Load] = {}
        self.num_running = 0
        self.calls: list[Call] = []
        self.dropped: list[Any] = []
        self._queued: OrderedDict[Key, Load] = OrderedDict()
        self._decoders: dict[Key, Any] = {}
        self._leases: dict[Key, int] = {}
        self._untaken: dict[int, set[str]] = {}
        self._begun: set[int] = set()
        self._changes = 0
        self._in_vain: tuple[Load, int | None, int] | None = None
        self._largest_seen = 0
        self._largest_ratio: tuple[int, int] | None = None

    def enqueue(self, key: Key, told_bytes: int, is_exact: bool) -> None:
        """Have it fetched when there is room, behind all that were enqueued before."""
        load = Load(key, told_bytes, is_exact)
        self.loads[key] = self._queued[key] = load
        self._changes += 1

    def expect(self, key: Key) -> None:
        """Keep it, once it is there, until it was taken: it is about to be used."""
        self._untaken.setdefault(key[0], set()).add(key[1])

    def take(self, key: Key) -> tuple[Any, Any]:
        """The payload of an entry, and the decoder that came with it if nobody took that yet: they are used now."""
        self._changes += 1
        episode, camera = key
        cameras = self._untaken.get(episode, set())
        cameras.discard(camera)
        self._begun.add(episode)
        if not cameras:
            self._forget(episode)
        # Whoever takes from the next episode is done with the others: what was not taken of them is not awaited.
        for other in [e for e in self._begun if e != episode and not self._is_episode_leased(e)]:
            self._forget(other)
        self.touch(key)
        return self.entries[key][0], self._decoders.pop(key, None)

    def touch(self, key: Key) -> None:
        """It is the last to go."""
        self.entries.move_to_end(key)

    def lease(self, key: Key) -> None:
        """Keep an entry until as many leases ended as began."""
        self._leases[key] = self._leases.get(key, 0) + 1

    def end_lease(self, key: Key) -> None:
        """One lease less."""
        count = self._leases.pop(key, 0) - 1
        if count > 0:
            self._leases[key] = count
        else:
            self._release()

    def admit(self) -> list[Load]:
        """Reserve room for all loads that may be fetched from now on; the first that finds none holds up the others."""
        begun: list[Load] = []
        while self._queued and self.num_running < self.max_running:
            load, rank = self._head()
            attempt = load, rank, self._changes
            reserved = None if attempt == self._in_vain else self._reserve(load, rank)
            if reserved is None:
                self._in_vain = attempt  # all entries were looked at: not again before there is a reason
                break
            load.reserved_bytes = reserved
            self._use(reserved)
            self.num_running += 1
            del self._queued[load.key]
            begun.append(load)
        return begun

    def settle(self, load: Load, payload: Any, num_bytes: int, decoder: Any) -> bool:
        """Put fetched bytes, and their first decoder, in the place of what was reserved for them.

        Returns:
            False if there are more of them than was told, and no room for these: they must be fetched again when there
            is. Whoever asks drops them.
        """
        self._stop(load)
        self._learn(load, num_bytes)
        if num_bytes > self.max_bytes or not self._make_room(num_bytes, self._rank_of(load.key)):
            load.told_bytes, load.is_exact = num_bytes, True
            self._queued[load.key] = load
            self._queued.move_to_end(load.key, last=False)
            return False
        del self.loads[load.key]
        self.entries[load.key] = payload, num_bytes
        self._decoders[load.key] = decoder
        self._use(num_bytes)
        return True

    def fail(self, load: Load) -> None:
        """Nothing comes of it."""
        self._stop(load)
        del self.loads[load.key]
        self._untaken.get(load.key[0], set()).discard(load.key[1])

    def cancel(self, key: Key) -> bool:
        """Do not fetch what only waits for it; whether it did."""
        if key not in self._queued:
            return False
        del self._queued[key], self.loads[key]
        self._untaken.get(key[0], set()).discard(key[1])
        return True

    def enter(self, call: Call) -> None:
        """Somebody waits from now on."""
        self.calls.append(call)
        self._changes += 1

    def leave(self, call: Call) -> None:
        """Somebody waits no longer."""
        self.calls.remove(call)
        self._changes += 1

    def size_of(self, keys: Sequence[Key]) -> int:
        """Bytes of all of these together, as far as they are known for sure."""
        total = 0
        for key in keys:
            if key in self.entries:
                total += self.entries[key][1]
            elif key in self.loads and self.loads[key].is_exact:
                total += self.loads[key].told_bytes
        return total

    @property
    def is_stuck(self) -> bool:
        """After `admit`: loads wait for room, and nothing but the end of a lease can make any."""
        return bool(self._queued) and not self.num_running and bool(self._leases)

    def holders(self) -> dict[Key, int]:
        """Bytes of every entry that is leased."""
        return {key: self.entries[key][1] for key in tuple(self._leases) if key in self.entries}

    def clear(self) -> None:
        """Let go of everything. What is being fetched is no longer counted: nobody may settle it."""
        self.dropped.append((list(self.entries.values()), list(self._decoders.values())))
        self.bytes_used = 0
        self.entries.clear()
        self._decoders.clear()
        self.loads.clear()
        self._queued.clear()
        self._leases.clear()
        self._untaken.clear()
        self._begun.clear()

    def _head(self) -> tuple[Load, int | None]:
        """The load that is next, and the rank of the call that waits for it; None if none does."""
        for rank, call in enumerate(self.calls):
            for key in call.keys:
                if key in self._queued:
                    return self._queued[key], rank
        return next(iter(self._queued.values())), None

    def _rank_of(self, key: Key) -> int | None:
        return next((rank for rank, call in enumerate(self.calls) if key in call.keys), None)

    def _reserve(self, load: Load, rank: int | None) -> int | None:
        """How many bytes are kept for a load; None if there is no room."""
        wanted = self._expected(load)
        if self._make_room(wanted, rank):
            return wanted
        if load.is_exact or rank is None or self.num_running or not self._is_hopeless(self.calls[rank]):
            return None
        # What was told would never fit, and may be wrong: it is tried with what room there is.
        for key in list(self._evictable(rank)):
            self._drop(key)
        return self.max_bytes - self.bytes_used

    def _learn(self, load: Load, num_bytes: int) -> None:
        """What an index tells may have little to do with what an overridden fetch brings: see by how much, at most."""
        self._largest_seen = max(self._largest_seen, num_bytes)
        if load.is_exact or not load.told_bytes:
            return
        brought, told = self._largest_ratio or (-1, 1)
        if num_bytes * told > load.told_bytes * brought:
            self._largest_ratio = num_bytes, load.told_bytes

    def _expected(self, load: Load) -> int:
        """How many bytes are reserved for a load."""
        if load.is_exact:
            return load.told_bytes
        if not load.told_bytes:
            return min(self._largest_seen, self.max_bytes)
        brought, told = self._largest_ratio or (1, 1)
        return min(-(-load.told_bytes * brought // told), self.max_bytes)

    def _is_hopeless(self, call: Call) -> bool:
        """What a call waits for would not fit into an empty cache, if it is as large as expected."""
        there = sum(self.entries[key][1] for key in call.keys if key in self.entries)
        to_come = sum(self._expected(self.loads[key]) for key in call.keys if key in self.loads)
        return there + to_come > self.max_bytes

    def _make_room(self, num_bytes: int, rank: int | None) -> bool:
        lacking = self.bytes_used + num_bytes - self.max_bytes
        if lacking <= 0:
            return True
        victims: list[Key] = []
        for key in self._evictable(rank):
            victims.append(key)
            lacking -= self.entries[key][1]
            if lacking <= 0:
                break
        if lacking > 0:
            return False
        for key in victims:
            self._drop(key)
        return True

    def _evictable(self, rank: int | None) -> Iterator[Key]:
        """Entries that may go for a load, in the order in which they go."""
        waited = {key for call in self.calls for key in call.keys}
        kept = waited | self._leases.keys()
        yield from (key for key in self.entries if key not in kept and not self._is_awaited(key))
        if rank is None:
            return
        yield from (key for key in self.entries if key not in kept and self._is_awaited(key))
        kept = {key for call in self.calls[: rank + 1] for key in call.keys} | self._leases.keys()
        yield from (key for key in self.entries if key in waited and key not in kept)

    def _is_awaited(self, key: Key) -> bool:
        return key[1] in self._untaken.get(key[0], ())

    def _is_episode_leased(self, episode: int) -> bool:
        return any(key[0] == episode for key in self._leases)

    def _forget(self, episode: int) -> None:
        if self._untaken.pop(episode, None):
            self._release()
        self._begun.discard(episode)

    def _drop(self, key: Key) -> None:
        payload, num_bytes = self.entries.pop(key)
        self.bytes_used -= num_bytes
        self.evictions += 1
        self._untaken.get(key[0], set()).discard(key[1])
        self.dropped.append((payload, self._decoders.pop(key, None)))

    def _use(self, num_bytes: int) -> None:
        self.bytes_used += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.bytes_used)

    def _stop(self, load: Load) -> None:
        self.num_running -= 1
        self.bytes_used -= load.reserved_bytes
        load.reserved_bytes = 0
        self._release()

    def _release(self) -> None:
        self.releases += 1
        self._changes += 1
