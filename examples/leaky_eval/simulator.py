"""A stand-in for a simulator: each one leaves memory behind that only the end of the process gives back."""

from __future__ import annotations

import ctypes
import random
from dataclasses import dataclass

_malloc = ctypes.CDLL(None).malloc
_malloc.restype = ctypes.c_void_p
_malloc.argtypes = [ctypes.c_size_t]


@dataclass(frozen=True)
class Episode:
    """How an episode went.

    Attributes:
        total_reward: Summed over its steps.
        is_success: Whether the goal was reached.
    """

    total_reward: float
    is_success: bool


class Simulator:
    """A point that a policy pushes to a goal on a line.

    Args:
        task: Its name says how hard it is: the further back in the alphabet its first letter, the more noise.
        leak_bytes: That a simulator allocates and never frees, as some renderers' contexts do.
    """

    def __init__(self, task: str, *, leak_bytes: int) -> None:
        self._noise = (ord(task[0]) - ord("a")) / 100
        if leak_bytes:
            ctypes.memset(_malloc(leak_bytes), 1, leak_bytes)

    def run(self, seed: int, *, num_steps: int = 50) -> Episode:
        """One episode; the same for a seed in every process."""
        numbers = random.Random(seed)
        position, total_reward = numbers.uniform(-1, 1), 0.0
        for _ in range(num_steps):
            position += -0.2 * position + numbers.gauss(0, self._noise)
            total_reward -= abs(position)
        return Episode(total_reward, abs(position) < 0.1)
