"""Programs for `soak_leaks.py`: each leaks in one way, or is flat in one way, until it is ended.

    python _soak_programs.py NAME CYCLE_SECONDS FOLDER

`FOLDER` holds a small dataset, which decoders and the loader read.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

_LEAKED_CYCLE_BYTES = 72_000_000
_LEAKED_BATCH_BYTES = 3_000_000
_GARBAGE_BYTES = 2_000_000

kept: list[Any] = []


def cycles(seconds: float) -> Iterator[int]:
    """0, 1, 2, ..., one each so many seconds."""
    due = time.monotonic()
    for number in itertools.count():
        yield number
        due += seconds
        time.sleep(max(0.0, due - time.monotonic()))


def decoder_cache(cycle_seconds: float, folder: Path) -> None:
    """A decoder for each file, and none is ever closed, as a DataLoader worker has that meets new files."""
    import av

    file = next(folder.rglob("*.mp4"))
    for _ in cycles(cycle_seconds):
        container = av.open(str(file))
        kept.append((container, [frame for _, frame in zip(range(3), container.decode(video=0), strict=False)]))


def pipe_per_job(cycle_seconds: float, folder: Path) -> None:
    """A pipe that is left open after each job of a child process."""
    for _ in cycles(cycle_seconds):
        read, write = os.pipe()
        subprocess.run(["true"], stdout=write, check=True)
        kept.append((read, write))


def shared_memory(cycle_seconds: float, folder: Path) -> None:
    """3 MB of shared memory for each batch, which somebody still maps."""
    for _ in cycles(cycle_seconds):
        block = SharedMemory(create=True, size=_LEAKED_BATCH_BYTES)
        block.buf[:] = bytes(_LEAKED_BATCH_BYTES)
        block.unlink()
        kept.append(block)


def cycle(cycle_seconds: float, folder: Path) -> None:
    """72 MB from C for each cycle of a simulator, which Python does not know of."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    for _ in cycles(cycle_seconds):
        ctypes.memset(libc.malloc(ctypes.c_size_t(_LEAKED_CYCLE_BYTES)), 1, _LEAKED_CYCLE_BYTES)


def loader(cycle_seconds: float, folder: Path) -> None:
    """Millpond's own loader, epoch after epoch."""
    from millpond import LeRobotDataset, Loader

    with Loader(
        LeRobotDataset(folder), batch_size=8, shuffle=True, num_workers=2, memory="256MiB", output="numpy"
    ) as batches:
        for _ in cycles(cycle_seconds):
            for _ in batches:
                pass


def garbage(cycle_seconds: float, folder: Path) -> None:
    """Cycles of objects, which lie about until the garbage collector is called."""
    for number in cycles(cycle_seconds / 20):
        block: list[Any] = [bytearray(_GARBAGE_BYTES)]
        block.append(block)
        if number % 100 == 99:
            gc.collect()


def recycled(cycle_seconds: float, folder: Path) -> None:
    """Workers that grow, and are replaced after some tasks."""
    grow = "import sys, time\nkept = []\nfor _ in range(8): kept.append(bytearray(4 << 20)); time.sleep({})"
    command = [sys.executable, "-S", "-c", grow.format(cycle_seconds / 4)]
    workers: list[subprocess.Popen[bytes]] = []
    for number in cycles(cycle_seconds):
        workers = [worker for worker in workers if worker.poll() is None]
        if len(workers) < 3 or number == 0:
            workers.append(subprocess.Popen(command))


def steps(cycle_seconds: float, folder: Path) -> None:
    """Caches that fill one after the other, and then are full."""
    for number in cycles(cycle_seconds):
        kept.extend([bytearray(b"x") * 20_000_000] if number < 8 else [])


PROGRAMS: dict[str, Callable[[float, Path], None]] = {
    program.__name__: program
    for program in (decoder_cache, pipe_per_job, shared_memory, cycle, loader, garbage, recycled, steps)
}

if __name__ == "__main__":
    name, seconds, place = sys.argv[1:]
    PROGRAMS[name](float(seconds), Path(place))
