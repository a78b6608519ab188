"""The DataLoader's iterators: torch's to the frameworks that look at them, millpond's inside."""

from __future__ import annotations

import sys
import time
from typing import Any

from torch.utils.data import IterDataPipe, MapDataPipe, graph_settings
from torch.utils.data._utils.pin_memory import pin_memory
from torch.utils.data.dataloader import _BaseDataLoaderIter, _DatasetKind

from millpond._guard.call_pool import is_in_order_after
from millpond._torch.crew import Crew, Wishes, can_have_slots
from millpond._torch.fetching import Fetched, IterableFetcher, MapFetcher
from millpond._torch.indices import Indices
from millpond._torch.position import Position, stateful_sampler
from millpond._torch.supply import Arrival, Rules
from millpond._torch.tasks import Batch, Kind, Place
from millpond._torch.worker import Orders
from millpond._values import no_progress
from millpond._workers.messages import decode, decode_error, encode
from millpond.errors import ClosedError, MillpondError, UsageError


class LoaderIter(_BaseDataLoaderIter):  # type: ignore[misc] # torch is not typed for us
    """What both iterators have in common: their indices, and where they are.

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
        self._indices = Indices(super()._next_index, stateful_sampler(loader))
        self._epoch = -1

    def _begin(self, loader: Any, num_seats: int) -> Position:
        """Begin an epoch; where."""
        resumed, loader._resumed = loader._resumed, None
        self._epoch += 1
        self._indices.begin(resumed, is_endless=self._is_iterable)
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


class InlineIter(LoaderIter):
    """Makes batches in the consumer's own process: num_workers=0."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        if self._timeout != 0 or self._num_workers != 0:
            raise AssertionError("without workers there is no timeout")
        if isinstance(self._dataset, IterDataPipe | MapDataPipe):
            graph_settings.apply_sharding(self._dataset, self._world_size, self._rank)
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
            if place.state is None:
                for _ in range(place.turn):
                    self._iterable.skip(self._next_index())
        else:
            self._map = MapFetcher(self._dataset, makes_batches=self._auto_collation, skips=self._skips)

    def _next_data(self) -> Any:
        while True:
            batch, indices = self._indices.next()  # StopIteration at the end
            fetched = self._fetch(indices)
            for place, error in fetched.bad:
                index = None if self._is_iterable else indices[place] if self._auto_collation else indices
                self._tally.skip(self._epoch, index, error)
            data = self._collate_fn(fetched.data) if fetched.num_samples else None
            self._note_delivery(batch)
            if fetched.num_samples:
                self._tally.count(fetched.num_samples)
                return pin_memory(data, self._pin_memory_device) if self._pin_memory else data

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


