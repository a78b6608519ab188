"""What the members of a mix give that is no array: the names of their columns of text."""

from __future__ import annotations

from collections.abc import Sequence

from millpond._datasets.base import Dataset
from millpond._datasets.mixed_fields import KeyMap, text_columns
from millpond._datasets.share import Share
from millpond._once import computed_once


class ColumnNames:
    """Names of what is no array, which only samples of the members can tell: looked up when they are first needed.

    Args:
        datasets: The members.
        keys: Of each.
    """

    def __init__(self, datasets: Sequence[Dataset], keys: Sequence[KeyMap]) -> None:
        self._datasets = tuple(one.dataset if isinstance(one, Share) and not len(one) else one for one in datasets)
        self._keys = tuple(keys)

    @computed_once
    def in_batches(self) -> tuple[str, ...]:
        """What `decorate` adds."""
        return self._mixed([text_columns(dataset) for dataset in self._datasets])

    @computed_once
    def in_samples(self) -> tuple[str, ...]:
        """What a transform gets."""
        return self._mixed([tuple(one.reader().attributes(0)) if len(one) else () for one in self._datasets])

    def _mixed(self, own: Sequence[Sequence[str]]) -> tuple[str, ...]:
        named = [keys.renamed(dict.fromkeys(names)) for keys, names in zip(self._keys, own, strict=True)]
        return tuple(dict.fromkeys(name for names in named for name in names))
