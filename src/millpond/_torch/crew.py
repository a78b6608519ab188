"""Everything that an iterator with workers opens, and closes in the right order."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

from torch.utils.data import IterDataPipe, MapDataPipe
from torch.utils.data.dataloader import _sharding_worker_init_fn

from millpond._guard.result_slots import ResultSlots
from millpond._guard.slot_file import create_slot_file
from millpond._torch.cargo import Cargo, Ticket
from millpond._torch.contexts import starter_for
from millpond._torch.options import Options
from millpond._torch.receiving import Receiver
from millpond._torch.supply import Rules, Supply
from millpond._torch.worker import LoaderWork, Orders
from millpond._workers.messages import encode
from millpond._workers.recycling import NO_RECYCLING, Recycling
from millpond._workers.seated_supervisor import SeatedSupervisor
from millpond._workers.verdicts import NEVER, TaskLimits

logger = logging.getLogger("millpond")

PRELOAD = ("millpond._torch.worker",)
_START_SECONDS = 120.0
"""Until a worker takes tasks; its zygote may have to import torch from a network file system first."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What an iterator wants of its workers.

    Attributes:
        dataset: With datapipes' shuffling applied.
        collate_fn: Of the loader.
        worker_init_fn: Of the loader.
        context: How workers are started.
        orders: For them.
        rules: For the supply.
        timeout_seconds: Per batch; 0: for ever.
        options: What is millpond's own.
        world: Processes of the job and which one this is, for datapipes.
        next_indices: Of the sampler.
        on_left_out: Told what was left out where no batch came of it.
    """

    dataset: Any
    collate_fn: Any
    worker_init_fn: Any
    context: BaseContext
    orders: Orders
    rules: Rules
    timeout_seconds: float
    options: Options
    world: tuple[int, int]
    next_indices: Callable[[], tuple[int, Any]]
    on_left_out: Callable[[list[tuple[int, bytes]]], None]


class Crew:
    """The workers of an iterator with all they need.

    Attributes:
        supply: Of their batches.
        receiver: Of what they make.
        supervisor: Of them.
    """

    def __init__(self, wishes: Wishes) -> None:
        options = wishes.options
        with contextlib.ExitStack() as undo:
            slots = ResultSlots(options.held_batches, keeps_memory=True) if wishes.orders.has_slots else None
            if slots is not None:
                undo.callback(slots.close)
            parts = {
                "dataset": wishes.dataset,
                "collate_fn": wishes.collate_fn,
                "worker_init_fn": _init_fn_of(wishes),
            }
            cargo = Cargo(parts, inherited=wishes.context.get_start_method() == "fork")
            undo.callback(cargo.close)
            starter = starter_for(wishes.context)
            own = () if slots is None else (slots.descriptor,)
            self.supervisor = SeatedSupervisor(
                functools.partial(_handler, cargo.ticket, wishes.orders),  # no dataset: a supervisor is part of cycles
                num_workers=wishes.rules.num_workers,
                descriptors=(*own, *cargo.descriptors),
                preload=PRELOAD,
                starter=starter,
                tasks_in_flight_per_worker=wishes.rules.most_outstanding,
                limits=TaskLimits(wishes.timeout_seconds or NEVER, options.stall_timeout or None),
                max_restarts=options.max_restarts,
                recycling=_recycling_of(wishes),
                start_timeout_seconds=_START_SECONDS,
            )
            undo.callback(self.supervisor.close)
            self.receiver = Receiver(
                slots,
                held_batches=options.held_batches,
                memory_bytes=options.memory,
                num_workers=wishes.rules.num_workers,
            )
            self.supply = Supply(self.supervisor, self.receiver, wishes.rules, wishes.next_indices, wishes.on_left_out)
            self._undo = undo.pop_all()

    def close(self) -> None:
        """End the workers, and give back what is not lent. Idempotent."""
        self._undo.close()

    def end_now(self) -> None:
        """The same, where an interrupt left the supervisor in disorder."""
        self.supervisor.end_now()
        with contextlib.suppress(Exception):
            self.close()


def can_have_slots() -> bool:
    """Whether this platform has what slots need."""
    try:
        os.close(create_slot_file())
    except OSError:
        return False
    return True


def _handler(ticket: Ticket, orders: Orders, seat: int, predecessors: int) -> bytes:
    return encode(LoaderWork(ticket, orders, seat, predecessors))


def _recycling_of(wishes: Wishes) -> Recycling:
    recycling = Recycling(wishes.options.max_tasks_per_worker or None, wishes.options.max_worker_anon)
    if recycling.is_wanted and wishes.rules.is_iterable and not hasattr(wishes.dataset, "state_dict"):
        logger.warning(
            "workers of this %s are not recycled: it has no state_dict(), so its place would be lost with a worker",
            type(wishes.dataset).__qualname__,
        )
        return NO_RECYCLING
    return recycling


def _init_fn_of(wishes: Wishes) -> Any:
    if isinstance(wishes.dataset, IterDataPipe | MapDataPipe):
        return functools.partial(_sharding_worker_init_fn, wishes.worker_init_fn, *wishes.world)
    return wishes.worker_init_fn
