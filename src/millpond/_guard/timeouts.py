"""A limit for one function, without a guard in sight: the process has one of its own for that.

It is made when it is first wanted, grows to a worker for each core, is ended by `millpond.shutdown()` and at exit, and
made anew after either, and in a forked child.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from millpond._guard.default_timeout import default_timeout_seconds
from millpond._guard.functions import is_running, name_of, running
from millpond._workers.zygote import at_shutdown

P = ParamSpec("P")
T = TypeVar("T")

# What decoding needs, imported once for all workers; nothing that starts threads.
_PRELOAD = ("millpond._media.warm", "millpond._sources.warm", "millpond._datasets.load")


@overload
def with_timeout(seconds: Callable[P, T], /) -> Callable[P, T]: ...
@overload
def with_timeout(seconds: float | None = None) -> Callable[[Callable[P, T]], Callable[P, T]]: ...
def with_timeout(seconds: Any = None) -> Any:
    """Put a function under a hard limit: a call that passes it is ended with its process, and raises `DecodeTimeout`.

    ::

        @millpond.with_timeout(30)
        def load(path): return librosa.load(path)

    Each call runs in a worker of the process's own guard (see `Guard` for what may travel, and how). Called by a worker
    that runs this very function already, it is called as it is. `load.__wrapped__` is the function itself.

    Args:
        seconds: That a call may take. None, or no parentheses at all: what MILLPOND_DECODE_TIMEOUT says when it is
            called; unset, or 0, it is called in this process. 0: always called in this process.

    Raises:
        TypeError: What is decorated is a generator function or a coroutine function, whose work is done after the call.
    """
    if callable(seconds):
        return _guarded(seconds, None)
    check_timeout(seconds)
    return functools.partial(_guarded, seconds=seconds)


def _guarded(function: Callable[..., Any], seconds: float | None) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(
            f"{name_of(function)} does its work after the call, not in it, and cannot have a limit this way: let a "
            "plain function return the whole result"
        )

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return call_guarded(function, args, kwargs, seconds)

    return guarded


def call_with_timeout(
    function: Callable[..., T], /, *args: Any, timeout: float | None, item: str | None = None, **kwargs: Any
) -> T:
    """Call a function under a limit, as `with_timeout` does.

    Args:
        function: Called with `args` and `kwargs`.
        timeout: Seconds; None: what MILLPOND_DECODE_TIMEOUT says; 0, or unset: called in this process.
        item: What errors name as what was worked on; None: the arguments, short.
    """
    check_timeout(timeout)
    result: T = call_guarded(function, args, kwargs, timeout, item)
    return result


def call_guarded(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    seconds: float | None,
    item: str | None = None,
) -> Any:
    """As `call_with_timeout`, the limit known to be one. Decorated functions of `__main__` refer to it by its name."""
    if seconds is None:
        # In a worker the call as a whole is under a limit: what the environment says holds for the outermost only.
        seconds = 0.0 if running else default_timeout_seconds()
    if not seconds or is_running(function):
        return function(*args, **kwargs)
    return default_guard().run(function, args, kwargs, timeout=seconds, item=item)


def check_timeout(seconds: object) -> None:
    """Raise TypeError or ValueError unless it is a number of seconds, 0 (no limit) or None (what the environment says).

    A user's mistake is told where it was made, not at the first call.
    """
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"a timeout is a number of seconds or None, not {seconds!r}")
    if not seconds >= 0:
        raise ValueError(f"a timeout must be a positive number of seconds, or 0 for none, not {seconds!r}")


# ---- the process's own guard

_default: Any = None
_forgotten: list[Any] = []  # of the parent of a forked child: kept, so that nothing of it is closed
_lock = threading.RLock()  # a finalizer may want the guard while it is made


def default_guard() -> Any:
    """The process's guard, with a worker for each core when they are all wanted; any thread."""
    guard = _default
    return guard if guard is not None else _make_default_guard()


def _make_default_guard() -> Any:
    global _default
    from millpond._guard.guard import Guard  # with numpy: not before a limit is wanted

    with _lock:
        if _default is None:
            guard = Guard(timeout=float("inf"), preload=_PRELOAD)
            _default = _default or guard
        return _default


def end_default_guard() -> None:
    """End it, if there is one; the next call makes another."""
    global _default
    with _lock:
        guard, _default = _default, None
    if guard is not None:
        guard.close()


def _forget_after_fork() -> None:
    global _default, _lock
    _lock = threading.RLock()  # another thread may have held it at the fork
    if _default is not None:
        _forgotten.append(_default)
        _default = None


at_shutdown(end_default_guard)
os.register_at_fork(after_in_child=_forget_after_fork)
