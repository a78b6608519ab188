"""How many samples a second, at random, from decoders that are open? millpond's cache beside torchcodec's decoders in a
cache of their own.

A sample is one frame of each camera. All sides are in one process, go through the same samples, and take turns of a
second or so; before that their pictures are compared. Sorted batches are 32 frames of one camera, of one episode or of
the whole file, in ascending order: what is decoded for a frame of them is told beside the rate, since nobody can be
faster than that.
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

import millpond
from _frame_readers import DecordReaders, PyavReaders
from _random_samples import Samples, frames_in_one_pass, frames_one_by_one, keyframes_of, read_samples
from _results import Results, spread
from _usable import borrow_from, why_not
from millpond._media.frames import decode_frames
from millpond._media.index import load_sample_table
from millpond._media.sidecars import SidecarStore
from millpond._media.video_file import VideoFile

Take = Callable[[Any], list[Any]]
"""Pictures (3, H, W) of a sample, or of a batch."""

TOLERANCE_SECONDS = 1e-4
WANTED_RANDOM, WANTED_BATCH, BATCH_GOP = 1.0, 2.0, 30
ALONE = "torchcodec"
SHUFFLED, SORTED, WHOLE = "torchcodec, one by one", "torchcodec, one by one, sorted", "torchcodec, whole batch"
OURS = "millpond, whole batch"
PYAV, DECORD = "PyAV", "decord2"
PYAV_WHOLE, DECORD_WHOLE = "PyAV, whole batch", "decord2, whole batch"
ROUNDED = {PYAV, DECORD, PYAV_WHOLE, DECORD_WHOLE}
"""Sides that convert YUV in another way: their pictures are nearly those of the others, who agree in every byte."""
MOST_MEAN_DIFFERENCE = 4.0
"""Of 255. Two frames apart differ by more, but where a picture stands still."""


@dataclass(frozen=True)
class Caches:
    """Open decoders of each library, the same number at most.

    Attributes:
        torchcodec, ours, pyav: `TorchcodecCache`, `VideoDecoderCache` and so on.
        decord: None where decord2 is not installed.
    """

    torchcodec: Any
    ours: Any
    pyav: PyavReaders
    decord: DecordReaders | None

    def rest(self) -> None:
        """decord2's threads decode ahead, and would go on while others are timed."""
        if self.decord is not None:
            self.decord.clear()

    def clear(self) -> None:
        for cache in (self.torchcodec, self.ours, self.pyav, self.decord):
            if cache is not None:
                cache.clear()


def random_sides(root: Path, samples: Samples, caches: Caches, cache_dir: Path) -> dict[str, Take]:
    """Each takes the number of a sample."""
    from _torchcodec_cache import index_at

    def places(sample: int) -> list[tuple[str, float]]:
        return [camera.place(sample) for camera in samples.cameras]

    def torchcodec(sample: int) -> list[Any]:
        found = []
        for path, seconds in places(sample):
            decoder = caches.torchcodec.get_decoder(path)
            found.append(decoder.get_frames_at(indices=[index_at(decoder, seconds)]).data[0])
        return found

    def by_time(sample: int) -> list[Any]:
        return [
            millpond.decode_video_frames(path, [seconds], TOLERANCE_SECONDS, cache=caches.ours)[0]
            for path, seconds in places(sample)
        ]

    def by_index(sample: int) -> list[Any]:
        found = []
        for path, seconds in places(sample):
            decoder = caches.ours.get_decoder(path)
            found.append(decoder.get_frame_at(round(seconds * decoder.metadata.average_fps)).data)
        return found

    dataset = millpond.LeRobotDataset(root, cache_dir=cache_dir, decoder_cache=caches.ours)

    def of_dataset(sample: int) -> list[Any]:
        found = dataset[sample]
        return [found[camera.name] for camera in samples.cameras]

    def frames_of(readers: Any) -> Take:
        def take(sample: int) -> list[Any]:
            return [readers.frames(path, [round(seconds * samples.fps)])[0] for path, seconds in places(sample)]

        return take

    peers = {PYAV: frames_of(caches.pyav)} | ({DECORD: frames_of(caches.decord)} if caches.decord else {})
    ours = {"decode_video_frames": by_time, "get_frame_at": by_index, "LeRobotDataset": of_dataset}
    return {ALONE: torchcodec, **peers, **ours}


