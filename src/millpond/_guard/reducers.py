"""How arrays and tensors are pickled so that their data travels as buffers, whatever their layout.

numpy does so for contiguous arrays only, and torch for none. Here an array with permuted axes (a picture as channels,
height, width over memory that has the channels last) is its memory and the order of its axes; an array with gaps is
copied together first. Used for results and arguments; the reducers that a program has registered itself stay as
they are.
"""

from __future__ import annotations

import copyreg
import functools
import sys
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reducer = Callable[[Any], Any]

_PLAIN_KINDS = frozenset("biufc")
"""Kinds of dtypes that a short text names and that buffers can have. numpy's own way for the others, and for these too
but for its cost: it pickles the dtype as an object, 20 us together where caches are cold."""


def reducers() -> dict[type, Reducer]:
    """The table for a pickler: what is registered in this process, and those of this module."""
    table: dict[type, Reducer] = {**copyreg.dispatch_table, np.ndarray: reduce_array}
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "Tensor"):  # it may be half imported, by another thread
        table[torch.Tensor] = reduce_tensor
    return table


def is_plain(array: NDArray[Any]) -> bool:
    """Whether a buffer, a short text for the dtype and the shape are all there is to an array."""
    return array.dtype.kind in _PLAIN_KINDS and array.flags.c_contiguous


def reduce_array(array: NDArray[Any]) -> Any:
    """For pickle: an array in any layout."""
    if array.dtype.kind not in _PLAIN_KINDS:
        return array.__reduce_ex__(5)
    if array.flags.c_contiguous:
        return _array, (PickleBuffer(array), array.dtype.str, array.shape)  # type: ignore[arg-type] # arrays are buffers
    axes = _memory_order(array.strides)
    dense = array.transpose(axes)
    if not dense.flags.c_contiguous:
        dense = dense.copy()
        dense.flags.writeable = array.flags.writeable
    return _permuted, (dense, _inverse(axes))


def _array(buffer: Any, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    return np.ndarray(shape, dtype, buffer)


def reduce_tensor(tensor: Any) -> Any:
    """For pickle: a dense tensor in the memory of this process; every other one is left to torch."""
    import torch

    is_dense = tensor.layout is torch.strided and tensor.device.type == "cpu"
    is_special = tensor.is_quantized or tensor.is_nested
    if not is_dense or is_special or tensor.__dict__ or tensor._backward_hooks:
        return tensor.__reduce_ex__(5)
    data = tensor.detach().resolve_conj().resolve_neg()
    axes = _memory_order(data.stride())
    dense = data.permute(axes).contiguous()
    # As bytes: numpy has no bfloat16.
    plain = dense.reshape(-1).view(torch.uint8).numpy() if dense.numel() else np.empty(0, np.uint8)
    return _tensor, (plain, str(dense.dtype), tuple(dense.shape), _inverse(axes), tensor.requires_grad)


def _memory_order(strides: tuple[int, ...]) -> tuple[int, ...]:
    """The axes from the one with the widest stride to the one with the narrowest."""
    return tuple(sorted(range(len(strides)), key=lambda axis: -abs(strides[axis])))


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def _permuted(dense: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    return dense.transpose(axes)


def _tensor(
    plain: NDArray[np.uint8], dtype: str, shape: tuple[int, ...], axes: tuple[int, ...], requires_grad: bool
) -> Any:
    import torch

    kind = _torch_dtype(dtype)
    flat = torch.from_numpy(plain).view(kind) if plain.size else torch.empty(0, dtype=kind)
    return flat.reshape(shape).permute(axes).requires_grad_(requires_grad)


@functools.cache
def _torch_dtype(name: str) -> Any:
    import torch

    return getattr(torch, name.removeprefix("torch."))
