"""Write a LeRobot v3.0 dataset in which every frame says who it is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from millpond._synth import metadata
from millpond._synth.beside import written_beside
from millpond._synth.columns import describe_columns, encode_pngs, episode_columns, to_arrow, to_rgb
from millpond._synth.encode import Codec, Encoding, encode_episodes
from millpond._synth.metadata import Stats
from millpond._synth.request import check_place, check_request
from millpond._synth.scene import Scene

CAMERA_NAMES = ("front", "wrist", "left", "right")
TASKS = ("pick up the cube", "open the drawer", "pour the water")


def camera_key(camera: int) -> str:
    """The feature that shows a camera: `observation.images.front`, ..."""
    name = CAMERA_NAMES[camera] if camera < len(CAMERA_NAMES) else f"camera_{camera}"
    return f"observation.images.{name}"


@dataclass(frozen=True)
class _Recipe:
    """Everything that was asked for, checked."""

    root: Path
    lengths: tuple[int, ...]
    cameras: int
    image_features: int
    size: tuple[int, int]
    encoding: Encoding
    files: tuple[range, ...]
    files_per_chunk: int
    tasks: int
    extras: bool
    seed: int

    @property
    def starts(self) -> list[int]:
        """The dataset index of each episode's first frame, and the total."""
        return [0, *np.cumsum(self.lengths).tolist()]

    def place(self, file: int) -> dict[str, int]:
        """Chunk and file index of the nth file."""
        return {"chunk_index": file // self.files_per_chunk, "file_index": file % self.files_per_chunk}

    def scene(self, camera: int) -> Scene:
        return Scene(*self.size, seed=self.seed * 1000 + camera)


def write_dataset(
    out: str | Path,
    *,
    episodes: int = 20,
    frames: int | Sequence[int] = 100,
    cameras: int = 2,
    size: tuple[int, int] = (480, 640),
    codec: Codec = "av1",
    gop: int = 2,
    b_frames: int = 0,
    audio: bool = False,
    fps: int = 30,
    episodes_per_file: int | None = None,
    files_per_chunk: int = 1000,
    episode_keyframes: bool = False,
    image_features: int = 0,
    tasks: int = len(TASKS),
    extra_columns: bool = False,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write a dataset that LeRobot 0.4.4 reads too. Frames are streamed: memory does not grow with the length.

    The dataset is there as a whole or not at all: what is raised, an interrupt included, ends the writing within a
    frame and removes what was written; what a killed process left is removed by the next try.

    Args:
        out: The folder to make; it must not exist, or be empty.
        episodes: How many.
        frames: Of every episode, or of each: a sequence of `episodes` lengths.
        cameras: All cameras, those with PNGs in parquet included.
        size: (height, width), even, at least 64 x 64.
        codec: "av1", "h264", "hevc" or "vp9".
        gop: Frames from keyframe to keyframe, through all episodes of a file.
        b_frames: Most B-frames in a row.
        audio: Add a tone to each MP4.
        fps: Frames per second.
        episodes_per_file: Episodes in one MP4 and in one data parquet; None puts all into one.
        files_per_chunk: Files in one chunk folder.
        episode_keyframes: Also start every episode with a keyframe, as LeRobot's own writer does.
        image_features: The last so many of the cameras are kept as PNG in parquet.
        tasks: Number of different tasks, taken in turn by the episodes.
        extra_columns: Also write columns of bool, uint8, float64, text and of shape (4, 4).
        seed: Another seed, other textures.
        progress: Called with 1 per frame and camera, from several threads, one at a time.

    Returns:
        The folder.

    Raises:
        ValueError: The request makes no sense.
        FileExistsError: `out` is there and not empty.
        OSError: `out` cannot be made there.
    """
    lengths = (frames,) * episodes if isinstance(frames, int) else tuple(frames)
    check_request(
        lengths,
        episodes=episodes,
        cameras=cameras,
        image_features=image_features,
        size=size,
        codec=codec,
        b_frames=b_frames,
        gop=gop,
        fps=fps,
        tasks=tasks,
        episodes_per_file=episodes_per_file,
        files_per_chunk=files_per_chunk,
    )
    root = Path(out)
    check_place(root)
    per_file = episodes_per_file or episodes
    recipe = _Recipe(
        root=root,
        lengths=lengths,
        cameras=cameras,
        image_features=image_features,
        size=size,
        encoding=Encoding(codec, gop, b_frames, audio, fps, episode_keyframes),
        files=tuple(range(first, min(first + per_file, episodes)) for first in range(0, episodes, per_file)),
        files_per_chunk=files_per_chunk,
        tasks=tasks,
        extras=extra_columns,
        seed=seed,
    )
    with written_beside(root) as unfinished:
        _write_all(replace(recipe, root=unfinished), progress or (lambda _: None))
    return root


class _StoppedError(Exception):
    """Ends a thread whose work is no longer wanted; nobody sees it."""


def _write_all(recipe: _Recipe, progress: Callable[[int], None]) -> None:
    lock, is_over = threading.Lock(), threading.Event()

    def on_frame() -> None:
        with lock:
            if is_over.is_set():
                raise _StoppedError
            progress(1)

    files = range(len(recipe.files))
    videos = range(recipe.cameras - recipe.image_features)
    jobs = [partial(_write_video, recipe, camera, file, on_frame) for file in files for camera in videos]
    jobs += [partial(_write_data, recipe, file, on_frame) for file in files]
    pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="millpond-synth")
    try:
        for done in as_completed([pool.submit(job) for job in jobs]):
            done.result()
    except BaseException:
        is_over.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    _write_metadata(recipe)


def _write_video(recipe: _Recipe, camera: int, file: int, on_frame: Callable[[], None]) -> None:
    path = recipe.root / metadata.VIDEO_PATH.format(video_key=camera_key(camera), **recipe.place(file))
    episodes = [(episode, recipe.lengths[episode]) for episode in recipe.files[file]]
    encode_episodes(path, recipe.scene(camera), camera, episodes, recipe.encoding, on_frame)


def _columns_of(recipe: _Recipe, episode: int) -> dict[str, np.ndarray[Any, Any]]:
    return episode_columns(
        episode,
        recipe.lengths[episode],
        start_index=recipe.starts[episode],
        task=episode % recipe.tasks,
        fps=recipe.encoding.fps,
        extras=recipe.extras,
    )


def _write_data(recipe: _Recipe, file: int, on_frame: Callable[[], None]) -> None:
    """One parquet file, a row group per episode, as LeRobot writes it."""
    path = recipe.root / metadata.DATA_PATH.format(**recipe.place(file))
    path.parent.mkdir(parents=True, exist_ok=True)
    image_cameras = range(recipe.cameras - recipe.image_features, recipe.cameras)
    scenes = {camera: recipe.scene(camera) for camera in image_cameras}
    writer: pq.ParquetWriter | None = None
    try:
        for episode in recipe.files[file]:
            num_frames = recipe.lengths[episode]
            pictures = {camera_key(c): encode_pngs(scenes[c], episode, c, num_frames, on_frame) for c in image_cameras}
            table = pa.table(pictures | to_arrow(_columns_of(recipe, episode)))
            writer = writer or pq.ParquetWriter(path, table.schema, compression="snappy", use_dictionary=True)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _write_metadata(recipe: _Recipe) -> None:
    pictures = {camera_key(c): _sampled_stats(recipe, c) for c in range(recipe.cameras)}
    per_episode = [pictures | metadata.column_stats(_columns_of(recipe, e)) for e in range(len(recipe.lengths))]
    tasks = [TASKS[n] if n < len(TASKS) else f"task {n}" for n in range(recipe.tasks)]
    metadata.write_stats(recipe.root, metadata.merge_stats(per_episode))
    metadata.write_tasks(recipe.root, tasks)
    metadata.write_episodes(recipe.root, _episode_rows(recipe, tasks, per_episode))
    metadata.write_info(recipe.root, _info(recipe))


def _sampled_stats(recipe: _Recipe, camera: int) -> dict[str, list[Any]]:
    """One frame stands for all: nobody trains on this."""
    picture = next(recipe.scene(camera).pictures(0, camera, 1))
    return metadata.picture_stats(to_rgb(picture)[None, ::4, ::4])


def _episode_rows(recipe: _Recipe, tasks: Sequence[str], stats: Sequence[Stats]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    starts, fps = recipe.starts, recipe.encoding.fps
    for file, episodes in enumerate(recipe.files):
        for episode in episodes:
            row: dict[str, Any] = {
                "episode_index": episode,
                "tasks": [tasks[episode % recipe.tasks]],
                "length": recipe.lengths[episode],
                **{f"data/{name}": value for name, value in recipe.place(file).items()},
                "dataset_from_index": starts[episode],
                "dataset_to_index": starts[episode + 1],
            }
            for camera in range(recipe.cameras - recipe.image_features):
                prefix = f"videos/{camera_key(camera)}"
                row |= {f"{prefix}/{name}": value for name, value in recipe.place(file).items()}
                row[f"{prefix}/from_timestamp"] = (starts[episode] - starts[episodes[0]]) / fps
                row[f"{prefix}/to_timestamp"] = (starts[episode + 1] - starts[episodes[0]]) / fps
            rows.append(row | metadata.flatten_stats(stats[episode]))
    return rows


def _info(recipe: _Recipe) -> dict[str, Any]:
    encoding, (height, width) = recipe.encoding, recipe.size
    picture = {"shape": [height, width, 3], "names": ["height", "width", "channels"]}
    video = {
        "video.height": height,
        "video.width": width,
        "video.codec": encoding.codec,
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": encoding.fps,
        "video.channels": 3,
        "has_audio": encoding.audio,
    }
    num_videos = recipe.cameras - recipe.image_features
    cameras: dict[str, Any] = {}
    for camera in range(recipe.cameras):
        kind = {"dtype": "video"} | picture | {"info": video} if camera < num_videos else {"dtype": "image"} | picture
        cameras[camera_key(camera)] = kind
    return {
        "codebase_version": "v3.0",
        "robot_type": "millpond_synth",
        "total_episodes": len(recipe.lengths),
        "total_frames": sum(recipe.lengths),
        "total_tasks": recipe.tasks,
        "chunks_size": recipe.files_per_chunk,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": encoding.fps,
        "splits": {"train": f"0:{len(recipe.lengths)}"},
        "data_path": metadata.DATA_PATH,
        "video_path": metadata.VIDEO_PATH if num_videos else None,
        "features": cameras | describe_columns(extras=recipe.extras),
    }
