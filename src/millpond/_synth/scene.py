"""Moving pictures that cost a codec about what real footage does, each with its pattern."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from millpond._synth.pattern import draw_pattern

_PAN_PIXELS = 64  # how far the view travels over the texture
_GRAINS = 8  # pictures of film grain, taken in turn
_GRAIN_LEVELS = 2.0  # standard deviation, of 255
_LUMA_OCTAVES = ((4, 48.0), (12, 26.0), (40, 12.0), (120, 9.0), (320, 9.0))  # cells across the picture, contrast
_CHROMA_OCTAVES = ((3, 22.0), (9, 10.0))


class Scene:
    """A textured world that one camera pans over.

    Texture and grain were chosen so that the packets are about as large as those of real robot footage at 640x480:
    10 kB a frame for AV1 at GOP 2, 2 kB for H.264 at GOP 30.

    Args:
        height: Of the picture, even, pixels.
        width: Of the picture, even, pixels.
        seed: Each seed gives another texture.
    """

    def __init__(self, height: int, width: int, seed: int) -> None:
        if height % 2 or width % 2:
            raise ValueError(f"the size must be even for 4:2:0, not width {width}, height {height}")
        rng = np.random.default_rng([seed, height, width])
        self.height, self.width = height, width
        tall, wide = height + _PAN_PIXELS, width + _PAN_PIXELS
        self._luma = _texture(rng, tall, wide, _LUMA_OCTAVES, middle=120.0)
        self._chroma = [_texture(rng, tall // 2, wide // 2, _CHROMA_OCTAVES, middle=128.0) for _ in range(2)]
        # Added modulo 256; the texture stays within 40 to 200, so nothing wraps.
        self._grain = rng.normal(0.0, _GRAIN_LEVELS, (_GRAINS, height, width)).round().astype(np.int8).view(np.uint8)

    def pictures(self, episode: int, camera: int, num_frames: int) -> Iterator[NDArray[np.uint8]]:
        """The frames of one episode as yuv420p, uint8 (H * 3 / 2, W); each is valid until the next is asked for."""
        picture = np.empty((self.height * 3 // 2, self.width), dtype=np.uint8)
        luma, chroma = picture[: self.height], picture[self.height :].reshape(2, self.height // 2, self.width // 2)
        phase = np.random.default_rng([episode, camera]).uniform(0.0, 2 * math.pi, 2)
        for frame in range(num_frames):
            top, left = (2 * round(_PAN_PIXELS / 4 * (1 + math.sin(p + frame / 24))) for p in phase)
            np.add(
                self._luma[top : top + self.height, left : left + self.width],
                self._grain[frame % _GRAINS],
                out=luma,
            )
            for plane, texture in zip(chroma, self._chroma, strict=True):
                plane[:] = texture[
                    top // 2 : top // 2 + self.height // 2,
                    left // 2 : left // 2 + self.width // 2,
                ]
            self._draw_arm(luma, frame, phase)
            draw_pattern(luma, episode, camera, frame)
            _grey_under_pattern(chroma)
            yield picture

    def _draw_arm(self, luma: NDArray[np.uint8], frame: int, phase: NDArray[np.float64]) -> None:
        """Something that moves against the background, in the lower half."""
        tall, wide = self.height // 6, self.width // 6
        top = self.height // 2 + round((self.height // 2 - tall) * (0.5 + 0.5 * math.sin(phase[0] + frame / 11)))
        left = round((self.width - wide) * (0.5 + 0.5 * math.sin(phase[1] + frame / 17)))
        luma[top : top + tall, left : left + wide] = self._luma[:tall, :wide] // 2 + 90


def _grey_under_pattern(chroma: NDArray[np.uint8]) -> None:
    chroma[:, : (chroma.shape[1] + 1) // 2, : (chroma.shape[2] + 1) // 2] = 128


def _texture(
    rng: np.random.Generator, height: int, width: int, octaves: tuple[tuple[int, float], ...], middle: float
) -> NDArray[np.uint8]:
    """Smooth noise: for each (cells across the picture, contrast) a random grid, blown up."""
    total = np.full((height, width), middle)
    for cells, contrast in octaves:
        grid = rng.uniform(-contrast, contrast, (max(2, cells * height // width), cells)).astype(np.float32)
        total += np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
    return total.clip(40, 200).astype(np.uint8)
