"""A bounded number of open things, least recently used first out; each is closed when it goes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """Holds a descriptor, a map or memory until it is closed."""

    def close(self) -> None:
        """Give it back. Idempotent."""
        ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Closable)


class OpenFiles(Generic[K, V]):
    """A cache that closes what it evicts. One thread at a time.

    Args:
        capacity: Most that are open at once, at least 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.capacity = capacity
        self._open: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: K, open_it: Callable[[], V]) -> V:
        """The open thing of a key, opened if need be; valid until so many others were asked for."""
        found = self._open.get(key)
        if found is None:
            found = open_it()
            self._open[key] = found
            while len(self._open) > self.capacity:
                self._open.popitem(last=False)[1].close()
        else:
            self._open.move_to_end(key)
        return found

    def drop(self, key: K) -> None:
        """Close one, if it is open."""
        found = self._open.pop(key, None)
        if found is not None:
            found.close()

    def close(self) -> None:
        """Close them all. Idempotent; it can be used again."""
        while self._open:
            self._open.popitem()[1].close()
