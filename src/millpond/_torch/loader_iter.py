"""What the DataLoader's two iterators have in common: torch's to the frameworks that look at them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch.utils.data.dataloader import _BaseDataLoaderIter, _DatasetKind

from millpond._torch.indices import Indices
from millpond._torch.position import Position, generators_of, put_back, stateful_sampler, states_of
from millpond._torch.tasks import Place


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method for somebody whom its own object holds: no cycle, so the object ends as soon as it is let go."""
    known = weakref.WeakMethod(method)

    def call(*arguments: Any) -> Any:
        bound = known()
        assert bound is not None
        return bound(*arguments)

    return call


class LoaderIter(_BaseDataLoaderIter):  # type: ignore[misc] # torch is not typed for us
    """Indices, and where it is.

    Attributes:
        position: For `state_dict`.
    """

    position: Position

    def __init__(self, loader: Any) -> None:
        self._generators = generators_of(loader)
        self._before_iter = states_of(self._generators)
        super().__init__(loader)
        if loader._resumed is not None and loader._resumed.base_seed is not None:
            self._base_seed = loader._resumed.base_seed
        self._loader_options = loader._options
        self._tally = loader._tally
        self._is_iterable = self._dataset_kind == _DatasetKind.Iterable
        self._skips = loader._options.on_error == "skip"
        self._indices = Indices(weakly(super()._next_index), stateful_sampler(loader))
        self._epoch = -1

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        self._before_iter = states_of(self._generators)
        super()._reset(loader, first_iter)

    def _begin(self, loader: Any, num_seats: int) -> Position:
        """Begin an epoch; where."""
        resumed, loader._resumed = loader._resumed, None
        self._epoch += 1
        self.position = resumed or Position(places=[Place(0)] * num_seats)
        self._settle_generators(self.position)
        self._indices.begin(resumed, is_endless=self._is_iterable, length=loader._length())
        if len(self.position.places) != num_seats:  # the dataset is map-style: it does not matter
            self.position.places = [Place(0)] * num_seats
        return self.position

    def _settle_generators(self, position: Position) -> None:
        if position.base_seed is None:
            position.generators, position.first_draw = self._before_iter, states_of(self._generators)
            position.base_seed = self._base_seed
        else:  # in the middle of an epoch: whatever seeds this iterator has drawn, that one's order is wanted
            put_back(self._generators, position.generators)
            self._sampler_iter = iter(self._index_sampler)
            put_back(self._generators, position.first_draw)

    def _note_delivery(self, batch: int) -> None:
        if (
            self._is_iterable
        ):  # its places say where it is; numbers of batches that a worker had no samples for never come
            self.position.delivered += 1
            return
        self.position.deliver(batch)
        self.position.sampler = self._indices.state_after(self.position.delivered)

    def close(self) -> None:
        """Give everything back. Idempotent."""

    def fill(self, statistics: dict[str, Any]) -> None:
        """Add what an open iterator knows to a loader's statistics."""
