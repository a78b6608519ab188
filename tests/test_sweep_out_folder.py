"""A folder belongs to one sweep at a time, and every file in it is whole at any moment."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from millpond._sweep.out_folder import OutFolder, claim_default_path
from millpond.errors import UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_the_default_name_is_the_time_and_no_other_sweeps(tmp_path: Path) -> None:
    now = datetime(2026, 1, 31, 23, 59, 58)
    names = [claim_default_path(now, tmp_path).name for _ in range(3)]
    assert names == ["sweep-20260131-235958", "sweep-20260131-235958-2", "sweep-20260131-235958-3"]


def test_files_of_chunks_sort_by_their_number(path: Path) -> None:
    folder = OutFolder(path)
    assert folder.log_path(3) == path / "logs" / "chunk-0003.log"
    assert folder.work_folder(12345) == path / "work" / "chunk-12345"


def test_a_folder_that_holds_a_sweep_is_only_opened_to_resume_it(path: Path) -> None:
    path.mkdir()
    (path / "ledger.sqlite").touch()
    with OutFolder(path) as folder:
        with pytest.raises(UsageError, match=r"holds a sweep already: .*resume=True"):
            folder.open(resume=False)
        folder.open(resume=True)
        assert folder.holds_sweep


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_is_missing_or_holds_other_things_is_fine(path: Path, resume: bool) -> None:
    for _ in range(2):
        with OutFolder(path) as folder:
            folder.open(resume=resume)
            assert not folder.holds_sweep
        path.mkdir(exist_ok=True)
        (path / "notes.txt").touch()


def test_a_second_sweep_is_refused_and_told_who_has_the_folder(path: Path) -> None:
    with OutFolder(path) as first, OutFolder(path) as second:
        first.open(resume=False)
        with pytest.raises(UsageError, match=rf"another sweep runs .*process {os.getpid()} on .*--out"):
            second.open(resume=True)
        first.close()
        second.open(resume=False)


def test_whoever_inherits_the_lock_keeps_the_next_sweep_out_until_it_is_gone(path: Path) -> None:
    killed = OutFolder(path)
    killed.open(resume=False)
    waits = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]
    keeper = subprocess.Popen(waits, stdin=subprocess.PIPE, pass_fds=[killed.lock_descriptor])
    os.close(killed.lock_descriptor)  # as kill -9 does
    with OutFolder(path) as resumed, keeper:
        with pytest.raises(UsageError, match="not gone after 0 s"):
            resumed.open(resume=True)
        keeper.communicate()
        resumed.open(resume=True, patience_seconds=30.0)


def test_a_child_does_not_inherit_the_lock_by_itself(path: Path) -> None:
    with OutFolder(path) as folder:
        folder.open(resume=False)
        assert not os.get_inheritable(folder.lock_descriptor)


def test_the_lock_is_no_standard_stream_where_those_are_closed(path: Path) -> None:
    code = """
import sys
from millpond._sweep.out_folder import OutFolder
folder = OutFolder(sys.argv[1])
folder.open(resume=False)
sys.exit(folder.lock_descriptor)
"""
    arguments = [sys.executable, "-c", code, str(path)]
    ended = subprocess.run(["sh", "-c", 'exec "$@" <&- >&-', "sh", *arguments], check=False)
    assert ended.returncode > 2


def test_a_lock_that_its_holder_has_removed_is_not_taken_for_the_present_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OutFolder(path) as first, OutFolder(path) as second:
        first.open(resume=False)

        def closing_first(descriptor: int, operation: int) -> None:
            monkeypatch.undo()
            first.close()
            fcntl.flock(descriptor, operation)

        monkeypatch.setattr("millpond._locks.fcntl.flock", closing_first)
        second.open(resume=False)
        assert os.path.samestat(os.fstat(second.lock_descriptor), os.stat(path / "lock"))


def test_closing_leaves_the_lock_of_a_sweep_that_has_the_place_of_a_removed_folder(path: Path) -> None:
    with OutFolder(path) as removed:
        removed.open(resume=False)
        shutil.rmtree(path)
        with OutFolder(path) as present:
            present.open(resume=False)
            removed.close()
            with pytest.raises(UsageError, match="another sweep runs"):
                OutFolder(path).open(resume=False)


def test_closing_leaves_results_and_nothing_else(path: Path) -> None:
    with OutFolder(path) as folder:
        folder.open(resume=False)
        folder.work_folder(1).mkdir()
        folder.clear_work()
        folder.write(folder.metrics_path, "{}\n")
    assert os.listdir(path) == ["metrics.json"]


def test_a_sweep_that_comes_to_nothing_leaves_no_folder(path: Path) -> None:
    with OutFolder(path) as folder:
        folder.open(resume=False)
    assert not path.exists()


def test_a_descriptor_is_only_to_be_had_while_the_folder_is_open(path: Path) -> None:
    with pytest.raises(UsageError, match="not open"):
        _ = OutFolder(path).lock_descriptor


def test_a_file_in_place_of_the_folder_is_refused(path: Path) -> None:
    path.touch()
    with pytest.raises(UsageError, match="give --out a folder"):
        OutFolder(path).open(resume=False)


def test_a_file_system_without_locks_is_told_as_such(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("millpond._locks.fcntl.flock", no_locks)
    with pytest.raises(UsageError, match=r"No locks available.*a file system with locks"):
        OutFolder(path).open(resume=False)


def test_a_write_that_fails_leaves_the_former_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with OutFolder(path) as folder:
        folder.open(resume=False)
        folder.write(folder.summary_path, "former")
        monkeypatch.setattr("millpond._whole_files.os.fsync", fails)
        with pytest.raises(UsageError, match=r"summary.json' .*No space.*make room"):
            folder.write(folder.summary_path, b"newer")
    assert [(file.name, file.read_text()) for file in path.iterdir()] == [("summary.json", "former")]


def test_files_are_unicode_that_can_be_read_by_whom_the_umask_lets(path: Path) -> None:
    with OutFolder(path) as folder:
        folder.open(resume=False)
        folder.write(folder.metrics_path, "{}")
        folder.write(folder.summary_path, '"\udc80"')
        assert folder.summary_path.read_bytes() == rb'"\udc80"'
        (path / "plain").touch()
        assert folder.metrics_path.stat().st_mode == (path / "plain").stat().st_mode
