"""The ledger of a sweep: what became of each job, on the disk before anybody is told of it.

A chunk is two transactions: one before it starts, one after it has ended. The metrics of a job are stored by the
transaction that calls it done, so a sweep that is killed at any moment has either both or neither. The chunks that were
running when that happened are `interrupted()`; `recover` says what is known of them, and only then may others begin.

Used by one thread of one process at a time; `OutFolder` keeps others out.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from millpond._plan.chunks import JobState, JobVerdict
from millpond._sweep.ledger_file import disconnect, fetch, new_ledger_file, open_ledger_file, transaction
from millpond._sweep.ledger_records import ChunkRecord, ChunkState, JobRecord
from millpond._sweep.orders import ChunkOutcome, Look
from millpond._sweep.summary import canonical_json, checksum
from millpond.errors import DataError, InternalError


class Ledger:
    """An open ledger; made by `create` or `open_existing`, to be closed."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path, facts: Mapping[str, str], names: Sequence[str]) -> Ledger:
        """Make the ledger of a new sweep: all jobs are pending.

        Args:
            path: Of the file; it comes into its place whole.
            facts: About the sweep, to be compared when it is resumed.
            names: Of the jobs, in order; no name twice.
        """
        with new_ledger_file(path) as connection:
            connection.executemany("INSERT INTO sweep VALUES (?, ?)", facts.items())
            rows = [(name, position, JobState.PENDING.value) for position, name in enumerate(names)]
            connection.executemany("INSERT INTO jobs (name, position, state) VALUES (?, ?, ?)", rows)
        return cls.open_existing(path)

    @classmethod
    def open_existing(cls, path: Path) -> Ledger:
        """Open the ledger of a sweep that is to go on, or to be looked at.

        Raises:
            UsageError: There is none.
            UnsupportedFormat: It is no ledger, or one of another version.
        """
        return cls(path, open_ledger_file(path))

    def close(self) -> None:
        """Once is enough; more often is no error."""
        disconnect(self._connection)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def facts(self) -> dict[str, str]:
        """What `create`, or the last `change`, said of the sweep."""
        return {row["key"]: row["value"] for row in self._fetch("SELECT key, value FROM sweep")}

    def change(self, facts: Mapping[str, str], names: Sequence[str]) -> None:
        """Go on with another command or jobs file: new jobs are pending, those no longer named are dropped."""
        with self._transaction():
            self._connection.execute("DELETE FROM sweep")
            self._connection.executemany("INSERT INTO sweep VALUES (?, ?)", facts.items())
            gone = {name for (name,) in self._fetch("SELECT name FROM jobs")}.difference(names)
            self._connection.executemany("DELETE FROM jobs WHERE name = ?", [(name,) for name in gone])
            self._connection.executemany(
                "INSERT INTO jobs (name, position, state) VALUES (?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET position = excluded.position",
                [(name, position, JobState.PENDING.value) for position, name in enumerate(names)],
            )

    def begin(self, number: int, names: Sequence[str], *, attempt: int, log: str, began_at: float) -> None:
        """Write down that a chunk is about to start.

        Args:
            number: `next_chunk_number`, or a greater one.
            names: Of its jobs.
            attempt: Of its jobs.
            log: Name of its log.
            began_at: Seconds since the epoch.
        """
        columns = "number, names, attempt, state, log, began_at"
        values = (number, json.dumps(list(names)), attempt, ChunkState.RUNNING.value, log, began_at)
        with self._transaction():
            self._connection.execute(f"INSERT INTO chunks ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)
            self._change_jobs(
                "UPDATE jobs SET state = ?, chunk = ? WHERE name = ? AND state = 'pending'",
                [(JobState.RUNNING.value, number, name) for name in names],
                f"chunk {number} begins with",
            )

    def note_handles(self, handles: Mapping[int, str]) -> None:
        """Keep what a later sweep needs to end chunks that outlive this one, by chunk."""
        with self._transaction():
            rows = [(handle, number) for number, handle in handles.items()]
            self._connection.executemany("UPDATE chunks SET handle = ? WHERE number = ?", rows)

    def end(
        self,
        outcome: ChunkOutcome,
        verdicts: Iterable[JobVerdict],
        metrics: Mapping[str, Mapping[str, Any]],
        *,
        seconds: Mapping[str, float] | None = None,
        reason: str = "",
    ) -> None:
        """Write down how a chunk ended, and what became of each of its jobs.

        Args:
            outcome: Of a chunk that runs.
            verdicts: One for each of its jobs.
            metrics: Of at least every job that is done.
            seconds: How long jobs took, where that is known.
            reason: Why the chunk is not clean; "" where it is.
        """
        rows = [self._verdict_row(verdict, outcome, metrics, seconds or {}) for verdict in verdicts]
        with self._transaction():
            self._end_chunk(outcome, reason)
            self._change_jobs(
                "UPDATE jobs SET state = ?, attempt = ?, error = ?, metrics = ?, checksum = ?, chunk = ?,"
                " exit_code = ?, peak_rss_bytes = ?, duration_seconds = ? WHERE name = ? AND state = 'running'"
                f" AND chunk = {outcome.number:d}",
                rows,
                f"chunk {outcome.number} ends with",
            )
            if left := self._running_in(outcome.number):
                raise InternalError(f"chunk {outcome.number} ends without a verdict on {sorted(left)}")

    def recover(
        self,
        number: int,
        metrics: Mapping[str, Mapping[str, Any]],
        *,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Settle a chunk that was interrupted: jobs that had reported are done, all others pending, uncounted.

        Args:
            number: Of the chunk.
            metrics: Of its jobs that had reported; those that `change` has dropped are left out.
            seconds: How long they took, where that is known.
        """
        running = self._running_in(number)
        rows = [
            (*_stored(given), (seconds or {}).get(name), number, name)
            for name, given in metrics.items()
            if name in running
        ]
        with self._transaction():
            self._settle_chunk(number, {"state": ChunkState.INTERRUPTED.value})
            self._change_jobs(
                "UPDATE jobs SET state = 'done', error = '', metrics = ?, checksum = ?,"
                " duration_seconds = ?, attempt = attempt + 1 WHERE chunk = ? AND state = 'running' AND name = ?",
                rows,
                f"chunk {number} is recovered with",
            )
            self._connection.execute(
                "UPDATE jobs SET state = 'pending', chunk = NULL, exit_code = NULL, peak_rss_bytes = NULL,"
                " duration_seconds = NULL WHERE chunk = ? AND state = 'running'",
                (number,),
            )

    def fail(self, names: Collection[str], reason: str) -> None:
        """Jobs that were taken for done have failed after all."""
        with self._transaction():
            self._change_jobs(
                "UPDATE jobs SET state = 'failed', metrics = NULL, checksum = '', error = ?"
                " WHERE state = 'done' AND name = ?",
                [(reason, name) for name in names],
                "the sweep ends with",
            )

    def reopen_failed(self) -> None:
        """Jobs that have failed are pending again, with all their tries: who resumes has mended something."""
        with self._transaction():
            self._connection.execute(
                "UPDATE jobs SET state = 'pending', attempt = 0, error = '', chunk = NULL, exit_code = NULL,"
                " peak_rss_bytes = NULL, duration_seconds = NULL WHERE state = 'failed'"
            )

    def jobs(self) -> tuple[JobRecord, ...]:
        """All of them, in the order of the jobs file."""
        columns = ", ".join(JobRecord.__slots__)
        rows = self._fetch(f"SELECT {columns} FROM jobs ORDER BY position")
        return tuple(JobRecord(**{**dict(row), "state": JobState(row["state"])}) for row in rows)

    def chunks(self) -> tuple[ChunkRecord, ...]:
        """All that ever began, in order."""
        return self._chunks("ORDER BY number")

    def interrupted(self) -> tuple[ChunkRecord, ...]:
        """Chunks that began and did not end; when a ledger is opened, those that ran when the sweep was killed."""
        return self._chunks("WHERE state = 'running' ORDER BY number")

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Of each job that is done, in the order of the jobs file.

        Raises:
            DataError: What the ledger holds of a job is not what was written.
        """
        rows = self._fetch("SELECT name, metrics, checksum FROM jobs WHERE state = 'done' ORDER BY position")
        return {name: self._checked(name, text, written) for name, text, written in rows}

    @property
    def next_chunk_number(self) -> int:
        """One more than the greatest so far; the first is 1."""
        found = self._fetch("SELECT max(number) FROM chunks")[0][0]
        return 1 if found is None else int(found) + 1

    def _transaction(self) -> AbstractContextManager[None]:
        return transaction(self._connection, self.path)

    def _fetch(self, statement: str) -> list[sqlite3.Row]:
        return fetch(self._connection, self.path, statement)

    def _running_in(self, number: int) -> set[str]:
        rows = self._fetch(f"SELECT name FROM jobs WHERE chunk = {number:d} AND state = 'running'")
        return {row["name"] for row in rows}

    def _change_jobs(self, statement: str, rows: Sequence[tuple[Any, ...]], what: str) -> None:
        """Run a statement once for each row, whose last value is a job's name; it must change that job."""
        for row in rows:
            if self._connection.execute(statement, row).rowcount != 1:
                raise InternalError(f"{what} job {row[-1]!r}, which the ledger {str(self.path)!r} has in another state")

    def _end_chunk(self, outcome: ChunkOutcome, reason: str) -> None:
        looks = [
            [round(look.elapsed_seconds, 3), look.pss_bytes, look.num_reported, look.current] for look in outcome.looks
        ]
        values = {
            "state": ChunkState.ENDED.value,
            "duration_seconds": outcome.duration_seconds,
            "exit_code": outcome.exit_code,
            "ended_by": outcome.ended_by.value,
            "reason": _valid(reason),
            "peak_pss_bytes": outcome.peak_pss_bytes,
            "peak_rss_bytes": outcome.peak_rss_bytes,
            "oom_kills": outcome.oom_kills,
            "num_left_behind": outcome.num_left_behind,
            "looks": json.dumps(looks, separators=(",", ":")),
        }
        if outcome.began_at:
            values["began_at"] = outcome.began_at
        self._settle_chunk(outcome.number, values)

    def _settle_chunk(self, number: int, values: Mapping[str, Any]) -> None:
        changes = ", ".join(f"{name} = :{name}" for name in values)
        statement = f"UPDATE chunks SET {changes} WHERE number = :number AND state = 'running'"
        if self._connection.execute(statement, {**values, "number": number}).rowcount != 1:
            raise InternalError(f"chunk {number} does not run, as the ledger {str(self.path)!r} has it")

    def _verdict_row(
        self,
        verdict: JobVerdict,
        outcome: ChunkOutcome,
        metrics: Mapping[str, Mapping[str, Any]],
        seconds: Mapping[str, float],
    ) -> tuple[Any, ...]:
        if verdict.state is JobState.DONE and verdict.name not in metrics:
            raise InternalError(f"job {verdict.name!r} of chunk {outcome.number} is done, but has no metrics")
        stored = _stored(metrics[verdict.name]) if verdict.state is JobState.DONE else (None, "")
        run: tuple[Any, ...] = (None, None, None, None)  # a job that is to run again tells of no run
        if verdict.state is not JobState.PENDING:
            duration = seconds.get(verdict.name, outcome.duration_seconds)
            run = (outcome.number, outcome.exit_code, outcome.peak_rss_bytes, duration)
        return (verdict.state.value, verdict.attempt, _valid(verdict.reason), *stored, *run, verdict.name)

    def _chunks(self, which: str) -> tuple[ChunkRecord, ...]:
        columns = ", ".join(ChunkRecord.__slots__)
        return tuple(_chunk_record(row) for row in self._fetch(f"SELECT {columns} FROM chunks {which}"))

    def _checked(self, name: str, text: str, written: str) -> dict[str, Any]:
        found = _parsed(text)
        if not isinstance(found, dict) or checksum(found) != written:
            raise DataError(
                f"the ledger {str(self.path)!r} has metrics of job {name!r} that are not those it was given: the file "
                "was damaged or changed; bring back a copy of it, or sweep into another --out",
                path=str(self.path),
                job=name,
            )
        return found


def _stored(metrics: Mapping[str, Any]) -> tuple[str, str]:
    return canonical_json(metrics), checksum(metrics)


def _valid(text: str) -> str:
    """What a child has said may hold halves of surrogate pairs, which no database takes."""
    return text.encode(errors="backslashreplace").decode()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _chunk_record(row: sqlite3.Row) -> ChunkRecord:
    values: dict[str, Any] = dict(row)
    values["names"] = tuple(json.loads(values["names"]))
    values["state"] = ChunkState(values["state"])
    values["looks"] = tuple(Look(*look) for look in json.loads(values["looks"]))
    return ChunkRecord(**values)
