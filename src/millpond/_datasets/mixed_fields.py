"""What the members of a mix have in common: one set of arrays, under one set of names, read by one set of parts.

A part of the mix is the smallest set of fields that no part of any member reaches out of, so that each field is filled
by one part whichever the member. It is one camera, mostly. Where members keep their numbers with different cameras,
these cameras are read together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from millpond._datasets.base import Dataset, PartlyOpened
from millpond._values import Field

DATASET_FIELD = "dataset_index"
"""int64 (B,), which the mix adds: the member that a row is of."""

_REMEDY = (
    'give the same names by Member(dataset, keys={"its name": "the name in the mix"}), which takes only what it names, '
    "and pictures of one size by image_size= of the datasets"
)


@dataclass(frozen=True, slots=True)
class KeyMap:
    """How a member's names become those of the mix.

    Attributes:
        keys: Its name to the mix's, of what is taken; None: all, as it is.
    """

    keys: Mapping[str, str] | None = None

    def name_of(self, own: str) -> str | None:
        """The name in the mix; None if it is not taken."""
        return own if self.keys is None else self.keys.get(own)

    def renamed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What is taken of some values by name."""
        return {name: value for own, value in values.items() if (name := self.name_of(own)) is not None}


@dataclass(frozen=True, slots=True)
class MemberParts:
    """What a part of the mix is to one member.

    Attributes:
        read: Its own parts, all of which are read.
        fetched: Those of them whose bytes are fetched ahead: not one that is read for its numbers alone.
    """

    read: tuple[str, ...]
    fetched: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CommonFields:
    """The arrays of a mix.

    Attributes:
        fields: Cameras first, the number of the member last.
        part_fields: Part to the names of the fields that it fills.
        member_parts: Of each member, by the mix's part.
        keys: Of each member.
        camera_shares: How many of each member's cameras are taken, over all that it has.
    """

    fields: tuple[Field, ...]
    part_fields: Mapping[str, tuple[str, ...]]
    member_parts: tuple[Mapping[str, MemberParts], ...]
    keys: tuple[KeyMap, ...]
    camera_shares: tuple[float, ...]


def common_fields(datasets: Sequence[Dataset], keys: Sequence[KeyMap]) -> CommonFields:
    """Find what datasets have in common.

    Raises:
        ValueError: They differ in what they give, or a name is unknown or given twice.
    """
    taken = [
        _taken_fields(number, dataset, own) for number, (dataset, own) in enumerate(zip(datasets, keys, strict=True))
    ]
    _require_same(taken)
    ordered = sorted(taken[0].values(), key=lambda field: not field.frames)
    filled = [_filled(dataset, own) for dataset, own in zip(datasets, keys, strict=True)]
    joined = _joined([field.name for field in ordered], [names for one in filled for names in one.values()])
    part_fields = {names[0]: names for names in joined}
    member_parts = tuple(
        {part: _member_parts(dataset, own, one, names) for part, names in part_fields.items()}
        for dataset, own, one in zip(datasets, keys, filled, strict=True)
    )
    first = joined[0][0]
    part_fields[first] = (*part_fields[first], DATASET_FIELD)
    return CommonFields(
        fields=(*ordered, Field(DATASET_FIELD, (), "int64")),
        part_fields=part_fields,
        member_parts=member_parts,
        keys=tuple(keys),
        camera_shares=tuple(_camera_share(dataset, own) for dataset, own in zip(datasets, keys, strict=True)),
    )


def _camera_share(dataset: Dataset, keys: KeyMap) -> float:
    cameras = [field.name for field in dataset.fields if field.frames]
    return len(keys.renamed(dict.fromkeys(cameras))) / max(len(cameras), 1)


def text_columns(dataset: Dataset) -> tuple[str, ...]:
    """Names of what a dataset adds to batches that is no array: seen from its first sample, no more files than its."""
    added: dict[str, Any] = {}
    if len(dataset):
        opened = dataset.opened_for(0, 1)[0] if isinstance(dataset, PartlyOpened) else dataset
        opened.decorate(added, np.zeros(1, np.int64))
    return tuple(added)


