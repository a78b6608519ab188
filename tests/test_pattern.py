"""The pattern says who a picture is, or raises."""

from __future__ import annotations

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from millpond._synth.pattern import draw_pattern, pattern_bits, read_pattern


def drawn(height: int, width: int, identity: tuple[int, int, int]) -> NDArray[np.uint8]:
    luma = np.full((height, width), 100, np.uint8)
    draw_pattern(luma, *identity)
    return np.repeat(luma[:, :, None], 3, axis=2)


@given(st.integers(0, 65_535), st.integers(0, 255), st.integers(0, 2**24 - 1), st.sampled_from([64, 96, 481]))
def test_a_drawn_identity_is_read_back(episode: int, camera: int, frame: int, height: int) -> None:
    assert read_pattern(drawn(height, 70, (episode, camera, frame))) == (episode, camera, frame)


@pytest.mark.parametrize("interpolation", ["AREA", "BILINEAR", "BICUBIC", "FAST_BILINEAR"])
@pytest.mark.parametrize("size", [(64, 64), (96, 128), (480, 640), (1080, 1920)])
def test_an_identity_survives_a_resize(size: tuple[int, int], interpolation: str) -> None:
    frame = av.VideoFrame.from_ndarray(drawn(*size, (513, 3, 70_000)), format="rgb24")
    resized = frame.reformat(224, 224, interpolation=interpolation).to_ndarray()
    assert read_pattern(resized.astype(np.uint8)) == (513, 3, 70_000)


@pytest.mark.parametrize("level", [0, 100, 255])
def test_a_plain_picture_has_no_identity(level: int) -> None:
    with pytest.raises(ValueError, match="pattern"):
        read_pattern(np.full((96, 96, 3), level, np.uint8))


def test_every_cell_is_under_the_checksum() -> None:
    for row, column in np.ndindex(8, 8):
        picture = drawn(96, 96, (5, 1, 77))
        picture[row * 6 : row * 6 + 6, column * 6 : column * 6 + 6] = 40 if pattern_bits(5, 1, 77)[row, column] else 215
        with pytest.raises(ValueError, match="checksum"):
            read_pattern(picture)


def test_a_blend_of_two_frames_has_no_identity() -> None:
    blend = drawn(96, 96, (5, 1, 77)) // 2 + drawn(96, 96, (5, 1, 78)) // 2
    with pytest.raises(ValueError, match="neither dark nor bright"):
        read_pattern(blend)


def test_numbers_and_pictures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="episode 65536"):
        pattern_bits(65_536, 0, 0)
    with pytest.raises(ValueError, match="too small"):
        drawn(62, 64, (0, 0, 0))
