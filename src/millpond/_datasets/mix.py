"""`millpond.mix`: several datasets as one, each sample once an epoch, or by ratio."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from millpond._checks import check_integer
from millpond._datasets.base import Dataset
from millpond._datasets.clip_batches import Padding
from millpond._datasets.mixed import MixedDataset
from millpond._datasets.mixed_fields import CommonFields, KeyMap, common_fields


@dataclass(frozen=True, slots=True)
class Member:
    """A dataset of a mix, and how it takes part.

    Attributes:
        dataset: A `LeRobotDataset` or a `ClipDataset`.
        weight: Its share of an epoch, relative to the others' weights; None: each of its samples comes once.
        keys: Its names to the names in the mix, of arrays and of text; what is not named is not taken, and a camera
            that is not taken is not decoded. None: everything, under its own name.
    """

    dataset: Dataset
    weight: float | None = None
    keys: Mapping[str, str] | None = None


def mix(
    members: Sequence[Dataset | tuple[Dataset, float] | Member], *, epoch_samples: int | None = None
) -> MixedDataset:
    """Make one dataset of several, for the `Loader`.

    All must give the same arrays, of the same shapes and dtypes, under the same names: `Member(keys=)` renames them,
    `image_size=` of a dataset makes its pictures one size. Text, such as `task`, may be missing in some members, and is
    "" there. Batches have `dataset_index`, int64 (B,): the number of the member that a row is of.

    Without weights an epoch has each sample of each member once. With weights it has `epoch_samples` samples, of which
    each member gives its share, to the sample. It takes them from a sequence of passes over the member that goes on
    through the epochs: no sample comes again before all samples of the member have come.

    Args:
        members: Datasets; or (dataset, weight), or `Member`: then all with a weight, or none.
        epoch_samples: Samples of an epoch, where there are weights. None: as many as all members have.

    Raises:
        ValueError: No members, or one without samples; arrays that differ; names that are unknown, or given twice;
            weights that are not positive, missing in some members, or too small to give a sample of an epoch; a mix of
            mixes.
    """
    if not isinstance(members, Sequence):
        raise TypeError(f"mix takes a list of datasets, not a {type(members).__name__}")
    given = [_member_of(number, member) for number, member in enumerate(members)]
    if not given:
        raise ValueError("a mix needs at least one dataset")
    weights = _normalized([member.weight for member in given])
    datasets = tuple(member.dataset for member in given)
    if weights is None and epoch_samples is not None:
        raise ValueError(
            "epoch_samples= is for a mix with weights; without them an epoch has each sample of each member once"
        )
    if epoch_samples is not None:
        check_integer("epoch_samples", epoch_samples, least=1)
    _require_samples(datasets)
    keys = [KeyMap(None if member.keys is None else dict(member.keys)) for member in given]
    common = common_fields(datasets, keys)
    padding = _common_padding(datasets, common)
    mixed = MixedDataset(datasets, common, padding, weights, epoch_samples)
    mixed.quotas(mixed.epoch_samples)  # raises where a member would give none
    return mixed


def _member_of(number: int, given: Dataset | tuple[Dataset, float] | Member) -> Member:
    if isinstance(given, tuple):
        if len(given) != 2:
            raise ValueError(f"member {number} must be a dataset, (dataset, weight) or a Member, not {given!r}")
        given = Member(*given)
    member = given if isinstance(given, Member) else Member(given)
    if isinstance(member.dataset, str | os.PathLike):
        raise TypeError(
            f"member {number} must be a dataset, not a path: give LeRobotDataset({str(member.dataset)!r}), or a Member"
        )
    if isinstance(member.dataset, MixedDataset):
        raise ValueError(f"member {number} is a mix itself: give its members, their weights times that of the mix")
    if not isinstance(member.keys, Mapping | None) or not all(isinstance(n, str) for n in (member.keys or {}).values()):
        raise TypeError(f"keys= of member {number} must map its names to the mix's, not {member.keys!r}")
    return member


def _normalized(weights: Sequence[float | None]) -> tuple[float, ...] | None:
    """Weights that add up to 1; None where there are none."""
    given = [weight for weight in weights if weight is not None]
    if not given:
        return None
    if len(given) < len(weights):
        without = [number for number, weight in enumerate(weights) if weight is None]
        raise ValueError(f"members {without} have no weight, others have: give all of them one, or none")
    for number, weight in enumerate(given):
        if not isinstance(weight, int | float | np.number) or isinstance(weight, bool):
            raise TypeError(f"weight of member {number} must be a number, not {weight!r}")
        if not weight > 0 or not math.isfinite(weight):
            raise ValueError(
                f"weight of member {number} must be positive and finite, not {weight!r}; leave out what is not to come"
            )
    total = math.fsum(float(weight) for weight in given)
    return tuple(float(weight) / total for weight in given)


def _require_samples(datasets: Sequence[Dataset]) -> None:
    empty = [number for number, dataset in enumerate(datasets) if not len(dataset)]
    if empty:
        raise ValueError(f"members {empty} have no samples: leave them out")


def _common_padding(datasets: Sequence[Dataset], common: CommonFields) -> Padding:
    """How lengths that vary are presented: by all members alike."""
    if all(field.length is None for field in common.fields):
        return "pad"
    asked: set[Padding] = {getattr(dataset, "padding", "pad") for dataset in datasets}
    if len(asked) > 1:
        raise ValueError(f"members differ in padding=: {sorted(asked)}; give all of them the same")
    return asked.pop()
