"""What those need who wait for the bytes of episodes: to be woken from anywhere, and not to wait for ever."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any

from millpond._datasets.episode_room import Key, Room
from millpond.errors import ArenaFull, EpisodeTooLarge

_logger = logging.getLogger("millpond")


def too_large(keys: Sequence[Key], wanted_bytes: int, max_bytes: int) -> EpisodeTooLarge:
    """The error of keys that are wanted together."""
    return EpisodeTooLarge(
        f"{names_of(keys)} takes {wanted_bytes:,} bytes, more than the {max_bytes:,} that the cache may hold; raise "
        "max_bytes, or take fewer cameras at once",
        wanted_bytes=wanted_bytes,
        free_bytes=max_bytes,
        holders={},
        episode=keys[0][0],
    )


def names_of(keys: Sequence[Key]) -> str:
    """What errors call keys of one episode."""
    cameras = ", ".join(repr(camera) for _, camera in keys)
    return f"episode {keys[0][0]} ({'camera' if len(keys) == 1 else 'cameras'} {cameras})"


class Bell:
    """Wakes threads. `end_leases` may be called from any place: it neither locks nor blocks, as finalizers must not.

    Attributes:
        work: What threads that fetch wait for; None is a reason to look around.
        ended_leases: Since somebody looked.
        is_room_awaited: Loads wait, so that the end of a lease is a reason for an idle thread to look around.
    """

    def __init__(self) -> None:
        self.work: SimpleQueue[Any] = SimpleQueue()
        self.ended_leases: deque[Key] = deque()
        self.is_room_awaited = False
        self._waiters: list[SimpleQueue[None]] = []
        self._pid = os.getpid()

    def join(self) -> SimpleQueue[None]:
        """Be woken from now on. `leave` must follow."""
        waiter: SimpleQueue[None] = SimpleQueue()
        self._waiters.append(waiter)
        return waiter

    def leave(self, waiter: SimpleQueue[None]) -> None:
        """Be woken no longer."""
        self._waiters.remove(waiter)

    def ring(self) -> None:
        """Wake everybody who waits."""
        for waiter in tuple(self._waiters):
            waiter.put(None)

    def end_leases(self, *keys: Key) -> None:
        """Note it, and wake whoever may have room now."""
        if os.getpid() != self._pid:  # a forked child runs finalizers, too
            return
        self.ended_leases.extend(keys)
        self.ring()
        if self.is_room_awaited:
            self.work.put(None)


class Patience:
    """How long one call waits while no room can come but from those who hold leases.

    Args:
        limit_seconds: None: for ever.
        keys: Wanted.
    """

    def __init__(self, limit_seconds: float | None, keys: Sequence[Key]) -> None:
        self._limit_seconds = limit_seconds
        self._keys = keys
        self._releases = -1
        self._since: float | None = None

    def wait(self, waiter: SimpleQueue[None], room: Room) -> bool:
        """Wait to be woken; whether the limit passed since room was last given back, as far as that can be seen."""
        if not room.is_stuck or room.releases != self._releases:
            self._since, self._releases = None, room.releases
        if not room.is_stuck or self._limit_seconds is None:
            waiter.get()
            return False
        if self._since is None:
            self._since = time.monotonic()
        try:
            waiter.get(timeout=max(self._since + self._limit_seconds - time.monotonic(), 0))
        except Empty:
            return True
        return False

    def require_room(self, room: Room) -> None:
        """Under the lock, when the limit has passed: raise ArenaFull, unless room was given back meanwhile."""
        if not room.is_stuck or room.releases != self._releases:
            return
        holders = {names_of([key]): num_bytes for key, num_bytes in room.holders().items()}
        told = ", ".join(f"{name} {num_bytes:,}" for name, num_bytes in holders.items())
        raise ArenaFull(
            f"no room for {names_of(self._keys)}: {sum(holders.values()):,} of {room.max_bytes:,} bytes are leased, "
            f"that is, decoders of them are in use ({told}), and none was let go of for {self._limit_seconds:g} s; let "
            "go of decoders before you ask for more episodes, or raise max_bytes",
            wanted_bytes=room.size_of(self._keys),
            free_bytes=room.max_bytes - room.bytes_used,
            holders=holders,
        )
