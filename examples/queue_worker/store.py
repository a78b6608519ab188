"""The tasks of the queue, in SQLite: who has which, until when, and what came of it.

A task waits, is leased, or is done: done once and for ever, with the first outcome that anybody gives for it. A lease
that ends without outcomes gives its tasks back, each with one more attempt behind it. Tasks that were attempted before
are leased in groups of their own, half as many each time: one that ends whoever tries it is alone in the end,
and given up, and the others come through.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from examples.queue_worker.agreed import Task

MAX_ATTEMPTS = 6
"""Leases of one task. Halved five times, jobs of up to 32 tasks are down to one."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    number INTEGER PRIMARY KEY,         -- the order in which they came
    id TEXT NOT NULL UNIQUE,
    image_url TEXT NOT NULL,
    reply_subject TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    lease TEXT,                         -- NULL: nobody has it
    expires REAL,
    outcome TEXT,                       -- NULL: not done; JSON with "result" or "error", and "worker"
    done INTEGER UNIQUE                 -- the order in which they were done
);
CREATE INDEX IF NOT EXISTS waiting ON tasks (attempts, number) WHERE outcome IS NULL AND lease IS NULL;
CREATE INDEX IF NOT EXISTS leased ON tasks (lease, expires) WHERE outcome IS NULL AND lease IS NOT NULL;
CREATE INDEX IF NOT EXISTS replies ON tasks (reply_subject, done) WHERE outcome IS NOT NULL;
CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
_IS_LEASED = "outcome IS NULL AND lease IS NOT NULL"


