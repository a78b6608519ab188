"""Still images, decoded and resized with the same words as video frames."""

from __future__ import annotations

import io
import warnings

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from millpond._media.pictures import interpolation_flag, picture_view, thread_reformatter
from millpond.errors import CorruptMedia

MAX_IMAGE_PIXELS = 100_000_000
"""A larger image is taken for a decompression bomb: 300 MB as RGB, ten times what a camera makes."""


def resize_image(
    picture: NDArray[np.uint8], image_size: tuple[int, int], *, interpolation: str = "bilinear"
) -> NDArray[np.uint8]:
    """Resize one picture.

    Args:
        picture: uint8, (H, W, 3), RGB.
        image_size: (height, width) wanted.
        interpolation: "bilinear", "area" or "bicubic", as for video.

    Returns:
        uint8, (height, width, 3), contiguous, its own memory.
    """
    flag = interpolation_flag(interpolation)
    if picture.shape[:2] == image_size:
        return np.ascontiguousarray(picture).copy()
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    height, width = image_size
    resized = thread_reformatter().reformat(frame, width, height, "rgb24", interpolation=flag, threads=1)
    return np.ascontiguousarray(picture_view(resized))


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode a PNG, JPEG, WebP or whatever else Pillow reads.

    Args:
        data: The whole file.

    Returns:
        uint8, (H, W, 3), RGB; alpha is dropped, grey is repeated, the EXIF orientation is applied, as
        Hugging Face datasets does and so LeRobot.

    Raises:
        CorruptMedia: It does not decode, is cut short, or is too large to be an image.
    """
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            _refuse_bomb(image.width, image.height)
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except CorruptMedia:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise CorruptMedia(f"an image of {len(data)} bytes does not decode: {error}", size_bytes=len(data)) from error


def _refuse_bomb(width: int, height: int) -> None:
    if width * height > MAX_IMAGE_PIXELS:
        raise CorruptMedia(
            f"an image says that it is {width}x{height}: more than {MAX_IMAGE_PIXELS} pixels, taken for a "
            "decompression bomb and not decoded",
            width=width,
            height=height,
        )
