"""In a worker: default_collate's entry for tensors, which stacks them right in the slot.

The entry is that of `torch.utils.data._utils.collate.default_collate_fn_map`, so that it serves whoever calls
`default_collate`, a user's own collate function too. One that the user has put there stays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data._utils import collate as torch_collate

from millpond._guard.parcels import LARGE_BYTES
from millpond._torch.batch_slot import BatchSlot

_original = torch_collate.collate_tensor_fn
_slots: list[BatchSlot] = []
"""The one that is filled now, if any."""


@contextlib.contextmanager
def collating_into(slot: BatchSlot | None) -> Iterator[None]:
    """Have `default_collate` write to this slot; None: to fresh memory, and no shared one."""
    fn_map = torch_collate.default_collate_fn_map
    if fn_map.get(torch.Tensor) is _original:
        fn_map[torch.Tensor] = stack_tensors
    if slot is not None:
        _slots.append(slot)
    try:
        yield
    finally:
        _slots.clear()


def stack_tensors(batch: Any, *, collate_fn_map: Any = None) -> Any:
    """What torch's entry does in a worker, but for where the result lies."""
    first = batch[0]
    if not _is_plain(first):
        return _original(batch, collate_fn_map=collate_fn_map)
    # With out= whatever the size, as torch does: without, layouts and mixed types have other rules.
    return torch.stack(batch, 0, out=_room_for(len(batch), first))


def _room_for(count: int, first: Any) -> Any:
    """Memory for so many tensors like this one."""
    shape = (count, *first.shape)
    if _slots and first.nbytes * count >= LARGE_BYTES:
        with contextlib.suppress(OSError):
            return _slots[-1].empty(shape, first.dtype)
    return torch.empty(shape, dtype=first.dtype)


def _is_plain(tensor: Any) -> bool:
    is_special = tensor.is_nested or tensor.is_quantized or tensor.device.type != "cpu"
    return type(tensor) is torch.Tensor and tensor.layout is torch.strided and not is_special
