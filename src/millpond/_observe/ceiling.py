"""The ceiling: front-to-back decode to RGB with as many single-threaded decoders as there are workers.

Nothing that gives a picture of every frame from as many processes can be much faster, so every throughput of ours is
stated as a ratio to it. Decoders are plain subprocesses: they wait for a line on standard input and cost
nothing in between, so a bench can alternate slices of the ceiling with slices of what it measures, on a machine whose
speed changes by the minute. They end when their standard input does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from millpond._media.pictures import interpolation_flag, picture_view
from millpond.errors import ClosedError, CorruptMedia, MillpondError, WorkerDied

# Cameras take turns in stretches, so that any slice holds as many frames of each; longer ones make slices end late.
_STRETCH_FRAMES = 32


@dataclass(frozen=True, slots=True)
class CeilingSlice:
    """What the decoders did in one slice of time.

    Attributes:
        frames: Pictures made by all decoders.
        frames_per_second: The sum of the decoders' own rates.
        samples_per_second: `frames_per_second` over the number of cameras.
        wall_seconds: The mean over the decoders.
        cpu_seconds: The sum over the decoders.
    """

    frames: int
    frames_per_second: float
    samples_per_second: float
    wall_seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class _Job:
    camera_files: list[list[str]]
    start_fraction: float
    image_size: tuple[int, int] | None
    interpolation: str


class Ceiling:
    """Front-to-back decoders that wait, and run when they are measured.

    Args:
        camera_files: The video files of each camera, in order.
        num_workers: Decoder processes; each begins at another place of the files, and goes round.
        image_size: (height, width) of the pictures, made in the same pass as by the loader; None: as they are.
        interpolation: As of the dataset.
    """

    def __init__(
        self,
        camera_files: Mapping[str, Sequence[Path]],
        *,
        num_workers: int,
        image_size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
    ) -> None:
        if num_workers < 1 or not camera_files:
            raise ValueError(f"a ceiling needs a camera and a worker, not {len(camera_files)} and {num_workers}")
        interpolation_flag(interpolation)
        self._num_cameras = len(camera_files)
        files = [[str(path) for path in paths] for paths in camera_files.values()]
        jobs = [_Job(files, worker / num_workers, image_size, interpolation) for worker in range(num_workers)]
        self._decoders = [_spawn(job) for job in jobs]
        try:
            for decoder in self._decoders:
                _read_line(decoder)  # it has decoded its first frames: imports and opening are not measured
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Ceiling:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The decoders, to be left out of what is said of the loader's memory."""
        return tuple(decoder.pid for decoder in self._decoders)

    def measure(self, seconds: float) -> CeilingSlice:
        """Let every decoder go on from where it is for about so long.

        Raises:
            WorkerDied: A decoder ended, by bad data or by a signal.
            ClosedError: Used after `close`.
        """
        if not self._decoders:
            raise ClosedError("this ceiling is closed")
        for decoder in self._decoders:
            _write_line(decoder, str(seconds))
        done = [json.loads(_read_line(decoder)) for decoder in self._decoders]
        frames_per_second = sum(one["frames"] / one["wall_seconds"] for one in done)
        return CeilingSlice(
            frames=sum(one["frames"] for one in done),
            frames_per_second=frames_per_second,
            samples_per_second=frames_per_second / self._num_cameras,
            wall_seconds=sum(one["wall_seconds"] for one in done) / len(done),
            cpu_seconds=sum(one["cpu_seconds"] for one in done),
        )

    def close(self) -> None:
        """End the decoders; idempotent."""
        for decoder in self._decoders:
            assert decoder.stdin is not None
            assert decoder.stdout is not None
            decoder.kill()  # it holds nothing that wants an orderly end
            decoder.wait()
            decoder.stdin.close()
            decoder.stdout.close()
        self._decoders = []


def _spawn(job: _Job) -> subprocess.Popen[str]:
    # -c and not -m: runpy warns of a module that its package has imported already
    command = [sys.executable, "-c", "from millpond._observe.ceiling import decoder_main; decoder_main()"]
    # In a group of its own a Ctrl-C at the terminal does not reach it: the parent ends it, and it ends with the parent.
    decoder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0)
    _write_line(decoder, json.dumps(asdict(job)))
    return decoder


def _write_line(decoder: subprocess.Popen[str], line: str) -> None:
    assert decoder.stdin is not None
    with suppress(BrokenPipeError):  # it has ended; reading its answer says so, and how
        decoder.stdin.write(line + "\n")
        decoder.stdin.flush()


def _read_line(decoder: subprocess.Popen[str]) -> str:
    assert decoder.stdout is not None
    line = decoder.stdout.readline()
    if not line:
        code = decoder.wait()
        raise WorkerDied(f"a decoder of the ceiling (pid {decoder.pid}) ended with exit code {code}", exit_code=code)
    return line


def decoder_main() -> None:
    """Run in the decoder: take the job from the first line, then decode for as long as each line says."""
    job = _Job(**json.loads(sys.stdin.readline()))
    rounds = _decode_rounds(job)
    try:
        next(rounds)
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(_run_slice(rounds, float(line))), flush=True)
    except (MillpondError, OSError, av.FFmpegError) as error:  # bad data, of which one line says enough
        sys.exit(f"a decoder of the ceiling: {error}")


def _run_slice(rounds: Iterator[int], seconds: float) -> dict[str, float]:
    began, cpu_began = time.monotonic(), time.process_time()
    frames = next(rounds)
    while time.monotonic() - began < seconds:
        frames += next(rounds)
    return {
        "frames": frames,
        "wall_seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - cpu_began,
    }


def _decode_rounds(job: _Job) -> Iterator[int]:
    """Make a stretch of pictures of each camera in turn, for ever; yields how many that were."""
    flag, reformatter = interpolation_flag(job.interpolation), VideoReformatter()
    cameras = [_frames_for_ever(files, job.start_fraction) for files in job.camera_files]
    kept: dict[tuple[int, int], np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = {}
    while True:
        for frames in cameras:
            for _ in range(_STRETCH_FRAMES):
                frame = next(frames)
                height, width = job.image_size or (frame.height, frame.width)
                made = reformatter.reformat(frame, width, height, "rgb24", interpolation=flag, threads=1)
                picture = picture_view(made)
                # a batch is where pictures must end up, so one copy is part of the ceiling; its pages are warm
                np.copyto(kept.setdefault((height, width), np.empty_like(picture)), picture)
        yield _STRETCH_FRAMES * len(cameras)


def _frames_for_ever(files: Sequence[str], start_fraction: float) -> Iterator[av.VideoFrame]:
    """Decode files front to back and round again, beginning at a fraction of the whole."""
    first = int(start_fraction * len(files))
    within_file = start_fraction * len(files) - first
    while True:
        frames = 0
        for path in (*files[first:], *files[:first]):
            for frame in _frames_of(path, within_file):
                frames += 1
                yield frame
            within_file = 0.0
        if frames == 0:
            raise CorruptMedia(f"no frame decodes from {files[0]!r} and the files after it", path=files[0])


def _frames_of(path: str, start_fraction: float) -> Iterator[av.VideoFrame]:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.thread_type = "NONE"
        if start_fraction and stream.duration:
            container.seek((stream.start_time or 0) + int(start_fraction * stream.duration), stream=stream)
        yield from container.decode(stream)
