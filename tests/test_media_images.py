"""Still images: what decodes, what is refused, and the same resize as video."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from millpond._media.images import decode_image, resize_image
from millpond.errors import CorruptMedia

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.95])
def test_an_image_that_was_cut_short_is_corrupt(kind: str, share: float) -> None:
    data = _encoded(Image.fromarray(PICTURE), kind)
    with pytest.raises(CorruptMedia, match="does not decode"):
        decode_image(data[: int(share * len(data))])


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "TIFF"])
def test_of_an_animation_the_first_picture_is_taken(kind: str) -> None:
    pictures = [Image.fromarray(np.full((20, 30, 3), value, np.uint8)) for value in (40, 90, 200)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = _encoded(pictures[0], kind, save_all=True, append_images=pictures[1:], **options)
    assert np.array_equal(decode_image(data), np.asarray(pictures[0]))


def test_of_16_bits_of_grey_the_upper_8_are_kept() -> None:
    grey = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    for kind in ("PNG", "TIFF"):
        decoded = decode_image(_encoded(Image.fromarray(grey), kind))
        assert np.array_equal(decoded, np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, -1))


def test_colours_of_a_palette_are_kept_where_some_are_transparent() -> None:
    image = Image.fromarray(PICTURE).quantize(16)
    decoded = decode_image(_encoded(image, "PNG", transparency=bytes(range(16))))
    assert np.array_equal(decoded, np.asarray(image.convert("RGB")))


def _png_that_claims(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize("size", [(60_000, 60_000), (9_500, 9_500), (0x7FFF_FFFF, 0x7FFF_FFFF)])
def test_a_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(CorruptMedia, match=r"bomb|does not decode"):
            decode_image(_png_that_claims(*size))


def test_a_bomb_within_an_icon_is_refused() -> None:
    png = _png_that_claims(60_000, 60_000)
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(png), 22)
    with pytest.raises(CorruptMedia, match="does not decode"):
        decode_image(struct.pack("<HHH", 0, 1, 1) + entry + png)


def test_every_flipped_bit_of_a_png_is_found() -> None:
    data = _encoded(Image.fromarray(PICTURE), "PNG")
    for at in range(len(data) - 12):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(CorruptMedia, match="does not decode"):
            decode_image(bytes(damaged))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "TIFF", "AVIF", "JPEG2000", "BMP", "ICO", "PCX", "TGA"])
def test_damage_gives_a_picture_or_is_corrupt(kind: str) -> None:
    data, chance = _encoded(Image.fromarray(PICTURE), kind), random.Random(0)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged) if chance.random() < 0.5 else 40)] = chance.randrange(256)
        with warnings.catch_warnings(), contextlib.suppress(CorruptMedia):
            warnings.simplefilter("ignore")  # of Pillow, over EXIF and bombs
            assert decode_image(bytes(damaged)).shape[2:] == (3,)


def test_a_program_is_not_run() -> None:
    data = _encoded(Image.fromarray(PICTURE), "EPS")
    with pytest.raises(CorruptMedia, match="EPS, a program"):
        decode_image(data)


def test_an_error_calls_the_image_what_it_is_called() -> None:
    with pytest.raises(CorruptMedia, match=r"^3 bytes of image does not decode"):
        decode_image(b"abc")
    with pytest.raises(CorruptMedia, match=r"^'a\.png' does not decode"):
        decode_image(b"abc", "'a.png'")


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
