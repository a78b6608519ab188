"""How long a single caller looks for its answer before it goes to sleep. Pure.

To wake a core that has gone to sleep takes 20 to 40 us on a virtual machine, and what it does then takes longer, since
its caches have gone to others: together 0.06 ms of a call's 0.27 (bench/guard.py). So after a quick answer the next one
is looked for, as long as a quick one takes. Where all cores are busy that is no use: the worker may be waiting for this
very core. Then it is left alone for a while, the longer the more often it is in vain.
"""

from __future__ import annotations

from millpond._workers.cores import usable_cores

QUICK_SECONDS = 5e-4
LONGEST_PAUSE_CALLS = 256
_HAS_CORES = usable_cores() > 1


class Patience:
    """Of one guard's callers. Times are of time.monotonic()."""

    def __init__(self) -> None:
        self._expects_quick = False
        self._pause_calls = 0  # still to come
        self._last_pause_calls = 0  # halved by each success

    def looks_until(self, now: float) -> float:
        """Until when to look, in a call that begins now."""
        if self._pause_calls:
            self._pause_calls -= 1
            return now
        return now + QUICK_SECONDS if self._expects_quick else now

    def note_answer(self, began: float, looked_until: float, now: float) -> None:
        """A call that began then, and looked until then, was answered now."""
        was_quick = now - began < QUICK_SECONDS
        if looked_until > began:
            if was_quick:
                self._last_pause_calls //= 2
            else:
                self._pause_calls = self._last_pause_calls = min(2 * self._last_pause_calls + 2, LONGEST_PAUSE_CALLS)
        self._expects_quick = was_quick and _HAS_CORES
