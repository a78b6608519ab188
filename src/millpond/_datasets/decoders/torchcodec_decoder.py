"""Frames by torchcodec, where it is installed. It knows by the sample table which frames there are."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray
from torchcodec.decoders import VideoDecoder
from torchcodec.transforms import Resize

from millpond._datasets.decoders.frame_decoder import Write
from millpond._datasets.decoders.handles import ContentsFile, Handle
from millpond._datasets.decoders.stream_decoder import StreamDecoder
from millpond._datasets.frame_times import frame_mappings
from millpond._plan.sample_table import SampleTable
from millpond.errors import CorruptMedia

_LIVE_BYTES = 5 << 20
"""About what a live decoder takes: 2.3 (AV1) to 4.8 MB (H.264) after 16 frames of 640x480."""

_MOST_FRAMES = 32
"""Decoded by one call: torchcodec makes room for all frames of a call, beside that which they go to."""


class TorchcodecDecoder(StreamDecoder):
    """See `StreamDecoder`. It decodes one call at a time, and keeps a codec context.

    Args:
        table: Of the stream.
        handle: What it reads through.
        image_size: (height, width) that pictures are resized to, by torchcodec's own `Resize`; None keeps theirs.

    Raises:
        CorruptMedia: torchcodec finds other frames than the table has, or none.
    """

    def __init__(self, table: SampleTable, handle: Handle, *, image_size: tuple[int, int] | None = None) -> None:
        super().__init__(table, handle, image_size)
        self.nbytes += _LIVE_BYTES
        self._lock = threading.Lock()
        by_packets = table.backend == "packets"
        try:
            self._torchcodec = VideoDecoder(
                ContentsFile(handle.contents, table.identity.size_bytes),
                stream_index=table.stream.stream_index,
                dimension_order="NHWC",
                seek_mode="exact",
                transforms=None if image_size is None else [Resize(image_size)],
                # of a stream that cannot be cut, torchcodec finds out by itself what frames there are
                custom_frame_mappings=frame_mappings(table) if by_packets else None,
            )
        except (RuntimeError, ValueError) as error:
            raise CorruptMedia(
                f"{handle.path} does not open with torchcodec: {error}", path=handle.path.label
            ) from None
        if len(self._torchcodec) != len(self):
            raise CorruptMedia(
                f"{handle.path} shows {len(self)} frames, of which torchcodec finds {len(self._torchcodec)}; decode it "
                "with backend 'pyav'",
                path=handle.path.label,
            )

    def _decode(self, positions: NDArray[np.int64], write: Write) -> None:
        """See `FrameDecoder`."""
        with self._handle.in_use(), self._lock:
            for start in range(0, len(positions), _MOST_FRAMES):
                part = positions[start : start + _MOST_FRAMES]
                try:
                    pictures = self._torchcodec.get_frames_at(part.tolist()).data.numpy()
                except RuntimeError as error:
                    told = CorruptMedia(f"{self.path} does not decode: {error}", path=self.path.label)
                    raise self._told(told, int(part[0])) from None
                for j, picture in enumerate(pictures):
                    write(start + j, picture)
