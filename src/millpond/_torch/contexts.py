"""Temporary."""

from __future__ import annotations

from multiprocessing.context import BaseContext, ForkServerContext
from typing import Any


class ZygoteContext(ForkServerContext):
    """Zygote."""

    _name = "zygote"


def resolve_context(given: Any, num_workers: int) -> BaseContext | None:
    """Temporary."""
    return ZygoteContext() if num_workers > 0 else None


def starter_for(context: BaseContext, preload: tuple[str, ...]) -> Any:
    """Temporary."""
    return None
