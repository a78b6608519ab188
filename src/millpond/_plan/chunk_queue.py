"""Where jobs of a sweep wait: new ones in the order of the sweep, pieces of chunks that failed before them. Pure."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence


class JobQueue:
    """Jobs that wait, and in which company they run.

    A *piece* stays together and comes before new jobs; of several pieces that with the earliest job comes first.

    Args:
        names: Of all jobs, in order; all of them are new.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._positions = {name: position for position, name in enumerate(names)}
        self._new = list(names)
        self._pieces: list[tuple[str, ...]] = []
        self._alone: set[str] = set()

    @property
    def num_new(self) -> int:
        """Jobs that wait and are of no piece."""
        return len(self._new)

    @property
    def num_in_pieces(self) -> int:
        """Jobs that wait in pieces."""
        return sum(map(len, self._pieces))

    @property
    def piece_size(self) -> int:
        """Jobs of the piece that comes next; 0 where there is none."""
        return len(self._pieces[0]) if self._pieces else 0

    def take_piece(self, size: int) -> tuple[str, ...]:
        """The first `size` jobs of the piece that comes next; the others wait on as a piece."""
        piece = self._pieces.pop(0)
        self.add_piece(piece[size:])
        return piece[:size]

    def take_new(self, size: int) -> tuple[str, ...]:
        """The first new jobs, at most `size`; fewer where one comes that runs alone."""
        names = self._new[:size]
        stop = next((k for k, name in enumerate(names) if name in self._alone), len(names)) or 1
        del self._new[:stop]
        return tuple(names[:stop])

    def add_piece(self, names: Iterable[str]) -> None:
        """Jobs that run together, before new ones; nothing where there are none."""
        piece = tuple(names)
        if piece:
            insort(self._pieces, piece, key=lambda one: self._positions[one[0]])

    def add_new(self, names: Sequence[str], *, is_first_alone: bool = False) -> None:
        """Jobs wait as if they had never begun; the first of them runs alone from now on where it has to."""
        if names:
            self._new = sorted([*names, *self._new], key=self._positions.__getitem__)
        if is_first_alone:
            self._alone.add(names[0])
