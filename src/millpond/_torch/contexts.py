"""Which processes workers are: millpond's own, or those of a start method of multiprocessing."""

from __future__ import annotations

import multiprocessing
from multiprocessing import reduction
from multiprocessing.context import BaseContext, ForkServerContext
from typing import Any

from millpond._workers.context_starter import ContextStarter
from millpond._workers.starter import Starter

ZYGOTE = "zygote"
VARIABLE = "MILLPOND_MP_CONTEXT"


class ZygoteContext(ForkServerContext):
    """The name of millpond's own way to start workers, as a context of multiprocessing.

    A DataLoader's workers come from the zygote. Whoever asks this context for a queue or a lock gets what the
    forkserver's has, and those can be sent to the workers. Who starts a process with it (a torch DataLoader that was
    made from the attributes of one of ours) gets one by the program's default start method.
    """

    _name = ZYGOTE

    @property
    def Process(self) -> Any:  # type: ignore[override]  # noqa: N802 - multiprocessing's name for it
        """Of the default context."""
        return multiprocessing.get_context().Process

    def __repr__(self) -> str:
        return f"<millpond's start method {ZYGOTE!r}>"

    def _check_available(self) -> None:
        if not _has_zygote():
            raise ValueError(f"start method {ZYGOTE!r} not available")


def _has_zygote() -> bool:
    return "forkserver" in multiprocessing.get_all_start_methods() and bool(reduction.HAVE_SEND_HANDLE)


def start_methods() -> list[str]:
    """What this platform supports."""
    return [ZYGOTE] * _has_zygote() + multiprocessing.get_all_start_methods()


def resolve_context(given: Any, num_workers: int, variable: str | None) -> BaseContext | None:
    """The context that a DataLoader's workers are started with; None if it has no workers.

    Args:
        given: The argument `multiprocessing_context`.
        num_workers: Of the DataLoader.
        variable: What the environment says where nothing is given; empty: what torch would use; None: nothing.

    Raises:
        ValueError: There is no such start method here, or there are no workers.
        TypeError: It is neither a name nor a context.
    """
    if given is not None:
        return _context_given(given, num_workers)
    if not num_workers:
        return None
    if variable is None:
        return ZygoteContext() if _has_zygote() else _default_context()
    if not variable:
        return _default_context()
    if variable not in start_methods():
        raise ValueError(
            f"{VARIABLE} should be a valid start method in {start_methods()!r}, or empty for torch's own choice, but "
            f"is {variable!r}"
        )
    return _context_named(variable)


def _context_given(given: Any, num_workers: int) -> BaseContext:
    """Checked as torch does, and refused in its words."""
    if not num_workers > 0:
        raise ValueError(
            "multiprocessing_context can only be used with multi-process loading (num_workers > 0), but got "
            f"num_workers={num_workers}"
        )
    if isinstance(given, str):
        if given not in start_methods():
            raise ValueError(
                f"multiprocessing_context option should specify a valid start method in {start_methods()!r}, but got "
                f"multiprocessing_context={given!r}"
            )
        return _context_named(given)
    if not isinstance(given, BaseContext):
        raise TypeError(
            "multiprocessing_context option should be a valid context object or a string specifying the start method, "
            f"but got multiprocessing_context={given}"
        )
    return given


def _context_named(name: str) -> BaseContext:
    return ZygoteContext() if name == ZYGOTE else multiprocessing.get_context(name)


def _default_context() -> BaseContext:
    """The one that is the default at the moment of use: to ask for it now would settle it for the whole program."""
    return multiprocessing.context._default_context


def starter_for(context: BaseContext) -> Starter | None:
    """What starts the workers of one iterator; None: the zygote of its preload set."""
    return None if isinstance(context, ZygoteContext) else ContextStarter(context)
