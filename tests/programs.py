"""Programs of their own, for tests of how a process ends and what it leaves: started, marked, looked for."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

TESTS = Path(__file__).resolve().parent
_MARK = "MILLPOND_TEST_PROGRAM"


@dataclass(frozen=True)
class Program:
    """A running Python program, and a folder that is its temporary folder and nobody else's.

    Attributes:
        process: It.
        folder: Its TMPDIR; empty when it began.
        mark: In the environment of it and of whatever it starts, however that came to be.
    """

    process: subprocess.Popen[str]
    folder: Path
    mark: str

    def line(self) -> str:
        """What it prints next; an AssertionError with its errors where it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.ended()
        return line.strip()

    def ended(self) -> tuple[int, str, str]:
        """Wait for its end: exit code, the rest of what it printed, its errors."""
        out, errors = self.process.communicate(timeout=60)
        return self.process.returncode, out, errors

    def left(self, patience_seconds: float) -> list[str]:
        """Processes, temporary files and shared memory that outlive it by so long."""
        deadline = time.monotonic() + patience_seconds
        while (found := self._found()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return found

    def _found(self) -> list[str]:
        processes = [_described(process) for process in psutil.process_iter() if _is_marked(process, self.mark)]
        shared = [name for name in os.listdir("/dev/shm") if "millpond" in name] if os.path.isdir("/dev/shm") else []
        return processes + [path.name for path in self.folder.iterdir()] + shared


def _is_marked(process: psutil.Process, mark: str) -> bool:
    try:
        return bool(process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:  # gone, or somebody else's
        return False


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {process.name()}"
    except psutil.NoSuchProcess:
        return f"{process.pid}"


def environment_of_tests(**added: str) -> dict[str, str]:
    """This process's, in which programs may import what lies beside the tests."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), **added}


def start_python(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Run code that may import what lies beside the tests; whoever calls ends it. `options` are those of Popen."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment_of_tests(), **options)


def run_python(arguments: Sequence[str], *, given: str = "", directory: Path) -> subprocess.CompletedProcess[str]:
    """Run Python as a user would, in a folder, with a standard input."""
    return subprocess.run(
        [sys.executable, *arguments],
        input=given,
        cwd=directory,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


@contextmanager
def forked(work: Callable[[], bytes]) -> Iterator[Callable[[], bytes]]:
    """Have a forked child of this process do something; what is yielded waits for its end and gives what it returned.

    Raises:
        AssertionError: It raised (its traceback is on stderr), or did not end within 20 s.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            os.write(write, work())
            code = 0
        except BaseException:  # noqa: BLE001 - nothing of the child's may go on as the parent's
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)

    def result() -> bytes:
        found = b""
        while True:
            assert select.select([read], [], [], 20)[0], "the forked child does not end"
            part = os.read(read, 65536)
            if not part:
                break
            found += part
        _, status = os.waitpid(child, 0)
        ended.append(status)
        assert os.waitstatus_to_exitcode(status) == 0
        return found

    ended: list[int] = []
    try:
        yield result
    finally:
        os.close(read)
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def runs(process: psutil.Process) -> bool:
    """Whether a process is there; a zombie does not run, and when it is reaped may be up to the machine's init."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def outlive(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that still run after so long."""
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if runs(process)]) and time.monotonic() < deadline:
        time.sleep(0.005)
    return left


@contextmanager
def program(
    code: str,
    folder: Path,
    *arguments: str,
    under: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """Run Python code that may import what lies beside the tests; it is killed at the end if it still runs.

    Args:
        code: For `python -c`.
        folder: For its temporary files; made, and empty.
        arguments: Its `sys.argv[1:]`.
        under: A command that runs the command.
        environment: On top of this process's.
    """
    folder.mkdir()
    mark = str(folder)
    variables = environment_of_tests(**{"TMPDIR": str(folder), _MARK: mark, **(environment or {})})
    with subprocess.Popen(
        [*under, sys.executable, "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
    ) as process:
        try:
            yield Program(process, folder, mark)
        finally:
            process.kill()


ENDINGS: list[tuple[str, signal.Signals | None]] = [
    ("time.sleep(60)", signal.SIGKILL),
    ("time.sleep(60)", signal.SIGTERM),
    ("sys.stdin.read(); sys.exit(0)", None),
    ("sys.stdin.read(); os._exit(3)", None),
]
"""Ways for a program to end: its last line, and the signal that it is sent; None: its standard input ends."""


def left_by(
    parent: subprocess.Popen[str], ours: list[psutil.Process], sibling: psutil.Process, number: signal.Signals | None
) -> list[psutil.Process]:
    """End a program in one of these ways; those of its processes that outlive it by 2 s. A forked sibling does."""
    with parent:
        if number is not None:
            parent.send_signal(number)
        else:
            assert parent.stdin is not None
            parent.stdin.close()
        alive = outlive(ours, 2)
        sibling.kill()
        parent.wait(10)
    return alive
