"""Handlers for workers, in a module that imports nothing heavy: workers import it."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from deadlock import hold_the_gil
from millpond._workers.messages import encode
from millpond._workers.outcomes import Completed, Failed

if TYPE_CHECKING:
    from millpond._workers.supervisor import Supervisor

Progress = Callable[[], None]


class LoudError(Exception):
    """Pickles, and does not unpickle: its argument is keyword-only (as in httpx issue 1990)."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"because of {reason}")


class Unpicklable(Exception):
    """Does not pickle."""

    def __reduce__(self) -> str:
        raise TypeError("never")


def obey(payload: Any, progress: Progress) -> Any:
    """Do what the payload says: (verb, arguments)."""
    verb, *arguments = payload
    return _VERBS[verb](progress, *arguments)


def _raise(progress: Progress, kind: str) -> None:
    errors: dict[str, BaseException] = {
        "value": ValueError("a bad value"),
        "loud": LoudError(reason="noise"),
        "unpicklable": Unpicklable("in full words"),
        "exit": SystemExit(0),
    }
    raise errors[kind]


def _die_at_first(progress: Progress, folder: str, deaths: int, survived: tuple[Any, ...]) -> Any:
    """Attempt n makes n bumps and dies, so many times; then another task is carried out."""
    attempt = len(os.listdir(folder))
    if attempt == deaths:
        return obey(survived, progress)
    open(os.path.join(folder, str(attempt)), "w").close()
    for _ in range(attempt):
        progress()
    os.kill(os.getpid(), signal.SIGKILL)
    return None


def _hold(progress: Progress, fifo: str, kills: int) -> str:
    """Attempt n makes n bumps, writes the pid to a fifo and waits to be killed, until it was killed so many times."""
    attempts = 0
    while os.path.exists(f"{fifo}.{attempts}"):
        attempts += 1
    if attempts == kills:
        return "survived"
    open(f"{fifo}.{attempts}", "w").close()
    for _ in range(attempts):
        progress()
    with open(fifo, "w") as file:
        file.write(str(os.getpid()))
    signal.pause()
    return "unreachable"


