"""What engines that send chunks elsewhere have in common: how one runs there, and outcomes where nothing came back."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from millpond._sweep.cancel import Cancel
from millpond._sweep.chunk_run import run_chunk
from millpond._sweep.orders import METRICS_FILE, PROGRESS_FILE, ChunkOrder, ChunkOutcome, EndedBy


def run_until_signal(order: ChunkOrder, numbers: Sequence[signal.Signals]) -> tuple[ChunkOutcome, str]:
    """Run a chunk on the main thread of a process that ends after it; any of these signals asks the chunk to end.

    The signals are ignored afterwards: what the chunk gave is on its way, and must get there.

    Returns:
        Its outcome, and the name of the signal that came first; "" if none did.
    """
    cancel, heard = Cancel(), list[signal.Signals]()

    def ask_to_end(number: int, frame: FrameType | None) -> None:
        heard.append(signal.Signals(number))
        cancel.request(signal.SIGTERM)

    for number in numbers:
        signal.signal(number, ask_to_end)
    # Ray has SIGINT blocked in its workers, so have jobs on this machine, and the chunk's processes would inherit that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        outcome = run_chunk(order, cancel=cancel)
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        cancel.close()
    return outcome, heard[0].name if heard else ""


def lost(order: ChunkOrder, problem: str, *, began_at: float) -> ChunkOutcome:
    """Of a chunk from which no outcome came; it began at some time after `began_at`, seconds since the epoch."""
    return _without_result(order, EndedBy.LOST, problem, began_at)


def cancelled(order: ChunkOrder, *, began_at: float | None = None) -> ChunkOutcome:
    """Of a chunk that was cancelled, and from which no outcome came, or that never ran."""
    return _without_result(order, EndedBy.CANCELLED, "", time.time() if began_at is None else began_at)


def _without_result(order: ChunkOrder, ended_by: EndedBy, problem: str, began_at: float) -> ChunkOutcome:
    return ChunkOutcome(
        order.number,
        None,
        ended_by,
        problem=problem,
        metrics=_reported(order, METRICS_FILE),
        progress=_reported(order, PROGRESS_FILE),
        began_at=began_at,
        duration_seconds=max(0.0, time.time() - began_at),
    )


def _reported(order: ChunkOrder, name: str) -> bytes:
    """What the chunk wrote before its end, where its folder can be seen from here."""
    try:
        return (Path(order.work_folder) / name).read_bytes() if order.work_folder else b""
    except OSError:
        return b""
