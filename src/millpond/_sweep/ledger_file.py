"""The file that a ledger is: a SQLite database that comes into its place whole, and is told from any other.

Every transaction is on the disk when it returns (`synchronous=FULL`). It is appended to a write-ahead log, which is one
sync of the disk where a rollback journal takes three or four: a transaction over a chunk of 20 jobs took 0.3 ms against
0.8 ms on a quiet disk, 8 ms against 20 to 30 ms on one that others kept busy (ext4 on a virtual disk; a journal that is
deleted, truncated or zeroed made no difference). Write-ahead logging is known not to work on network file systems,
because the processes that use a database share memory for its index. Here there is one such process: it locks the
database for as long as it is open, and SQLite then keeps the index to itself. Closing leaves a single plain file.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from millpond._whole_files import put_in_place, unfinished_path
from millpond.errors import UnsupportedFormat, UsageError

_APPLICATION_ID = 0x6D70_7377  # "mpsw"
_VERSION = 1
_PATIENCE_SECONDS = 30.0
"""Someone who looks into a ledger that no sweep has open holds its lock for milliseconds."""

_TABLES = (
    "CREATE TABLE sweep (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE jobs (
        name TEXT PRIMARY KEY, position INTEGER NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 0,
        chunk INTEGER, exit_code INTEGER, peak_rss_bytes INTEGER, duration_seconds REAL,
        metrics TEXT, checksum TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID""",
    """CREATE TABLE chunks (
        number INTEGER PRIMARY KEY, names TEXT NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL,
        log TEXT NOT NULL, handle TEXT NOT NULL DEFAULT '', began_at REAL NOT NULL, duration_seconds REAL,
        exit_code INTEGER, ended_by TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '',
        peak_pss_bytes INTEGER NOT NULL DEFAULT 0, peak_rss_bytes INTEGER NOT NULL DEFAULT 0,
        oom_kills INTEGER NOT NULL DEFAULT 0, num_left_behind INTEGER NOT NULL DEFAULT 0,
        looks TEXT NOT NULL DEFAULT '[]'
    )""",
)


@contextlib.contextmanager
def new_ledger_file(path: Path) -> Iterator[sqlite3.Connection]:
    """Give a database with empty tables, in a transaction; the block's end puts it in its place, an error drops it."""
    unfinished = unfinished_path(path)
    unfinished.unlink(missing_ok=True)  # of a sweep that was killed at this very moment
    connection = _connected(unfinished)
    try:
        fetch(connection, path, "PRAGMA journal_mode=MEMORY")  # what is not whole is dropped
        fetch(connection, path, f"PRAGMA application_id={_APPLICATION_ID}")
        fetch(connection, path, f"PRAGMA user_version={_VERSION}")
        with transaction(connection, path):
            for table in _TABLES:
                connection.execute(table)
            yield connection
        disconnect(connection)
        put_in_place(path)
    except BaseException:
        connection.close()
        unfinished.unlink(missing_ok=True)
        raise


def open_ledger_file(path: Path) -> sqlite3.Connection:
    """Connect to a ledger that is there.

    Raises:
        UsageError: There is no file, or it cannot be read now.
        UnsupportedFormat: It is no ledger, or one of another version.
    """
    if not path.is_file():
        raise UsageError(f"no sweep to go on with: there is no ledger at {str(path)!r}", path=str(path))
    connection = _connected(path)
    try:
        _check(connection, path)
        fetch(connection, path, "PRAGMA journal_mode=WAL")
    except BaseException:
        connection.close()
        raise
    return connection


def disconnect(connection: sqlite3.Connection) -> None:
    """Close it, and leave nothing beside it."""
    with contextlib.suppress(sqlite3.Error):  # the log that stays is read by the next who opens it
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """All of a block, or nothing of it; on the disk at its end.

    Raises:
        UsageError: It cannot be written: the disk is full, the file is not writable, ...
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError):
            raise UsageError(
                f"the ledger {str(path)!r} cannot be written ({error}); what it holds is kept: make room on its disk, "
                "or make it writable, and go on with --resume",
                path=str(path),
            ) from error
        raise


def fetch(
    connection: sqlite3.Connection, path: Path, statement: str, values: tuple[Any, ...] = ()
) -> list[sqlite3.Row]:
    """All rows of a query.

    Raises:
        UnsupportedFormat: The file is damaged.
        UsageError: It cannot be read now.
    """
    try:
        return connection.execute(statement, values).fetchall()
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error


def _connected(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=_PATIENCE_SECONDS, isolation_level=None)
    except sqlite3.Error as error:
        raise _unreadable(path, error) from error
    try:
        connection.row_factory = sqlite3.Row
        fetch(connection, path, "PRAGMA locking_mode=EXCLUSIVE")  # before the log is looked at: no shared memory, then
        fetch(connection, path, "PRAGMA synchronous=FULL")
        fetch(connection, path, "PRAGMA fullfsync=ON")  # macOS: fsync alone leaves data in the disk's own cache
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    application = fetch(connection, path, "PRAGMA application_id")[0][0]
    version = fetch(connection, path, "PRAGMA user_version")[0][0]
    if application != _APPLICATION_ID:
        raise UnsupportedFormat(
            f"{str(path)!r} is a database of something else, no ledger of a sweep; give another --out", path=str(path)
        )
    if version > _VERSION:
        raise UnsupportedFormat(
            f"the ledger {str(path)!r} was written by a newer millpond (version {version}, this one reads {_VERSION}): "
            "upgrade millpond, or give another --out",
            path=str(path),
            version=version,
        )
    if version != _VERSION:
        raise UnsupportedFormat(
            f"the ledger {str(path)!r} has version {version}, this millpond reads {_VERSION}: give another --out",
            path=str(path),
            version=version,
        )


def _unreadable(path: Path, error: sqlite3.Error) -> UnsupportedFormat | UsageError:
    if isinstance(error, sqlite3.OperationalError):  # locked, not to be opened, no room
        return UsageError(f"the ledger {str(path)!r} cannot be opened ({error})", path=str(path))
    return UnsupportedFormat(
        f"{str(path)!r} is no ledger of a sweep, or is damaged ({error}); give another --out", path=str(path)
    )
