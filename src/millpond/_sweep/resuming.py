"""A sweep that goes on where another one ended or was killed: whether it is the same, and what the other has left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from millpond._plan.chunks import JobState
from millpond._sweep.engines import Engine
from millpond._sweep.ledger import Ledger
from millpond._sweep.ledger_records import ChunkRecord
from millpond._sweep.orders import METRICS_FILE, PROGRESS_FILE, ChunkOrder, ChunkOutcome, EndedBy
from millpond._sweep.out_folder import OutFolder
from millpond._sweep.strays import kill_strays
from millpond._sweep.verdict import judge
from millpond._sweep.work import Work
from millpond.errors import UsageError


def check_unchanged(out: OutFolder, work: Work) -> None:
    """Do nothing where a folder holds this sweep, or none.

    Raises:
        UsageError: It holds one over other jobs, or with another command.
    """
    if not out.holds_sweep:
        return
    with Ledger.open_existing(out.ledger_path) as ledger:
        changed = _changed(ledger.facts, work.facts())
    if changed:
        raise UsageError(
            f"'{out.path}' holds a sweep with another {' and '.join(changed)}: give what it was begun with, allow "
            "changes (allow_changes=True: jobs that are done stay done), or choose another folder",
            changed=tuple(changed),
        )


def open_ledger(out: OutFolder, work: Work) -> Ledger:
    """The ledger of a folder, made where there is none, and of these jobs from now on."""
    if not out.holds_sweep:
        return Ledger.create(out.ledger_path, work.facts(), work.names)
    ledger = Ledger.open_existing(out.ledger_path)
    if _changed(ledger.facts, work.facts()):
        ledger.change(work.facts(), work.names)
    return ledger


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name in {**now, **before} if before.get(name) != now.get(name)]


def recover(ledger: Ledger, out: OutFolder, work: Work, engine: Engine) -> int:
    """Settle what a former sweep has left: what chunks reported counts, what failed has another turn.

    Returns:
        How many jobs are done.
    """
    interrupted = ledger.interrupted()
    handles = [record.handle for record in interrupted if record.handle]
    if handles:
        engine.abandon(handles)
    if interrupted:
        # where a sweep and its keepers are killed at once (`pkill -9 -f millpond`), nobody is left to end the others
        kill_strays({str(out.work_folder(record.number) / PROGRESS_FILE) for record in interrupted})
    for record in interrupted:
        verdict = judge(_order(record, work), _outcome(record, out), must_report=work.must_report)
        ledger.recover(record.number, verdict.metrics, seconds=verdict.seconds)
    ledger.reopen_failed()
    out.clear_work()
    return sum(1 for job in ledger.jobs() if job.state == JobState.DONE)


def _order(record: ChunkRecord, work: Work) -> ChunkOrder:
    return ChunkOrder(record.number, record.names, (), {}, "", name_key=work.name_key)


def _outcome(record: ChunkRecord, out: OutFolder) -> ChunkOutcome:
    folder = out.work_folder(record.number)
    return ChunkOutcome(
        record.number,
        None,
        EndedBy.LOST,
        "the sweep was killed",
        metrics=_content(folder / METRICS_FILE),
        progress=_content(folder / PROGRESS_FILE),
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
