"""Pickling a dataset for its way to the workers: what is large stays outside, what is shared stays shared.

Arrays and tensors leave their memory outside of the pickle. Tensors that view one storage still do so afterwards, and
of a storage only what some tensor shows is taken along. What processes share (primitives of multiprocessing, sockets,
tensors in shared memory) is shared with the workers: its descriptors are collected. Mapped files are mapped again.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen, set_spawning_popen
from pickle import PickleBuffer
from types import TracebackType
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch.multiprocessing import get_sharing_strategy, reductions

from millpond._guard.by_value import ByValuePickler
from millpond._guard.parcels import LARGE_BYTES
from millpond._guard.reducers import reduce_array
from millpond._torch.mapped_files import MappedFiles
from millpond._workers.descriptors import MAX_DESCRIPTORS, close_all

_MOST_DESCRIPTORS = MAX_DESCRIPTORS - 13  # what every worker gets goes in the same message
_STORAGES = (torch.UntypedStorage, torch.TypedStorage)


@dataclass(slots=True)
class Stowed:
    """Bytes that lie outside of the pickle; `spans` are those of them that matter, (start, stop), None: all."""

    data: memoryview
    spans: list[tuple[int, int]] | None = None


@dataclass(slots=True)
class _Hold:
    """A storage while it is pickled. The pickler knows it by identity, so each is pickled once."""

    storage: Any
    stowage: Stowage
    spans: list[tuple[int, int]] = field(default_factory=list)

    def __reduce__(self) -> Any:
        size = self.storage.nbytes()
        if not size:
            return torch.UntypedStorage, (0,)
        self.stowage.next_spans = self.spans  # for the buffer that comes next, which is this one
        plain = torch.empty(0, dtype=torch.uint8).set_(self.storage).numpy()
        return _make_storage, (PickleBuffer(plain),)


def _make_storage(buffer: Any) -> Any:
    return torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()


def _make_tensor(storage: Any, dtype: Any, offset: int, shape: Any, strides: Any, requires_grad: bool) -> Any:
    tensor = torch.empty(0, dtype=dtype).set_(storage, offset, shape, strides)
    return tensor.requires_grad_(requires_grad)


class Stowage:
    """One pickling; a context manager, within which multiprocessing holds this for a process that is being spawned.

    Attributes:
        stowed: What lies outside of the pickle, in its order.
        descriptors: Copies of what the value shares; the caller closes them.
    """

    def __init__(self) -> None:
        self.stowed: list[Stowed] = []
        self.descriptors: list[int] = []
        self.next_spans: list[tuple[int, int]] | None = None
        self._mapped = MappedFiles()
        self._holds: dict[int, _Hold] = {}
        self._places: dict[tuple[int, int, int], int] = {}
        self._outer: Any = None

    def __enter__(self) -> Stowage:
        self._outer = get_spawning_popen()
        set_spawning_popen(self)  # type: ignore[arg-type] # which has all that is asked of one
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        set_spawning_popen(self._outer)
        if kind is not None:
            close_all(self.descriptors)

    def dump(self, value: object, file: Any) -> None:
        """Pickle a value; raises whatever its own methods raise."""
        first = {
            np.ndarray: self._reduce_array,
            np.memmap: self._reduce_array,
            torch.Tensor: self._reduce_tensor,
            torch.UntypedStorage: self._reduce_storage,
            torch.TypedStorage: reductions.reduce_typed_storage,
            io.TextIOWrapper: _reduce_text_file,
        }
        ByValuePickler(file, self._is_small, first=first, last=_shared_kinds()).dump(value)

    def _is_small(self, buffer: PickleBuffer) -> bool:
        """For pickle: whether a buffer is to be in the pickle."""
        spans, self.next_spans = self.next_spans, None
        raw = buffer.raw()
        if raw.nbytes < LARGE_BYTES:
            return True
        self.stowed.append(Stowed(raw, spans))
        return False

    def _reduce_array(self, array: Any) -> Any:
        # Most arrays have their memory to themselves.
        return reduce_array(array) if array.base is None else self._mapped.reduce(array) or reduce_array(array)

    # ---- tensors

    def _reduce_tensor(self, tensor: Any) -> Any:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
            return tensor.__reduce_ex__(5)
        if tensor.is_shared() or tensor.device.type != "cpu":
            return reductions.reduce_tensor(tensor)
        if tensor.__dict__ or tensor._backward_hooks:
            return tensor.__reduce_ex__(5)
        data = tensor.detach().resolve_conj().resolve_neg()
        hold = self._hold_of(data.untyped_storage())
        hold.spans.append(_span_of(data))
        facts = data.dtype, data.storage_offset(), tuple(data.shape), data.stride(), tensor.requires_grad
        return _make_tensor, (hold, *facts)

    def _reduce_storage(self, storage: Any) -> Any:
        if storage.device.type != "cpu":
            return reductions.reduce_storage(storage)
        if storage.is_shared():
            return _reduce_shared(storage)
        hold = self._hold_of(storage)
        hold.spans.append((0, storage.nbytes()))
        return _same, (hold,)

    def _hold_of(self, storage: Any) -> _Hold:
        # The hold keeps the storage, so no other one can get its number meanwhile.
        return self._holds.setdefault(storage._cdata, _Hold(storage, self))

    # ---- what multiprocessing asks of a process that it spawns

    def duplicate_for_child(self, descriptor: int) -> int:
        """Take a descriptor along; its number for `DupFd`."""
        about = os.fstat(descriptor)
        key = descriptor, about.st_dev, about.st_ino
        if key not in self._places:
            if len(self.descriptors) >= _MOST_DESCRIPTORS:
                raise ValueError(
                    f"it shares more than {_MOST_DESCRIPTORS} files, sockets or tensors in shared memory with its "
                    "workers: put small shared tensors into one"
                )
            self._places[key] = len(self.descriptors)
            self.descriptors.append(os.dup(descriptor))
        return self._places[key]

    class DupFd:
        """A descriptor on its way."""

        def __init__(self, place: int) -> None:
            self._place = place

        def __reduce__(self) -> Any:
            return _Arrived, (self._place,)


class _Arrived:
    """A descriptor in the worker: a copy of its own, for whoever detaches it."""

    def __init__(self, place: int) -> None:
        self._descriptor: int | None = os.dup(arrived[place])

    def detach(self) -> int:
        """The descriptor, which is the caller's from now on. Once only."""
        descriptor, self._descriptor = self._descriptor, None
        assert descriptor is not None
        return descriptor

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


