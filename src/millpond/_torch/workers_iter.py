"""The iterator of a DataLoader with workers."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from millpond._guard.call_pool import is_in_order_after
from millpond._torch.crew import Crew, Wishes, can_have_slots
from millpond._torch.kinship import Introduction
from millpond._torch.loader_iter import LoaderIter, weakly
from millpond._torch.pinning import Pinner
from millpond._torch.receiving import Receiver
from millpond._torch.supply import Arrival, Rules
from millpond._torch.tasks import NO_SLOT, Batch, Kind, Place
from millpond._torch.worker import Orders
from millpond._workers.messages import decode_error
from millpond.errors import ArenaFull, ClosedError, MillpondError, RemoteError, UsageError

_T = TypeVar("_T")


class WorkersIter(LoaderIter):
    """Has workers make batches, and takes them in torch's order."""

    def __init__(self, loader: Any) -> None:
        self._crew: Crew | None = None
        self._pinner: Pinner | None = None
        self._ahead: Arrival | Exception | None = None  # the batch that is pinned ahead, or why none is
        self._again: Arrival | None = None  # the batch that there was no room for
        super().__init__(loader)
        if loader.prefetch_factor <= 0:
            raise AssertionError("prefetch_factor must be greater than 0 for MultiProcessingDataLoaderIter")
        self._crew = Crew(self._wishes(loader))
        self._pinner = Pinner(self._pin_memory_device) if self._pin_memory else None
        # The finalizer holds what it ends, which as part of a cycle that is garbage would be taken apart in any order.
        self._end = weakref.finalize(self, _end, self._crew, self._pinner)
        self._end.atexit = False  # then the zygote ends, and its workers with it
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
                default_dtype=torch.get_default_dtype(),
                introduction=Introduction.of_this_process(),
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
            on_left_out=weakly(self._note_at_end),
        )

    def _reset(self, loader: Any, first_iter: bool = False) -> None:
        """Begin an epoch; with persistent workers, torch calls this for each one after the first."""
        super()._reset(loader, first_iter)
        self._drop_pinning()
        position = self._begin(loader, self._num_workers)
        # torch draws a seed twice for the first epoch, and goes by the first one.
        shared_seed = None if first_iter else self._shared_seed
        supply = self._open_crew().supply
        self._driven(lambda: supply.begin_epoch(position.places, position.next_seat, shared_seed))

    def _drop_pinning(self) -> None:
        """What was pinned ahead, or not unpacked, of an epoch that was broken off."""
        ahead, self._ahead = self._ahead, None
        again, self._again = self._again, None
        if isinstance(ahead, Arrival) and self._pinner is not None:
            with contextlib.suppress(Exception):  # it was for that batch, which nobody wants
                try:
                    self._pinner.take()
                except ArenaFull:
                    again = ahead
        if again is not None:
            self._open_crew().supply.drop(again)

    @property
    def is_closed(self) -> bool:
        """Whether its workers are gone."""
        return self._crew is None

    def _open_crew(self) -> Crew:
        if self._crew is None:
            raise ClosedError("this iterator of the DataLoader was closed")
        return self._crew

    def _next_data(self) -> Any:
        while True:
            arrival, batch = self._next_batch()
            self._note_left_out(arrival, batch)
            if not batch.is_left_out:
                self._tally.count(batch.num_samples)
                return batch.data

    def _next_batch(self) -> tuple[Arrival, Batch]:
        """The next batch, unpacked; or the error that came instead, at its turn."""
        if isinstance(self._ahead, Exception):
            raise self._take_ahead()
        ahead = self._take_ahead()
        again, self._again = self._again, None  # first: an interrupt may lose it, never lend it twice
        arrival = ahead or again or self._wait_for_next()
        if arrival is None:
            self.position.is_over = True
            if not self._persistent_workers:
                self.close()
            raise StopIteration
        try:
            batch = self._unpacked(arrival, is_ahead=ahead is not None)
        except BaseException as error:
            if isinstance(error, ArenaFull) and error.holders:  # nothing is lost: it is asked for again
                self._again = arrival
            elif isinstance(error, Exception):  # it has had its turn; after an interrupt a state has it come again
                self._note_arrival(arrival)
            raise
        self._note_arrival(arrival)
        if self._pinner is not None:
            self._pin_ahead(self._pinner)
        return arrival, batch

    def _take_ahead(self) -> Any:
        ahead, self._ahead = self._ahead, None
        return ahead

    def _unpacked(self, arrival: Arrival, *, is_ahead: bool) -> Batch:
        if self._pinner is None:
            return _unpack(arrival, self._open_crew().receiver)
        if is_ahead:
            pinned = self._pinner.take()
        else:
            pinned = self._pinner.pinned(_unpack(arrival, self._open_crew().receiver))
        return Batch(*pinned)

    def _pin_ahead(self, pinner: Pinner) -> None:
        """Have the next batch pinned by the thread, if it is here already; what goes wrong belongs to that batch."""
        try:
            self._ahead = arrival = self._driven(self._open_crew().supply.next_if_here)
        except Exception as error:  # noqa: BLE001 - raised when the batch is asked for
            self._ahead = error
        else:
            if arrival is not None:
                # not a method: the thread would be the last to let go of this iterator, and would have to end itself
                pinner.begin(functools.partial(_unpack, arrival, self._open_crew().receiver))

    def _wait_for_next(self) -> Arrival | None:
        if self._crew is None and self.position.is_over:
            return None
        began = time.perf_counter()
        try:
            return self._driven(self._open_crew().supply.next)
        finally:
            self._tally.wait_seconds += time.perf_counter() - began

    def _driven(self, step: Callable[[], _T]) -> _T:
        try:
            return step()
        except BaseException as error:
            if not is_in_order_after(error):
                self._give_up(error)
            raise

    def _give_up(self, error: BaseException) -> None:
        """The supervisor is of no further use; after an error of the sampler's own it is."""
        crew = self._crew
        if crew is not None and (not isinstance(error, Exception) or crew.supervisor.failure is not None):
            self.close(in_order=False)

    def _note_arrival(self, arrival: Arrival) -> None:
        assignment = arrival.assignment
        self._note_delivery(assignment.batch)
        if self._is_iterable and (arrival.kind is Kind.BATCH or arrival.state is not None):
            self.position.places[assignment.seat] = Place(assignment.turn + 1, arrival.state)
            self.position.next_seat = (assignment.seat + 1) % self._num_workers

    def _note_at_end(self, bad: list[tuple[int, bytes]]) -> None:
        for _, error in bad:
            self._tally.skip(self._epoch, None, decode_error(error))

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
        crew = self._crew  # another thread may close meanwhile
        if crew is None:
            return
        workers = crew.supervisor.statistics()
        receiver = crew.receiver
        statistics["held_batches"] += receiver.held_batches
        statistics["heap_copies"] += receiver.heap_copies
        statistics["copied_bytes"] += receiver.copied_bytes
        statistics["shared_bytes"] += 0 if receiver.slots is None else receiver.slots.memory_bytes
        statistics["worker_restarts"] += workers.restarts
        statistics["worker_recycles"] += workers.recycles
        statistics["worker_pids"] += tuple(worker.pid for worker in workers.workers if worker.pid is not None)

    def close(self, *, in_order: bool = True) -> None:
        """End the workers; batches that are held stay. Idempotent."""
        pinner, self._pinner = self._pinner, None
        if pinner is not None:
            pinner.close()
        crew, self._crew = self._crew, None
        if crew is None:
            return
        self._end.detach()
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


