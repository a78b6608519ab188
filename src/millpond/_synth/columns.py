"""The numbers of a synthetic dataset: each says which (episode, frame) it belongs to."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from millpond._synth.scene import Scene

STATE_SIZE = 14  # as of a two-armed ALOHA

_SCALARS = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
_EXTRAS: dict[str, tuple[str, list[int]]] = {
    "next.done": ("bool", [1]),
    "next.reward": ("float64", [1]),
    "observation.pose": ("float32", [4, 4]),
    "observation.contact": ("bool", [3]),
    "observation.level": ("uint8", [2]),
    "instruction": ("string", [1]),
}


def describe_columns(*, extras: bool) -> dict[str, dict[str, Any]]:
    """The features of `meta/info.json` that are no pictures."""
    features: dict[str, dict[str, Any]] = {
        name: {"dtype": "float32", "shape": [STATE_SIZE], "names": None} for name in ("observation.state", "action")
    }
    if extras:
        features |= {name: {"dtype": d, "shape": s, "names": None} for name, (d, s) in _EXTRAS.items()}
    scalars = _SCALARS | {"task_index": "int64"}
    return features | {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in scalars.items()}


def episode_columns(
    episode: int, num_frames: int, *, start_index: int, task: int, fps: int, extras: bool
) -> dict[str, NDArray[Any]]:
    """All columns of one episode, (num_frames, ...).

    `observation.state` starts with the episode and the frame, `action` with the frame and the episode; what follows
    are smooth curves.
    """
    frames = np.arange(num_frames)
    curves = np.sin(frames[:, None] / (7.0 + np.arange(STATE_SIZE)) + episode).astype(np.float32)
    state, action = curves.copy(), -curves
    state[:, 0], state[:, 1] = episode, frames
    action[:, 0], action[:, 1] = frames, episode
    columns: dict[str, NDArray[Any]] = {"observation.state": state, "action": action}
    if extras:
        columns |= _extra_columns(episode, frames)
    return columns | {
        "timestamp": (frames / fps).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.full(num_frames, episode),
        "index": start_index + frames,
        "task_index": np.full(num_frames, task),
    }


def _extra_columns(episode: int, frames: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    return {
        "next.done": frames == len(frames) - 1,
        "next.reward": frames / max(len(frames) - 1, 1),
        "observation.pose": (np.eye(4) * (1 + frames[:, None, None])).astype(np.float32),
        "observation.contact": (frames[:, None] + np.arange(3)) % 3 == 0,
        "observation.level": np.stack([frames % 256, np.full(len(frames), episode % 256)], axis=1).astype(np.uint8),
        "instruction": np.array([f"episode {episode}, stage {2 * f // len(frames)}" for f in frames], dtype=object),
    }


def to_arrow(columns: dict[str, NDArray[Any]]) -> dict[str, pa.Array]:
    """Columns as LeRobot's writer stores them: vectors as fixed-size lists, matrices as lists of lists."""
    return {name: _to_arrow(values) for name, values in columns.items()}


def _to_arrow(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values.tolist(), pa.string()) if values.dtype == object else pa.array(values)
    flat = pa.array(values.ravel())
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    for size in reversed(values.shape[1:]):
        offsets = pa.array(np.arange(0, len(flat) + 1, size, dtype=np.int32))
        flat = pa.ListArray.from_arrays(offsets, flat)
    return flat


def encode_pngs(scene: Scene, episode: int, camera: int, num_frames: int, on_frame: Callable[[], None]) -> pa.Array:
    """Every frame of an image feature, as LeRobot stores them: struct of the PNG's bytes and a path."""
    rows = []
    for frame, picture in enumerate(scene.pictures(episode, camera, num_frames)):
        buffer = io.BytesIO()
        Image.fromarray(to_rgb(picture)).save(buffer, format="PNG", compress_level=1)
        rows.append({"bytes": buffer.getvalue(), "path": f"frame-{frame:06d}.png"})
        on_frame()
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def to_rgb(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """From yuv420p, uint8 (H * 3 / 2, W), to RGB, uint8 (H, W, 3)."""
    rgb = av.VideoFrame.from_ndarray(picture, format="yuv420p").to_ndarray(format="rgb24")
    return rgb.astype(np.uint8, copy=False)
