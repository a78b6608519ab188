"""A ledger has, after any death, what was written down before it: each job with its metrics, or without either."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from millpond._plan.chunks import JobState, JobVerdict
from millpond._sweep.ledger import Ledger
from millpond._sweep.ledger_records import ChunkState
from millpond._sweep.orders import ChunkOutcome, EndedBy, Look
from millpond.errors import DataError, InternalError, UnsupportedFormat, UsageError

FACTS = {"jobs": "c0ffee", "command": '["python", "run.py"]'}
LOOKS = (Look(0.0, 10), Look(0.5, 1 << 33, 1, "b"))
KILLED = ChunkOutcome(1, -9, EndedBy.BUDGET, duration_seconds=2.0, peak_rss_bytes=7, began_at=50.0, looks=LOOKS)


def said(name: str, state: str, attempt: int = 1, reason: str = "") -> JobVerdict:
    return JobVerdict(name, JobState(state), attempt, reason)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create(tmp_path / "ledger.sqlite", FACTS, ["a", "b", "c"]) as made:
        yield made


def reopened(ledger: Ledger) -> Ledger:
    ledger.close()
    return Ledger.open_existing(ledger.path)


def states(ledger: Ledger) -> dict[str, str]:
    return {job.name: job.state for job in ledger.jobs()}


def begin(ledger: Ledger, number: int, *names: str) -> None:
    ledger.begin(number, names, attempt=1, log=f"chunk-{number}.log", began_at=40.0)


def test_a_new_ledger_has_its_facts_and_every_job_pending_in_order(ledger: Ledger) -> None:
    with reopened(ledger) as again:
        assert again.facts == FACTS
        assert [(job.name, job.position, job.state) for job in again.jobs()] == [
            ("a", 0, "pending"), ("b", 1, "pending"), ("c", 2, "pending"),
        ]  # fmt: skip
        assert (again.next_chunk_number, again.chunks(), again.metrics()) == (1, (), {})


def test_what_a_chunk_gave_is_there_after_it_has_ended(ledger: Ledger) -> None:
    begin(ledger, 1, "a", "b", "c")
    verdicts = [said("a", "done"), said("b", "failed", 2, "killed"), said("c", "pending", 0, "drained")]
    ledger.end(KILLED, verdicts, {"a": {"x": 0.1, "n": [1]}}, seconds={"a": 0.5}, reason="too large")
    with reopened(ledger) as again:
        a, b, c = again.jobs()
        assert (a.state, a.chunk, a.exit_code, a.peak_rss_bytes, a.duration_seconds, a.error) == (
            "done",
            1,
            -9,
            7,
            0.5,
            "",
        )
        assert (b.state, b.attempt, b.duration_seconds, b.checksum, b.error) == ("failed", 2, 2.0, "", "killed")
        assert (c.state, c.chunk, c.exit_code, c.error) == ("pending", None, None, "drained")
        assert again.metrics() == {"a": {"n": [1], "x": 0.1}}
        assert [job.attempt for job in again.jobs()] == [1, 2, 0]


def test_a_chunk_is_kept_with_its_looks(ledger: Ledger) -> None:
    begin(ledger, 1, "a")
    ledger.note_handles({1: "slurm 17"})
    ledger.end(KILLED, [said("a", "failed", 1, "no")], {}, reason="too large")
    (chunk,) = ledger.chunks()
    assert (chunk.names, chunk.attempt, chunk.state, chunk.log) == (("a",), 1, ChunkState.ENDED, "chunk-1.log")
    assert (chunk.began_at, chunk.ended_by, chunk.reason, chunk.handle) == (50.0, "budget", "too large", "slurm 17")
    assert chunk.looks == LOOKS
    assert ledger.next_chunk_number == 2


def test_metrics_come_back_as_the_same_numbers(ledger: Ledger) -> None:
    given = {"a": {"sum": 0.1 + 0.2, "large": 2**70, "none": None, "ü": {"deep": [1e-310, True]}}}
    begin(ledger, 1, "a")
    ledger.end(ChunkOutcome(1, 0), [said("a", "done")], given)
    assert ledger.metrics() == given


def test_words_of_a_child_that_are_no_unicode_are_kept_as_escapes(ledger: Ledger) -> None:
    begin(ledger, 1, "a")
    ledger.end(KILLED, [said("a", "failed", 1, "no \udc80")], {}, reason="\udc80")
    assert (ledger.jobs()[0].error, ledger.chunks()[0].reason) == (r"no \udc80", r"\udc80")


def test_a_job_is_not_done_without_metrics_and_the_chunk_still_runs(ledger: Ledger) -> None:
    begin(ledger, 1, "a", "b")
    with pytest.raises(InternalError, match="'b'"):
        ledger.end(ChunkOutcome(1, 0), [said("a", "done"), said("b", "done")], {"a": {}})
    assert states(ledger) == {"a": "running", "b": "running", "c": "pending"}


def test_nothing_of_an_end_is_kept_when_one_job_of_it_is_not_in_the_chunk(ledger: Ledger) -> None:
    begin(ledger, 1, "a")
    with pytest.raises(InternalError, match="job 'c'"):
        ledger.end(ChunkOutcome(1, 0), [said("a", "done"), said("c", "done")], {"a": {}, "c": {}})
    assert (states(ledger)["a"], ledger.metrics(), len(ledger.interrupted())) == ("running", {}, 1)


def test_a_chunk_does_not_end_without_a_verdict_on_each_of_its_jobs(ledger: Ledger) -> None:
    begin(ledger, 1, "a", "b")
    with pytest.raises(InternalError, match=r"chunk 1 ends without a verdict on \['b'\]"):
        ledger.end(ChunkOutcome(1, 0), [said("a", "done")], {"a": {}})
    assert (states(ledger)["a"], ledger.chunks()[0].state) == ("running", ChunkState.RUNNING)


def test_a_job_runs_in_one_chunk_at_a_time(ledger: Ledger) -> None:
    begin(ledger, 1, "a")
    with pytest.raises(InternalError, match="chunk 2 begins with job 'a'"):
        begin(ledger, 2, "b", "a")
    assert states(ledger)["b"] == "pending"


def test_a_chunk_ends_once(ledger: Ledger) -> None:
    begin(ledger, 1, "a")
    ledger.end(ChunkOutcome(1, 0), [said("a", "done")], {"a": {}})
    with pytest.raises(InternalError, match="chunk 1 does not run"):
        ledger.end(ChunkOutcome(1, 0), [], {})


def test_an_interrupted_chunk_is_recovered_job_by_job_and_counts_no_attempt(ledger: Ledger) -> None:
    begin(ledger, 1, "a", "b")
    with reopened(ledger) as again:
        (chunk,) = again.interrupted()
        again.recover(chunk.number, {"a": {"x": 1}}, seconds={"a": 3.0})
        assert states(again) == {"a": "done", "b": "pending", "c": "pending"}
        assert ([job.attempt for job in again.jobs()], again.metrics()) == ([1, 0, 0], {"a": {"x": 1}})
        assert (again.interrupted(), again.chunks()[0].state) == ((), ChunkState.INTERRUPTED)
        begin(again, again.next_chunk_number, "b")


def test_a_failed_job_that_is_interrupted_when_it_runs_again_tells_of_no_run(ledger: Ledger) -> None:
    begin(ledger, 1, "a")
    ledger.end(KILLED, [said("a", "failed", 1, "killed")], {})
    ledger.reopen_failed()
    begin(ledger, 2, "a")
    ledger.recover(2, {})
    job = ledger.jobs()[0]
    assert (job.state, job.attempt, job.chunk, job.exit_code, job.duration_seconds) == ("pending", 0, None, None, None)


def test_a_changed_sweep_keeps_what_is_done_of_jobs_that_are_still_named(ledger: Ledger) -> None:
    begin(ledger, 1, "a", "b")
    ledger.end(ChunkOutcome(1, 0), [said("a", "done"), said("b", "done")], {"a": {}, "b": {}})
    ledger.change({"jobs": "new"}, ["d", "b"])
    assert states(ledger) == {"d": "pending", "b": "done"}
    assert ledger.facts == {"jobs": "new"}


def test_a_job_that_is_no_longer_named_is_not_recovered(ledger: Ledger) -> None:
    begin(ledger, 1, "a", "b")
    ledger.change({}, ["b", "c"])
    ledger.recover(1, {"a": {}, "b": {}})
    assert states(ledger) == {"b": "done", "c": "pending"}


@pytest.mark.parametrize("changed", ['{"x":2}', "[]", '{"x":'])
def test_metrics_that_were_tampered_with_are_an_error_that_names_the_job(ledger: Ledger, changed: str) -> None:
    begin(ledger, 1, "b")
    ledger.end(ChunkOutcome(1, 0), [said("b", "done")], {"b": {"x": 1}})
    ledger.close()
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("UPDATE jobs SET metrics = ? WHERE name = 'b'", (changed,))
    other.close()
    with Ledger.open_existing(ledger.path) as again, pytest.raises(DataError, match="'b'"):
        again.metrics()


DIES = """
import os, sys
from pathlib import Path
from millpond._plan.chunks import JobState, JobVerdict
from millpond._sweep.ledger import Ledger
from millpond._sweep.ledger_file import transaction
ledger = Ledger.open_existing(Path(sys.argv[1]))
ledger.begin(1, ["a"], attempt=1, log="", began_at=1.0)
with ledger._transaction():
    ledger._connection.execute("UPDATE jobs SET state = 'done'")
    ledger._connection.execute("PRAGMA cache_spill = 1")
    os.kill(os.getpid(), 9)
