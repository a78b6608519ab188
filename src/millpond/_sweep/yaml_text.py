"""YAML as sweeps read it: a value, and the tree of nodes it came from, which is written again as it was spelled.

A number, a date or a quoted text in the tree keeps its spelling, so that readers of other versions of YAML, who
take `1e-3` for a number or `no` for a text, find in a chunk what they would find in the whole file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

MAX_DEPTH = 100
"""Levels of nesting that are read; libyaml's composer ends the process on 200,000."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_FAILURES = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError)
"""What PyYAML raises: `!!bool x` is a KeyError, `!!int ''` an IndexError, `!!timestamp x` an AttributeError."""


def parse_yaml(text: str) -> tuple[Any, yaml.Node]:
    """Read one document.

    Returns:
        Its value, and the node it was made from.

    Raises:
        ValueError: It is no YAML, or more than one document; or has a key twice, or too many levels.
    """
    try:
        _check_depth(text)
        root = yaml.compose(text, Loader=_Loader)
        if root is None:
            raise ValueError("there are only comments: write at least one job")
        return _value_of(root), root
    except _FAILURES as error:
        raise ValueError(f"is not YAML that can be used: {_in_words(error)}") from None


def serialize_yaml(root: yaml.Node) -> bytes:
    """Write a tree, with keys in its order."""
    written: bytes = yaml.serialize(root, Dumper=_Dumper, encoding="utf-8", allow_unicode=True, width=2**20)
    return written


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _value_of(root: yaml.Node) -> Any:
    """Construct it; merges (`<<`), which PyYAML works into the tree meanwhile, are taken out of it again."""
    pairs_of = [(mapping, list(mapping.value)) for mapping in _mappings_in(root)]
    for mapping, _ in pairs_of:
        _check_keys(mapping)
    value = _Loader("").construct_document(root)
    for mapping, pairs in pairs_of:
        mapping.value = pairs
    return value


def _mappings_in(root: yaml.Node) -> Iterator[yaml.MappingNode]:
    unseen = [root]
    seen: set[int] = set()
    while unseen:
        node = unseen.pop()
        if id(node) in seen:  # an alias leads to what its anchor led to
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            unseen.extend(child for pair in node.value for child in pair)
        elif isinstance(node, yaml.SequenceNode):
            unseen.extend(node.value)


def _check_keys(mapping: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in mapping.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                line = key.start_mark.line + 1
                raise ValueError(f"it has the key {key.value!r} twice in one mapping (line {line}): remove one")
            seen.add((key.tag, key.value))


def _in_words(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} (line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"
    return " ".join(str(error).split()) or type(error).__name__
