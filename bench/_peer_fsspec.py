"""What is done today with datasets behind a URL: fsspec, whole files or file objects. Started by `_process.Contender`.

Imports nothing of millpond.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("fsspec", "aiohttp", "torch", "torchcodec")


def installed() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def download(url: str, names: Sequence[str], folder: str) -> dict[str, Any]:
    """Fetch whole files, as many at a time as fsspec sees fit."""
    import fsspec

    began = time.monotonic()
    files = [Path(folder) / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
    fsspec.filesystem("http", skip_instance_cache=True).get([f"{url}/{name}" for name in names], list(map(str, files)))
    return {"seconds": time.monotonic() - began, "bytes": sum(file.stat().st_size for file in files)}


def readahead(urls: Sequence[str], num_frames: int, seconds: float) -> dict[str, Any]:
    """Read as LeRobot's streaming does: a decoder for each camera over fsspec's own file object, kept open; frames in
    the order of storage, the cameras of a sample one after the other.

    Args:
        urls: The video file of each camera.
        num_frames: Of each.
        seconds: Begin no other frame after so long.
    """
    import fsspec
    from torchcodec.decoders import VideoDecoder

    samples, first_sample_seconds, elapsed = 0, 0.0, 0.0
    began = time.monotonic()
    with ExitStack() as stack:
        files = [stack.enter_context(fsspec.open(url)) for url in urls]
        decoders = [VideoDecoder(file, seek_mode="approximate") for file in files]
        while samples < num_frames and elapsed < seconds:
            for decoder in decoders:
                assert len(decoder.get_frames_at([samples]).data) == 1
            samples += 1
            elapsed = time.monotonic() - began
            first_sample_seconds = first_sample_seconds or elapsed
        handle = f"{type(files[0]).__name__}, cache {files[0].cache.name!r}, blocks of {files[0].blocksize} bytes"
    return {
        "samples": samples,
        "wall_seconds": elapsed,
        "first_sample_seconds": first_sample_seconds,
        "handle": handle,
    }


def main() -> None:
    facts = installed()
    if facts["torchcodec"] != "not installed":
        import torchcodec.decoders  # noqa: F401  it is no cost of reading
    print(json.dumps(facts), flush=True)
    do = {"download": download, "readahead": readahead}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(do[request.pop("do")](**request)), flush=True)


if __name__ == "__main__":
    main()
