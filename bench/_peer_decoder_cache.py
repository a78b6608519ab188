"""A contender of bench/decoder_cache.py: frames through a cache, and a look now and then.

Started by `_process.Contender`.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from _serving import serve
from millpond._observe.memory import process_memory

TOLERANCE_SECONDS = 1e-4


class Accesses:
    """One random frame of a random file each. All that it needs is made before the baseline is looked at."""

    def __init__(self, decode: Any, cache: Any, files: dict[str, Any], seed: int) -> None:
        self._decode, self._cache = decode, cache
        self._paths, self._clip_of, self._seconds = files["paths"], files["clip_of"], files["seconds"]
        self._random = random.Random(seed)

    def make(self, count: int) -> dict[str, Any]:
        """So many, and a look. Of the last one the pixels are told, by their CRC-32; that is not timed."""
        began, cpu_began = time.perf_counter(), time.process_time()
        for _ in range(count):
            number = self._random.randrange(len(self._paths))
            moment = self._random.choice(self._seconds[self._clip_of[number]])
            pictures = self._decode(self._paths[number], [moment], TOLERANCE_SECONDS, cache=self._cache)
        spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
        last = np.ascontiguousarray(np.asarray(pictures)[0].transpose(1, 2, 0))
        return {**spent, "crc": zlib.crc32(last), **self.look()}

    def look(self) -> dict[str, Any]:
        memory = process_memory(os.getpid())
        return {
            "rss_bytes": memory.rss_bytes,
            "pss_bytes": memory.pss_bytes,
            "uss_bytes": memory.uss_bytes,
            "anon_bytes": memory.pss_anon_bytes,
            "descriptors": psutil.Process().num_fds(),
            "threads": psutil.Process().num_threads(),
            "cached": self._cache.size(),
        }


_accesses: list[Accesses] = []


def construct(*, side: str, max_size: int | None, files: str, seed: int) -> dict[str, Any]:
    """Import what the side needs, make its cache, and look: this is the baseline."""
    cache: Any
    decode: Any
    if side == "torchcodec":
        from _torchcodec_cache import TorchcodecCache, decode_video_frames

        cache, decode = TorchcodecCache(max_size), decode_video_frames
    else:
        if side == "millpond-without-torch":
            sys.modules["torch"] = None  # type: ignore[assignment]  # as if it were not installed
        else:
            import torch  # noqa: F401  # the pictures come as its tensors

        import millpond

        cache, decode = millpond.VideoDecoderCache(max_size=max_size), millpond.decode_video_frames
    accesses = Accesses(decode, cache, json.loads(Path(files).read_text(encoding="utf-8")), seed)
    _accesses[:] = [accesses]
    return accesses.look()


def access(*, count: int) -> dict[str, Any]:
    return _accesses[0].make(count)


if __name__ == "__main__":
    serve({"construct": construct, "access": access})