def batch_sides(caches: Caches) -> dict[str, Take]:
    """Each takes the path of a file, and frames of it in the order that they are drawn."""
    theirs, ours = caches.torchcodec, caches.ours

    def one_by_one(decoder: Any, indices: Sequence[int]) -> list[Any]:
        return [decoder.get_frames_at(indices=[index]).data[0] for index in indices]

    def whole(decoder: Any, indices: Sequence[int]) -> list[Any]:
        return list(decoder.get_frames_at(indices).data)

    sides: dict[str, Take] = {
        SHUFFLED: lambda batch: one_by_one(theirs.get_decoder(batch[0]), batch[1]),
        SORTED: lambda batch: one_by_one(theirs.get_decoder(batch[0]), sorted(batch[1])),
        WHOLE: lambda batch: whole(theirs.get_decoder(batch[0]), sorted(batch[1])),
        PYAV_WHOLE: lambda batch: caches.pyav.frames(batch[0], sorted(batch[1])),
    }
    if (decord := caches.decord) is not None:
        sides[DECORD_WHOLE] = lambda batch: decord.frames(batch[0], sorted(batch[1]))
    return {**sides, OURS: lambda batch: whole(ours.get_decoder(batch[0]), sorted(batch[1]))}


def measure(root: Path, caches: Caches, store: SidecarStore, options: argparse.Namespace) -> dict[str, Any]:
    """One dataset."""
    samples = read_samples(root)
    draw = np.random.default_rng(options.seed)
    sides = random_sides(root, samples, caches, store.folder)
    numbers = draw.permutation(len(samples)).tolist()
    compared = require_same_pictures(sides, numbers[: options.compared])
    keyframes = {path: keyframes_of(path) for camera in samples.cameras for path in camera.paths}
    first = samples.cameras[0]
    gop = float(np.median(np.diff(keyframes[first.paths[0]]))) if len(keyframes[first.paths[0]]) > 1 else None
    found: dict[str, Any] = {
        "samples": len(samples),
        "cameras": len(samples.cameras),
        "gop_frames": gop,
        "samples_compared": compared,
        "batch_size": options.batch_size,
        "random": in_turns(f"{root.name}, random", sides, numbers, ALONE, caches, options),
        "batches": {},
    }
    for span in ("episode", "file"):
        batches = draw_batches(samples, span, options.batch_size, draw)
        if not batches:
            print(f"{root.name}: no {span} has {options.batch_size} frames", file=sys.stderr)
            continue
        sides = batch_sides(caches)
        require_same_batches(sides, batches[:2])
        measured = in_turns(f"{root.name}, batches of one {span}", sides, batches, SHUFFLED, caches, options)
        decoded = {
            SHUFFLED: mean_decoded(batches, lambda path, frames: frames_one_by_one(keyframes[path], frames)),
            SORTED: mean_decoded(batches, lambda path, frames: frames_in_one_pass(keyframes[path], frames)),
            OURS: mean_decoded(batches[:64], lambda path, frames: frames_of_ours(path, frames, store)),
        }
        found["batches"][span] = {**measured, "frames_decoded_per_frame": decoded | {WHOLE: decoded[SORTED]}}
    return found


def draw_batches(samples: Samples, span: str, size: int, draw: np.random.Generator) -> list[tuple[str, list[int]]]:
    """(path, frames) of the first camera, each of one episode or of one whole file."""
    camera = samples.cameras[0]
    frames = np.round(camera.seconds * samples.fps).astype(np.int64)
    groups = samples.episode_of if span == "episode" else camera.file_of
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    large = [of for of in members if len(of) >= size]
    found = []
    for k in range(200 if large else 0):
        chosen = draw.choice(large[k % len(large)], size, replace=False)
        found.append((camera.paths[camera.file_of[chosen[0]]], frames[chosen].tolist()))
    return found


