"""Metrics come out of each form a program may write them in, and whatever else it writes is told, not raised."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond._sweep.reports import Reports, read_reports

NAMES = ("a", "b", "c")
A, B = {"x": 1, "deep": {"y": 0.5}}, {"x": float("inf"), "name": "é"}


def lines(*values: Any) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


FORMS = {
    "object": lines({"a": A, "b": B}),
    "object over many lines": json.dumps({"a": A, "b": B}, indent=2).encode(),
    "object with a byte order mark": b"\xef\xbb\xbf" + lines({"a": A, "b": B}),
    "lines by name": lines({"a": A}, {"b": B}),
    "blank lines": b"\n" + lines({"a": A}) + b"\r\n\n" + lines({"b": B}).strip(),
    "records with metrics": lines({"name": "a", "metrics": A}, {"name": "b", "metrics": B}),
    "array of records": json.dumps([{"name": "a", "metrics": A}, {"metrics": B, "name": "b"}], indent=1).encode(),
    "array by name": lines([{"a": A}, {"b": B}]),
}


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS.keys())
def test_every_form_gives_the_same(data: bytes) -> None:
    assert read_reports(data, NAMES) == Reports({"a": A, "b": B})
    assert read_reports(data, NAMES, may_be_cut=True) == Reports({"a": A, "b": B})


def test_record_keeps_all_but_the_name() -> None:
    data = lines({"name": 7, "x": 1, "metrics": {"y": 2}}, {"id": 8, "x": 2})
    assert read_reports(data, ["7", "8"]).metrics == {"7": {"x": 1, "metrics": {"y": 2}}}
    assert read_reports(lines({"id": 8, "x": 2}), ["8"], name_key="id").metrics == {"8": {"x": 2}}


def test_job_may_be_called_like_the_key_of_names() -> None:
    assert read_reports(lines({"name": {"x": 1}, "a": A}), ["name", "a"]).metrics == {"name": {"x": 1}, "a": A}


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": {"x": 1}, "b": {}, "a": {"x": 1}}',
        lines({"a": A}, {"b": {}}, {"name": "a", **A}),
        lines([{"name": "a"}, {"name": "b"}, {"name": "a"}]),
        lines({"a": A}, {"b": {}}, {"a": A}, {"a": A}),
    ],
)
def test_job_that_reported_twice_is_an_error(data: bytes) -> None:
    assert read_reports(data, NAMES) == Reports({"b": {}}, {"a": "it was reported twice"})


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (lines({"a": 3}), "its metrics must be an object, and are 3"),
        (lines({"a": None}), "and are null"),
        (lines({"name": "a", "metrics": [1]}), "and are an array"),
        (b'{"a": {"x": 1, "y": {"z": 1, "z": 2}}}', "the key 'z' twice"),
        (b'{"a": %s}' % (b"[" * 900 + b"]" * 900), "and are an array"),
        (b'{"name": "a", "x": 1, "x": 2}', "the key 'x' twice"),
        (b'{"a": {"x": %s}}' % (b"[" * 150 + b"]" * 150), "deeper than 100"),
    ],
)
def test_what_is_wrong_with_a_jobs_metrics_is_its_error(data: bytes, error: str) -> None:
    found = read_reports(data, NAMES)
    assert not found.metrics
    assert list(found.errors) == ["a"]
    assert re.search(error, found.errors["a"])


def test_strangers_are_told_and_kept_out() -> None:
    data = lines({"a": A, "z": {}, "mean": 3}, {"name": "\ud800"}, {"name": "y"})
    assert read_reports(data, NAMES) == Reports({"a": A}, strangers=("\\ud800", "mean", "y", "z"))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"3", "the file is 3"),
        (lines({"a": A}, 3), "line 2 is 3"),
        (lines([{"a": A}, None]), "the file, item 2 is null"),
        (lines({"a": A}, {"name": None}), "line 2 has null for its 'name'"),
        (lines({"a": A}, {"x": 1}), "line 2 names no job"),
        (lines({"a": A}) + b"oops\n", "line 2 is not JSON"),
        (lines({"a": A}) + b"\xff\n", "line 2 is not JSON: 'utf-8'"),
        (lines({"a": A}) + b'{"b": ', "line 2 is not JSON"),
        (json.dumps({"a": A, "b": B}, indent=0).encode()[:-1], "neither one JSON value .* nor one a line"),
        (b"[" * 100_000, "deeper than 100"),
        (lines({"a": A}) + b"x\n" * 9, "; line 4 is not JSON: .*; 6 more$"),
    ],
)
def test_what_is_no_report_is_a_problem_and_the_rest_is_kept(data: bytes, problem: str) -> None:
    found = read_reports(data, NAMES)
    assert not found.errors
    assert found.metrics == ({} if found.problem.startswith(("it is", "the file is")) else {"a": A})
    assert re.search(problem, found.problem)


@settings(max_examples=40)
@given(cut=st.integers(0, 200))
def test_unfinished_last_line_is_left_out_where_the_program_was_ended(cut: int) -> None:
    whole = lines({"a": A}, {"name": "b", **A}, {"c": {"text": "naïve"}})
    found = read_reports(whole[:cut], NAMES, may_be_cut=True)
    assert found.problem == ""
    assert len(found.metrics) >= whole[:cut].count(b"\n")
    assert found.metrics == {name: read_reports(whole, NAMES).metrics[name] for name in found.metrics}


def test_nothing_is_reported_by_an_empty_file() -> None:
    assert read_reports(b" \n", NAMES) == Reports()


names_of_jobs = st.text(st.characters(codec="utf-8"), min_size=1, max_size=3)
values = st.integers() | st.floats(allow_nan=False) | st.booleans() | st.text(max_size=3)
sweeps = st.dictionaries(names_of_jobs, st.dictionaries(st.text(max_size=3), values, max_size=3))


@settings(max_examples=40)
@given(jobs=sweeps, size=st.integers(1, 5), by_name=st.booleans())
def test_chunks_merged_are_the_whole(jobs: dict[str, dict[str, Any]], size: int, by_name: bool) -> None:
    def written(names: list[str]) -> bytes:
        return lines(*({n: jobs[n]} if by_name else {"name": n, "metrics": jobs[n]} for n in names))

    names = list(jobs)
    merged: dict[str, Any] = {}
    for start in range(0, len(names), size):
        merged |= read_reports(written(names[start : start + size]), names[start : start + size]).metrics
    assert merged == read_reports(written(names), names).metrics == jobs


@settings(max_examples=100)
@given(data=st.binary() | st.text(alphabet='[]{}":,-1ae\n').map(str.encode), may_be_cut=st.booleans())
def test_any_bytes_are_read(data: bytes, may_be_cut: bool) -> None:
    found = read_reports(data, NAMES, may_be_cut=may_be_cut)
    assert set(found.metrics).isdisjoint(found.errors)
    assert set(NAMES).issuperset([*found.metrics, *found.errors])