class WorkersIter(LoaderIter):
    """Has workers make batches, and takes them in torch's order."""

    def __init__(self, loader: Any) -> None:
        self._crew: Crew | None = None
        super().__init__(loader)
        if loader.prefetch_factor <= 0:
            raise AssertionError("prefetch_factor must be greater than 0 for MultiProcessingDataLoaderIter")
        self._crew = Crew(self._wishes(loader))
        try:
            self._reset(loader, first_iter=True)
        except BaseException:
            self._crew.end_now()
            raise

    def _wishes(self, loader: Any) -> Wishes:
        options, resumed = loader._options, loader._resumed
        return Wishes(
            dataset=self._dataset,
            collate_fn=self._collate_fn,
            worker_init_fn=loader.worker_init_fn,
            context=loader.multiprocessing_context,
            orders=Orders(
                num_workers=self._num_workers,
                base_seed=self._base_seed,
                shared_seed=self._shared_seed,
                is_iterable=self._is_iterable,
                makes_batches=self._auto_collation,
                drop_last=self._drop_last,
                skips=self._skips,
                keeps_heap=options.keeps_heap,
                has_slots=options.has_arena and can_have_slots(),
                start=0 if resumed is None else resumed.delivered,
            ),
            rules=Rules(
                num_workers=self._num_workers,
                prefetch_factor=loader.prefetch_factor,
                in_order=loader.in_order,
                is_iterable=self._is_iterable,
                makes_batches=self._auto_collation,
                skips=self._skips,
            ),
            timeout_seconds=self._timeout,
            options=options,
            world=(self._world_size, self._rank),
            next_indices=self._indices.next,
        )

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        """Begin an epoch; with persistent workers, torch calls this for each one after the first."""
        super()._reset(loader, first_iter)
        position = self._begin(loader, self._num_workers)
        self._open_crew().supply.begin_epoch(position.places, position.next_seat)

    def _open_crew(self) -> Crew:
        if self._crew is None:
            raise ClosedError("this iterator of the DataLoader was closed")
        return self._crew

    def _next_data(self) -> Any:
        while True:
            arrival = self._wait_for_next()
            if arrival is None:
                self.position.is_over = True
                if not self._persistent_workers:
                    self.close()
                raise StopIteration
            batch = self._open_batch(arrival)
            if batch.num_samples:
                self._tally.count(batch.num_samples)
                return batch.data

    def _wait_for_next(self) -> Arrival | None:
        if self._crew is None and self.position.is_over:
            return None
        crew, began = self._open_crew(), time.perf_counter()
        try:
            return crew.supply.next()
        except BaseException as error:
            if not is_in_order_after(error):
                self._give_up(error)
            raise
        finally:
            self._tally.wait_seconds += time.perf_counter() - began

    def _give_up(self, error: BaseException) -> None:
        """The supervisor is of no further use; after an error of the sampler's own it is."""
        crew = self._crew
        if crew is not None and (not isinstance(error, Exception) or crew.supervisor.failure is not None):
            self.close(in_order=False)

    def _open_batch(self, arrival: Arrival) -> Batch:
        """What arrived as the user gets it; or the error that came instead."""
        assignment = arrival.assignment
        self._note_delivery(assignment.batch)
        if self._is_iterable and arrival.kind is Kind.BATCH:
            self.position.places[assignment.seat] = Place(assignment.turn + 1, arrival.state)
            self.position.next_seat = (assignment.seat + 1) % self._num_workers
        if isinstance(arrival.answer, Exception):
            raise arrival.answer
        receiver = self._open_crew().receiver
        if arrival.kind is Kind.ERROR:
            _reraise(*receiver.receive(arrival.answer, None))
        batch = Batch(*receiver.receive(arrival.answer, assignment.slot if assignment.slot >= 0 else None))
        self._note_left_out(arrival, batch)
        if self._pin_memory:
            batch = batch._replace(data=pin_memory(batch.data, self._pin_memory_device))
        return batch

    def _note_left_out(self, arrival: Arrival, batch: Batch) -> None:
        assignment = arrival.assignment
        bad = {**assignment.left_out, **{place: decode_error(error) for place, error in batch.bad}}
        for place in sorted(bad):
            index = None if self._is_iterable else assignment.indices
            if index is not None and self._auto_collation:
                index = index[place]
            self._tally.skip(self._epoch, index, bad[place])

    def fill(self, statistics: dict[str, Any]) -> None:
        """See `LoaderIter`."""
        if self._crew is None:
            return
        workers = self._crew.supervisor.statistics()
        receiver = self._crew.receiver
        statistics["held_batches"] += receiver.held_batches
        statistics["heap_copies"] += receiver.heap_copies
        statistics["copied_bytes"] += receiver.copied_bytes
        statistics["shared_bytes"] += 0 if receiver.slots is None else receiver.slots.memory_bytes
        statistics["worker_restarts"] += workers.restarts
        statistics["worker_recycles"] += workers.recycles
        statistics["worker_pids"] += tuple(worker.pid for worker in workers.workers if worker.pid is not None)

    def close(self, *, in_order: bool = True) -> None:
        """End the workers; batches that are held stay. Idempotent."""
        crew, self._crew = self._crew, None
        if crew is None:
            return
        statistics = crew.supervisor.statistics()
        self._tally.restarts += statistics.restarts
        self._tally.recycles += statistics.recycles
        self._tally.heap_copies += crew.receiver.heap_copies
        if in_order:
            crew.close()
        else:
            crew.end_now()

    _shutdown_workers = close  # what frameworks call that know torch's iterator

    def __del__(self) -> None:
        if not sys.is_finalizing():  # at exit the zygote ends, and its workers with it
            self.close()


def _reraise(wrapper: Any, packed: bytes) -> None:
    """Raise what the user's code raised in a worker: as torch words it, and millpond's own errors as they are."""
    error = decode_error(packed)
    if isinstance(error, MillpondError) and not isinstance(error, UsageError):
        raise error
    try:
        wrapper.reraise()
    except Exception as told:
        raise told from error
