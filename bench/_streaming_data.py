"""The datasets of the streaming bench: in memory, made for it, and what their packets weigh by a demux of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from millpond._synth import write_dataset

SYNTH: dict[str, Any] = {"episodes": 30, "frames": 100, "cameras": 2, "codec": "h264", "gop": 30}
_MANY: dict[str, Any] = {"frames": 30, "cameras": 1, "size": (96, 128), "codec": "h264", "gop": 15}
_LONG: dict[str, Any] = {"episodes": 1, "frames": 1200, "cameras": 1, "size": (64, 64), "codec": "h264", "gop": 30}


@dataclass(frozen=True)
class Videos:
    """The video files of a dataset.

    Attributes:
        names: Below its root.
        packet_bytes: Of all packets of all of them: what an epoch cannot do without.
        first: The first file of each camera.
        first_frames: Frames of the shortest of those.
        file_bytes: All files of the dataset, videos or not.
    """

    names: list[str]
    packet_bytes: int
    first: list[str]
    first_frames: int
    file_bytes: int


def look_at(root: Path) -> Videos:
    """Demux every video of a dataset, with PyAV alone: nothing of millpond counts here."""
    sizes: dict[str, list[int]] = {}
    for file in sorted((root / "videos").rglob("*.mp4")):
        with av.open(file) as container:
            sizes[str(file.relative_to(root))] = [p.size for p in container.demux(container.streams.video[0]) if p.size]
    first: dict[str, str] = {}
    for name in sizes:
        first.setdefault(name.split("/")[1], name)  # videos/CAMERA/chunk-000/file-000.mp4
    return Videos(
        names=list(sizes),
        packet_bytes=sum(map(sum, sizes.values())),
        first=list(first.values()),
        first_frames=min(len(sizes[name]) for name in first.values()),
        file_bytes=sum(file.stat().st_size for file in root.rglob("*") if file.is_file()),
    )


@contextmanager
def temporary_folder(parent: Path | None = None, *, num_bytes: int = 0) -> Iterator[Path]:
    """In a folder that is in memory, if there is room for twice so many bytes; else where temporary files go."""
    has_room = parent is not None and parent.is_dir() and shutil.disk_usage(parent).free > 2 * num_bytes
    with tempfile.TemporaryDirectory(prefix="millpond-bench-", dir=parent if has_room else None) as folder:
        yield Path(folder)


@contextmanager
def copied(root: Path, parent: Path | None) -> Iterator[Path]:
    """The dataset in memory, or, where there is no room, in another folder, read once and so in the page cache."""
    size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    with temporary_folder(parent, num_bytes=size) as folder:
        shutil.copytree(root, folder / root.name, ignore=shutil.ignore_patterns(".millpond"))
        yield folder / root.name


def write_many_files(folder: Path, num_files: int) -> tuple[str, list[str]]:
    """A dataset of one episode a file, and single files whose headers are of the size that a long video's have.

    Returns:
        The names, below the folder, of the dataset and of the files.
    """
    write_dataset(folder / "episodes", episodes=num_files, episodes_per_file=1, **_MANY)
    write_dataset(folder / "long", **_LONG)
    (long,) = (folder / "long").rglob("*.mp4")
    (folder / "files").mkdir()
    names = [f"files/{number:04d}.mp4" for number in range(num_files)]
    for name in names:
        os.link(long, folder / name)
    return "episodes", names
