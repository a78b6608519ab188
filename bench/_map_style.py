"""A map-style dataset over video files as people write it, and torch's DataLoader around it; decoders are plugged in.

Each worker opens a file's decoder at its first sample of it and keeps it, as every decoder's documentation advises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from _lerobot_frames import LeRobotFrames, read_frames
from _peer import Batch


class Decoder(Protocol):
    def pictures(self, frames: Sequence[int]) -> torch.Tensor:
        """uint8, (N, C, H, W) or (N, H, W, C), of frames by their numbers, ascending, some perhaps twice."""
        ...


class VideoSamples(Dataset[dict[str, Any]]):
    """Sample by sample; or, by a list of indices, a batch whose frames of one file are asked for together."""

    def __init__(self, frames: LeRobotFrames, open_decoder: Callable[[str], Decoder]) -> None:
        self.frames = frames
        self.open_decoder = open_decoder
        self.decoders: dict[str, Decoder] = {}

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, chosen: int | list[int]) -> dict[str, Any]:
        if isinstance(chosen, list):
            return self.batch(chosen)
        sample = {name: torch.as_tensor(value) for name, value in self.frames.row(chosen).items()}
        for camera in self.frames.cameras:
            pictures = self.decoder(self.frames.file(camera, chosen)).pictures(self.frames.window(camera, chosen))
            sample[camera] = pictures if self.frames.window_frames > 1 else pictures[0]
        return sample

    def batch(self, chosen: list[int]) -> dict[str, Any]:
        batch = {name: torch.from_numpy(value) for name, value in self.frames.row(chosen).items()}
        for camera in self.frames.cameras:
            batch[camera] = self.pictures(camera, chosen)
        return batch

    def pictures(self, camera: str, chosen: list[int]) -> torch.Tensor:
        """Each frame of a file is decoded once for the batch, in ascending order."""
        rows_of_file: dict[str, list[int]] = {}
        for row, sample in enumerate(chosen):
            rows_of_file.setdefault(self.frames.file(camera, sample), []).append(row)
        found: list[Any] = [None] * len(chosen)
        for file, rows in rows_of_file.items():
            windows = [self.frames.window(camera, chosen[row]) for row in rows]
            wanted = sorted({frame for window in windows for frame in window})
            place = {frame: at for at, frame in enumerate(wanted)}
            pictures = self.decoder(file).pictures(wanted)
            for row, window in zip(rows, windows, strict=True):
                found[row] = pictures[[place[frame] for frame in window]]
        stacked = torch.stack(found)
        return stacked if self.frames.window_frames > 1 else stacked[:, 0]

    def decoder(self, file: str) -> Decoder:
        if file not in self.decoders:
            self.decoders[file] = self.open_decoder(file)
        return self.decoders[file]


class MapStyleSide:
    """`is_batched`: the dataset is asked for whole batches, as torch's documentation says for such readers."""

    fills_up = False

    def __init__(
        self,
        open_decoder: Callable[[str], Decoder],
        *,
        root: str,
        window_frames: int,
        batch_size: int,
        num_workers: int,
        is_batched: bool = False,
    ) -> None:
        frames = read_frames(root, window_frames)
        self.cameras = frames.cameras
        self.num_samples = len(frames)
        dataset = VideoSamples(frames, open_decoder)
        if is_batched:
            batches = BatchSampler(RandomSampler(dataset), batch_size, drop_last=False)  # type: ignore[arg-type]
            self.loader = DataLoader(dataset, batch_size=None, sampler=batches, num_workers=num_workers)
        else:
            self.loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers)

    def epoch(self) -> Iterator[Batch]:
        yield from self.loader

    def facts(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass
