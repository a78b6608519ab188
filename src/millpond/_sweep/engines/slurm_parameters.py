"""What a user says of a chunk's job, as submitit takes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_SHARED = {"name", "timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node", "stderr_to_stdout"}
"""submitit's for every kind of cluster; others begin with the name of theirs."""
_OF_SEVERAL = {"nodes", "tasks_per_node", "ntasks_per_node"}
_PREFIX = "slurm_"
_MINUTES_OF_A_WEEK = 7 * 24 * 60


def parameters_of_submitit(said: Mapping[str, Any], *, parallel: int, needs_time: bool) -> dict[str, Any]:
    """Parameters for `update_parameters` of submitit's AutoExecutor.

    Args:
        said: By submitit's names or those of `sbatch`; numbers may be texts, as from a command line.
        parallel: How many jobs of an array may run at a time.
        needs_time: Whether jobs end at a limit that the user should know of.

    Raises:
        ValueError: No time limit is said where one is needed; or a chunk is to have several nodes or tasks.
    """
    values = {name.removeprefix(_PREFIX).replace("-", "_"): _value(value) for name, value in said.items()}
    several = sorted(name for name in _OF_SEVERAL & values.keys() if values.pop(name) != 1)
    if several:
        raise ValueError(f"Slurm's {several[0]}= is given, but a chunk is one process: leave it out")
    if needs_time and not {"timeout_min", "time"} & values.keys():
        raise ValueError(
            "Slurm ends a job at its time limit, and submitit's is 5 minutes if nothing is said: "
            "say how long a chunk may take, such as timeout_min=240 (minutes)"
        )
    more = {"no-requeue": True, **values.pop("additional_parameters", {})}
    values = {"name": "millpond", "timeout_min": _MINUTES_OF_A_WEEK, "array_parallelism": parallel, **values}
    values["additional_parameters"] = more
    return {name if name in _SHARED else _PREFIX + name: value for name, value in values.items()}


def _value(value: Any) -> Any:
    """What a text means: a number, true, a list; else itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
