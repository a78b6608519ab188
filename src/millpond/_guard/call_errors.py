"""What a caller is told of a call that did not end in good order: which function, on which item, what became of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from millpond.errors import DecodeTimeout, WorkerDied

_LONGEST = 120
_HANDLER = os.path.join("_guard", "call_handler.py")  # whose frame is the first below the function's


def in_words(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Arguments, short: "'clip.mp4', <12345 bytes>, fps=4"."""
    words = [_value_in_words(value) for value in args]
    words += [f"{name}={_value_in_words(value)}" for name, value in kwargs.items()]
    return _shorten(", ".join(words), _LONGEST)


def _value_in_words(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{memoryview(value).nbytes} bytes>"
    kind = type(value).__name__
    try:
        if isinstance(value, str | int | float | complex | bool) or value is None:
            return _shorten(repr(value), 80)
        if isinstance(value, os.PathLike):
            return _shorten(repr(os.fspath(value)), 80)
        shape = getattr(value, "shape", None)
    except Exception:  # noqa: BLE001 - the value's own code, or digits without end; the call's error matters, not this
        return f"<{kind}>"
    return f"<{kind} of shape {tuple(shape)}>" if isinstance(shape, tuple) else f"<{kind}>"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length // 2]}...{text[-length // 2 + 3 :]}"


def is_verdict(error: Exception) -> bool:
    """Whether an error is the supervisor's on a task that ended its worker; a function may raise the same kinds."""
    return isinstance(error, DecodeTimeout | WorkerDied) and "attempts" in error.facts


def named(error: Exception, function: str, item: str) -> Exception:
    """An error of a call as its caller gets it; the function's own errors stay as they are.

    Args:
        error: From the supervisor.
        function: Its name.
        item: What it worked on, in words.
    """
    if not is_verdict(error):
        return error
    if isinstance(error, DecodeTimeout):
        return _copy(error, _timeout_message(error, function, item), function, item)
    if isinstance(error, WorkerDied) and error.facts.get("task") is not None:
        # The supervisor's message is "worker 0 (pid 917) was killed by SIGSEGV (...) while it ran task 5 (...); ..."
        what = str(error).partition(" while it ran ")[0]
        return _copy(error, f"{what} while it ran {function}({item}); it was replaced", function, item)
    return error


def _timeout_message(error: DecodeTimeout, function: str, item: str) -> str:
    where = ", its stack is below" if error.facts.get("stack") else ""
    what = "did not end" if error.facts.get("progress_count", 1) else "was still importing what it needs"
    return (
        f"{function}({item}) {what} in {error.elapsed_seconds:.1f} s (limit {error.limit_seconds:.1f} s); "
        f"killed and replaced worker {error.worker_index} (pid {error.pid}){where}"
    )


def _copy(error: DecodeTimeout | WorkerDied, message: str, function: str, item: str) -> DecodeTimeout | WorkerDied:
    left_out = ("task", "attempts", "progress_count", "stack")
    facts = {name: fact for name, fact in error.facts.items() if name not in left_out}
    stack = _own_part(error.facts.get("stack", ""))
    renamed = type(error)(message, function=function, item=item, stack=stack, **facts)
    if stack:
        renamed.add_note(f"stack of worker {error.worker_index} (pid {error.pid}):\n{stack}")
    return renamed


def _own_part(stack: str) -> str:
    """A stack dump without the frames below the function: how the worker came to call it."""
    lines, is_below = [], False
    for line in stack.rstrip().splitlines():
        is_below = (is_below and line.startswith("  ")) or f'{_HANDLER}", line' in line
        if not is_below:
            lines.append(line)
    return "\n".join(lines)