def mean_decoded(batches: list[tuple[str, list[int]]], count: Callable[[str, NDArray[np.int64]], int]) -> float:
    decoded = sum(count(path, np.sort(np.array(frames, np.int64))) for path, frames in batches)
    return round(decoded / sum(len(frames) for _, frames in batches), 2)


def frames_of_ours(path: str, frames: NDArray[np.int64], store: SidecarStore) -> int:
    with VideoFile(path, load_sample_table(path, store)) as file:
        return decode_frames(file, frames, lambda j, picture: None).frames_decoded


def in_turns(
    name: str, sides: dict[str, Take], items: Sequence[Any], reference: str, caches: Caches, options: argparse.Namespace
) -> dict[str, Any]:
    """Rates and CPU of all sides, round by round, and each held against the reference of its own round.

    In a round all sides take the same items, so many as keep the reference busy for `--seconds`; each takes one before
    that, which is not timed.
    """
    rounds: list[dict[str, Any]] = []
    taken(sides[reference], items[:1])
    count = how_many(sides[reference], items, options.seconds)
    for number in range(options.rounds):
        machine = psutil.cpu_times_percent(interval=0.2)  # everybody waits: what is used now is used by others
        one: dict[str, Any] = {"others_cpu": (100.0 - machine.idle) / 100.0}
        chosen = [items[(number * count + k) % len(items)] for k in range(count)]
        for side in list(sides)[number % len(sides) :] + list(sides)[: number % len(sides)]:
            taken(sides[side], chosen[:1])
            one[side] = taken(sides[side], chosen)
            caches.rest()
        rounds.append(one)
        rates = {side: (round(one[side]["per_second"], 2), round(one[side]["cpu_ms"], 2)) for side in sides}
        print(f"{name}, round {number}: a second, and ms of CPU: {rates}", file=sys.stderr, flush=True)
    return {
        "sides": {side: summary([one[side] for one in rounds]) for side in sides},
        "over": {side: ratios(rounds, side, reference) for side in sides if side != reference},
        "items_of_a_round": count,
        "others_cpu_most": max(one["others_cpu"] for one in rounds),
        "rounds": rounds,
    }


def how_many(take: Take, items: Sequence[Any], seconds: float) -> int:
    """Items that take so long, at least one."""
    count, began = 0, time.perf_counter()
    while count < 1 or time.perf_counter() - began < seconds:
        take(items[count % len(items)])
        count += 1
    return count


def taken(take: Take, items: Sequence[Any]) -> dict[str, float]:
    """Take all of them, and time it."""
    frames = 0
    began, cpu_began = time.perf_counter(), time.process_time()
    for item in items:
        frames += len(take(item))
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    return {"per_second": len(items) / elapsed, "frames_per_second": frames / elapsed, "cpu_ms": 1e3 * cpu / len(items)}


def summary(turns: list[dict[str, float]]) -> dict[str, Any]:
    names = ("per_second", "frames_per_second", "cpu_ms")
    return {
        **{name: round(statistics.median(one[name] for one in turns), 3) for name in names},
        "least_per_second": round(min(one["per_second"] for one in turns), 3),
        "most_per_second": round(max(one["per_second"] for one in turns), 3),
    }


def ratios(rounds: list[dict[str, Any]], side: str, reference: str) -> dict[str, dict[str, float]]:
    """The side's rate over the reference's, and the reference's CPU over the side's: above 1 is better in both."""
    return {
        "per_second": spread([one[side]["per_second"] / one[reference]["per_second"] for one in rounds]),
        "cpu_ms": spread([one[reference]["cpu_ms"] / max(1e-9, one[side]["cpu_ms"]) for one in rounds]),
    }


def digests(pictures: Sequence[Any]) -> list[str]:
    return [hashlib.sha256(np.ascontiguousarray(np.asarray(picture))).hexdigest() for picture in pictures]


def require_same_pictures(sides: dict[str, Take], items: Sequence[Any]) -> int:
    """How many were compared.

    Raises:
        SystemExit: Two sides have other pixels for one sample.
    """
    for item in items:
        pictures = {side: take(item) for side, take in sides.items()}
        found = {side: digests(of_side) for side, of_side in pictures.items() if side not in ROUNDED}
        if len({tuple(of) for of in found.values()}) != 1:
            raise SystemExit(f"sides differ at {item}: {found}")
        for side in ROUNDED & pictures.keys():
            if (off := most_difference(pictures[side], pictures[next(iter(found))])) > MOST_MEAN_DIFFERENCE:
                raise SystemExit(f"{side} differs by {off:.1f} of 255 at {item}")
    return len(items)


