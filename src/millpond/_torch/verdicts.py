"""What is said of batches that did not come, in words that torch's users search for. Pure."""

from __future__ import annotations

from typing import Any

from millpond._workers.lifecycle import Cause
from millpond._workers.verdicts import End
from millpond.errors import BatchTimeout, DecodeTimeout, WorkerDied

_SHOWN = 8


def is_verdict(error: Exception) -> bool:
    """Whether an error is the supervisor's on a task that ended its worker; a dataset may raise the same kinds."""
    return isinstance(error, DecodeTimeout | WorkerDied) and "attempts" in error.facts


def told(error: Exception, seat: int, indices: Any, *, is_left_out: bool) -> Exception:
    """A supervisor's verdict on a batch, as its user gets it.

    Args:
        error: One of which `is_verdict` is true.
        seat: Of the worker.
        indices: Of the batch.
        is_left_out: Whether the sample that did it is left out, and needs no advice.
    """
    assert isinstance(error, DecodeTimeout | WorkerDied)
    limit = "stall_timeout" if error.facts["attempts"][-1].cause is Cause.STALLED else "timeout"
    advice = "" if is_left_out else f'. Raise {limit}=, or leave such samples out with on_error="skip"'
    facts = {name: fact for name, fact in error.facts.items() if name not in ("attempts", "task")}
    facts.update(worker_id=seat, indices=indices, attempts=len(error.facts["attempts"]))
    where = f"batch of indices {_spelled(indices)}, {_sample_at(facts['progress_count'], indices)}"
    if isinstance(error, DecodeTimeout):
        what = (
            f"DataLoader timed out after {error.elapsed_seconds:.1f} seconds ({limit}={error.limit_seconds:g}; attempt "
            f"{facts['attempts']}): worker {seat} (pid {error.pid}) was killed and replaced; {where}{advice}"
        )
        copy: Exception = BatchTimeout(what, **facts)
    else:
        # The supervisor's message is "worker 0 (pid 917) was killed by SIGSEGV (...) while it ran task 5 (...); ..."
        how = str(error).partition(") ")[2].partition(" while it ran ")[0]
        by_signal = how.replace("was killed by", "is killed by signal:", 1)
        how = by_signal if error.signal_name else f"exited unexpectedly: it {how}"
        what = f"DataLoader worker (pid {error.pid}) {how}; attempt {facts['attempts']}, it was replaced; {where}"
        copy = WorkerDied(what, task=indices, **facts)
    for note in getattr(error, "__notes__", ()):
        copy.add_note(note)
    return copy


def place_lost(seat: int, turn: int, end: End | None) -> WorkerDied:
    """A worker has ended, and with it the place that its iterable dataset had come to; `end`: None in good order."""
    how = (
        f"DataLoader worker {seat} had its time (max_tasks_per_worker= or max_worker_anon=)"
        if end is None
        else f"DataLoader worker (pid {end.pid}) exited unexpectedly: worker {seat} {end.in_words()}"
    )
    error = WorkerDied(
        f"{how}. It had made {turn} batches, and where its IterableDataset was is lost with it: give the dataset, or "
        "its iterator, state_dict() and load_state_dict(), and it goes on there",
        pid=None if end is None else end.pid,
        exit_code=None if end is None else end.exit_code,
        signal_name=None if end is None else end.signal_name,
        task=None,
        worker_id=seat,
        batches=turn,
        stack="" if end is None else end.stack,
    )
    if end is not None and end.stack:
        error.add_note(f"stack of worker {seat} (pid {end.pid}):\n{end.stack.rstrip()}")
    return error


def _sample_at(progress_count: int, indices: Any) -> str:
    """Where it was: fetchers count samples as they begin them."""
    if progress_count == 0:
        return "before its first sample (importing, worker_init_fn, or __getitems__)"
    if not isinstance(indices, list):
        return "while it was fetched" if progress_count == 1 else "while it was collated"
    if progress_count <= len(indices):
        index = indices[progress_count - 1]
        return f"at sample {index!r}" if index is not None else f"at sample {progress_count} of {len(indices)} of it"
    return "while it was collated"


def _spelled(indices: Any) -> str:
    if not isinstance(indices, list) or len(indices) <= _SHOWN:
        return repr(indices)
    return f"[{', '.join(map(repr, indices[:_SHOWN]))}, ... ({len(indices)} in all)]"
