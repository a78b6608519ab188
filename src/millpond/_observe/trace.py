"""A loader's trace: a file in the Chrome trace format, to be opened in Perfetto (ui.perfetto.dev) or chrome://tracing.

It is written as the epoch runs, in whole events and without need of its end: what a killed process leaves opens too.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
from pathlib import Path

from millpond._observe.spans import Span
from millpond._observe.trace_events import BEGINNING, TraceEvents, last_remark
from millpond.errors import UsageError

logger = logging.getLogger("millpond")

MAX_TRACE_BYTES = 2**30
"""Past this a trace says so, and ends; the viewers need several times a trace's size in memory."""
_BUFFER_CHARACTERS = 2**16
_BUFFER_NS = 1_000_000_000  # what a killed process may take with it of its trace


class TraceWriter:
    """Writes spans to a file as they come; a `SpanSink`. What goes wrong with the file is logged once, and ends it.

    Args:
        path: Of the file; what is there is replaced. Missing folders are made.
        max_bytes: Where it has so many the trace ends.

    Raises:
        OSError: `path` cannot be written.
        UsageError: Another loader writes to it.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_TRACE_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._events = TraceEvents()
        self._pid = os.getpid()
        self._pending: list[str] = []
        self._pending_characters = 0
        self._written_bytes = 0
        self._written_ns = 0  # the time of the last span when the file was last written
        self._last_ns = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _claim(self._file, path)
        except BaseException:
            os.close(self._file)
            raise
        self._write(f"[\n{BEGINNING}".encode())

    def write(self, span: Span) -> None:
        """Take one; the file has it about a second later."""
        if self._file is None or os.getpid() != self._pid:
            return
        for event in self._events.of(span):
            self._append(event)
        self._last_ns = max(self._last_ns, span.ended_ns)
        if self._pending_characters >= _BUFFER_CHARACTERS or span.ended_ns - self._written_ns >= _BUFFER_NS:
            self._written_ns = span.ended_ns
            self._flush()

    def close(self) -> None:
        """Write what is left, and the end; idempotent. In a forked child: nothing, the file is its parent's."""
        if os.getpid() == self._pid:
            self._end()

    def _append(self, event: str) -> None:
        self._pending.append(f",\n{event}")  # in one step: an interrupt must not come between
        self._pending_characters += len(event)

    def _take_pending(self) -> bytes:
        text = "".join(self._pending).encode("utf-8", "replace")  # Perfetto refuses names that are no Unicode
        self._pending.clear()
        self._pending_characters = 0
        return text

    def _flush(self) -> None:
        self._write(self._take_pending())
        if self._file is not None and self._written_bytes >= self._max_bytes:
            limit = f"the trace {str(self._path)!r} ends here: it has reached its limit of {self._max_bytes:,} bytes"
            logger.warning("%s; the loader goes on. Trace fewer epochs, or a smaller part of one", limit)
            self._append(last_remark(limit, self._last_ns))
            self._end()

    def _end(self) -> None:
        if self._file is not None:
            self._write(self._take_pending() + b"\n]\n")
            self._close()

    def _write(self, text: bytes) -> None:
        """Write whole events; a file that does not take them is cut after its last whole one, and closed."""
        assert self._file is not None
        rest = memoryview(text)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            self._written_bytes += len(text)
        except OSError as error:
            # as text: who keeps log records would keep the frames of the error, and with them a batch
            logger.warning("the trace %r ends early, and the loader goes on: %s", str(self._path), str(error))
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._written_bytes)
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            _release(file)
            os.close(file)


def _claim(file: int, path: Path) -> None:
    """Empty it, unless another loader writes to it; where files cannot be locked nobody knows."""
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another loader is writing its trace to {str(path)!r}: give each loader, and each rank, a file of its "
                "own as trace="
            ) from None
    if stat.S_ISREG(os.fstat(file).st_mode):
        os.ftruncate(file, 0)


def _release(file: int) -> None:
    """Forked children have the file open, too, and its lock would live as long as they do."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)
