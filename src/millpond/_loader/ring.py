"""Room for bytes on their way: a fixed piece of memory, taken in order and given back in any."""

from __future__ import annotations

from collections import deque


class Ring:
    """Which part of a fixed piece of memory is taken: taken in order, given back in any, free again in order.

    Args:
        size: Bytes.

    Attributes:
        taken_bytes: In pieces that were not given back.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken_bytes = 0
        self._pieces: deque[list[int]] = deque()  # [start, stop, 1 if given back], oldest first

    def take(self, size: int) -> int | None:
        """Where `size` bytes in one piece begin; None where there is no such room now."""
        while self._pieces and self._pieces[0][2]:
            self._pieces.popleft()
        start = self._room_for(size)
        if start is not None:
            self._pieces.append([start, start + size, 0])
            self.taken_bytes += size
        return start

    def _room_for(self, size: int) -> int | None:
        if not self._pieces:
            return 0 if size <= self.size else None
        first, last = self._pieces[0][0], self._pieces[-1][1]
        if last <= first:  # what is taken goes around the end
            return last if last + size <= first else None
        if last + size <= self.size:
            return last
        return 0 if size <= first else None

    def give_back(self, start: int) -> None:
        """The piece that begins there is free."""
        for piece in self._pieces:
            if piece[0] == start and not piece[2]:
                piece[2] = 1
                self.taken_bytes -= piece[1] - start
                return
