"""The formats of a jobs file: each knows its jobs, and writes some of them again as the file had them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import yaml

from millpond._sweep.json_text import as_utf8, fault_of, parse_json
from millpond._sweep.yaml_text import parse_yaml, serialize_yaml

_TEXT_TAG = "tag:yaml.org,2002:str"


class Form(Protocol):
    """Jobs that were read from a file of one format.

    Attributes:
        jobs: In order.
        jobs_key: Top-level key of their list; "" where the file is a list, or lines.
    """

    @property
    def jobs(self) -> Sequence[Any]: ...

    @property
    def jobs_key(self) -> str: ...

    def written(self, positions: Sequence[int]) -> bytes:
        """The file with the jobs at these positions, in this order, and everything else it had."""


@dataclass(frozen=True, slots=True)
class JsonForm:
    """A list, or an object with one."""

    document: Any
    jobs: list[Any]
    jobs_key: str

    @classmethod
    def read(cls, text: str, jobs_key: str) -> JsonForm:
        """Raises ValueError."""
        try:
            document = parse_json(text)
        except ValueError as error:
            hint = "; one JSON value a line is JSONL: call the file .jsonl" if "Extra data" in str(error) else ""
            raise ValueError(f"is not JSON that can be read: {error}{hint}") from None
        if fault := fault_of(document):
            raise ValueError(f"cannot be used: {fault}")
        return cls(document, *_jobs_of(document, jobs_key))

    def written(self, positions: Sequence[int]) -> bytes:
        """As `Form` says."""
        jobs = [self.jobs[position] for position in positions]
        document = {**self.document, self.jobs_key: jobs} if self.jobs_key else jobs
        return as_utf8(json.dumps(document, ensure_ascii=False) + "\n")


@dataclass(frozen=True, slots=True)
class LinesForm:
    """A job a line; blank lines are skipped."""

    lines: list[str]
    jobs: list[Any]
    jobs_key: str = ""

    @classmethod
    def read(cls, text: str, _jobs_key: str) -> LinesForm:
        """Raises ValueError."""
        numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        return cls([line for _, line in numbered], [_job_of_line(line, number) for number, line in numbered])

    def written(self, positions: Sequence[int]) -> bytes:
        """As `Form` says: lines byte for byte."""
        return "".join(self.lines[position] + "\n" for position in positions).encode()


@dataclass(frozen=True, slots=True)
class YamlForm:
    """A list, or a mapping with one; spelled again as it was, without comments."""

    root: yaml.Node
    jobs: list[Any]
    jobs_key: str

    @classmethod
    def read(cls, text: str, jobs_key: str) -> YamlForm:
        """Raises ValueError."""
        document, root = parse_yaml(text)
        jobs, key = _jobs_of(document, jobs_key)
        if key and not any(_is_key(node, key) for node, _ in root.value):
            raise ValueError(f"has {key!r} by a merge (<<): write the list under a key {key!r} of its own")
        return cls(root, jobs, key)

    def written(self, positions: Sequence[int]) -> bytes:
        """As `Form` says."""
        if not self.jobs_key:
            return serialize_yaml(_some_of(self.root, positions))
        pairs = [
            (key, _some_of(node, positions) if _is_key(key, self.jobs_key) else node) for key, node in self.root.value
        ]
        return serialize_yaml(yaml.MappingNode(self.root.tag, pairs))


READERS: Mapping[str, Callable[[str, str], Form]] = {
    ".json": JsonForm.read,
    ".jsonl": LinesForm.read,
    ".yaml": YamlForm.read,
    ".yml": YamlForm.read,
}
"""By suffix: from the text of a file and the key of its list."""


def _jobs_of(document: Any, jobs_key: str) -> tuple[list[Any], str]:
    if isinstance(document, list):
        return document, ""
    if not isinstance(document, dict):
        raise ValueError(f"holds {type(document).__name__}, not a list of jobs, nor an object with one")
    jobs = document.get(jobs_key)
    if not isinstance(jobs, list):
        has = f"no list under {jobs_key!r}" if jobs_key in document else f"no key {jobs_key!r}"
        raise ValueError(f"has {has}: say --jobs-key with the key of the list of jobs ({_lists_of(document)})")
    return jobs, jobs_key


def _lists_of(document: dict[Any, Any]) -> str:
    lists = [repr(key) for key, value in document.items() if isinstance(value, list)]
    return f"lists it has: {', '.join(lists)}" if lists else "it has no list at its top level"


def _job_of_line(line: str, number: int) -> Any:
    try:
        job = parse_json(line)
    except ValueError as error:
        raise ValueError(f"is not JSON that can be read in line {number}: {error}") from None
    if fault := fault_of(job):
        raise ValueError(f"cannot be used, for line {number}: {fault}")
    return job


def _is_key(node: yaml.Node, key: str) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == key and node.tag == _TEXT_TAG


def _some_of(sequence: yaml.Node, positions: Sequence[int]) -> yaml.SequenceNode:
    items = [sequence.value[position] for position in positions]
    return yaml.SequenceNode(sequence.tag, items)