def _end(crew: Crew, pinner: Pinner | None) -> None:
    if pinner is not None:
        pinner.close()
    crew.close()


def _unpack(arrival: Arrival, receiver: Receiver) -> Batch:
    """A batch over its slot, or a copy. The pinning thread may come here, while nobody else does.

    Raises:
        ArenaFull: There is no room for a copy. The batch stays, for the next call.
        Exception: What came instead of the batch.
    """
    if isinstance(arrival.answer, Exception):
        raise arrival.take_error()
    if arrival.kind is Kind.ERROR:
        raise _told(*receiver.receive(arrival.answer, None)) from None
    slot = arrival.assignment.slot
    return Batch(*receiver.receive(arrival.answer, None if slot == NO_SLOT else slot))


def _told(wrapper: Any, packed: bytes) -> Exception:
    """What the user's code raised in a worker: as torch words it, and millpond's own errors as they are.

    To be raised by who keeps no name for it: else its frames, with the iterator in them, would be there until garbage
    is collected. So would the frame of torch's `reraise`, which is not among them.
    """
    error = decode_error(packed)
    if isinstance(error, MillpondError) and not isinstance(error, UsageError | RemoteError):
        return error
    try:
        wrapper.reraise()
    except Exception as told:  # noqa: BLE001 - it is what was asked for
        return told.with_traceback(None)
    raise AssertionError("reraise() raises")
