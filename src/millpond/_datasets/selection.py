"""What a user may leave out of a dataset: checked against the metadata."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.layout import Feature, Layout
from millpond._media.options import require_picture_size
from millpond.errors import CorruptMedia


def checked_size(image_size: tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width), or None; ValueError for anything else."""
    if image_size is None:
        return None
    try:
        height, width = map(operator.index, image_size)
    except (TypeError, ValueError):
        raise ValueError(f"image_size must be two integers, (height, width), not {image_size!r}") from None
    if min(height, width) < 1:
        raise ValueError(f"image_size must be (height, width) of at least 1 pixel each, not {image_size!r}")
    require_picture_size(height, width)
    return height, width


def selected_positions(layout: Layout, episodes: Sequence[int] | None) -> NDArray[np.int64]:
    """Positions in the layout of the episodes asked for, int64 (E,), ascending; ValueError names unknown ones."""
    if episodes is None:
        positions = np.arange(len(layout.episode_index))
        return layout.episode_index if np.array_equal(layout.episode_index, positions) else positions  # once in memory
    wanted = np.unique(np.asarray(list(episodes), np.int64))
    if not len(wanted):
        raise ValueError("episodes is empty; leave it out to take all")
    unknown = np.setdiff1d(wanted, layout.episode_index)
    if len(unknown):
        raise ValueError(
            f"episodes {unknown[:5].tolist()} are not in '{layout.root}', which has {len(layout.episode_index)} "
            f"episodes, {layout.episode_index[0]} to {layout.episode_index[-1]}"
        )
    return np.searchsorted(layout.episode_index, wanted).astype(np.int64)


def selected_cameras(layout: Layout, cameras: Sequence[str] | None) -> tuple[Feature, ...]:
    """The cameras asked for, in the order of the metadata; ValueError names unknown ones."""
    if cameras is None:
        return layout.cameras
    if isinstance(cameras, str):
        raise TypeError(f"cameras must be a list of features, not the string {cameras!r}")
    known = [camera.name for camera in layout.cameras]
    unknown = [name for name in cameras if name not in known]
    if unknown:
        raise ValueError(f"cameras {unknown} are not in '{layout.root}'; it has {', '.join(known) or 'none'}")
    return tuple(camera for camera in layout.cameras if camera.name in cameras)


def promised_sizes(cameras: Sequence[Feature], root: str) -> dict[str, tuple[int, int]]:
    """Camera to (height, width) by the metadata, which files must then have.

    Raises:
        CorruptMedia: The metadata does not say.
    """
    for camera in cameras:
        if len(camera.shape) != 3:
            path = f"{root}/meta/info.json"
            raise CorruptMedia(
                f"'{path}' does not say how large the pictures of {camera.name!r} are; give image_size=, or open it "
                "with lazy=False",
                path=path,
                camera=camera.name,
            )
    return {camera.name: (camera.shape[0], camera.shape[1]) for camera in cameras}
