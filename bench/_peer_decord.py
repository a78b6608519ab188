"""The contender torch's DataLoader + decord2: `get_batch` of all frames that a batch wants of a file, ascending."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from _peer import contend, leave

try:
    import torch
    from decord import VideoReader

    from _map_style import MapStyleSide
except (ImportError, OSError, RuntimeError) as error:
    leave(error)


class Frames:
    """One thread a reader, as there is a process for each core; it resizes, too."""

    def __init__(self, file: str, image_size: Sequence[int] | None) -> None:
        height, width = image_size or (-1, -1)
        self.reader = VideoReader(file, width=width, height=height, num_threads=1)

    def pictures(self, frames: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(self.reader.get_batch(list(frames)).asnumpy())


def make(*, image_size: Any, **settings: Any) -> MapStyleSide:
    return MapStyleSide(partial(Frames, image_size=image_size), is_batched=True, **settings)


if __name__ == "__main__":
    contend(make, torch=version("torch"), decord2=version("decord2"))
