"""Engines by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from millpond._sweep.engines import Engine
from millpond._sweep.orders import Look

LOCAL, RAY, SLURM, INERT = "local", "ray", "slurm", "inert"
ENGINES = (LOCAL, RAY, SLURM)


class EngineChoice:
    """An engine that is made when its sweep begins.

    Args:
        name: One of `ENGINES`; or `INERT`, for a command that is not split.
        parallel: Chunks at a time; None: one here, and as many as a cluster has room for.
        options: Of the engine, by name.

    Raises:
        ValueError: There is no such engine, or it takes no such options.
        ModuleNotFoundError: What it needs is not installed.
    """

    def __init__(self, name: str, parallel: int | None, options: Mapping[str, Any]) -> None:
        if name not in (*ENGINES, INERT):
            raise ValueError(f"engine= is {name!r}, and takes one of {', '.join(ENGINES)}")
        if name == LOCAL and options:
            raise ValueError(f"engine 'local' takes no options, and was given {', '.join(sorted(options))}")
        self._name, self._parallel, self._options = name, parallel, dict(options)

    def make(
        self,
        folder: Path,
        *,
        looked: Callable[[int, Look], None],
        printed: Callable[[int, bytes], None] | None,
        lock_descriptor: int,
    ) -> Engine:
        """Make it.

        Args:
            folder: Of the sweep.
            looked: Called with looks at chunks, from any thread.
            printed: Called with what chunks print, from any thread; None: nobody listens.
            lock_descriptor: Kept open by processes that must be gone before the sweep can be resumed.
        """
        if self._name == LOCAL:
            from millpond._sweep.engines.local import LocalEngine

            return LocalEngine(self._parallel or 1, keep=(lock_descriptor,), looked=looked, printed=printed)
        if self._name == INERT:
            from millpond._sweep.engines.inert import InertEngine

            return InertEngine()
        if self._name == RAY:
            from millpond._sweep.engines.ray import RayEngine

            return RayEngine(parallel=self._parallel, **self._options)
        from millpond._sweep.engines.slurm import SlurmEngine

        return SlurmEngine(folder / "slurm", parallel=self._parallel, **self._options)
