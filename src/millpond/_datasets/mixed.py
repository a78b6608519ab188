"""Several datasets as one, whose samples are numbered through them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex, cast

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import ByteSource, Dataset
from millpond._datasets.borders import Borders, scaled
from millpond._datasets.clip_batches import Padding, present_lengths
from millpond._datasets.mixed_bytes import MixedBytes
from millpond._datasets.mixed_columns import ColumnNames
from millpond._datasets.mixed_fields import DATASET_FIELD, CommonFields
from millpond._datasets.mixed_reader import LearnedOf, MemberReader, MixedReader
from millpond._datasets.samples import checked_sample
from millpond._once import computed_once
from millpond._values import Field
from millpond.errors import DataError


class MixedDataset:
    """Several datasets as one; made by `millpond.mix`. Samples are numbered through the members.

    Attributes:
        members: The datasets.
        weights: Their shares of an epoch, which add up to 1; None: each sample comes once an epoch.
        epoch_samples: Samples of an epoch.
    """

    members: tuple[Dataset, ...]
    weights: tuple[float, ...] | None
    epoch_samples: int

    def __init__(
        self,
        members: tuple[Dataset, ...],
        common: CommonFields,
        padding: Padding,
        weights: tuple[float, ...] | None,
        epoch_samples: int | None,
    ) -> None:
        self.members = members
        self.weights = weights
        self._common = common
        self._names = ColumnNames(members, common.keys)
        self._padding = padding
        self._borders = Borders([len(member) for member in members])
        self.epoch_samples = len(self) if epoch_samples is None or weights is None else epoch_samples

    def with_members(self, members: Sequence[Dataset]) -> MixedDataset:
        """The same mix of other datasets, which give what the members give: shares of them.

        Raises:
            ValueError: They are more, or fewer.
        """
        if len(members) != len(self.members):
            raise ValueError(f"{len(members)} datasets cannot stand for the {len(self.members)} members of this mix")
        return MixedDataset(tuple(members), self._common, self._padding, self.weights, self.epoch_samples)

    def quotas(self, num_samples: int) -> tuple[int, ...]:
        """How many of some samples each member gives: its share by weight, or by its length, rounded to add up.

        Raises:
            ValueError: A member with a weight would give none.
        """
        shares = [len(member) for member in self.members] if self.weights is None else self.weights
        quotas = _apportioned(num_samples, np.asarray(shares, np.float64))
        if self.weights is not None and num_samples and not quotas.all():
            none = int(np.argmin(quotas))
            raise ValueError(
                f"member {none} would give none of {num_samples} samples, by its weight of {self.weights[none]:.3g} in "
                "all 1: raise epoch_samples=, or the weight, or leave "
                "the member out"
            )
        return tuple(quotas.tolist())

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "byte_source"}  # a copy makes its own

    def __enter__(self) -> MixedDataset:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._borders.num_samples

    def __repr__(self) -> str:
        shares = [""] * len(self.members) if self.weights is None else [f"{weight:.3g} of " for weight in self.weights]
        told = ", ".join(f"{share}{member!r}" for share, member in zip(shares, self.members, strict=True))
        return f"MixedDataset({told})"

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """One sample, as its member gives it, under the names of the mix, with `dataset_index`.

        Raises:
            IndexError: There is no such sample.
            DataError: It cannot be read.
        """
        number, sample = self._borders.place_of(checked_sample(index, len(self)))
        found: dict[str, Any] = cast(Any, self.members[number])[sample]
        texts = dict.fromkeys(self._names.in_batches, "")
        return {**texts, **self._common.keys[number].renamed(found), DATASET_FIELD: np.asarray(number, np.int64)}

    @property
    def fields(self) -> tuple[Field, ...]:
        """Every array of a sample; cameras first, `dataset_index` last."""
        return self._common.fields

    @property
    def parts(self) -> tuple[str, ...]:
        """What tasks are made of; see `mixed_fields`."""
        return tuple(self._common.part_fields)

    @property
    def part_fields(self) -> Mapping[str, tuple[str, ...]]:
        """The fields that each part fills."""
        return self._common.part_fields

    @computed_once
    def groups(self) -> NDArray[np.int64]:
        """int64, (N,): the episode of each sample, no number that of two members."""
        first, found = 0, [np.empty(0, np.int64)]
        for member in self.members:
            if len(member):
                own = member.groups - member.groups.min() + first
                first = int(own.max()) + 1
                found.append(own)
        return np.concatenate(found)

    def cuts(self) -> NDArray[np.int64]:
        """int64, (S + 1,): the members', one after the other."""
        pairs = zip(self.members, self._borders.bounds, strict=False)
        return np.concatenate([np.zeros(1, np.int64), *(member.cuts()[1:] + first for member, first in pairs)])

    def cut_costs(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64, (n,): frames to decode, as if every camera of a member cost the same."""
        pairs = zip(self.members, self._common.camera_shares, strict=True)
        return self._borders.summed(starts, stops, [scaled(member.cut_costs, share) for member, share in pairs])

    def unique_frames(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64, (n,): the most frames of one camera; across a border those of both members."""
        return self._borders.summed(starts, stops, [member.unique_frames for member in self.members])

    @property
    def fingerprint(self) -> str:
        """Digest of the members', of names, weights and the length of an epoch."""
        keys = [None if one.keys is None else sorted(one.keys.items()) for one in self._common.keys]
        members = [member.fingerprint for member in self.members]
        return hashlib.sha256(json.dumps([members, keys, self.weights, self.epoch_samples]).encode()).hexdigest()

    @property
    def reader_modules(self) -> tuple[str, ...]:
        """What a worker imports before it is forked."""
        own = (name for member in self.members for name in member.reader_modules)
        return tuple(dict.fromkeys(("millpond._datasets.mixed_reader", *own)))

    def reader(self) -> MixedReader:
        """A fresh reader."""
        readers = tuple(
            MemberReader(member.reader(), keys, parts, is_streamed=member.byte_source is not None)
            for member, keys, parts in zip(self.members, self._common.keys, self._common.member_parts, strict=True)
        )
        return MixedReader(readers, self._borders, self.parts[0], self._names.in_samples)

    @computed_once
    def byte_source(self) -> ByteSource | None:
        """Fetches ahead for the members that lie in a store; None where none does."""
        sources = [member.byte_source for member in self.members]
        if all(source is None for source in sources):
            return None
        return MixedBytes(sources, self._common, self._borders)

    @property
    def lost(self) -> Sequence[DataError]:
        """What is lost of any member."""
        return [problem for member in self.members for problem in member.lost]

    def describe(self, sample: int) -> dict[str, Any]:
        """The number of the member, as `dataset`, and what that says of its sample, by its own number."""
        member, own = self._borders.place_of(sample)
        return {"dataset": member, "sample": own, **self.members[member].describe(own)}

    def decorate(self, batch: dict[str, Any], samples: NDArray[np.int64]) -> None:
        """Add `task` and other text, a list of n each, "" where a member has none; cut what varies in length."""
        present_lengths(batch, self.fields, self._padding)
        columns: dict[str, list[Any]] = {name: [""] * len(samples) for name in self._names.in_batches}
        members = self._borders.members_of(samples)
        for number in np.unique(members).tolist():
            rows = np.flatnonzero(members == number)
            own: dict[str, Any] = {}
            self.members[number].decorate(own, samples[rows] - self._borders.bounds[number])
            for name, values in self._common.keys[number].renamed(own).items():
                for row, value in zip(rows.tolist(), values, strict=True):
                    columns[name][row] = value
        batch.update(columns)

    def learn(self, learned: object) -> None:
        """Give each member what its reader learned."""
        for member, own in cast(LearnedOf, learned):
            self.members[member].learn(own)

    def keep_learned(self) -> bool:
        """See `Dataset`; of all members."""
        were_any = [member.keep_learned() for member in self.members]
        return any(were_any)

    def close(self) -> None:
        """Close all members. Idempotent; the mix can be used again."""
        for member in self.members:
            member.close()


def _apportioned(total: int, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """int64, (n,): `total` by shares; the largest remainders are rounded up, of equal ones the first."""
    exact = total * shares / shares.sum()
    parts: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    rounded_up = np.argsort(parts - exact, kind="stable")[: total - int(parts.sum())]
    parts[rounded_up] += 1
    return parts
