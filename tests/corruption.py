"""Damage of every kind, done to the bytes of a media file: pure, and the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from corruption_bytes import ANYWHERE
from corruption_headers import MUTATORS


@dataclass(frozen=True, slots=True)
class Corrupted:
    """A damaged file.

    Attributes:
        mutator: What was done.
        data: The whole file.
    """

    mutator: str
    data: bytes


def corrupted(data: bytes, kind: str, seed: int | str) -> Corrupted:
    """Damage a file.

    Args:
        data: The whole file, at least a few hundred bytes.
        kind: Its container, a key of `MUTATORS`.
        seed: The same seed gives the same damage.
    """
    chance = random.Random(f"{kind} {seed}")
    while True:
        # half of all damage goes where a container says how much there is, and where
        mutator = chance.choice(chance.choice((ANYWHERE, MUTATORS[kind] or ANYWHERE)))
        damaged = mutator(data, chance)
        if damaged != data:  # a hole may fall on zeros
            return Corrupted(mutator.__name__, damaged)
