"""Statistics of metrics over jobs, to the last bit the same however jobs were chunked.

Sums are `math.fsum`, which rounds once and does not depend on order; jobs are taken in the order of their names all
the same. The standard library's `statistics` knows no weights for its deviations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class JobNumbers:
    """Of one job what can be counted with.

    Attributes:
        numbers: By flattened name of the metric.
        outcomes: The same of those that are true or false.
        weight: Of the job; None where it has none that is a finite number of at least 0.
    """

    numbers: Mapping[str, int | float]
    outcomes: Mapping[str, bool]
    weight: float | None


def numbers_of(metrics: Mapping[str, Any], weight_key: str) -> JobNumbers:
    """The numbers of a job, nested ones as `a.b`; what is neither number nor bool nor mapping is left out.

    Where a job has both `{"a.b": 1}` and `{"a": {"b": 2}}`, the first stands.
    """
    flat = _flattened(metrics)
    numbers = {key: value for key, value in flat.items() if not isinstance(value, bool)}
    outcomes = {key: value for key, value in flat.items() if isinstance(value, bool)}
    weight = _as_float(numbers.get(weight_key, math.nan))
    return JobNumbers(numbers, outcomes, weight if math.isfinite(weight) and weight >= 0 else None)


def table_of(jobs: Sequence[JobNumbers], weight_key: str) -> dict[str, Any]:
    """Statistics of jobs, given in the order of their names.

    For a metric x of n jobs, and weights w (what each job has under `weight_key`, which is not weighted itself):

        mean = fsum(x) / n                        std = sqrt(fsum((x - mean)^2) / n)            (of the population)
        mean = fsum(w x) / fsum(w)                std = sqrt(fsum(w (x - mean)^2) / fsum(w))    (weighted)

    Returns:
        `jobs`: how many.
        `metrics`: by metric `count` (jobs that have it, as a finite number), `nonfinite` (jobs where it is NaN,
        infinite, or no float can hold it: they are left out of the rest), `mean`, `std`, `min`, `max`; and
        `weighted`, where jobs with it have weights: `count` of these, `weight` (their sum), `mean`, `std`.
        What no float can hold is None.
        `success`: by metric that is true or false `count`, `true`, `rate` = true / count; and `weighted`, where jobs
        with it have weights: `count` of these, `weight`, `rate` = fsum(w of the true) / fsum(w).
    """
    numbers = sorted({key for job in jobs for key in job.numbers})
    outcomes = sorted({key for job in jobs for key in job.outcomes})
    return {
        "jobs": len(jobs),
        "metrics": {key: _row_of_numbers(jobs, key, is_weighted=key != weight_key) for key in numbers},
        "success": {key: _row_of_outcomes(jobs, key) for key in outcomes},
    }


def _row_of_numbers(jobs: Sequence[JobNumbers], key: str, *, is_weighted: bool) -> dict[str, Any]:
    having = [job for job in jobs if key in job.numbers]
    finite = [job for job in having if math.isfinite(_as_float(job.numbers[key]))]
    values = [_as_float(job.numbers[key]) for job in finite]
    mean, std = _mean_and_std(values, [1.0] * len(values))
    row = {
        "count": len(finite),
        "nonfinite": len(having) - len(finite),
        "mean": mean,
        "std": std,
        "min": min((job.numbers[key] for job in finite), default=None),
        "max": max((job.numbers[key] for job in finite), default=None),
    }
    weighted = _weighted([(value, job.weight) for value, job in zip(values, finite, strict=True)])
    return {**row, "weighted": weighted} if is_weighted and weighted else row


def _row_of_outcomes(jobs: Sequence[JobNumbers], key: str) -> dict[str, Any]:
    having = [job for job in jobs if key in job.outcomes]
    num_true = sum(job.outcomes[key] for job in having)
    row = {"count": len(having), "true": num_true, "rate": num_true / len(having)}
    weighted = _weighted([(float(job.outcomes[key]), job.weight) for job in having])
    if not weighted:
        return row
    return {**row, "weighted": {"count": weighted["count"], "weight": weighted["weight"], "rate": weighted["mean"]}}


def _weighted(pairs: Sequence[tuple[float, float | None]]) -> dict[str, Any]:
    """Of values and their weights; empty where nothing weighs anything."""
    weighed = [(value, weight) for value, weight in pairs if weight is not None]
    weights = [weight for _, weight in weighed]
    if not any(weights):
        return {}
    mean, std = _mean_and_std([value for value, _ in weighed], weights)
    return {"count": len(weights), "weight": _sum(weights), "mean": mean, "std": std}


def _mean_and_std(values: Sequence[float], weights: Sequence[float]) -> tuple[float | None, float | None]:
    total = _sum(weights)
    mean = _quotient([weight * value for value, weight in zip(values, weights, strict=True)], total)
    if mean is None:
        return None, None
    squares = [weight * (value - mean) * (value - mean) for value, weight in zip(values, weights, strict=True)]
    variance = _quotient(squares, total)
    return mean, None if variance is None else math.sqrt(variance)


def _quotient(terms: Sequence[float], total: float | None) -> float | None:
    total_of_terms = _sum(terms)
    if total_of_terms is None or not total:
        return None
    quotient = total_of_terms / total
    return quotient if math.isfinite(quotient) else None


def _sum(terms: Sequence[float]) -> float | None:
    """None where no float can hold it, or a term of it."""
    try:
        total = math.fsum(terms)
    except (OverflowError, ValueError):
        return None
    return total if math.isfinite(total) else None


def _flattened(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, int | float]:
    flat: dict[str, int | float] = {}
    nested = []
    for key in sorted(metrics):
        if isinstance(metrics[key], Mapping):
            nested.append(_flattened(metrics[key], f"{prefix}{key}."))
        elif isinstance(metrics[key], int | float):
            flat[prefix + key] = metrics[key]
    return {key: value for each in (*reversed(nested), flat) for key, value in each.items()}


def _as_float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf
