"""Pinned memory: the next batch is copied to it by a thread, while the consumer works on the present one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch.utils.data._utils.pin_memory import pin_memory


class Pinner:
    """Copies one batch ahead to pinned memory.

    Args:
        device: Kind of the accelerator, as torch's iterator finds it.
    """

    def __init__(self, device: str | None) -> None:
        self._device = device
        self._ahead: Future[Any] | None = None
        self._thread = ThreadPoolExecutor(
            1, "millpond-pin", _settle_thread, (torch.accelerator.current_device_index(),)
        )

    def begin(self, unpack: Callable[[], Any]) -> None:
        """Have the thread unpack and pin a batch."""
        self._ahead = self._thread.submit(lambda: self.pinned(unpack()))

    def pinned(self, data: Any) -> Any:
        """A batch in pinned memory."""
        return pin_memory(data, self._device)

    def take(self) -> Any:
        """What was begun, waited for; raises what unpacking or pinning raised."""
        assert self._ahead is not None
        ahead, self._ahead = self._ahead, None
        return ahead.result()

    def close(self) -> None:
        """End the thread. Idempotent."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def _settle_thread(device_index: int) -> None:
    # As torch's own pinning thread: its copies shall not take a core each.
    torch.set_num_threads(1)
    torch.accelerator.set_device_index(device_index)
