"""What the DataLoader's two iterators have in common: torch's to the frameworks that look at them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch.utils.data.dataloader import _BaseDataLoaderIter, _DatasetKind

from millpond._torch.indices import Indices
from millpond._torch.position import Position, stateful_sampler
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
        super().__init__(loader)
        self._loader_options = loader._options
        self._tally = loader._tally
        self._is_iterable = self._dataset_kind == _DatasetKind.Iterable
        self._skips = loader._options.on_error == "skip"
        self._indices = Indices(weakly(super()._next_index), stateful_sampler(loader))
        self._epoch = -1

    def _begin(self, loader: Any, num_seats: int) -> Position:
        """Begin an epoch; where."""
        resumed, loader._resumed = loader._resumed, None
        self._epoch += 1
        self._indices.begin(resumed, is_endless=self._is_iterable, length=loader._length())
        self.position = resumed or Position(places=[Place(0)] * num_seats)
        if len(self.position.places) != num_seats:  # the dataset is map-style: it does not matter
            self.position.places = [Place(0)] * num_seats
        return self.position

    def _note_delivery(self, batch: int) -> None:
        self.position.deliver(batch)
        self.position.sampler = self._indices.state_after(self.position.delivered)

    def close(self) -> None:
        """Give everything back. Idempotent."""

    def fill(self, statistics: dict[str, Any]) -> None:
        """Add what an open iterator knows to a loader's statistics."""
