"""What a worker of the DataLoader does: set itself up once, then make batches, each in its slot."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import IterDataPipe, graph_settings

from millpond._guard.parcels import Parcel, pack
from millpond._guard.slot_file import SlotFile
from millpond._media.heap import keep_all_freed_memory
from millpond._torch.batch_slot import BatchSlot
from millpond._torch.cargo import Ticket, open_cargo
from millpond._torch.collating import collating_into
from millpond._torch.fetching import IterableFetcher, MapFetcher
from millpond._torch.kinship import Introduction
from millpond._torch.seeding import seed_worker, tell_worker_info
from millpond._torch.tasks import NO_BATCH, NO_SLOT, Batch, FetchTask, Kind, Place, Trouble, pack_answer, unpack_task
from millpond._workers.messages import decode, encode, encode_error


@dataclass(frozen=True, slots=True)
class Orders:
    """What all workers of an iterator have in common.

    Attributes:
        num_workers: Seats.
        base_seed: As torch draws it.
        shared_seed: The same for datapipes in the first epoch; None without them.
        is_iterable: Kind of the dataset.
        makes_batches: Whether indices are lists (torch's auto-collation).
        drop_last: Of an iterable dataset's batches.
        skips: Whether samples that raise are left out.
        keeps_heap: Whether freed memory stays with the process.
        has_slots: Whether the file of slots is the first descriptor; the cargo's follow.
        start: Batches that were made before this iterator began, where it goes on in an epoch.
        default_dtype: Of torch, in the training process.
        introduction: Of that process.
    """

    num_workers: int
    base_seed: int
    shared_seed: int | None
    is_iterable: bool
    makes_batches: bool
    drop_last: bool
    skips: bool
    keeps_heap: bool
    has_slots: bool
    start: int
    default_dtype: torch.dtype
    introduction: Introduction


class LoaderWork:
    """Handler of one seat's worker; see `_workers.child.Handler`.

    Args:
        ticket: Of the cargo: dataset, collate_fn, worker_init_fn.
        orders: For all workers.
        seat: Which worker this is.
        predecessors: How many were there before it.
    """

    def __init__(self, ticket: Ticket, orders: Orders, seat: int, predecessors: int) -> None:
        self._ticket = ticket
        self._orders = orders
        self._seat = seat
        self._predecessors = predecessors

    def attach(self, descriptors: Sequence[int], worker_index: int) -> None:
        """In the worker, once. What may take long, or hang, waits for the first task, whose limits hold for it too."""
        own = int(self._orders.has_slots)
        self._slots = SlotFile(descriptors[0]) if own else None
        self._cargo_descriptors = descriptors[own:]
        self._epoch = -1
        self._turn = 0
        self._is_set_up = False
        self._trouble: Trouble | None = None
        if self._orders.keeps_heap:
            keep_all_freed_memory()

    def __call__(self, payload: bytes, progress: Callable[[], None]) -> bytes:
        """Make one batch; the answer, see `tasks.Kind`."""
        try:
            return self._answer(unpack_task(payload), progress)
        except SystemExit as error:
            _leave(error)

    def _answer(self, task: FetchTask, progress: Callable[[], None]) -> bytes:
        if not self._is_set_up:
            self._is_set_up = True
            self._attempt(partial(self._set_up, task))
        elif task.epoch != self._epoch and task.shared_seed is not None:
            self._attempt(partial(self._shuffle_pipes, task.shared_seed))
        if self._trouble is None and task.epoch != self._epoch:
            self._epoch, self._turn = task.epoch, 0
            self._attempt(self._begin_epoch)
        if task.turn == NO_BATCH:
            return pack_answer(Kind.READY, _parcel(None).send())
        if self._trouble is not None:
            return pack_answer(Kind.ERROR, _parcel(self._trouble).send())
        return self._make(task, progress)

    # ---- once

    def _attempt(self, step: Callable[[], None]) -> None:
        """What goes wrong is told with each batch that would need it."""
        try:
            step()
        except Exception as error:  # noqa: BLE001 - the user's code; it travels
            self._trouble = self._trouble_with(error)

    def _trouble_with(self, error: Exception) -> Trouble:
        """To be called while it is handled."""
        return Trouble(ExceptionWrapper(where=f"in DataLoader worker process {self._seat}"), encode_error(error))

    def _set_up(self, task: FetchTask) -> None:
        torch.set_num_threads(1)
        orders = self._orders
        torch.set_default_dtype(orders.default_dtype)
        orders.introduction.be_known(f"millpond-worker-{self._seat}")
        parts = open_cargo(self._ticket, self._cargo_descriptors)
        self._dataset, self._collate, init = parts["dataset"], parts["collate_fn"], parts["worker_init_fn"]
        seed = seed_worker(orders.base_seed, self._seat, (self._predecessors, orders.start))
        self._shuffle_pipes(orders.shared_seed if task.shared_seed is None else task.shared_seed)
        tell_worker_info(self._seat, orders.num_workers, seed, self._dataset)
        if init is not None:
            init(self._seat)

    def _shuffle_pipes(self, shared_seed: int | None) -> None:
        if isinstance(self._dataset, IterDataPipe):
            assert shared_seed is not None
            generator = torch.Generator()
            generator.manual_seed(shared_seed)
            self._dataset = graph_settings.apply_random_seed(self._dataset, generator)

    def _begin_epoch(self) -> None:
        if self._orders.is_iterable:
            self._iterable = self._iterable_fetcher(None)
        else:
            orders = self._orders
            self._map = MapFetcher(self._dataset, makes_batches=orders.makes_batches, skips=orders.skips)

    def _iterable_fetcher(self, state: dict[str, Any] | None) -> IterableFetcher:
        orders = self._orders
        return IterableFetcher(
            self._dataset,
            makes_batches=orders.makes_batches,
            drop_last=orders.drop_last,
            skips=orders.skips,
            state=state,
        )

    # ---- per batch

    def _make(self, task: FetchTask, progress: Callable[[], None]) -> bytes:
        slot = None
        if self._slots is not None and task.slot != NO_SLOT:
            slot = BatchSlot(self._slots, task.slot, task.limit_bytes)
        try:
            with collating_into(slot):
                return self._make_in(slot, task, progress)
        except Exception as error:  # noqa: BLE001 - the user's code; it travels
            return pack_answer(Kind.ERROR, _parcel(self._trouble_with(error)).send(), self._state_after_error())
        finally:
            if slot is not None:
                slot.close()

    def _make_in(self, slot: BatchSlot | None, task: FetchTask, progress: Callable[[], None]) -> bytes:
        state = None
        if not self._orders.is_iterable:
            fetched = self._map.fetch(task.indices, progress, left_out=task.left_out, one_by_one=task.one_by_one)
        elif not self._is_in_place(task, progress):
            return pack_answer(Kind.OUT_OF_PLACE, _parcel(None).send())
        else:
            self._turn += 1
            try:
                fetched = self._iterable.fetch(task.indices, progress)
            except StopIteration as end:
                return pack_answer(Kind.EXHAUSTED, _parcel(_packed(end.value or [])).send())
            state = self._state()
        progress()
        data = None if fetched.is_left_out else self._collate(fetched.data)
        parcel = _parcel(Batch(data, fetched.num_samples, _packed(fetched.bad), fetched.is_left_out))
        message = parcel.send() if slot is None else slot.send(parcel)
        return pack_answer(Kind.BATCH, message, state)

    def _state(self) -> bytes | None:
        state = self._iterable.state_dict()
        return None if state is None else encode(state)

    def _state_after_error(self) -> bytes | None:
        """Where an iterable dataset is: a worker that follows this one goes on behind the error, not before it."""
        with contextlib.suppress(Exception):
            return self._state() if self._orders.is_iterable else None
        return None

    def _is_in_place(self, task: FetchTask, progress: Callable[[], None]) -> bool:
        """Whether the dataset is where the task wants it, or could be brought there."""
        place = task.place
        if place is not None and self._turn != place.turn:
            self._go_to(place, task.indices, progress)
        return self._turn == task.turn

    def _go_to(self, place: Place, indices: Any, progress: Callable[[], None]) -> None:
        self._iterable = self._iterable_fetcher(None if place.state is None else decode(place.state))
        if place.state is None:
            self._iterable.skip(place.turn, indices, progress)
        self._turn = place.turn


def _leave(error: SystemExit) -> NoReturn:
    """End this process, as the user's code wants it: a death like any other to the supervisor."""
    traceback.print_exception(error)
    sys.stderr.flush()
    code = error.code
    os._exit(0 if code is None else code if isinstance(code, int) else 1)


def _packed(bad: list[tuple[int, Exception]]) -> list[tuple[int, bytes]]:
    return [(place, encode_error(error)) for place, error in bad]


def _parcel(value: object) -> Parcel:
    try:
        return pack(value, by_value=False)
    except Exception:  # noqa: BLE001 - of a class from the user's __main__, most likely
        return pack(value, by_value=True)