def most_difference(some: Sequence[Any], others: Sequence[Any]) -> float:
    """Of the pictures that differ most: the mean."""
    pairs = zip(some, others, strict=True)
    return max(float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean()) for one, other in pairs)


def require_same_batches(sides: dict[str, Take], batches: Sequence[tuple[str, list[int]]]) -> None:
    """Of the same frames; one side gives them as drawn, the others sorted."""
    in_order = {side: take for side, take in sides.items() if side != SHUFFLED}
    for path, frames in batches:
        require_same_pictures(in_order, [(path, frames)])
        require_same_pictures(sides, [(path, sorted(frames))])


def tell(dataset: str, found: dict[str, Any], results: Results) -> None:
    """Rows of one dataset: rates over torchcodec's that takes frame by frame, round by round."""
    tell_case(f"{dataset}: samples at random", found["random"], ALONE, results)
    for span, batches in found["batches"].items():
        name = f"{dataset}: batches of {found['batch_size']} frames of one {span}, sorted"
        tell_case(name, batches, SHUFFLED, results)
    for name, (ratio, wanted) in wanted_of(found).items():
        results.claim(f"{dataset}: {name}", ratio, wanted)


def tell_case(case: str, measured: dict[str, Any], reference: str, results: Results) -> None:
    rounds = measured["rounds"]
    for side in measured["sides"]:
        for quantity, unit in (("frames_per_second", "frames/s"), ("cpu_ms", "ms")):
            results.add(case, side, quantity, unit, [one[side][quantity] for one in rounds])
        rates = [one[side]["per_second"] / one[reference]["per_second"] for one in rounds]
        results.add(case, side, "rate_over_torchcodec", "x", rates)


def wanted_of(found: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """What millpond came to, by the median of rounds, and what it should come to at least."""
    rows = {
        f"{side} over torchcodec": (over["per_second"]["median"], WANTED_RANDOM)
        for side, over in found["random"]["over"].items()
        if side not in ROUNDED
    }
    if found["gop_frames"] == BATCH_GOP:
        for span, batches in found["batches"].items():
            rows[f"batch of one {span} over one by one"] = (batches["over"][OURS]["per_second"]["median"], WANTED_BATCH)
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path, metavar="DATASET", help="folder of a LeRobot v3 dataset")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of torchcodec in a round; others do the same")
    parser.add_argument("--max-size", type=int, default=100, help="cap of both caches")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--compared", type=int, default=24, help="samples whose pixels are compared before")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peers-python", default="", help="of an environment with decord2, if this one has it not")
    parser.add_argument("--json", type=Path, help="the report goes here, too")
    return parser.parse_args()


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that the temporary folder goes, too
    if reason := why_not("torchcodec.decoders"):
        raise SystemExit(f"this bench compares with torchcodec, which is not to be used here: {reason}")
    from _torchcodec_cache import TorchcodecCache

    settings = {
        name: value for name, value in vars(options).items() if name not in ("json", "datasets", "peers_python")
    }
    question = "how many samples a second come at random from decoders that are open"
    results = Results("random_access", question, settings, packages=("decord2",))
    borrow_from(options.peers_python)
    if reason := why_not("decord"):
        results.absent[DECORD] = reason
    results.details["datasets"] = {}
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as folder:
        store = SidecarStore(Path(folder))
        for root in options.datasets:
            caches = Caches(
                TorchcodecCache(options.max_size),
                millpond.VideoDecoderCache(options.max_size, cache_dir=folder),
                PyavReaders(options.max_size),
                None if DECORD in results.absent else DecordReaders(options.max_size),
            )
            found = results.details["datasets"][root.name] = measure(root, caches, store, options)
            caches.clear()
            tell(root.name, found, results)
            results.write_results(options.json)  # what a long run has so far
    results.publish(options.json)


if __name__ == "__main__":
    main()
