"""A decoder of the frames of one stream, over an open handle: what the cache keeps."""

from __future__ import annotations

import numpy as np

from millpond._datasets.decoders.frame_decoder import FrameDecoder
from millpond._datasets.decoders.handles import Handle
from millpond._plan.sample_table import SampleTable
from millpond.errors import DataError, retold

_OBJECT_BYTES = 8 << 10
"""About what the Python objects of a decoder take beside its arrays."""


class StreamDecoder(FrameDecoder):
    """Decodes frames of one video of a `VideoDecoderCache`, as torchcodec's `VideoDecoder` does. Any thread.

    It can be used until its handle is closed, as the cache does when it evicts it; `cache.lease(path)` keeps it open.

    Attributes:
        table: For datasets: the sample table.
        path: For datasets: what errors call the video.
        nbytes: About how much memory it holds, its handle included.

    Args:
        table: Of the stream.
        handle: What it reads through; closed by whoever opened it.
        image_size: (height, width) that pictures are resized to; None keeps theirs.
    """

    def __init__(self, table: SampleTable, handle: Handle, image_size: tuple[int, int] | None) -> None:
        super().__init__(table, image_size=image_size, name=str(handle.path))
        self.path = handle.path
        self._handle = handle
        arrays = [value for owner in (self, table) for value in vars(owner).values() if isinstance(value, np.ndarray)]
        self.nbytes = sum(array.nbytes for array in arrays) + handle.nbytes + _OBJECT_BYTES

    def _told(self, error: DataError, position: int) -> DataError:
        return retold(error, f"frame {position}", frame=position)
