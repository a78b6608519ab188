"""Merged metrics and their summary are functions of the metrics alone, by the formulas that are told."""

from __future__ import annotations

import json
import math
import random
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond._sweep.summary import canonical_json, checksum, merged_json, summarize

finite = st.floats(-1e100, 1e100) | st.integers(-(10**20), 10**20)
numbers = {"x": finite | st.floats(), "ok": st.booleans(), "count": st.integers(0, 9), "group": st.sampled_from("ab")}
metrics_of_jobs = st.dictionaries(st.text(max_size=3), st.fixed_dictionaries({}, optional=numbers), max_size=8)


@settings(max_examples=40)
@given(metrics=metrics_of_jobs, seed=st.integers(0, 99))
def test_bytes_do_not_depend_on_the_order_of_jobs_and_keys(metrics: dict[str, dict[str, Any]], seed: int) -> None:
    def shuffled(items: dict[str, Any]) -> dict[str, Any]:
        return dict(random.Random(seed).sample(list(items.items()), len(items)))

    other = shuffled({name: shuffled(each) for name, each in metrics.items()})
    assert merged_json(other) == merged_json(metrics)
    assert canonical_json(summarize(other)) == canonical_json(summarize(metrics))


def test_merged_file_is_sorted_and_reads_back() -> None:
    metrics: dict[str, dict[str, Any]] = {
        "b": {"y": float("inf"), "x": 2**80},
        "a": {"text": "naïve \ud83d", "rate": 0.1 + 0.2},
    }
    text = merged_json(metrics)
    assert json.loads(text) == metrics
    assert text.startswith('{\n  "a": {\n    "rate": 0.30000000000000004,\n    "text": "naïve \\ud83d"\n  },\n  "b"')
    assert text.encode().endswith(b"}\n")


def test_canonical_text_and_checksum_know_values_not_order() -> None:
    assert canonical_json({"b": [1, 1.0], "a": {"é": None}}) == '{"a":{"\\u00e9":null},"b":[1,1.0]}'
    assert checksum({"b": 1, "a": 2}) == checksum({"a": 2, "b": 1}) != checksum({"a": 2, "b": 1.0})


@settings(max_examples=40)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9))
def test_mean_and_deviation_are_those_of_the_population(values: list[float]) -> None:
    row = summarize({str(n): {"x": value} for n, value in enumerate(values)})["metrics"]["x"]
    assert row["mean"] == math.fsum(values) / len(values)
    assert row["std"] == pytest.approx(statistics.pstdev(values), rel=1e-9, abs=1e-9)
    assert (row["count"], row["min"], row["max"]) == (len(values), min(values), max(values))


def test_weights_count_as_often_as_they_say() -> None:
    weighed = {"a": {"x": 1.0, "ok": True, "count": 3}, "b": {"x": 4.0, "ok": False, "count": 1}}
    found = summarize({**weighed, "c": {"x": 9.0, "ok": True}})
    row, outcome = found["metrics"]["x"], found["success"]["ok"]
    assert row["weighted"] == {"count": 2, "weight": 4.0, "mean": 1.75, "std": float(np.std([1, 1, 1, 4]))}
    assert (row["count"], row["mean"]) == (3, 14 / 3)
    assert outcome == {"count": 3, "true": 2, "rate": 2 / 3, "weighted": {"count": 2, "weight": 4.0, "rate": 0.75}}
    assert "weighted" not in found["metrics"]["count"]


@pytest.mark.parametrize("weight", [-1, math.nan, math.inf, True, "3", None, 0, 10**400])
def test_what_is_no_weight_is_not_weighed(weight: Any) -> None:
    assert "weighted" not in summarize({"a": {"x": 1.0, "ok": True, "count": weight}})["metrics"]["x"]


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    values = [1.0, math.nan, math.inf, 10**400, 3]
    row = summarize({str(n): {"x": value} for n, value in enumerate(values)})["metrics"]["x"]
    assert row == {"count": 2, "nonfinite": 3, "mean": 2.0, "std": 1.0, "min": 1.0, "max": 3}
    assert summarize({"a": {"x": math.nan}})["metrics"]["x"]["mean"] is None


def test_sums_that_no_float_holds_are_none() -> None:
    row = summarize({"a": {"x": 1e308, "count": 1e308}, "b": {"x": -1e308}, "c": {"x": 1e308}})["metrics"]["x"]
    assert (row["mean"], row["std"], row["weighted"]["mean"]) == (1e308 / 3, None, None)
    assert summarize({"a": {"x": 1.7e308}, "b": {"x": 1.7e308}})["metrics"]["x"]["mean"] is None


def test_nested_metrics_are_flattened_and_what_is_no_number_is_left_out() -> None:
    found = summarize({"a": {"e": {"x": 1, "deep": {"ok": True}}, "text": "s", "none": None, "list": [1], "e.x": 5}})
    assert list(found["metrics"]) == ["e.x"]
    assert found["metrics"]["e.x"]["mean"] == 5
    assert found["success"] == {"e.deep.ok": {"count": 1, "true": 1, "rate": 1.0}}


def test_groups_come_from_the_job_or_else_from_its_metrics() -> None:
    jobs = {"a": {"group": "easy"}, "b": {"name": "b"}, "c": "c", "d": {"group": None}}
    x: dict[str, dict[str, Any]] = {name: {"x": number} for number, name in enumerate("abcd", 1)}
    metrics = {**x, "a": {"x": 1, "group": "hard"}, "b": {"x": 2, "group": "hard"}, "c": {"x": 3, "group": 7}}
    groups = summarize(metrics, jobs=jobs)["groups"]
    assert {group: table["metrics"]["x"]["mean"] for group, table in groups.items()} == {"7": 3, "easy": 1, "hard": 2}
    assert groups["hard"] == {key: value for key, value in summarize({"b": metrics["b"]}).items() if key != "groups"}


def test_nothing_sums_up_to_nothing() -> None:
    assert summarize({}) == {"jobs": 0, "metrics": {}, "success": {}, "groups": {}}
    assert merged_json({}) == "{}\n"
