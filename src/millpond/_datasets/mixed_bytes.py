"""Which bytes of a mix a task will read: of those members that lie in a store. Others are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import ByteSource, WantedRange, total_counters
from millpond._datasets.borders import Borders, scaled
from millpond._datasets.mixed_fields import CommonFields


def own_range(wanted: WantedRange) -> tuple[int, WantedRange]:
    """The member that a range of a mix is of, and the range as that member knows it."""
    member, _, part = wanted.part.partition(":")
    return int(member), wanted._replace(part=part)


class MixedBytes:
    """See `ByteSource`. The part of a range names the member, too.

    Args:
        sources: Of the members; None where bytes are at hand.
        common: What they have in common.
        borders: Which samples are whose.
    """

    def __init__(
        self,
        sources: Sequence[ByteSource | None],
        common: CommonFields,
        borders: Borders,
    ) -> None:
        self._sources = tuple(sources)
        self._present = [source for source in self._sources if source is not None]
        self._common = common
        self._borders = borders

    def wanted(self, parts: Sequence[str], samples: NDArray[np.int64]) -> list[WantedRange]:
        """See `ByteSource`."""
        found: list[WantedRange] = []
        for run in self._borders.runs(samples):
            source = self._sources[run.member]
            if source is not None:
                own = [one for part in parts for one in self._common.member_parts[run.member][part].fetched]
                found += [one._replace(part=f"{run.member}:{one.part}") for one in source.wanted(own, run.samples)]
        return found

    def submit(self, wanted: WantedRange) -> Future[Any]:
        """See `ByteSource`."""
        source, own = self._routed(wanted)
        return source.submit(own)

    def segment_bytes(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `ByteSource`."""
        shares = zip(self._sources, self._common.camera_shares, strict=True)
        measures = [None if source is None else scaled(source.segment_bytes, share) for source, share in shares]
        return self._borders.summed(starts, stops, measures)

    def forget(self, wanted: WantedRange) -> None:
        """See `ByteSource`."""
        source, own = self._routed(wanted)
        source.forget(own)

    def interrupt(self) -> None:
        """See `ByteSource`."""
        for source in self._present:
            source.interrupt()

    def counters(self) -> dict[str, int]:
        """See `ByteSource`."""
        return total_counters([source.counters() for source in self._present])

    def _routed(self, wanted: WantedRange) -> tuple[ByteSource, WantedRange]:
        member, own = own_range(wanted)
        source = self._sources[member]
        assert source is not None
        return source, own
