"""Which frames of a clip are taken: evenly spread, so many a second, or at given times.

A frame is *shown* from its own time up to that of the next; the last one for as long as the median of the others, since
a sample table holds no durations. All three ways ask which frame is shown at a time, as a player would, so they hold
for clips of variable frame rate, too.

The evenly spread choice is the middle of T equal parts, as temporal segment networks test (Wang et al., "Temporal
Segment Networks", ECCV 2016, https://arxiv.org/abs/1608.00859) and as MMAction2's `SampleFrames(test_mode=True)` counts
it in frames: part k's frame is floor((k + 1/2) F / T). Here it is counted in seconds, which is the same at a constant
frame rate. The frames at start + k / fps are those of torchcodec's `clips_at_regular_timestamps` with one frame a clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from millpond.errors import FrameTimestampError

ROUNDING_SECONDS = 0.000_85
"""A frame counts as shown so much before its time, since containers round times: MKV and FLV to milliseconds, old
QuickTime to 1/600 s. The third frame of 30 a second then stands at 0.067 s, and would else not be shown at 2 / 30 s."""

MAX_CHOSEN_FRAMES = 1_000_000
"""A clip that says it lasts longer than this many frames of the rate asked for is a header gone wrong, not a clip."""


def choose_frames(
    frame_seconds: NDArray[np.float64],
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    times: Sequence[float] | NDArray[np.float64] | None = None,
    max_frames: int | None = None,
) -> NDArray[np.int64]:
    """Choose frames by exactly one of `num_frames`, `fps` and `times`.

    Args:
        frame_seconds: float64, (F,), ascending: when each frame of the clip is first shown.
        num_frames: T frames: those shown at the middles of T equal parts of the clip, which lasts from the start of
            its first frame to the end of its last. Frames repeat where F < T.
        fps: The frames shown at start + k / fps, while the clip lasts; at least one.
        times: The frames shown at start + times[k], ascending.
        max_frames: At most the first so many (with `fps` and `times`).

    Returns:
        int64, (T,), ascending, with repetitions: presentation indices.

    Raises:
        FrameTimestampError: The clip shows no frame; a time is not a number, descends, lies before the first frame, or
            beyond the end by more than a frame; or `fps` makes more than `MAX_CHOSEN_FRAMES` of the clip.
        ValueError: Not exactly one way is given.
    """
    if sum(way is not None for way in (num_frames, fps, times)) != 1:
        raise ValueError("give exactly one of num_frames, fps and times")
    if not len(frame_seconds):
        raise FrameTimestampError("the clip shows no frame at all", num_frames=0)
    seconds = np.asarray(frame_seconds, np.float64) - frame_seconds[0]
    length = last_frame_seconds(seconds)
    if num_frames is not None:
        middles = (np.arange(num_frames) + 0.5) * ((seconds[-1] + length) / num_frames)
        return _shown_at(seconds, middles)
    if fps is not None:
        return _shown_at(seconds, _ticks(float(seconds[-1]), length, fps, max_frames))
    wanted = np.asarray(times, np.float64).reshape(-1)[:max_frames]
    _require_within(wanted, float(seconds[-1]) + 2 * length, float(seconds[-1]))
    return _shown_at(seconds, wanted)


def last_frame_seconds(frame_seconds: NDArray[np.float64]) -> float:
    """How long the last frame is taken to be shown: the median of the others; 0 where it is the only one."""
    return float(np.median(np.diff(frame_seconds))) if len(frame_seconds) > 1 else 0.0


def _shown_at(seconds: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    """The last frame that begins at or before each time; `seconds` and `wanted` count from the first frame."""
    # of clips with more than 300 frames a second, no frame may count as shown before the one in front of it
    tolerance = min(ROUNDING_SECONDS, last_frame_seconds(seconds) / 4)
    frames = np.searchsorted(seconds, wanted + tolerance, side="right") - 1
    return np.clip(frames, 0, len(seconds) - 1).astype(np.int64)


def _ticks(last: float, length: float, fps: float, max_frames: int | None) -> NDArray[np.float64]:
    """The times k / fps before the end of the clip; the end itself, but for rounding, is no time of the clip."""
    duration = last + length
    ticks = max(duration - min(ROUNDING_SECONDS, length / 4), 0.0) * fps
    if not ticks < MAX_CHOSEN_FRAMES and max_frames is None:
        raise FrameTimestampError(
            f"the clip says that it lasts {duration:g} s, which is {ticks:.0f} frames at {fps:g} a second (limit "
            f"{MAX_CHOSEN_FRAMES}); pass max_frames, or leave the clip out",
            duration_seconds=duration,
            limit_frames=MAX_CHOSEN_FRAMES,
        )
    count = max(math.ceil(min(ticks, MAX_CHOSEN_FRAMES if max_frames is None else max_frames)), 1)
    return np.arange(count) / fps


def _require_within(wanted: NDArray[np.float64], stop: float, last: float) -> None:
    """Times must ascend from 0 to less than a frame beyond the end."""
    # `not <=` and not `>`: what is not a number is wrong, too
    wrong = np.flatnonzero(~((wanted >= 0) & (wanted <= stop + ROUNDING_SECONDS)))
    if len(wrong):
        raise FrameTimestampError(
            f"no frame is shown {wanted[wrong[0]]:g} s after the clip's first: its last begins at {last:g} s "
            f"({len(wrong)} of {len(wanted)} times lie outside); correct the times",
            seconds=float(wanted[wrong[0]]),
            last_frame_seconds=last,
            positions=wrong.tolist(),
        )
    if len(wanted) > 1 and np.any(np.diff(wanted) < 0):
        raise FrameTimestampError("the times of the frames wanted do not ascend; sort them", times=wanted.tolist())
