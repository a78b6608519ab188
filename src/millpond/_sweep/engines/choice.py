"""Engines by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from millpond._sweep.engines import Engine
from millpond._sweep.orders import Look
from millpond._sweep.out_folder import OutFolder

LOCAL, RAY, SLURM, INERT = "local", "ray", "slurm", "inert"
ENGINES = (LOCAL, RAY, SLURM)
_OPTIONS = {RAY: {"address", "num_cpus", "num_gpus"}}


class EngineChoice:
    """An engine that is made when its sweep begins.

    Args:
        name: One of `ENGINES`; or `INERT`, for a command that is not split.
        parallel: Chunks at a time; None: one here, and as many as a cluster has room for.
        options: Of the engine, by name.

    Raises:
        ValueError: There is no such engine, or it takes no such option.
        ImportError: What it needs is not installed.
    """

    def __init__(self, name: str, parallel: int | None, options: Mapping[str, Any]) -> None:
        if name not in (*ENGINES, INERT):
            raise ValueError(f"engine= is {name!r}, and takes one of {', '.join(ENGINES)}")
        self._name, self._parallel, self._options = name, parallel, dict(options)
        known = _OPTIONS.get(name, set())
        if name != SLURM and (unknown := sorted(options.keys() - known)):
            takes = f"takes {', '.join(sorted(known))}" if known else "takes no options"
            shown = LOCAL if name == INERT else name
            raise ValueError(f"engine {shown!r} {takes}, and was given {', '.join(unknown)}")
        if name == RAY:
            from millpond._sweep.engines.ray import imported_ray

            imported_ray()
        elif name == SLURM:
            from millpond._sweep.engines.slurm import check_parameters, imported_submitit

            imported_submitit()
            check_parameters(*_of_slurm(self._options))

    def make(
        self,
        out: OutFolder,
        looked: Callable[[int, Look], None],
        printed: Callable[[int, bytes], None] | None,
    ) -> Engine:
        """Make it.

        Args:
            out: Folder of the sweep, open; processes that must be gone before it can be resumed keep its lock.
            looked: Called with looks at chunks, from any thread.
            printed: Called with what chunks print, from any thread; None: nobody listens.
        """
        if self._name == INERT:
            from millpond._sweep.engines.inert import InertEngine

            return InertEngine()
        if self._name == RAY:
            from millpond._sweep.engines.ray import RayEngine

            return RayEngine(parallel=self._parallel, **self._options)
        if self._name == SLURM:
            from millpond._sweep.engines.slurm import SlurmEngine

            parameters, cluster = _of_slurm(self._options)
            return SlurmEngine(out.path / "slurm", parallel=self._parallel, parameters=parameters, cluster=cluster)
        from millpond._sweep.engines.local import LocalEngine

        return LocalEngine(self._parallel or 1, keep=(out.lock_descriptor,), looked=looked, printed=printed)


def _of_slurm(options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Parameters for submitit, and the kind of cluster."""
    parameters = {name: value for name, value in options.items() if name != "cluster"}
    return parameters, options.get("cluster", SLURM)