"""


def test_a_sweep_that_is_killed_amid_a_transaction_leaves_nothing_of_it(ledger: Ledger) -> None:
    ledger.close()
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", DIES, str(ledger.path)]) == -9
    with Ledger.open_existing(ledger.path) as again:
        assert states(again) == {"a": "running", "b": "pending", "c": "pending"}
        assert again.interrupted()[0].names == ("a",)


def test_a_sweep_that_is_killed_while_it_makes_its_ledger_has_none(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    (tmp_path / ".ledger.sqlite.new").write_bytes(b"half of one")
    with pytest.raises(UsageError, match="no sweep to go on with"):
        Ledger.open_existing(path)
    Ledger.create(path, {}, ["a"]).close()
    assert os.listdir(tmp_path) == ["ledger.sqlite"]


def test_duplicate_names_leave_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        Ledger.create(tmp_path / "ledger.sqlite", {}, ["a", "a"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("pragma", "message"),
    [
        ("user_version=2", "newer millpond .version 2"),
        ("user_version=0", "version 0"),
        ("application_id=0", "no ledger"),
    ],
)
def test_a_file_that_this_version_does_not_read_is_refused(ledger: Ledger, pragma: str, message: str) -> None:
    ledger.close()
    other = sqlite3.connect(ledger.path)
    other.execute(f"PRAGMA {pragma}")
    other.close()
    with pytest.raises(UnsupportedFormat, match=message):
        Ledger.open_existing(ledger.path)


@pytest.mark.parametrize("content", [b"", b"a page of notes\n" * 100])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(UnsupportedFormat, match="no ledger of a sweep"):
        Ledger.open_existing(path)
    assert path.read_bytes() == content


def test_a_damaged_ledger_is_told_as_such(ledger: Ledger) -> None:
    ledger.close()
    content = bytearray(ledger.path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    ledger.path.write_bytes(content)
    with Ledger.open_existing(ledger.path) as again, pytest.raises(UnsupportedFormat, match="damaged"):
        again.jobs()


def test_a_ledger_that_another_process_has_is_told_as_such(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millpond._sweep.ledger_file._PATIENCE_SECONDS", 0.0)
    with pytest.raises(UsageError, match=r"cannot be opened \(database is locked"):
        Ledger.open_existing(ledger.path)


def test_a_full_disk_is_told_with_what_to_do_and_loses_nothing(ledger: Ledger) -> None:
    begin(ledger, 1, "a")
    pages = ledger._fetch("PRAGMA page_count")[0][0]
    ledger._fetch(f"PRAGMA max_page_count={pages}")
    with pytest.raises(UsageError, match=r"full.*make room .* --resume"):
        ledger.end(ChunkOutcome(1, 0), [said("a", "done")], {"a": {"text": "x" * 100_000}})
    assert states(ledger)["a"] == "running"


def test_every_transaction_is_synced_and_a_closed_ledger_is_one_file(ledger: Ledger) -> None:
    assert ledger._fetch("PRAGMA synchronous")[0][0] == 2
    begin(ledger, 1, "a")
    beside = set(os.listdir(ledger.path.parent))
    assert beside == {"ledger.sqlite", "ledger.sqlite-wal"}, (
        "memory that is shared does not work on network file systems"
    )
    ledger.close()
    assert os.listdir(ledger.path.parent) == ["ledger.sqlite"]
