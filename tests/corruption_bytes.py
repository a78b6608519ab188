"""Damage that any file can take: bits, runs, holes, ends that are missing, stretches in other places."""

from __future__ import annotations

import random
from collections.abc import Callable

Mutator = Callable[[bytes, random.Random], bytes]


def span(data: bytes, chance: random.Random, most: int) -> tuple[int, int]:
    """A half-open range of 1 to `most` bytes within the data."""
    start = chance.randrange(len(data))
    return start, min(start + chance.randint(1, most), len(data))


def replaced(data: bytes, start: int, new: bytes) -> bytes:
    """The data with other bytes from `start` on, never longer than before."""
    return (data[:start] + new + data[start + len(new) :])[: len(data)]


def flip_bits(data: bytes, chance: random.Random) -> bytes:
    """One bit, or a few anywhere, as a bad disk or bad memory does."""
    flipped = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 3, 10, 40))):
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def overwrite_run(data: bytes, chance: random.Random) -> bytes:
    """A run of other bytes: a block that was written by somebody else."""
    start, stop = span(data, chance, chance.choice((4, 64, 512)))
    return replaced(data, start, chance.randbytes(stop - start))


def fill_run(data: bytes, chance: random.Random) -> bytes:
    """A run of one byte value."""
    start, stop = span(data, chance, 512)
    return replaced(data, start, bytes([chance.choice((0x00, 0x55, 0xFF))]) * (stop - start))


def zero_block(data: bytes, chance: random.Random) -> bytes:
    """A hole: a stretch that never reached the disk."""
    start, stop = span(data, chance, max(len(data) // 2, 64))
    return replaced(data, start, bytes(stop - start))


def truncate(data: bytes, chance: random.Random) -> bytes:
    """The end is missing: a download that broke off."""
    return data[: chance.choice((chance.randrange(len(data)), len(data) - chance.randint(1, min(64, len(data)))))]


def lose_beginning(data: bytes, chance: random.Random) -> bytes:
    """The beginning is missing."""
    return data[chance.randint(1, max(len(data) // 2, 1)) :]


def cut_out(data: bytes, chance: random.Random) -> bytes:
    """A stretch is missing, and all behind it lies earlier."""
    start, stop = span(data, chance, chance.choice((1, 16, 1024)))
    return data[:start] + data[stop:]


def insert(data: bytes, chance: random.Random) -> bytes:
    """A stretch too much."""
    at = chance.randrange(len(data))
    return data[:at] + chance.randbytes(chance.choice((1, 16, 1024))) + data[at:]


def swap_chunks(data: bytes, chance: random.Random) -> bytes:
    """Two stretches of the same size have changed places."""
    size = min(chance.choice((16, 128, 512, 2048)), len(data) // 3 or 1)
    a, b = sorted((chance.randrange(len(data) - 2 * size + 1), chance.randrange(len(data) - 2 * size + 1)))
    b += size
    return data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]


def repeat_chunk(data: bytes, chance: random.Random) -> bytes:
    """A stretch is there twice, the second time over what was there."""
    start, stop = span(data, chance, 1024)
    return replaced(data, min(stop, len(data) - 1), data[start:stop])


def append_garbage(data: bytes, chance: random.Random) -> bytes:
    """Something behind the end; a reader may well be right to pass it over."""
    return data + chance.choice((bytes, chance.randbytes))(chance.choice((1, 100, 5000)))


ANYWHERE: tuple[Mutator, ...] = (
    flip_bits,
    flip_bits,  # the commonest, and the hardest to see
    overwrite_run,
    fill_run,
    zero_block,
    truncate,
    lose_beginning,
    cut_out,
    insert,
    swap_chunks,
    repeat_chunk,
    append_garbage,
)
