"""Are the pictures that came those of the samples? Held against a decode of the files from front to back.

A peer may have another FFmpeg, and each turns YUV into RGB and resizes in its own way, so pixels differ a little. Right
are pictures that differ by at most `TOLERANCE` levels of 255 in the mean, and of which no frame nearby (two to either
side) is nearer by more than `MARGIN`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from _lerobot_frames import LeRobotFrames

TOLERANCE = 3.0
MARGIN = 0.25
NEARBY = 2


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture that came.

    Attributes:
        side: Whose.
        sample: Its index.
        frame: The number that it should have in its file.
        picture: uint8, (H, W, C).
    """

    side: str
    sample: int
    frame: int
    picture: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Verdict:
    """Of one side's pictures.

    Attributes:
        pictures: How many were compared.
        difference_most: The greatest mean difference of one of them, in levels of 255.
        wrong: What is wrong with the first one that is; "" if none is.
    """

    pictures: int
    difference_most: float
    wrong: str


def verdicts(
    frames: LeRobotFrames, image_size: tuple[int, int] | None, came: Mapping[str, tuple[Sequence[int], Path]]
) -> dict[str, Verdict]:
    """Of each side: its first samples, and the file that it wrote their pictures to."""
    shown: dict[str, list[Shown]] = defaultdict(list)
    for side, (samples, path) in came.items():
        for file, one in _shown(frames, side, samples, path):
            shown[file].append(one)
    differences: dict[Shown, dict[int, float]] = {}
    for file, wanted in shown.items():
        differences |= _differences(file, wanted, image_size)
    return {side: _verdict([(one, found) for one, found in differences.items() if one.side == side]) for side in came}


def _shown(frames: LeRobotFrames, side: str, samples: Sequence[int], path: Path) -> list[tuple[str, Shown]]:
    """Of each window its first and its last picture, each with the file that its frame is in."""
    found = []
    with np.load(path) as arrays:
        for camera in frames.cameras:
            for sample, pictures in zip(samples, arrays[camera], strict=False):
                window = frames.window(camera, sample)
                for at in sorted({0, len(window) - 1}):
                    one = Shown(side, sample, window[at], pictures[at])
                    found.append((frames.file(camera, sample), one))
    return found


def _differences(
    file: str, shown: Sequence[Shown], image_size: tuple[int, int] | None
) -> dict[Shown, dict[int, float]]:
    """Of each picture the mean difference from its own frame (0) and from those nearby (-2 .. 2)."""
    wanted: dict[int, list[Shown]] = defaultdict(list)
    for one in shown:
        for nearby in range(-NEARBY, NEARBY + 1):
            wanted[one.frame + nearby].append(one)
    height, width = image_size or (None, None)
    found: dict[Shown, dict[int, float]] = {one: {} for one in shown}
    with av.open(file) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                right = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="BILINEAR")
                for one in wanted[number]:
                    found[one][number - one.frame] = _difference(right, one.picture)
            if number >= max(wanted):
                break
    return found


def _difference(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    if one.shape != other.shape:
        return 255.0
    return float(np.abs(one.astype(np.int16) - other).mean())


def _verdict(found: Sequence[tuple[Shown, dict[int, float]]]) -> Verdict:
    wrong = [text for one, differences in found if (text := _what_is_wrong(one, differences))]
    return Verdict(len(found), max((of[0] for _, of in found if 0 in of), default=255.0), wrong[0] if wrong else "")


def _what_is_wrong(one: Shown, differences: dict[int, float]) -> str:
    if 0 not in differences:
        return f"sample {one.sample}: there is no frame {one.frame} in its file"
    nearest = min(differences, key=lambda nearby: differences[nearby])
    if differences[nearest] < differences[0] - MARGIN:
        return (
            f"sample {one.sample} shows the frame {nearest:+d} from its own, which differs by "
            f"{differences[nearest]:.2f} of 255, and its own by {differences[0]:.2f}"
        )
    if differences[0] > TOLERANCE:
        return f"sample {one.sample} differs from its frame by {differences[0]:.1f} of 255 in the mean"
    return ""
