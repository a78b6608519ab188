"""Functions for guards to call, in a module that workers import; it imports nothing heavy."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from deadlock import hold_the_gil
from millpond import with_timeout
from worker_tasks import LoudError, Unpicklable

F = TypeVar("F", bound=Callable[..., Any])


def echo(*args: Any, **kwargs: Any) -> Any:
    """Its only argument, or all of them."""
    return args[0] if len(args) == 1 and not kwargs else (args, kwargs)


def filled(size: int, value: float = 1.5) -> NDArray[np.float32]:
    return np.full(size, value, np.float32)


def random_bytes(seed: int, size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def hang_in_c(*_: Any) -> NoReturn:
    """Hang in C with the GIL held."""
    hold_the_gil()
    raise AssertionError("unreachable")


def die(how: str) -> None:
    """End this process."""
    if how == "exit":
        os._exit(7)
    elif how == "segfault":
        ctypes.string_at(0)
    else:
        os.kill(os.getpid(), getattr(signal, how))


def fail(kind: str) -> NoReturn:
    errors: dict[str, BaseException] = {
        "value": ValueError("a bad value"),
        "loud": LoudError(reason="noise"),
        "unpicklable": Unpicklable("in full words"),
        "exit": SystemExit(0),
        "interrupt": KeyboardInterrupt(),
    }
    raise errors[kind]


def seen(name: str) -> tuple[str, str | None, bool]:
    """Working directory, a variable of the environment, whether something is on the import path."""
    return os.getcwd(), os.environ.get(name), name in sys.path


def wait_for_file(path: str) -> int:
    """Return the pid once the file is there; AssertionError after 30 s."""
    deadline = time.monotonic() + 30
    while not os.path.exists(path):
        assert time.monotonic() < deadline, f"nobody writes {path}"
        time.sleep(0.001)
    return os.getpid()


def tell_and_hang(path: str) -> NoReturn:
    """Write the pid to a file, and never return."""
    tell(path)
    while True:
        time.sleep(10)


def tell(path: str) -> str:
    """Write the pid to a file, which is there with its content or not at all."""
    with open(f"{path}.part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.part", path)
    return path


def odd_fails(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


def slow_if_first(number: int, seconds: float = 0.1) -> int:
    time.sleep(seconds if number == 0 else 0)
    return number


def lines(count: int) -> Iterator[int]:
    yield from range(count)


def doubling(function: F) -> F:
    """A decorator of somebody else's."""

    @functools.wraps(function)
    def doubled(*args: Any) -> Any:
        return 2 * function(*args)

    return doubled  # type: ignore[return-value]


@doubling
def seven() -> int:
    return 7


@with_timeout(20)
def limited_pid() -> int:
    return os.getpid()


@with_timeout
def limited_by_environment() -> int:
    return os.getpid()


@doubling
@with_timeout(20)
def doubled_limited_pid() -> int:
    return os.getpid()


@with_timeout(20)
def factorial(number: int) -> tuple[int, set[int]]:
    """With the pids of all levels of the recursion."""
    if number == 0:
        return 1, {os.getpid()}
    product, pids = factorial(number - 1)
    return number * product, pids | {os.getpid()}


def nested() -> tuple[int, int, int]:
    """Pids: of this process, of a function with a limit by the environment, of one with a limit of its own."""
    from millpond import shutdown

    try:
        return os.getpid(), limited_by_environment(), limited_pid()
    finally:
        shutdown()


class Reader:
    """With a method under a limit."""

    def __init__(self, path: str) -> None:
        self.path = path

    @with_timeout(20)
    def read(self) -> tuple[str, int]:
        return self.path, os.getpid()