def _once(progress: Progress, path: str, then: str) -> str:
    """Carry out `then` the first time, and return after that."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "recovered"
    obey((then,), progress)
    return "unreachable"


def _steady(progress: Progress, steps: int, pause_seconds: float) -> int:
    for _ in range(steps):
        time.sleep(pause_seconds)
        progress()
    return steps


def _read(progress: Progress, fifo: str) -> str:
    with open(fifo) as file:
        return file.read()


def _meet(progress: Progress, folder: str, count: int) -> int:
    """Return the pid once so many workers are in here at the same time."""
    open(os.path.join(folder, str(os.getpid())), "w").close()
    deadline = time.monotonic() + 20
    while len(os.listdir(folder)) < count:
        assert time.monotonic() < deadline, "the others did not come"
        time.sleep(0.001)
    return os.getpid()


_KEPT: list[bytearray] = []


def _slow_pid(progress: Progress, pause_seconds: float) -> int:
    time.sleep(pause_seconds)
    return os.getpid()


def _leak(progress: Progress, size_bytes: int) -> int:
    """Keep so much memory for ever; the pid."""
    _KEPT.append(bytearray(b"x") * size_bytes)
    return os.getpid()


def _count_running(progress: Progress, folder: str, pause_seconds: float) -> int:
    """How many workers were in here at the same time, oneself included."""
    mark = os.path.join(folder, str(os.getpid()))
    open(mark, "w").close()
    most = 0
    end = time.monotonic() + pause_seconds
    while time.monotonic() < end:
        most = max(most, len(os.listdir(folder)))
    os.unlink(mark)
    return most


_VERBS: dict[str, Callable[..., Any]] = {
    "echo": lambda progress, value: value,
    "zeros": lambda progress, size_bytes: bytes(size_bytes),
    "pid": lambda progress: os.getpid(),
    "raise": _raise,
    "kill": lambda progress: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda progress: os.kill(os.getpid(), signal.SIGSTOP),
    "segfault": lambda progress: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda progress: os._exit(7),
    "hold_gil": lambda progress: hold_the_gil(),
    "backtrack": lambda progress: re.match(r"(a+)+$", "a" * 60 + "b"),
    "spin": lambda progress: spin(progress),
    "hold": _hold,
    "die_at_first": _die_at_first,
    "once": _once,
    "steady": _steady,
    "modules": lambda progress: sorted(sys.modules),
    "surroundings": lambda progress, name: (os.getcwd(), os.environ.get(name), sys.path),
    "unpicklable_result": lambda progress: sys._getframe(),
    "descriptors": lambda progress: sorted(int(name) for name in os.listdir("/proc/self/fd")),
    "interrupt": lambda progress: os.kill(os.getpid(), signal.SIGINT),
    "read": _read,
    "meet": _meet,
    "slow_pid": _slow_pid,
    "scheduling": lambda progress: os.sched_getscheduler(0),
    "leak": _leak,
    "count_running": _count_running,
    "print": lambda progress, text: print(text),
}


def spin(progress: Progress) -> None:
    """Never end, and make progress all the while."""
    while True:
        progress()


class Reader:
    """Reads from the descriptor that it was attached to; writes to the second when it is closed."""

    def attach(self, descriptors: Sequence[int], worker_index: int) -> None:
        self._descriptors = descriptors
        self._worker_index = worker_index

    def __call__(self, payload: Any, progress: Progress) -> tuple[int, bytes]:
        return self._worker_index, os.pread(self._descriptors[0], 100, 0)

    def close(self) -> None:
        os.write(self._descriptors[1], b"closed ")


class CannotAttach:
    """A handler that fails at the start."""

    def attach(self, descriptors: Sequence[int], worker_index: int) -> None:
        raise LookupError("nothing to attach to")

    def __call__(self, payload: Any, progress: Progress) -> None: ...


class DiesAtStart(CannotAttach):
    """A handler that ends its worker at the start."""

    def attach(self, descriptors: Sequence[int], worker_index: int) -> None:
        os._exit(9)


class NeverReady(CannotAttach):
    """A handler that hangs at the start."""

    def attach(self, descriptors: Sequence[int], worker_index: int) -> None:
        signal.pause()


@contextmanager
def workers(num_workers: int = 1, handler: Any = obey, **options: Any) -> Iterator[Supervisor]:
    """A supervisor of `obey`, closed at the end."""
    from millpond._workers.supervisor import Supervisor  # here: workers need none

    with Supervisor(encode(handler), num_workers=num_workers, **options) as supervisor:
        yield supervisor


def zygote_pid(supervisor: Supervisor) -> int:
    """Of the zygote that forks its workers."""
    pid = supervisor.statistics().zygote_pid
    assert pid is not None
    return pid


def answers(supervisor: Supervisor, *payloads: Any) -> list[Completed | Failed]:
    """Submit payloads under the ids 0, 1, ... and return their answers in the order of the ids."""
    for task_id, payload in enumerate(payloads):
        supervisor.submit(task_id, payload)
    return collect(supervisor, len(payloads))


def collect(supervisor: Supervisor, count: int) -> list[Completed | Failed]:
    """Wait for so many answers; in the order of their ids."""
    deadline = time.monotonic() + 30
    found: list[Completed | Failed] = []
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} answers came; {supervisor.statistics()}"
        found += supervisor.wait(30)
    return sorted(found, key=lambda answer: answer.task_id)


def results(supervisor: Supervisor, *payloads: Any) -> list[Any]:
    """The results of payloads, in their order; an error is raised."""
    found = []
    for answer in answers(supervisor, *payloads):
        if isinstance(answer, Failed):
            raise answer.error
        found.append(answer.result)
    return found


def error_of(supervisor: Supervisor, payload: Any) -> Exception:
    """The error of a task that must fail."""
    (answer,) = answers(supervisor, payload)
    assert isinstance(answer, Failed), answer
    return answer.error
