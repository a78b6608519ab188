"""What a chunk reported: metrics by job, whatever of three forms its program wrote them in.

{"a": {"success": true}, "b": {...}}                             one object, keyed by job name
{"name": "a", "success": true}                                   a record: a line each (JSONL), or a JSON array
{"name": "a", "metrics": {"success": true}}                      the same, where a record has these two keys alone
{"a": {"success": true}}                                         a line each (JSONL), keyed by job name
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from millpond._sweep.json_text import RepeatingObject, as_utf8, fault_of, parse_json

_MAX_PROBLEMS = 3


@dataclass(frozen=True, slots=True)
class Reports:
    """What was read from a metrics file. A job of the chunk that is in neither mapping reported nothing.

    Attributes:
        metrics: Of each job that reported once, in a JSON object.
        errors: What is wrong with what a job reported, by its name.
        strangers: Names that were reported and are none of the chunk's, sorted.
        problem: What in the file is no report at all, for people; "" for nothing.
    """

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    strangers: tuple[str, ...] = ()
    problem: str = ""


def read_reports(data: bytes, names: Sequence[str], *, name_key: str = "name", may_be_cut: bool = False) -> Reports:
    """Read a metrics file; nothing that a program may write into it is raised as an error.

    Args:
        data: Its contents; empty where there is none.
        names: Of the chunk's jobs.
        name_key: Key of a job's name, in records.
        may_be_cut: Its program was ended while it may have written: an unfinished last line is left out.
    """
    problems: list[str] = []
    reader = _Reader(frozenset(names), name_key, problems)
    for where, value in _values_of(data, may_be_cut, problems):
        reader.take(value, where)
    shown = [*problems[:_MAX_PROBLEMS], *([f"{len(problems) - _MAX_PROBLEMS} more"] * (len(problems) > _MAX_PROBLEMS))]
    return Reports(reader.metrics, reader.errors, tuple(sorted(reader.strangers)), "; ".join(shown))


class _Reader:
    """Sorts what was reported by job."""

    def __init__(self, names: frozenset[str], name_key: str, problems: list[str]) -> None:
        self.metrics: dict[str, dict[str, Any]] = {}
        self.errors: dict[str, str] = {}
        self.strangers: set[str] = set()
        self._names = names
        self._name_key = name_key
        self._problems = problems

    def take(self, value: Any, where: str) -> None:
        if isinstance(value, list):
            for number, item in enumerate(value, 1):
                self._take_object(item, f"{where}, item {number}")
        else:
            self._take_object(value, where)

    def _take_object(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            self._problems.append(f"{where} is {_kind(value)}, not an object with metrics")
        elif self._is_record(value):
            self._take_record(value, where)
        else:
            self._take_by_name(value, where)

    def _is_record(self, value: dict[str, Any]) -> bool:
        """A job may have the name that is the key of names: then its metrics are an object, and a name never is."""
        return self._name_key in value and not isinstance(value[self._name_key], dict)

    def _take_record(self, record: dict[str, Any], where: str) -> None:
        name = record[self._name_key]
        if isinstance(name, bool) or not isinstance(name, str | int):
            self._problems.append(f"{where} has {_kind(name)} for its {self._name_key!r}, which is no job's name")
        elif isinstance(record, RepeatingObject):
            self._fail(str(name), fault_of(record))
        elif record.keys() == {self._name_key, "metrics"}:
            self._report(str(name), record["metrics"])
        else:
            self._report(str(name), {key: item for key, item in record.items() if key != self._name_key})

    def _take_by_name(self, value: dict[str, Any], where: str) -> None:
        if value and self._names.isdisjoint(value) and not any(isinstance(item, dict) for item in value.values()):
            self._problems.append(f"{where} names no job: neither by {self._name_key!r} nor by a key")
            return
        for name, metrics in value.items():
            self._report(name, metrics)
        if isinstance(value, RepeatingObject):
            for name in value.repeated:
                self._fail(name, "it was reported twice")

    def _report(self, name: str, metrics: Any) -> None:
        if name in self.metrics or name in self.errors:
            self._fail(name, "it was reported twice")
        elif not isinstance(metrics, dict):
            self._fail(name, f"its metrics must be an object, and are {_kind(metrics)}")
        elif fault := fault_of(metrics):
            self._fail(name, f"its metrics cannot be used: {fault}")
        elif name in self._names:
            self.metrics[name] = metrics
        else:
            self.strangers.add(_printable(name))

    def _fail(self, name: str, error: str) -> None:
        if name in self._names:
            self.metrics.pop(name, None)
            self.errors[name] = error
        else:
            self.strangers.add(_printable(name))


def _values_of(data: bytes, may_be_cut: bool, problems: list[str]) -> Iterator[tuple[str, Any]]:
    """The file as one value, or as one a line."""
    if not data.strip():
        return
    try:
        value = parse_json(data.decode("utf-8-sig"))
    except ValueError as error:
        yield from _values_of_lines(data, may_be_cut, problems, str(error))
    else:
        yield "the file", value


def _values_of_lines(
    data: bytes, may_be_cut: bool, problems: list[str], error_of_whole: str
) -> Iterator[tuple[str, Any]]:
    lines = data.split(b"\n")
    first = next(number for number, line in enumerate(lines, 1) if line.strip())
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = parse_json(line.decode("utf-8-sig"))
        except ValueError as error:
            if may_be_cut and number == len(lines):
                return
            if number == first:  # a document over many lines that is cut: none of them says what it is part of
                problems.append(
                    f"the file is neither one JSON value ({error_of_whole}) nor one a line ({error}); write an "
                    'object by job name, or a line {"name": ..., "metrics": {...}} for each job'
                )
                return
            problems.append(f"line {number} is not JSON: {error}")
        else:
            yield f"line {number}", value


def _kind(value: Any) -> str:
    if isinstance(value, dict | list):  # its text may be long, or deep
        return "an array" if isinstance(value, list) else "an object"
    return "null" if value is None else f"{value!r:.60}"


def _printable(name: str) -> str:
    return as_utf8(name).decode()
