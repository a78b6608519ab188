"""The iterator of a DataLoader without workers."""

from __future__ import annotations

from typing import Any

from torch.utils.data import IterDataPipe, MapDataPipe, graph_settings
from torch.utils.data._utils.pin_memory import pin_memory

from millpond._torch.fetching import Fetched, IterableFetcher, MapFetcher
from millpond._torch.loader_iter import LoaderIter
from millpond._torch.position import states_of
from millpond._torch.tasks import Place
from millpond._values import no_progress
from millpond._workers.messages import decode, encode


class InlineIter(LoaderIter):
    """Makes batches in the consumer's own process: num_workers=0."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        if self._timeout != 0 or self._num_workers != 0:
            raise AssertionError("_SingleProcessDataLoaderIter requires timeout == 0 and num_workers == 0")
        if isinstance(self._dataset, IterDataPipe | MapDataPipe):
            graph_settings.apply_sharding(self._dataset, self._world_size, self._rank)
        self._has_drawn = loader._resumed is not None
        position = self._begin(loader, 1)
        if self._is_iterable:
            place = position.places[0]
            self._iterable = IterableFetcher(
                self._dataset,
                makes_batches=self._auto_collation,
                drop_last=self._drop_last,
                skips=self._skips,
                state=None if place.state is None else decode(place.state),
            )
            if place.state is None and place.turn:
                self._iterable.skip(place.turn, self._next_index(), no_progress)
        else:
            self._map = MapFetcher(self._dataset, makes_batches=self._auto_collation, skips=self._skips)

    def _next_data(self) -> Any:
        if not self._has_drawn:
            self._has_drawn, self.position.first_draw = True, states_of(self._generators)
        while True:
            batch = None
            try:
                batch, indices = self._indices.next()
                fetched = self._fetch(indices)
                data = None if fetched.is_left_out else self._collate_fn(fetched.data)
            except StopIteration:
                self.position.is_over = True
                raise
            except Exception:
                if batch is not None:  # it has had its turn
                    self._note_delivery(batch)
                raise
            self._note_left_out(indices, fetched)
            self._note_delivery(batch)
            if not fetched.is_left_out:
                self._tally.count(fetched.num_samples)
                return pin_memory(data, self._pin_memory_device) if self._pin_memory else data

    def _note_left_out(self, indices: Any, fetched: Fetched) -> None:
        for place, error in fetched.bad:
            index = None if self._is_iterable else indices[place] if self._auto_collation else indices
            self._tally.skip(self._epoch, index, error)

    def _fetch(self, indices: Any) -> Fetched:
        if not self._is_iterable:
            return self._map.fetch(indices, no_progress, left_out=(), one_by_one=False)
        try:
            fetched = self._iterable.fetch(indices, no_progress)
        except StopIteration as end:
            for _, error in end.value or ():
                self._tally.skip(self._epoch, None, error)
            raise StopIteration from None
        place = self.position.places[0]
        state = self._iterable.state_dict()
        self.position.places = [Place(place.turn + 1, None if state is None else encode(state))]
        return fetched
