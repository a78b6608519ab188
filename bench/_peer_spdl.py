"""The contenders of SPDL: a pipeline of threads over packets of whole files, or (`--segments`) over windows of time.

At random: the files' packets are in memory, and the frames of a batch are asked for together, so that each group of
pictures is decoded once for it (`sample_decode_video`). In segments: stretches of an episode in random order, each
demuxed by its window of time and decoded once, and samples shuffled within blocks of segments: faster, and less mixed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np

from _lerobot_frames import read_frames
from _peer import Batch, contend, leave

with suppress(ImportError):
    import torch  # noqa: F401  a training process has it before it makes a loader: it is no cost of the loader's
try:
    import spdl.io
    from spdl.pipeline import Pipeline, PipelineBuilder
except (ImportError, OSError, RuntimeError) as error:
    leave(error)

SEGMENT_FRAMES = 64  # two batches of samples, and no more than twice as many decoded where GOPs have 250 frames
BLOCK_SEGMENTS = 8  # two blocks of 64 samples with two cameras of 640x480 take 1.9 GB


class SpdlSide:
    """Batches at random from all of the dataset."""

    fills_up = False

    def __init__(self, *, root: str, window_frames: int, image_size: Any, batch_size: int, num_workers: int) -> None:
        self.frames = read_frames(root, window_frames)
        self.cameras = self.frames.cameras
        self.num_samples = len(self.frames)
        self.num_threads = max(1, num_workers)
        self.batch_size = batch_size
        self.scale = {"scale_height": image_size[0], "scale_width": image_size[1]} if image_size else {}
        self.random = np.random.default_rng(0)

    def facts(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass

    def epoch(self) -> Iterator[Batch]:
        pipeline = self.pipeline()
        with pipeline.auto_stop():
            yield from pipeline

    def pipeline(self) -> Pipeline[Any]:
        order = self.random.permutation(self.num_samples)
        batches = [order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size)]
        self.packets = {file: spdl.io.demux_video(file) for files in self.frames.files.values() for file in files}
        builder = PipelineBuilder().add_source(batches).pipe(self.batch, concurrency=self.num_threads)
        return builder.add_sink(self.num_threads).build(num_threads=self.num_threads)

    def batch(self, chosen: np.ndarray[Any, Any]) -> Batch:
        chosen = np.sort(chosen)
        return {**self.frames.row(chosen), **{camera: self.pictures(camera, chosen) for camera in self.cameras}}

    def pictures(self, camera: str, chosen: Sequence[int]) -> np.ndarray[Any, Any]:
        """(B, [T,] H, W, C); the buffer is made from all frames at once where that gives the batch as it is."""
        filter_desc = spdl.io.get_video_filter_desc(scale_algo="bilinear", scale_mode=None, **self.scale)
        windows = [(self.frames.file(camera, sample), self.frames.window(camera, sample)) for sample in chosen]
        wanted: dict[str, set[int]] = {}
        for file, window in windows:
            wanted.setdefault(file, set()).update(window)
        decoded: dict[tuple[str, int], Any] = {}
        for file, numbers in wanted.items():
            # decoding takes packets away, hence the clone, which copies references only
            images = spdl.io.sample_decode_video(self.packets[file].clone(), sorted(numbers), filter_desc=filter_desc)
            decoded.update(zip([(file, number) for number in sorted(numbers)], images, strict=True))
        # conversion takes frames away, too, and a frame may be shown by several windows
        images = [decoded[file, number].clone() for file, window in windows for number in window]
        pictures = spdl.io.to_numpy(spdl.io.convert_frames(images))
        return self.shaped(pictures, len(chosen))

    def shaped(self, pictures: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
        times = self.frames.window_frames
        return pictures if times == 1 else pictures.reshape(count, times, *pictures.shape[1:])


class SpdlSegmentsSide(SpdlSide):
    """Segments at random, samples at random within blocks of them."""

    fills_up = True

    def pipeline(self) -> Pipeline[Any]:
        segments = self.segments()
        order = [segments[at] for at in self.random.permutation(len(segments))]
        builder = (
            PipelineBuilder()
            .add_source(order)
            .pipe(self.decoded, concurrency=self.num_threads)
            .aggregate(BLOCK_SEGMENTS)
            .pipe(self.shuffled)
            .disaggregate()
            .pipe(self.stacked, concurrency=self.num_threads)
        )
        return builder.add_sink(self.num_threads).build(num_threads=self.num_threads)

    def segments(self) -> list[range]:
        """Samples of each: an episode, cut into stretches of at most so many frames."""
        episodes = self.frames.columns["episode_index"]
        starts = [0, *(np.flatnonzero(np.diff(episodes)) + 1).tolist(), len(episodes)]
        return [
            range(at, min(stop, at + SEGMENT_FRAMES))
            for start, stop in pairwise(starts)
            for at in range(start, stop, SEGMENT_FRAMES)
        ]

    def decoded(self, segment: range) -> tuple[range, dict[str, tuple[int, np.ndarray[Any, Any]]]]:
        """Of each camera the number of the first frame, and the pictures from there to the segment's last."""
        return segment, {camera: self.stretch(camera, segment) for camera in self.cameras}

    def stretch(self, camera: str, segment: range) -> tuple[int, np.ndarray[Any, Any]]:
        first, last = self.frames.window(camera, segment[0])[0], self.frames.window(camera, segment[-1])[-1]
        packets = spdl.io.demux_video(
            self.frames.file(camera, segment[0]),
            timestamp=((first - 0.5) / self.frames.fps, (last + 0.5) / self.frames.fps),
        )
        filter_desc = spdl.io.get_filter_desc(packets, scale_algo="bilinear", scale_mode=None, **self.scale)
        frames = spdl.io.decode_packets(packets, filter_desc=filter_desc)
        return first, spdl.io.to_numpy(spdl.io.convert_frames(frames))

    def shuffled(self, block: list[Any]) -> list[list[tuple[int, dict[str, Any]]]]:
        """Batches of samples, each with views of its pictures."""
        samples = [(sample, pictures) for segment, pictures in block for sample in segment]
        self.random.shuffle(samples)
        return [samples[at : at + self.batch_size] for at in range(0, len(samples), self.batch_size)]

    def stacked(self, chosen: list[tuple[int, dict[str, Any]]]) -> Batch:
        batch = self.frames.row([sample for sample, _ in chosen])
        for camera in self.cameras:
            shown = []
            for sample, pictures in chosen:
                first, stretch = pictures[camera]
                window = [number - first for number in self.frames.window(camera, sample)]
                shown.append(stretch[window] if len(window) > 1 else stretch[window[0]])
            batch[camera] = np.stack(shown)
        return batch


if __name__ == "__main__":
    side = SpdlSegmentsSide if "--segments" in sys.argv else SpdlSide
    contend(side, spdl=version("spdl"))
