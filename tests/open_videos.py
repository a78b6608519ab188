"""What tests of the decoder cache share: many small videos, which of them are open, and entries that are no videos."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.decoders.handles import Handle
from millpond._datasets.decoders.opening import Entry
from millpond._media.media_path import MediaPath
from millpond._values import ByteRange, FileIdentity

FRAMES = 8


@dataclass(frozen=True)
class Videos:
    """Small videos, no two of which show the same.

    Attributes:
        paths: The files; never to be written to.
        pictures: uint8, (H, W, 3), of each frame of each file, by PyAV's own decode.
    """

    paths: tuple[Path, ...]
    pictures: tuple[tuple[NDArray[np.uint8], ...], ...]

    def show(self, number: int, data: Any, frames: Iterable[int] = range(FRAMES)) -> bool:
        """Whether (T, 3, H, W) are these frames of a file."""
        own = self.pictures[number]
        return np.array_equal(as_shown(data), np.array([own[k] for k in frames]))


def as_shown(data: Any) -> NDArray[np.uint8]:
    """uint8, (T, H, W, 3), of (T, 3, H, W)."""
    pictures = np.asarray(data)
    assert pictures.dtype == np.uint8
    return pictures.transpose(0, 2, 3, 1)


def descriptors_of(path: Path) -> int:
    """How many descriptors of this process are of a file, also of one that was deleted."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").removesuffix(" (deleted)") == str(path)
        except FileNotFoundError:  # the descriptor with which the folder was listed
            continue
    return found


def open_among(videos: Videos) -> list[int]:
    """Which of the videos this process has open, by number; one that is open twice is there twice."""
    return [n for n, path in enumerate(videos.paths) for _ in range(descriptors_of(path))]


class Nothing:
    """Bytes of no file, which know how often they were closed."""

    def __init__(self) -> None:
        self.times_closed = 0

    def read(self, wanted: ByteRange) -> bytes:
        return b""

    def check_identity(self) -> None:
        return None

    def whole(self) -> MediaPath:
        raise AssertionError("nobody decodes what is nothing")

    def close(self) -> None:
        self.times_closed += 1


class NoDecoder:
    """Stands for a decoder of `nbytes`."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def no_video(name: str = "nothing", nbytes: int = 10) -> Entry:
    """An entry for `lease_entry`: a handle of no file."""
    decoder: Any = NoDecoder(nbytes)
    return Entry(decoder, Handle(Nothing(), MediaPath.of(name), FileIdentity(0, 0), is_local=False))


def waits_in(thread: threading.Thread, function: str) -> None:
    """Return when a thread is within a function of this name; what a thread waits for tells nobody."""
    while True:
        frame = sys._current_frames().get(thread.ident or 0)
        while frame is not None:
            if frame.f_code.co_name == function:
                return
            frame = frame.f_back
        os.sched_yield()
