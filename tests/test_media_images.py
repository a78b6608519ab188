"""Still images: what decodes, what is refused, and the same resize as video."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from millpond._media.images import decode_image, resize_image
from millpond.errors import CorruptMedia

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_a_png_is_decoded_exactly() -> None:
    assert np.array_equal(decode_image(_encoded(Image.fromarray(PICTURE), "PNG")), PICTURE)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(PICTURE).convert("I" if mode == "I;16" else mode)
    decoded = decode_image(_encoded(image, "TIFF"))
    assert decoded.shape == PICTURE.shape
    assert decoded.dtype == np.uint8


def test_the_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(_encoded(Image.fromarray(PICTURE), "PNG", exif=exif)).shape == (30, 20, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.95])
def test_an_image_that_was_cut_short_is_corrupt(kind: str, share: float) -> None:
    data = _encoded(Image.fromarray(PICTURE), kind)
    with pytest.raises(CorruptMedia, match="does not decode"):
        decode_image(data[: int(share * len(data))])


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(CorruptMedia, match=r"bomb|does not decode"):
        decode_image(data)


@pytest.mark.parametrize("interpolation", ["bilinear", "area", "bicubic"])
def test_a_resize_keeps_flat_colour_and_its_own_memory(interpolation: str) -> None:
    flat = np.full((40, 60, 3), (10, 100, 200), np.uint8)
    resized = resize_image(flat, (16, 24), interpolation=interpolation)
    assert resized.shape == (16, 24, 3)
    assert resized.flags.owndata
    assert np.abs(resized.astype(int) - flat[0, 0]).max() <= 1


def test_a_resize_to_the_same_size_is_a_copy() -> None:
    resized = resize_image(PICTURE, (20, 30))
    assert np.array_equal(resized, PICTURE)
    assert not np.shares_memory(resized, PICTURE)


def test_an_unknown_interpolation_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'bilinear', 'area', 'bicubic'"):
        resize_image(PICTURE, (5, 5), interpolation="lanczos")
