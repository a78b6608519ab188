"""Looks at a running chunk, as many as a report can show."""

from __future__ import annotations

from millpond._sweep.orders import Look

_MOST_LOOKS = 1000


class Looks:
    """Keeps every look; of more than a thousand, the greater of each two, then of each four, and so on."""

    def __init__(self) -> None:
        self.peak_pss_bytes = 0
        self._kept: list[Look] = []
        self._pending: list[Look] = []
        self._stride = 1

    @property
    def kept(self) -> tuple[Look, ...]:
        """In order."""
        return tuple(self._kept)

    def add(self, look: Look) -> None:
        """Take one in."""
        self.peak_pss_bytes = max(self.peak_pss_bytes, look.pss_bytes)
        self._pending.append(look)
        if len(self._pending) == self._stride:
            self._kept.append(_greatest(self._pending))
            self._pending.clear()
        if len(self._kept) > _MOST_LOOKS:
            self._kept = [_greatest(self._kept[start : start + 2]) for start in range(0, len(self._kept), 2)]
            self._stride *= 2


def _greatest(looks: list[Look]) -> Look:
    return max(looks, key=lambda look: look.pss_bytes)