class TaskStore:
    """One file of tasks. One thread; other processes may have the same file open.

    Args:
        path: Made if it is not there.
        clock: Seconds since the epoch: leases outlive the process, and a monotonic clock does not outlive the machine.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # Autocommit: transactions are begun by hand. The thread that serves need not be the one that opens.
        self._base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._base.execute("PRAGMA journal_mode = WAL")
        self._base.execute("PRAGMA synchronous = FULL")  # what was answered is on the disk
        self._base.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._base.close()

    def enqueue(self, tasks: Sequence[Task]) -> int:
        """Add tasks; one whose id is known is left as it is. Returns how many are new."""
        with self._transaction():
            before = self._base.total_changes
            self._base.executemany(
                "INSERT OR IGNORE INTO tasks (id, image_url, reply_subject) VALUES (:id, :image_url, :reply_subject)",
                tasks,
            )
            return self._base.total_changes - before

    def lease(self, lease: str, max_tasks: int, seconds: float) -> list[Task]:
        """Give tasks to whoever names this lease, for so long; the same tasks again if it asks again."""
        with self._transaction():
            self._end_expired()
            held = self._base.execute(f"SELECT 1 FROM tasks WHERE lease = ? AND {_IS_LEASED}", (lease,)).fetchone()
            if held is None:
                self._take(lease, max_tasks, seconds)
            rows = self._base.execute(
                f"SELECT id, image_url, reply_subject FROM tasks WHERE lease = ? AND {_IS_LEASED} ORDER BY number",
                (lease,),
            )
            return [Task(id=row[0], image_url=row[1], reply_subject=row[2]) for row in rows]

    def extend(self, lease: str, seconds: float) -> int:
        """Let a lease end so much later than now. Returns how many tasks it still holds."""
        with self._transaction():
            self._end_expired()
            return self._base.execute(
                f"UPDATE tasks SET expires = ? WHERE lease = ? AND {_IS_LEASED}", (self._clock() + seconds, lease)
            ).rowcount

    def end_expired(self) -> None:
        """Have the tasks of leases that have ended wait again, or be given up."""
        with self._transaction():
            self._end_expired()

    def release(self, lease: str, *, counts: bool) -> int:
        """Give back what a lease holds; unless it counts, as if nobody had tried. Returns how many tasks."""
        with self._transaction():
            released = self._base.execute(
                "UPDATE tasks SET lease = NULL, expires = NULL, attempts = attempts - ? "
                f"WHERE lease = ? AND {_IS_LEASED}",
                (int(not counts), lease),
            ).rowcount
            self._give_up()
            return released

    def finish(self, outcomes: Sequence[tuple[str, dict[str, Any]]]) -> int:
        """Write down what came of tasks, by id, whoever holds them. Returns how many were not done before.

        The first outcome stands: a task that two services did has one.
        """
        with self._transaction():
            recorded = sum(self._finish(task, outcome) for task, outcome in outcomes)
            self._count("duplicates", len(outcomes) - recorded)
            return recorded

    def replies(self, subject: str, after: int, limit: int) -> list[dict[str, Any]]:
        """Outcomes for a subject in the order in which they came: those whose number `done` is beyond `after`."""
        rows = self._base.execute(
            "SELECT id, done, outcome FROM tasks WHERE reply_subject = ? AND outcome IS NOT NULL AND done > ? "
            "ORDER BY done LIMIT ?",
            (subject, after, limit),
        )
        return [{"id": row[0], "done": row[1], **json.loads(row[2])} for row in rows]

    def seconds_to_expiry(self) -> float | None:
        """Until the next lease ends, if nobody renews it; None without leases."""
        (expires,) = self._base.execute(f"SELECT MIN(expires) FROM tasks WHERE {_IS_LEASED}").fetchone()
        return None if expires is None else max(0.0, expires - self._clock())

    def statistics(self) -> dict[str, int]:
        """How many tasks wait, are leased, have a result and have an error; and what went wrong on the way."""
        row = self._base.execute(
            f"SELECT COUNT(*), SUM(outcome IS NULL AND lease IS NULL), SUM({_IS_LEASED}), "
            "SUM(json_extract(outcome, '$.result') IS NOT NULL), SUM(json_extract(outcome, '$.error') IS NOT NULL) "
            "FROM tasks"
        ).fetchone()
        names = ("tasks", "waiting", "leased", "results", "errors")
        counts = dict(self._base.execute("SELECT name, value FROM counts"))
        return {name: value or 0 for name, value in zip(names, row, strict=True)} | {
            name: counts.get(name, 0) for name in ("duplicates", "expired", "given_up")
        }

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    def _take(self, lease: str, max_tasks: int, seconds: float) -> None:
        first = self._base.execute(
            "SELECT attempts FROM tasks WHERE outcome IS NULL AND lease IS NULL ORDER BY attempts, number LIMIT 1"
        ).fetchone()
        if first is None:
            return
        (attempts,) = first
        self._base.execute(
            "UPDATE tasks SET lease = ?, expires = ?, attempts = attempts + 1 WHERE number IN "
            "(SELECT number FROM tasks WHERE outcome IS NULL AND lease IS NULL AND attempts = ? "
            "ORDER BY number LIMIT ?)",
            (lease, self._clock() + seconds, attempts, max(1, max_tasks >> attempts)),
        )

    def _end_expired(self) -> None:
        ended = self._base.execute(
            f"UPDATE tasks SET lease = NULL, expires = NULL WHERE {_IS_LEASED} AND expires <= ?", (self._clock(),)
        ).rowcount
        self._count("expired", ended)
        self._give_up()

    def _give_up(self) -> None:
        """Every task gets an outcome: one that nobody survives, an error."""
        rows = self._base.execute(
            "SELECT id, attempts FROM tasks WHERE outcome IS NULL AND lease IS NULL AND attempts >= ?", (MAX_ATTEMPTS,)
        ).fetchall()
        for task, attempts in rows:
            message = f"given up: {attempts} leases (limit {MAX_ATTEMPTS}) ended without an outcome"
            self._finish(task, {"error": {"kind": "given_up", "message": message}, "worker": None})
        self._count("given_up", len(rows))

    def _finish(self, task: str, outcome: dict[str, Any]) -> int:
        return self._base.execute(
            "UPDATE tasks SET outcome = ?, done = (SELECT COALESCE(MAX(done), 0) + 1 FROM tasks) "
            "WHERE id = ? AND outcome IS NULL",
            (json.dumps(outcome), task),
        ).rowcount

    def _count(self, name: str, more: int) -> None:
        if more:
            self._base.execute(
                "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                (name, more),
            )
