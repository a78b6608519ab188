"""`millpond demo --clips`: an epoch of clips, one of which is corrupt and one of which hangs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from millpond._cli.epoch_page import write_epoch_page
from millpond._cli.measure import mebibytes, run_epoch
from millpond._cli.options import DEMO_CLIPS
from millpond._cli.terminal import print_lines, progress_bar
from millpond._datasets.clips import ClipDataset
from millpond._loader.loader import Loader
from millpond._media.options import AudioOptions, VideoOptions
from millpond._observe.memory import MemorySampler
from millpond._synth.clip_set import CORRUPT, HANGING, MANIFEST, clip_path, write_clip_set
from millpond._synth.clips import tone_hz
from millpond._synth.pattern import read_pattern
from millpond.errors import InternalError, ObjectMissing

STALL_SECONDS = 1.0
"""The stall limit of this run: a clip that decodes makes progress every few milliseconds."""

_FRAMES, _SIZE = 8, (96, 128)
_SAMPLING_RATE, _MOST_SECONDS = 16_000, 2.0


def run_clips_demo(
    folder: Path, *, memory: str, batch_size: int, num_workers: int | None, seed: int, report: Path, quiet: bool
) -> None:
    """Run the epoch and say how it went; at the default place, a set that is not there is made first."""
    console = Console()
    if not folder.exists():
        _make(folder, console, quiet=quiet)
    dataset = ClipDataset(
        folder / MANIFEST,
        video=VideoOptions(num_frames=_FRAMES, image_size=_SIZE),
        audio=AudioOptions(sampling_rate=_SAMPLING_RATE, max_seconds=_MOST_SECONDS),
    )
    quarantine = folder / "quarantine.jsonl"
    quarantine.unlink(missing_ok=True)
    seen: Counter[int] = Counter()
    with MemorySampler() as sampler:
        with Loader(
            dataset,
            batch_size=batch_size,
            shuffle=True,
            seed=seed,
            memory=memory,
            num_workers=num_workers,
            stall_timeout=STALL_SECONDS,
            on_error="skip",
            quarantine=quarantine,
            output="numpy",
        ) as loader:
            with progress_bar("one shuffled epoch", unit="clips", total=len(dataset), quiet=quiet) as bar:
                epoch = run_epoch(loader, bar.advance, group="clip", look=lambda batch: seen.update(_checked(batch)))
            statistics = loader.statistics()
        sampler.close()
        skipped = _skipped(quarantine)
        once = _require_once(seen, [line["row"] for line in skipped], len(dataset))
        growth = f"{mebibytes(sampler.peak_growth_bytes)} of {mebibytes(loader.memory_plan().memory_bytes)}"
        headlines = {
            "good clips, once each": f"{once} of {once}",
            "bad clips, named": str(len(skipped)),
            "workers ended and replaced": str(statistics.worker_restarts),
            "memory": growth,
        }
        subtitle = (
            f"One shuffled epoch of {folder.name}: {len(dataset)} clips, of which {clip_path(CORRUPT)} is corrupt and "
            f"{clip_path(HANGING)} hangs whoever opens it."
        )
        write_epoch_page(
            report,
            "millpond demo --clips",
            subtitle,
            loader,
            epoch,
            sampler,
            headlines=headlines,
            quarantine=quarantine,
        )
    lines = [
        f"{once} good clips came once each in {epoch.wall_seconds:.2f} s, every frame and every sound its own clip's "
        f"({_FRAMES} frames of {_SIZE[1]}x{_SIZE[0]} and up to {_MOST_SECONDS:g} s of sound each)",
        *(f"skipped: {line['video']}: {_shown(line)}" for line in skipped),
        f"workers ended and replaced: {statistics.worker_restarts} (stall limit {STALL_SECONDS:g} s)",
        f"memory: grew by {growth} (PSS of the process tree, peak)",
        f"books: {statistics.books}",
        f"quarantine: {quarantine}",
        f"report: {report}",
    ]
    print_lines(console, lines)


def _make(folder: Path, console: Console, *, quiet: bool) -> None:
    if folder != DEMO_CLIPS:  # one that was asked for by name and mistyped is not replaced by another one
        raise ObjectMissing(f"'{folder}' is not there; `millpond demo --clips` makes '{DEMO_CLIPS}'", path=str(folder))
    with progress_bar("making a small set of clips", unit="clips", quiet=quiet) as bar:
        manifest = write_clip_set(folder, progress=bar.advance)
    count = len(manifest.read_text(encoding="utf-8").splitlines())
    made = (
        f"made {folder}: {count} clips, H.264 with AAC and AV1 with Opus; {clip_path(CORRUPT)} has a hole, "
        f"{clip_path(HANGING)} is a FIFO that nobody writes to"
    )
    print_lines(console, [made])


def _checked(batch: dict[str, Any]) -> list[int]:
    """The clips of a batch, each compared with what its frames show and with what its sound is."""
    clips: list[int] = batch["clip"].tolist()
    for row, clip in enumerate(clips):
        shown = {read_pattern(np.moveaxis(picture, 0, -1))[0] for picture in batch["video"][row]}
        heard = _pitch(batch["audio"][row][: int(batch["audio_length"][row])])
        if shown != {clip} or abs(heard - tone_hz(clip)) > 15:
            raise InternalError(
                f"clip {clip} came with frames of {sorted(shown)} and a tone of {heard:.0f} Hz, its own is "
                f"{tone_hz(clip):.0f} Hz",
                clip=clip,
            )
    return clips


def _pitch(sound: np.ndarray[Any, Any]) -> float:
    """The loudest frequency, Hz."""
    loudness = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(np.argmax(loudness)) * _SAMPLING_RATE / len(sound)


def _require_once(seen: Counter[int], skipped: list[int], count: int) -> int:
    """How many clips came; InternalError unless each came once or was skipped."""
    if sorted([*seen.elements(), *skipped]) != list(range(count)):
        raise InternalError(f"of {count} clips these came: {sorted(seen.elements())}; skipped: {sorted(skipped)}")
    return seen.total()


def _skipped(quarantine: Path) -> list[dict[str, Any]]:
    if not quarantine.exists():
        return []
    return [json.loads(line) for line in quarantine.read_text(encoding="utf-8").splitlines()]


def _shown(line: dict[str, Any]) -> str:
    """Why a clip was skipped, in one line."""
    first, *_ = str(line["message"]).splitlines()
    return f"{line['error']}: {first}"
