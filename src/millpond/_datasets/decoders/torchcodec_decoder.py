"""Frames by torchcodec, where it is installed. It knows by the sample table which frames there are."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torchcodec.decoders import VideoDecoder
from torchcodec.transforms import Resize

from millpond._datasets.decoders.frame_decoder import Write
from millpond._datasets.decoders.handles import ContentsFile, Handle
from millpond._datasets.decoders.stream_decoder import StreamDecoder
from millpond._datasets.frame_times import frame_mappings, mappings_from_the_start
from millpond._media.video_file import FileBytes
from millpond._plan.sample_table import SampleTable
from millpond._values import ByteRange
from millpond.errors import CorruptMedia, DataError, UnsupportedFormat

_LIVE_BYTES, _LIVE_BYTES_PER_PIXEL = 1 << 20, 15
"""About what a live decoder takes: ten pictures of 4:2:0, beside its contexts. Measured, as growth of RSS a decoder:
5.7 MB (H.264) and 2.4 MB (AV1 at GOP 2) at 640x480, 13.0 and 14.5 MB (AV1 at GOP 30) at 1280x720."""

_MOST_CALL_BYTES = 16 << 20
"""Of pictures decoded by one call: torchcodec makes room for all of a call, beside that which they go to."""

_SEARCHED_CODECS = ("h264", "hevc")
"""Whose keyframes may be points of recovery, from which torchcodec shows the frames that follow late, or not at all."""


class TorchcodecDecoder(StreamDecoder):
    """Decodes frames of one video with torchcodec; `get_decoder(path, backend="torchcodec")` of a cache makes it.

    `decoder[i]`, `decoder[a:b]`, `get_frames_at` and the others are those of `PyAVDecoder`. Any thread, one call at a
    time; it keeps a codec context. It works until the cache evicts it, which `cache.lease(path)` prevents.

    What it promises: no frame comes under another's number, for the time of each that comes is held against the sample
    table; and none of a file that changed. Frames are those of `PyAVDecoder`, to the bit in 8-bit progressive video
    where no size is asked for. Two things are different:

    - torchcodec takes the FFmpeg of the machine, whose version converts 10-bit and interlaced pictures in its own way
      (on average 2 to 5 of 255 apart), and it resizes in another way (1 to 2 of 255 apart at 224x224, up to 67).
    - A damaged packet that FFmpeg conceals comes as a picture that is wrong, without an error, and one that it refuses
      takes some frames before it along. `PyAVDecoder` raises for both, and for the frames of that GOP alone.

    Where a stream cannot be entered at its keyframes (MPEG-TS, intra refresh), it is decoded from its beginning.

    Args:
        table: Of the stream.
        handle: What it reads through.
        image_size: (height, width) that pictures are resized to, by torchcodec's own `Resize`; None keeps theirs.

    Raises:
        CorruptMedia: torchcodec does not open it.
        UnsupportedFormat: An AVI whose times FFmpeg guesses, each version its own way.
    """

    def __init__(self, table: SampleTable, handle: Handle, *, image_size: tuple[int, int] | None = None) -> None:
        super().__init__(table, handle, image_size)
        if handle.contents.read(ByteRange(8, 12)) == b"AVI " and table.frame_seconds[0] != 0:
            raise UnsupportedFormat(
                f"{handle.path} is an AVI, which keeps no times of frames, and each version of FFmpeg guesses others: "
                "torchcodec may take one frame for another; decode it with backend 'pyav', or write it as MP4",
                path=handle.path.label,
            )
        self.nbytes += _LIVE_BYTES + _LIVE_BYTES_PER_PIXEL * table.stream.width * table.stream.height
        self._live = _LiveDecoder(table, handle, image_size)
        self._lock = threading.Lock()
        self._most_frames = max(_MOST_CALL_BYTES // (3 * self.metadata.height * self.metadata.width), 1)
        handle.also_close(self._live.close)
        try:
            self._live.open()
        except _Failed as error:
            raise CorruptMedia(
                f"{handle.path} does not open with torchcodec: {error}", path=handle.path.label
            ) from None

    def _decode(self, positions: NDArray[np.int64], write: Write) -> None:
        """See `FrameDecoder`."""
        with self._handle.in_use(), self._lock:
            try:
                self._handle.contents.check_identity()
                for start in range(0, len(positions), self._most_frames):
                    for j, picture in enumerate(self._pictures(positions[start : start + self._most_frames]), start):
                        write(j, picture)
                self._handle.contents.check_identity()  # what was read was still the file that was opened
            except _Failed as error:
                told = CorruptMedia(f"{self.path} does not decode: {error}", path=self.path.label)
                raise self._told(told, error.frame) from None
            except DataError as error:
                raise self._told(error, int(positions[0])) from error.__cause__

    def _pictures(self, frames: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """Each picture: uint8, (H, W, 3). Where they do not come together, one by one, up to the one that fails."""
        try:
            together = self._live.pictures(frames)
        except _Failed:
            if len(frames) == 1:
                raise
        else:
            yield from together
            return
        for one in np.split(frames, len(frames)):
            yield from self._live.pictures(one)


class _Failed(Exception):
    """What torchcodec says of a frame."""

    def __init__(self, reason: str, frame: int = 0) -> None:
        super().__init__(reason)
        self.frame = frame


class _LiveDecoder:
    """torchcodec's decoder, opened at need: after `close`, and after an error that may have left it in disorder."""

    def __init__(self, table: SampleTable, handle: Handle, image_size: tuple[int, int] | None) -> None:
        self._table = table
        self._contents = handle.contents
        self._transforms = None if image_size is None else [Resize(image_size)]
        self._half_tick = table.stream.time_base[0] / table.stream.time_base[1] / 2
        self._is_searched = table.backend == "container" or table.stream.codec_name in _SEARCHED_CODECS
        self._from_the_start = False
        self._opened: tuple[VideoDecoder, _Source] | None = None

    def close(self) -> None:
        """Give the memory back."""
        self._opened = None

    def open(self) -> tuple[VideoDecoder, _Source]:
        """What is open, or is opened now.

        Raises:
            _Failed: torchcodec does not open it.
            DataError: It cannot be read.
        """
        if self._opened is None:
            source = _Source(self._contents, self._table.identity.size_bytes)
            mappings = mappings_from_the_start if self._from_the_start else frame_mappings
            try:
                try:
                    decoder = self._decoder(source, mappings(self._table))
                except ValueError:  # a header that does not tell how long it is: torchcodec then reads all of it
                    source.seek(0)
                    decoder = self._decoder(source, None)
                    if len(decoder) != self._table.num_frames:
                        raise _Failed(f"it finds {len(decoder)} frames, not {self._table.num_frames}") from None
            except (RuntimeError, ValueError) as error:
                raise source.first_error or _Failed(_first_line(error)) from None
            self._opened = decoder, source
        return self._opened

    def pictures(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode some frames.

        Args:
            frames: int64, (n,), ascending.

        Returns:
            uint8, (n, H, W, 3).

        Raises:
            _Failed: They do not come, or others do.
            DataError: It cannot be read.
        """
        try:
            return self._try(frames)
        except _Failed:
            if not self._is_searched or self._from_the_start:
                raise
        self._from_the_start = True
        try:
            return self._try(frames)
        except _Failed:
            self._from_the_start = False
            raise

    def _try(self, frames: NDArray[np.int64]) -> NDArray[np.uint8]:
        decoder, source = self.open()
        try:
            batch = decoder.get_frames_at(torch.from_numpy(frames))
            if source.first_error is not None:
                raise source.first_error
            seconds = batch.pts_seconds.numpy()
            others = np.flatnonzero(np.abs(seconds - self._table.frame_seconds[frames]) > self._half_tick)
            if len(others):
                reason = f"torchcodec shows the frame of {seconds[others[0]]:.6f} s"
                raise _Failed(reason, int(frames[others[0]]))
        except RuntimeError as error:
            self.close()
            raise source.first_error or _Failed(_first_line(error), int(frames[0])) from None
        except BaseException:
            self.close()
            raise
        pictures: NDArray[np.uint8] = batch.data.numpy()
        return pictures

    def _decoder(self, source: _Source, mappings: str | None) -> VideoDecoder:
        with torch.device("cpu"):  # whatever torch's default is
            decoder = VideoDecoder(
                source,
                stream_index=self._table.stream.stream_index,
                dimension_order="NHWC",
                transforms=self._transforms,
                custom_frame_mappings=mappings,
            )
        if source.first_error is not None:
            raise source.first_error
        return decoder


class _Source(ContentsFile):
    """A file object for torchcodec, which makes something else of exceptions, or takes none: it is told of the end."""

    def __init__(self, contents: FileBytes, size_bytes: int) -> None:
        super().__init__(contents, size_bytes)
        self.first_error: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        """All that was asked for, up to the end of the file; nothing any more once it could not be read."""
        if self.first_error is not None:
            return b""
        try:
            return super().read(size)
        except BaseException as error:  # noqa: BLE001 - it is raised where torchcodec was called
            self.first_error = error
            return b""


def _first_line(error: Exception) -> str:
    """What torchcodec says, without where in its source it says so."""
    return str(error).splitlines()[0].rpartition(".cpp:")[2].partition(", ")[2] or str(error).splitlines()[0]
