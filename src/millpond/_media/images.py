"""Still images, decoded and resized with the same words as video frames."""

from __future__ import annotations

import io
import struct
import zlib

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from millpond._media.media_path import name_of_bytes
from millpond._media.pictures import interpolation_flag, picture_view, thread_reformatter
from millpond.errors import CorruptMedia

MAX_IMAGE_PIXELS = 89_478_485
"""A larger image is taken for a decompression bomb: 268 MB as RGB, and where Pillow begins to warn of one, too."""

_PROGRAMS = ("EPS",)
"""Pillow would start Ghostscript and have it run what a stranger wrote."""

_PNG = b"\x89PNG\r\n\x1a\n"


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


def decode_image(data: bytes, name: object = None) -> NDArray[np.uint8]:
    """Decode a PNG, JPEG, WebP or whatever else Pillow reads; of an animation the first picture.

    Args:
        data: The whole file.
        name: What errors call it; None: so many bytes of image.

    Returns:
        uint8, (H, W, 3), RGB; alpha is dropped, grey is repeated, the EXIF orientation is applied, as
        Hugging Face datasets does and so LeRobot. Of 16 bits of grey the upper 8 are kept, as of 16 bits of colour.

    Raises:
        CorruptMedia: It does not decode, is cut short, or is too large to be an image. (Unless the process has set
            `PIL.ImageFile.LOAD_TRUNCATED_IMAGES`: then Pillow fills what is missing with grey.)
    """
    name = name_of_bytes(len(data), "image") if name is None else name
    try:
        if data.startswith(_PNG):
            _require_png_checksums(data, name)
        with Image.open(io.BytesIO(data)) as image:
            _refuse(image, name)
            return np.array(_rgb(ImageOps.exif_transpose(image)))
    except CorruptMedia:
        raise
    except UnidentifiedImageError as error:  # its own words name an object that the caller never made
        what = "is no image of a kind that Pillow reads" if len(data) else "is empty"
        raise CorruptMedia(f"{name} does not decode: it {what}", size_bytes=len(data)) from error
    except Exception as error:  # Pillow's plugins raise a dozen kinds over bad bytes
        raise CorruptMedia(f"{name} does not decode: {error}", size_bytes=len(data)) from error


def _refuse(image: Image.Image, name: object) -> None:
    """Raise CorruptMedia for what must not even be tried."""
    if image.format in _PROGRAMS:
        raise CorruptMedia(
            f"{name} does not decode: it is {image.format}, a program that would be run", format=image.format
        )
    if image.width * image.height > MAX_IMAGE_PIXELS:
        raise CorruptMedia(
            f"{name} says that it is {image.width}x{image.height}: more than {MAX_IMAGE_PIXELS} pixels, taken for a "
            "decompression bomb and not decoded",
            width=image.width,
            height=image.height,
        )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow would make everything above 255 white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # the same colours, without Pillow's warning
    return image.convert("RGB")


def _require_png_checksums(data: bytes, name: object) -> None:
    """Pillow looks at some of them; those of the chunks that make the picture must all be right."""
    position, kind = len(_PNG), b""
    while kind != b"IEND" and position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        stop = position + 8 + length
        is_needed = kind[:1].isupper()
        if is_needed and data[stop : stop + 4] != zlib.crc32(data[position + 4 : stop]).to_bytes(4, "big"):
            raise CorruptMedia(f"{name} does not decode: the checksum of chunk {kind!r} at byte {position} is wrong")
        position = stop + 4
