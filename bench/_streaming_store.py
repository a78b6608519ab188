"""The server that streaming is measured against: our own, slow as an object store is, which counts what it serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from _pinning import pinned
from _process import FOLDER, Contender

_PROGRAM = str(FOLDER.parent / "tests" / "store_server.py")
NO_FAULTS = {"unavailable": 0.0, "reset": 0.0, "truncated": 0.0}


@dataclass(frozen=True)
class Traffic:
    """What a server did.

    Attributes:
        requests: All of them.
        heads: Those of them that were HEADs.
        bytes_sent: Bodies.
        video_requests: For files below videos/.
        video_bytes: Of those.
        faults: Requests that were answered badly on purpose.
        cpu_seconds: Of the server's process.
    """

    requests: int
    heads: int
    bytes_sent: int
    video_requests: int
    video_bytes: int
    faults: int
    cpu_seconds: float


class Store:
    """A server in a process of its own; objects of a folder that it serves are below `url`.

    Args:
        cores: That it runs on; none: any.
        settings: Of `tests/store_server.py`: latency_seconds, bytes_per_second, ...
    """

    def __init__(self, *cores: int, **settings: Any) -> None:
        with pinned(*cores):
            self._contender = Contender(_PROGRAM)
        self._settings = settings
        self.url = str(self._contender.facts["url"])

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._contender.close()

    def serve(self, folder: Path) -> None:
        self._contender.ask("serve", folder=str(folder), **self._settings, **NO_FAULTS)

    def begin_faults(self, **rates: float) -> None:
        """From now on so many of the requests fail, the same ones in each run of requests."""
        self._contender.ask("set", seed=0, **rates)

    def end_faults(self) -> None:
        self._contender.ask("set", **NO_FAULTS)

    def forget(self) -> None:
        """Count from zero."""
        self._contender.ask("forget")
        self._cpu_before = self._cpu_seconds()

    def traffic(self) -> Traffic:
        """Since `forget`."""
        counts = self._contender.ask("counts")
        return Traffic(
            requests=counts["requests"],
            heads=counts["heads"],
            bytes_sent=counts["bytes_sent"],
            video_requests=sum(number for path, number in counts["by_path"].items() if "/videos/" in path),
            video_bytes=sum(number for path, number in counts["bytes_by_path"].items() if "/videos/" in path),
            faults=counts["faults"],
            cpu_seconds=self._cpu_seconds() - self._cpu_before,
        )

    def _cpu_seconds(self) -> float:
        times = psutil.Process(self._contender.pid).cpu_times()
        return float(times.user + times.system)
