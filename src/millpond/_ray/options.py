"""How a read task reads: what travels to each of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from millpond._amounts import parse_bytes
from millpond._checks import check_integer, check_positive

OnError = Literal["raise", "skip", "placeholder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """What `read_lerobot` was asked for, apart from what is read.

    Attributes:
        batch_size: Rows that are decoded together; None: up to 32, as few as `memory_bytes` asks for.
        memory_bytes: Budget of a task's loader.
        decode_workers: Decoding processes of a task; 0 decodes in Ray's.
        shuffle: Whether order is shuffled.
        seed: Of the order.
        on_error: As of `Loader`.
        max_errors: Fraction of a task's samples that may be bad; None: all.
        quarantine: The folder for what was bad: an absolute path on whichever node.
        timeout: As of `Loader`.
        stall_timeout: As of `Loader`.
        video_fetch_workers: As of `Loader`.
        channels_last: Whether pictures are (H, W, 3).
    """

    batch_size: int | None
    memory_bytes: int
    decode_workers: int
    shuffle: bool
    seed: int
    on_error: OnError
    max_errors: float | None
    quarantine: str
    timeout: float | None
    stall_timeout: float | None
    video_fetch_workers: int
    channels_last: bool


def checked_options(
    *,
    batch_size: Any,
    memory: Any,
    decode_workers: Any,
    shuffle: bool,
    seed: Any,
    on_error: Any,
    max_errors: Any,
    quarantine: str | os.PathLike[str],
    timeout: Any,
    stall_timeout: Any,
    video_fetch_workers: Any,
    channels_last: bool,
) -> ReadOptions:
    """What tasks are given; TypeError or ValueError here, before there are any, for what cannot work."""
    if batch_size is not None:
        check_integer("batch_size", batch_size, least=1)
    check_integer("decode_workers", decode_workers, least=0)
    check_integer("seed", seed, least=0)
    check_integer("video_fetch_workers", video_fetch_workers, least=1)
    check_positive("timeout", timeout)
    check_positive("stall_timeout", stall_timeout)
    if on_error not in ("raise", "skip", "placeholder"):
        raise ValueError(f'on_error must be "raise", "skip" or "placeholder", not {on_error!r}')
    _check_max_errors(max_errors, on_error)
    return ReadOptions(
        batch_size=batch_size,
        memory_bytes=parse_bytes(memory),
        decode_workers=decode_workers,
        shuffle=shuffle,
        seed=seed,
        on_error=on_error,
        max_errors=max_errors,
        quarantine=str(Path(quarantine).absolute()),
        timeout=timeout,
        stall_timeout=stall_timeout,
        video_fetch_workers=video_fetch_workers,
        channels_last=channels_last,
    )


def _check_max_errors(value: Any, on_error: str) -> None:
    if value is None:
        return
    if not isinstance(value, float) or not 0 <= value < 1:
        raise ValueError(
            f"max_errors must be a fraction (float) from 0.0 to below 1.0, not {value!r}: tasks on many nodes do not "
            "count together, and each has the same fraction of its own samples"
        )
    if on_error == "raise":
        raise ValueError('max_errors counts samples that are bad: it needs on_error="skip" or "placeholder"')
