"""`millpond.torch.DataLoader`: torch's DataLoader with millpond's workers, limits and memory."""

from __future__ import annotations

import contextlib
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable
from multiprocessing.context import BaseContext
from os import PathLike
from types import TracebackType
from typing import Any, Literal, Self

import torch
import torch.utils.data
from torch.utils.data.dataloader import _DatasetKind
from typing_extensions import TypeVar

from millpond._quarantine import Quarantine
from millpond._torch.contexts import resolve_context
from millpond._torch.inline_iter import InlineIter
from millpond._torch.loader_iter import LoaderIter
from millpond._torch.options import resolve
from millpond._torch.position import (
    STATE_VERSION,
    Position,
    as_they_were,
    generators_of,
    stateful_sampler,
    states_of,
)
from millpond._torch.tally import DataLoaderStatistics, Tally
from millpond._torch.tasks import Place
from millpond._torch.workers_iter import WorkersIter
from millpond.errors import ClosedError
from millpond.settings import StartMethodSettings

_T_co = TypeVar("_T_co", covariant=True, default=Any)


class DataLoader(torch.utils.data.DataLoader[_T_co]):  # type: ignore[misc] # torch is not typed for us
    """`torch.utils.data.DataLoader`, for any dataset, whose memory stays flat and which does not hang.

    Arguments, order of batches, seeds and errors are torch's (see its documentation), but for those below. Batches come
    out of shared memory without a copy, and their memory is used again when the last tensor of them is gone; what you
    want to keep for long, `clone()`. For each argument below None stands for the environment variable in brackets, and
    where that is not set, for the default.

    As with torch's "spawn", workers do not have what your program changed in modules that it has imported
    (`config.SIZE = 224`), in logging or in warnings: hand such values over in the dataset, set them in
    `worker_init_fn`, or use multiprocessing_context="fork".

    Args:
        timeout: Seconds that a batch may take in a worker (MILLPOND_TIMEOUT, 300). A worker that takes longer is
            killed, and its batch made again, once; then `BatchTimeout`, also a RuntimeError, says where it hung. 0: for
            ever, as with torch. Without workers there is none, and it must be None or 0.
        multiprocessing_context: How workers are started (MILLPOND_MP_CONTEXT): "zygote", the default, forks them from a
            warm process of its own that has imported torch; or as torch takes it. Datasets and functions of `__main__`
            travel by value in any case.
        memory: For batches under way, held and copied: bytes, or "2GiB" (MILLPOND_MEMORY). Fewer are made ahead where
            it is scarce; `ArenaFull` where those that are held leave no room: a plain loop holds one while the next is
            made. None: what they need.
        max_tasks_per_worker: Batches after which a worker is followed by a new one (MILLPOND_MAX_TASKS_PER_WORKER); 0:
            never. Workers of an iterable dataset are recycled only if it has `state_dict`.
        max_worker_anon: A worker's own memory past which it is followed by a new one: bytes, or "4GiB"
            (MILLPOND_MAX_WORKER_ANON). None: any.
        stall_timeout: Seconds that one sample may take in a worker (MILLPOND_STALL_TIMEOUT); 0: no such limit.
        on_error: "raise", as torch does, or "skip": a sample that raises, hangs, or ends its worker is left out of its
            batch, logged, and written to the quarantine file (MILLPOND_ON_ERROR). Batches may be smaller then, or
            missing, which `len()` does not know. What the collate function raises is raised.
        max_restarts: Workers replaced that batches have not made up for, one each; one more is `WorkerDied`, also a
            RuntimeError (MILLPOND_MAX_RESTARTS, 100).
        held_batches: Batches that stay in shared memory while you hold them; more are copied (MILLPOND_HELD_BATCHES,
            4).
        quarantine: Path of the quarantine file, a JSON object per skipped sample, appended to in every epoch
            (MILLPOND_QUARANTINE, "millpond-quarantine.jsonl").

    Raises:
        TypeError: An argument of the wrong kind.
        ValueError: A value that cannot work, in torch's words where it is torch's argument; of the environment, it
            names the variable.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float | None = None,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: str | BaseContext | None = None,
        generator: torch.Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        memory: int | str | None = None,
        max_tasks_per_worker: int | None = None,
        max_worker_anon: int | str | None = None,
        stall_timeout: float | None = None,
        on_error: Literal["raise", "skip"] | None = None,
        max_restarts: int | None = None,
        held_batches: int | None = None,
        quarantine: str | PathLike[str] | None = None,
    ) -> None:
        options = resolve(
            timeout=timeout,
            memory=memory,
            max_tasks_per_worker=max_tasks_per_worker,
            max_worker_anon=max_worker_anon,
            stall_timeout=stall_timeout,
            on_error=on_error,
            max_restarts=max_restarts,
            held_batches=held_batches,
            quarantine=quarantine,
        )
        if timeout is None:
            timeout = options.timeout if num_workers > 0 else 0
        super().__init__(
            dataset,
            batch_size,
            shuffle,
            sampler,
            batch_sampler,
            num_workers,
            collate_fn,
            pin_memory,
            drop_last,
            timeout,
            worker_init_fn,
            multiprocessing_context,
            generator,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            pin_memory_device=pin_memory_device,
            in_order=in_order,
        )
        # Each under its own name: Lightning and others make a loader like this one from its attributes.
        self.memory = options.memory
        self.max_tasks_per_worker = options.max_tasks_per_worker
        self.max_worker_anon = options.max_worker_anon
        self.stall_timeout = options.stall_timeout
        self.on_error = options.on_error
        self.max_restarts = options.max_restarts
        self.held_batches = options.held_batches
        self.quarantine = options.quarantine
        self._options = options
        self._begin_books()

    @property
    def multiprocessing_context(self) -> BaseContext | None:
        """How workers are started; set by torch's constructor, after what it checks before."""
        if self._context is None and self.num_workers > 0:  # it had none when it was made
            self.multiprocessing_context = None
        return self._context

    @multiprocessing_context.setter
    def multiprocessing_context(self, given: str | BaseContext | None) -> None:
        self._context = resolve_context(given, self.num_workers, StartMethodSettings().mp_context)

    @property
    def _is_accelerate_prepared(self) -> bool:
        """Asked by accelerate's own `prepare`, which then makes a torch DataLoader of this one; by nobody else."""
        warnings.warn(
            "accelerator.prepare() makes a torch DataLoader of this one, whose batches do not come through millpond's "
            "workers and memory: prepare it with millpond.torch.prepare(accelerator, loader)",
            stacklevel=2,
        )
        return False

    def _begin_books(self) -> None:
        self._tally = Tally(Quarantine(self._options.quarantine), type(self.dataset).__qualname__)
        self._open_iterators: weakref.WeakSet[LoaderIter] = weakref.WeakSet()
        self._iterators_lock = threading.Lock()  # statistics may be asked for by any thread
        self._position: Position | None = None
        self._resumed: Position | None = None
        self._is_closed = False

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_tally", "_open_iterators", "_iterators_lock", "_position", "_resumed", "_is_closed")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_books()

    # ---- iterating

    def __iter__(self) -> Any:
        """Begin an epoch, or go on with the one that was loaded."""
        if self._is_closed:
            raise ClosedError("this DataLoader is closed")
        self._forget_closed()
        resumed = self._resumed
        if resumed is not None and resumed.sampler is not None:
            stateful_sampler(self).load_state_dict(resumed.sampler)
        with contextlib.nullcontext() if resumed is None else as_they_were(generators_of(self), resumed.generators):
            iterator: LoaderIter = super().__iter__()
        with self._iterators_lock:
            self._open_iterators.add(iterator)
        self._position = iterator.position
        return iterator

    def _forget_closed(self) -> None:
        """Have persistent workers that were ended, by an interrupt or an error, begin anew."""
        persistent: Any = vars(self)["_iterator"]
        if persistent is not None and persistent.is_closed:
            self._iterator = None

    def _get_iterator(self) -> LoaderIter:
        if self.num_workers == 0:
            return InlineIter(self)
        self.check_worker_number_rationality()
        return WorkersIter(self)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, and runs no more epochs."""
        return self._is_closed

    def close(self) -> None:
        """End the workers of all its iterators; batches that you hold stay as they are. Idempotent."""
        self._is_closed = True
        for iterator in list(self._open_iterators):
            iterator.close()
        self._iterator = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- where it stands

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, after the batch that was taken last: plain values, as JSON has them.

        Not interchangeable with torchdata's. A sampler that draws from other generators than torch's own, or those that
        it and the loader have as `generator`, needs `state_dict` and `load_state_dict`; an iterable dataset without
        them is gone through again up to where it was.
        """
        position = self._resumed or self._position
        if position is None or position.is_over:
            self._forget_closed()
            now = states_of(generators_of(self))
            base_seed = None if self._iterator is None else self._iterator._base_seed  # of persistent workers
            position = Position(now, now, base_seed, places=[Place(0)] * max(1, self.num_workers))
        return {**self._facts(), **position.to_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Have the next epoch be the rest of the one in which the state was taken.

        Raises:
            ValueError: The state is of another version, kind of dataset, or length of an epoch; or an iterable dataset
                had another number of workers.
        """
        if not isinstance(state_dict, dict) or "version" not in state_dict:
            raise ValueError(f"this is no state of a millpond.torch.DataLoader: {str(state_dict)[:80]}")
        for name, value in self._facts().items():
            if state_dict.get(name) != value:
                raise ValueError(
                    f"this state cannot be loaded: its {name} is {state_dict.get(name)!r}, and the loader's {value!r} "
                    "(length: batches of an epoch; dataset, sampler, batch_size and drop_last must be as they were)"
                )
        position = Position.from_state(state_dict)
        if position.sampler is not None and stateful_sampler(self) is None:
            raise ValueError(
                "this state cannot be loaded: it has one of a sampler, and this loader's sampler has no load_state_dict"
            )
        if self._dataset_kind == _DatasetKind.Iterable and len(position.places) != max(1, self.num_workers):
            raise ValueError(
                f"this state is of {len(position.places)} workers, and the loader has {max(1, self.num_workers)}: an "
                "iterable dataset goes on with as many as it had"
            )
        self._resumed = position

    def _facts(self) -> dict[str, Any]:
        """What a state must have in common with the loader that it is loaded into."""
        kind = "iterable" if self._dataset_kind == _DatasetKind.Iterable else "map"
        return {"version": STATE_VERSION, "kind": kind, "length": self._length()}

    def _length(self) -> int | None:
        """Batches of an epoch, where the sampler knows."""
        if self._dataset_kind == _DatasetKind.Iterable:
            return None
        try:
            return len(self._index_sampler)
        except (TypeError, NotImplementedError):  # both are ways of samplers to say that they have no length
            return None

    def statistics(self) -> DataLoaderStatistics:
        """Counts since the loader was made, and what its workers are. Any thread."""
        tally = self._tally
        counts: dict[str, Any] = {
            "held_batches": 0,
            "heap_copies": tally.heap_copies,
            "copied_bytes": 0,
            "shared_bytes": 0,
            "worker_restarts": tally.restarts,
            "worker_recycles": tally.recycles,
            "worker_pids": (),
        }
        with self._iterators_lock:
            iterators = list(self._open_iterators)
        for iterator in iterators:
            iterator.fill(counts)
        return DataLoaderStatistics(tally.batches, tally.samples, tally.skipped, tally.wait_seconds, **counts)
