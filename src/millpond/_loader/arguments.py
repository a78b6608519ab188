"""Checks of what a user gives a loader: misuse is named at construction, by the argument's own name."""

from __future__ import annotations

import importlib.util
from typing import Any

import cloudpickle

from millpond._checks import check_anon, check_integer, check_positive


def check_arguments(
    *,
    batch_size: Any,
    seed: Any,
    num_workers: Any,
    mixing: Any,
    transform: Any,
    on_error: Any,
    max_errors: Any,
    held_batches: Any,
    timeout: Any,
    stall_timeout: Any,
    max_restarts: Any,
    max_tasks_per_worker: Any,
    max_worker_anon: Any,
    video_fetch_workers: Any,
    output: Any,
    uneven: Any,
    canonical_shards: Any,
) -> None:
    """TypeError or ValueError for what cannot work; see `Loader` for what each argument means."""
    check_integer("batch_size", batch_size, least=1)
    check_integer("seed", seed, least=0)
    check_integer("held_batches", held_batches, least=1)
    if num_workers is not None:
        check_integer("num_workers", num_workers, least=0)
    check_positive("mixing", mixing)
    check_positive("timeout", timeout)
    check_positive("stall_timeout", stall_timeout)
    check_integer("max_restarts", max_restarts, least=0)
    if max_tasks_per_worker is not None:
        check_integer("max_tasks_per_worker", max_tasks_per_worker, least=1)
    if max_worker_anon is not None:
        check_anon(max_worker_anon)
    if on_error not in ("raise", "skip", "placeholder"):
        raise ValueError(f'on_error must be "raise", "skip" or "placeholder", not {on_error!r}')
    _check_max_errors(max_errors, on_error)
    check_integer("video_fetch_workers", video_fetch_workers, least=1)
    if output not in ("auto", "torch", "numpy"):
        raise ValueError(f'output must be "auto", "torch" or "numpy", not {output!r}')
    if output == "torch" and importlib.util.find_spec("torch") is None:
        raise ValueError('output="torch" needs torch, which is not installed; install millpond[torch]')
    if uneven not in ("pad", "drop", "error"):
        raise ValueError(f'uneven must be "pad", "drop" or "error", not {uneven!r}')
    if canonical_shards is not None and mixing is not None:
        raise ValueError("mixing= fits the order to memory=, and canonical_shards= fixes it: give horizon_batches=")
    if transform is not None:
        _check_transform(transform, travels=num_workers != 0)


def _check_max_errors(value: Any, on_error: str) -> None:
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"max_errors must be a count (int), a fraction (float) or None, not {value!r}")
    if value < 0 or (isinstance(value, float) and not value < 1):
        raise ValueError(f"max_errors must be a count of at least 0, or a fraction from 0.0 to below 1.0, not {value}")
    if on_error == "raise":
        raise ValueError('max_errors counts samples that are skipped: it needs on_error="skip" or "placeholder"')


def _check_transform(transform: Any, *, travels: bool) -> None:
    if not callable(transform):
        raise TypeError(f"transform must be a function of a sample, not {transform!r}")
    if travels:
        try:
            cloudpickle.dumps(transform)
        except Exception as error:
            raise TypeError(
                f"transform cannot travel to workers: {error}; make what it closes over inside of it, or use "
                "num_workers=0"
            ) from error
