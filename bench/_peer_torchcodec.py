"""The contender torch's DataLoader + torchcodec: a map-style dataset with a VideoDecoder for each file and worker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from _peer import contend, leave

try:
    import _torchvision_shim  # noqa: F401, I001  before anything that imports torchvision
    import torch
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    from _map_style import MapStyleSide
except (ImportError, OSError, RuntimeError) as error:
    leave(error)


class Frames:
    """One thread a decoder, which its documentation advises where several run in parallel; it resizes, too."""

    def __init__(self, file: str, image_size: Sequence[int] | None) -> None:
        self.decoder = VideoDecoder(file, transforms=[Resize(tuple(image_size))] if image_size else None)

    def pictures(self, frames: Sequence[int]) -> torch.Tensor:
        if len(frames) == 1:
            return self.decoder.get_frame_at(frames[0]).data[None]
        return self.decoder.get_frames_at(list(frames)).data


def make(*, image_size: Any, **settings: Any) -> MapStyleSide:
    return MapStyleSide(partial(Frames, image_size=image_size), **settings)


if __name__ == "__main__":
    contend(make, torch=version("torch"), torchcodec=version("torchcodec"))
