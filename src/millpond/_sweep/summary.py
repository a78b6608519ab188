"""Metrics of all jobs in one file, and in one table: functions of the metrics alone, not of how they were chunked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from millpond._sweep.json_text import as_utf8
from millpond._sweep.metric_tables import JobNumbers, numbers_of, table_of


def canonical_json(value: Any) -> str:
    """JSON in ASCII with sorted keys and no spaces: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def checksum(metrics: Mapping[str, Any]) -> str:
    """SHA-256 of a job's metrics as `canonical_json` writes them, in hexadecimal."""
    return hashlib.sha256(canonical_json(metrics).encode()).hexdigest()


def pretty_json(value: Any) -> str:
    """JSON for people: sorted keys, a value a line, text as it is; ends with a newline. It can be written as UTF-8."""
    return as_utf8(json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").decode()


def merged_json(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of `metrics.json`: metrics by job, sorted by the job's name."""
    return pretty_json(metrics)


def summarize(
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    jobs: Mapping[str, Any] = {},
    weight_key: str = "count",
    group_by: str = "group",
) -> dict[str, Any]:
    """Sum up metrics of many jobs; `metric_tables.table_of` says by which formulas.

    Args:
        metrics: By job name; of nested ones, `{"a": {"b": 1}}` is `a.b`.
        jobs: By name, as the jobs file has them.
        weight_key: Metric that says how much a job's others weigh, such as a number of episodes.
        group_by: Key of a job, or else of its metrics, that says which group it belongs to.

    Returns:
        `jobs` (how many), `metrics` and `success` (tables by metric), and `groups`: the same three by group, sorted.
    """
    numbers = [numbers_of(metrics[name], weight_key) for name in sorted(metrics)]
    groups: dict[str, list[JobNumbers]] = {}
    for name, each in zip(sorted(metrics), numbers, strict=True):
        group = _group_of(jobs.get(name), metrics[name], group_by)
        if group is not None:
            groups.setdefault(group, []).append(each)
    return {
        **table_of(numbers, weight_key),
        "groups": {group: table_of(groups[group], weight_key) for group in sorted(groups)},
    }


def _group_of(job: Any, metrics: Mapping[str, Any], group_by: str) -> str | None:
    """Groups are told apart as texts: 3 and "3" are one."""
    found = job.get(group_by) if isinstance(job, Mapping) else None
    found = metrics.get(group_by) if found is None else found
    return None if found is None else str(found)