arrived: list[int] = []
"""In the worker, while a value is unpickled: the descriptors that came with it."""


def _shared_kinds() -> dict[type, Callable[[Any], Any]]:
    """What multiprocessing knows how to share, with what others have registered there; tensors have their own way."""
    extra: dict[type, Callable[[Any], Any]] = reduction.ForkingPickler._extra_reducers  # type: ignore[attr-defined]
    return {kind: reduce for kind, reduce in extra.items() if not issubclass(kind, (torch.Tensor, *_STORAGES))}


def _span_of(tensor: Any) -> tuple[int, int]:
    """The bytes of its storage that a tensor shows, and what lies between them."""
    start = tensor.storage_offset()
    if not tensor.numel():
        return 0, 0
    stop = start + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return start * tensor.element_size(), stop * tensor.element_size()


def _reduce_shared(storage: Any) -> Any:
    if storage.filename is not None:  # mapped by torch, which keeps no descriptor then
        return _map_file, (storage.filename, storage.nbytes())
    if get_sharing_strategy() != "file_system":
        return reductions.reduce_storage(storage)
    # torch's own way counts on a pickle being opened once, and the last of several workers would find no file.
    manager, handle, size = storage._share_filename_cpu_()
    return _open_shared, (manager, handle, size)


def _open_shared(manager: Any, handle: Any, size: int) -> Any:
    known = reductions.storage_from_cache(torch.UntypedStorage, handle)
    if known is not None:
        return known
    storage = torch.UntypedStorage._new_shared_filename_cpu(manager, handle, size)
    reductions.shared_cache[handle] = reductions.StorageWeakRef(storage)
    return storage


def _map_file(path: str, size_bytes: int) -> Any:
    return torch.UntypedStorage.from_file(path, shared=True, nbytes=size_bytes)


def _reduce_text_file(file: Any) -> Any:
    """Only the standard streams; cloudpickle would read a file to its end, and send what is in it."""
    if file is sys.stdout or file is sys.stderr:
        return cloudpickle.Pickler.dispatch_table[io.TextIOWrapper](file)
    return file.__reduce_ex__(5)


def _same(value: Any) -> Any:
    return value