def _taken_fields(number: int, dataset: Dataset, keys: KeyMap) -> dict[str, Field]:
    """The fields of a member by their names in the mix."""
    if keys.keys is not None:
        _check_keys(number, dataset, keys.keys)
    fields = [_renamed(number, field, name, keys) for field in dataset.fields if (name := keys.name_of(field.name))]
    if not fields:
        raise ValueError(f"nothing that is an array is taken of member {number}: name some in keys=")
    if any(field.name == DATASET_FIELD for field in fields):
        raise ValueError(
            f"member {number} has a {DATASET_FIELD!r}, which the mix adds itself: leave it out, or rename it, by keys="
        )
    return {field.name: field for field in fields}


def _renamed(number: int, field: Field, name: str, keys: KeyMap) -> Field:
    if field.length is None:
        return replace(field, name=name)
    length = keys.name_of(field.length)
    if length is None:
        raise ValueError(f"keys= of member {number} take {field.name!r}, but not {field.length!r}, which is its length")
    return replace(field, name=name, length=length)


def _check_keys(number: int, dataset: Dataset, keys: Mapping[str, str]) -> None:
    known: Collection[str] = [field.name for field in dataset.fields]
    if not keys.keys() <= set(known):
        known = [*known, *text_columns(dataset)]
    unknown = sorted(keys.keys() - set(known))
    if unknown:
        raise ValueError(f"keys= name {', '.join(map(repr, unknown))}, which member {number} lacks; it has {known}")
    names = list(keys.values())
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"keys= of member {number} give the name {twice[0]!r} twice")


def _require_same(taken: Sequence[Mapping[str, Field]]) -> None:
    differences = [text for number in range(1, len(taken)) for text in _differences(number, taken[0], taken[number])]
    if differences:
        raise ValueError(f"the members of a mix must give the same arrays: {'; '.join(differences)}. Remedy: {_REMEDY}")


def _differences(number: int, first: Mapping[str, Field], other: Mapping[str, Field]) -> list[str]:
    """What is not the same in member 0 and another, in words."""
    lacking = [f"member {number} lacks {name!r}" for name in first if name not in other]
    added = [f"member 0 lacks {name!r} of member {number}" for name in other if name not in first]
    unlike = [
        f"{name!r} is {_told(first[name])} in member 0 and {_told(other[name])} in member {number}"
        for name in first
        if name in other and first[name] != other[name]
    ]
    return [*lacking, *added, *unlike]


def _told(field: Field) -> str:
    kind = "pictures" if field.frames else "numbers"
    length = "" if field.length is None else f", as long as {field.length!r} says"
    return f"{field.dtype} {field.shape} ({kind}{length})"


def _filled(dataset: Dataset, keys: KeyMap) -> dict[str, tuple[str, ...]]:
    """A member's part to the mix's names of the fields that are taken of it, where there are any."""
    filled = {part: tuple(keys.renamed(dict.fromkeys(names))) for part, names in dataset.part_fields.items()}
    return {part: names for part, names in filled.items() if names}


def _joined(names: Sequence[str], together: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The smallest sets of names, in their order, that hold every group whole."""
    set_of = {name: {name} for name in names}
    for group in together:
        joined = set[str]().union(*(set_of[name] for name in group))
        set_of.update(dict.fromkeys(joined, joined))
    return list(dict.fromkeys(tuple(name for name in names if name in set_of[first]) for first in names))


def _member_parts(
    dataset: Dataset, keys: KeyMap, filled: Mapping[str, tuple[str, ...]], names: tuple[str, ...]
) -> MemberParts:
    read = tuple(part for part in dataset.parts if not set(names).isdisjoint(filled.get(part, ())))
    pictures = {field.name for field in dataset.fields if field.frames}
    idle = {part for part in read if _is_idle(dataset.part_fields[part], pictures, keys)}
    return MemberParts(read, tuple(part for part in read if part not in idle))


def _is_idle(fields: Sequence[str], pictures: Collection[str], keys: KeyMap) -> bool:
    """Whether a part has pictures of which none are taken."""
    own = [name for name in fields if name in pictures]
    return bool(own) and all(keys.name_of(name) is None for name in own)
