"""From decoded frames to RGB pictures: size, colour and rotation in one pass of swscale."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from millpond._media.options import INTERPOLATION_NAMES, require_interpolation
from millpond._plan.sample_table import SampleTable
from millpond.errors import CorruptMedia

INTERPOLATIONS = {name: int(Interpolation[name.upper()]) for name in INTERPOLATION_NAMES}
"""swscale's flags by name."""

_per_thread = threading.local()


def interpolation_flag(name: str) -> int:
    """Look the name up.

    Raises:
        ValueError: No such interpolation.
    """
    require_interpolation(name)
    return INTERPOLATIONS[name]


def thread_reformatter() -> VideoReformatter:
    """This thread's reformatter: reused, since its tables cost as much as a frame to set up."""
    reformatter: VideoReformatter | None = getattr(_per_thread, "reformatter", None)
    if reformatter is None:
        reformatter = _per_thread.reformatter = VideoReformatter()
    return reformatter


def picture_view(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """See the plane of an rgb24 frame as uint8, (H, W, 3); valid as long as the frame."""
    plane: Any = frame.planes[0]  # it has the buffer protocol, which its stub does not say
    return np.ndarray((frame.height, frame.width, 3), np.uint8, buffer=plane, strides=(plane.line_size, 3, 1))


def upright(picture: NDArray[np.uint8], rotation_degrees: int, is_mirrored: bool) -> NDArray[np.uint8]:
    """Turn a picture as its stream says: flipped left to right if mirrored, then counterclockwise; a view."""
    if is_mirrored:
        picture = picture[:, ::-1]
    return np.rot90(picture, rotation_degrees // 90)


class PictureMaker:
    """Makes the pictures of one stream, in one size; used by one thread.

    Args:
        table: Says how large frames are and how they are turned.
        image_size: (height, width) of the upright picture; None keeps the stream's own.
        interpolation: A key of `INTERPOLATIONS`; where nothing is resized the chroma is bilinear, as in PyAV.
    """

    def __init__(self, table: SampleTable, image_size: tuple[int, int] | None, interpolation: str) -> None:
        flag = interpolation_flag(interpolation)
        if image_size is None or image_size == table.picture_size:
            image_size, flag = table.picture_size, INTERPOLATIONS["bilinear"]
        height, width = image_size[::-1] if table.stream.rotation_degrees % 180 else image_size
        self._source = (table.stream.width, table.stream.height)
        self._target = (width, height)
        self._flag = flag
        self._turn = (table.stream.rotation_degrees, table.is_mirrored)
        self._reformat: Callable[..., av.VideoFrame] = thread_reformatter().reformat

    def picture(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Make the upright picture: uint8, (H, W, 3), RGB; a view of fresh memory that lives as long as the array.

        Raises:
            CorruptMedia: The frame has another size than its stream.
        """
        if (frame.width, frame.height) != self._source:
            raise CorruptMedia(
                f"a frame is {frame.width}x{frame.height} where its stream says {self._source[0]}x{self._source[1]}"
            )
        # `threads=1`: the default starts threads of its own, in every worker
        made = self._reformat(frame, *self._target, "rgb24", None, None, self._flag, threads=1)
        view = picture_view(made)
        if made is frame:
            view = view.copy()  # it was RGB already, and is the decoder's own: it may make the next one from it
        return view if self._turn == (0, False) else upright(view, *self._turn)
