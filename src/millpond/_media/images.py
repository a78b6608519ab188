"""Still images, decoded and resized with the same words as video frames."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from millpond._media.media_path import MediaPath, name_of_bytes
from millpond._media.pictures import interpolation_flag, picture_view, thread_reformatter
from millpond.errors import CorruptMedia

MAX_IMAGE_PIXELS = 89_478_485
"""A larger image is taken for a decompression bomb: 268 MB as RGB, and where Pillow begins to warn of one, too."""

_PROGRAMS = ("EPS",)
"""Pillow would start Ghostscript and have it run what a stranger wrote."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_EXIF_CHUNKS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
"""Text may hold it as well, as older programs write it."""

_ORIENTATION = 0x0112  # of EXIF
_TURNED = (5, 6, 7, 8)


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
    with _opened(data, name) as image:
        if data.startswith(_PNG):
            _require_png_checksums(data, _name(data, name))
        return np.array(_rgb(ImageOps.exif_transpose(image)))


def size_of_image(data: bytes, name: object = None) -> tuple[int, int]:
    """(height, width) of the picture that `decode_image` makes, from its header; raises as that does."""
    with _opened(data, name) as image:
        is_turned = _may_have_exif(data) and image.getexif().get(_ORIENTATION, 1) in _TURNED
        return (image.width, image.height) if is_turned else (image.height, image.width)


@contextlib.contextmanager
def _opened(data: bytes, name: object) -> Iterator[Image.Image]:
    """The image, its header read; what Pillow raises in the block is CorruptMedia."""
    called = _name(data, name)
    facts = {"size_bytes": len(data)} | ({"path": name.label} if isinstance(name, MediaPath) else {})
    try:
        with Image.open(io.BytesIO(data)) as image:
            _refuse(image, called)
            yield image
    except CorruptMedia as error:
        error.facts |= facts
        raise
    except UnidentifiedImageError as error:  # its own words name an object that the caller never made
        what = "is no image of a kind that Pillow reads" if len(data) else "is empty"
        raise CorruptMedia(f"{called} does not decode: it {what}", **facts) from error
    except Exception as error:  # Pillow's plugins raise a dozen kinds over bad bytes
        raise CorruptMedia(f"{called} does not decode: {error}", **facts) from error


def _name(data: bytes, name: object) -> object:
    return name_of_bytes(len(data), "image") if name is None else name


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
    for position, kind, stop in _png_chunks(data):
        is_needed = kind[:1].isupper()
        if is_needed and data[stop : stop + 4] != zlib.crc32(data[position + 4 : stop]).to_bytes(4, "big"):
            raise CorruptMedia(f"{name} does not decode: the checksum of chunk {kind!r} at byte {position} is wrong")


def _may_have_exif(data: bytes) -> bool:
    """False where it is sure that there is none: Pillow decodes a PNG as a whole to look behind its pixels, too."""
    return not data.startswith(_PNG) or any(kind in _PNG_EXIF_CHUNKS for _, kind, _ in _png_chunks(data))


def _png_chunks(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Where each chunk begins, its kind, and where its data end."""
    position, kind = len(_PNG), b""
    while kind != b"IEND" and position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield position, kind, position + 8 + length
        position += 12 + length
