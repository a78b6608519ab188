"""The contender torch's DataLoader + PyAV: a map-style dataset that seeks to the keyframe before and decodes on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from _peer import contend, leave

try:
    import av
    import torch

    from _map_style import MapStyleSide
except (ImportError, OSError, RuntimeError) as error:
    leave(error)


class Frames:
    """One thread a decoder, as there is a process for each core; pictures are made of the wanted frames only."""

    def __init__(self, file: str, image_size: Sequence[int] | None) -> None:
        self.container = av.open(file)
        self.stream = self.container.streams.video[0]
        self.stream.codec_context.thread_count = 1
        self.height, self.width = image_size or (None, None)

    def pictures(self, frames: Sequence[int]) -> torch.Tensor:
        wanted, found = set(frames), {}
        self.container.seek(self.pts(frames[0]), stream=self.stream)
        for frame in self.container.decode(self.stream):
            number = self.number(frame.pts)
            if number in wanted:
                picture = frame.to_ndarray(
                    format="rgb24", width=self.width, height=self.height, interpolation="BILINEAR"
                )
                found[number] = torch.from_numpy(picture)
            if number >= frames[-1]:
                break
        return torch.stack([found[number] for number in frames])

    def pts(self, number: int) -> int:
        return round(number / self.stream.average_rate / self.stream.time_base) + (self.stream.start_time or 0)

    def number(self, pts: int) -> int:
        return round((pts - (self.stream.start_time or 0)) * self.stream.time_base * self.stream.average_rate)


def make(*, image_size: Any, **settings: Any) -> MapStyleSide:
    return MapStyleSide(partial(Frames, image_size=image_size), **settings)


if __name__ == "__main__":
    contend(make, torch=version("torch"), av=version("av"))
