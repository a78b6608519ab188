"""Run contenders side by side on the same dataset: the ceiling, millpond and its peers in turn, round by round.

Before anything is timed each side is looked at: the pictures that it delivers are held against an independent decode,
its samples are counted for an epoch (or as much of one as there is time for), and so is its memory. A side that gives
other pictures is left out.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from _lerobot_frames import LeRobotFrames, read_frames
from _pictures import Verdict, verdicts
from _results import Results
from _sides import OURS, PEERS, Side, SideFailed, started
from millpond._observe.ceiling import Ceiling
from millpond._observe.memory import MemorySampler

BYTES_OF = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
CEILING = "ceiling"
RATE, CPU, MEMORY = "samples_per_second", "cpu_ms_per_sample", "memory_growth_mib"
ENOUGH_BATCHES = 16  # of an epoch that was cut short, to say how its batches are mixed
LOOK_EVERY_SECONDS = 0.5  # at memory; each look at a process of 10 GiB takes tens of milliseconds
COUNTED, MIXING = "distinct_samples_over_planned", "mixing"


@dataclass(frozen=True)
class Settings:
    """What a bench compares; with one window frame a sample has one frame of each camera."""

    image_size: tuple[int, int] | None
    window_frames: int
    batch_size: int
    num_workers: int
    memory: str
    mixing: float | None
    rounds: int
    ceiling_seconds: float
    seconds: float
    look_seconds: float
    pictures: int
    streaming_buffer: int
    sides: tuple[str, ...]

    @property
    def memory_bytes(self) -> int:
        return int(float(self.memory[:-3]) * BYTES_OF[self.memory[-3:]])

    def construct(self, root: Path) -> dict[str, Any]:
        """What every side is told."""
        names = ("image_size", "window_frames", "batch_size", "num_workers")
        return {"root": str(root), **{name: getattr(self, name) for name in names}}

    def besides(self, side: str) -> dict[str, Any]:
        """What only that side is told."""
        loader = {"memory": self.memory} | ({} if self.mixing is None else {"mixing": self.mixing})
        return {OURS: loader, "lerobot-streaming": {"buffer_size": self.streaming_buffer}}.get(side, {})


@dataclass(frozen=True)
class Look:
    """What a side delivered before it was timed.

    Attributes:
        batches: Indices of the samples, in the order of delivery.
        is_whole: It is a whole epoch; else the time was up.
        wall_seconds: From asking for the epoch, workers and decoders started for it included.
        growth_bytes: Of the PSS of all its processes, over what they had before it was constructed.
        facts: What it says of itself.
    """

    batches: list[list[int]]
    is_whole: bool
    wall_seconds: float
    growth_bytes: int
    facts: dict[str, Any]

    @property
    def samples(self) -> list[int]:
        return [index for batch in self.batches for index in batch]


def settings_parser(
    question: str, *, window_frames: int, image_size: tuple[int, int] | None
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=question, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path, metavar="DATASET", help="folder of a LeRobot v3 dataset")
    parser.add_argument("--json", type=Path, help="figures go here, too")
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("H", "W"), default=image_size)
    parser.add_argument("--window-frames", type=int, default=window_frames, help="frames of each camera in a sample")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--memory", default="2GiB", help="millpond's budget")
    parser.add_argument("--mixing", type=float, help="as in Loader(mixing=...)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="of the ceiling, an epoch of millpond, a slice of each peer"
    )
    parser.add_argument("--ceiling-seconds", type=float, default=3.0, help="slice of the ceiling in a round")
    parser.add_argument("--seconds", type=float, default=3.0, help="least slice of a peer in a round")
    parser.add_argument("--look-seconds", type=float, default=12.0, help="of an epoch whose samples are counted")
    parser.add_argument("--pictures", type=int, default=4, help="samples of each side whose pictures are compared")
    parser.add_argument(
        "--streaming-buffer",
        type=int,
        default=1000,
        help="samples in the buffer of LeRobot's streaming dataset; 1,000 of two cameras of 640x480 take 7.4 GB",
    )
    parser.add_argument("--sides", nargs="*", choices=list(PEERS), default=list(PEERS), help="peers beside millpond")
    parser.add_argument("--peers-python", default=sys.executable, help="Python of the environment that has the peers")
    return parser


def settings_of(arguments: argparse.Namespace) -> Settings:
    chosen = {name: value for name, value in vars(arguments).items() if name in Settings.__dataclass_fields__}
    size = tuple(arguments.image_size) if arguments.image_size else None
    return Settings(**chosen | {"image_size": size, "sides": tuple(arguments.sides)})


def run(name: str, question: str, arguments: argparse.Namespace) -> None:
    """Compare on every dataset; results are written after each, and published at the end."""
    settings = settings_of(arguments)
    results = Results(name, question, asdict(settings))
    with ExitStack() as stack:
        sides, results.absent = started(settings.sides, arguments.peers_python, stack)
        results.peers = {side.name: side.contender.facts for side in sides.values() if side.name != OURS}
        for root in arguments.datasets:
            compare(root, settings, sides, results)
            results.write_results(arguments.json)
    results.publish(arguments.json)


def compare(root: Path, settings: Settings, sides: dict[str, Side], results: Results) -> None:
    """Look at every side, then run all that are right in turn; one that fails is left out of all that is told."""
    case, frames = root.name, read_frames(root, settings.window_frames)
    looks, wrong = looked_at(root, settings, sides, frames)
    files = {camera: [Path(file) for file in frames.files[camera]] for camera in frames.cameras}
    with Ceiling(files, num_workers=max(1, settings.num_workers), image_size=settings.image_size) as ceiling:
        rounds = rounds_of(settings, ceiling, {name: sides[name] for name in looks if name not in wrong}, wrong)
    for side in sides.values():
        with suppress(SideFailed):  # its process may have ended
            side.ask("close")
    results.absent |= {f"{name}, {case}": reason for name, reason in wrong.items()}
    add_rates(case, rounds, results)
    add_looks(case, {name: seen for name, seen in looks.items() if name not in wrong}, frames, settings, results)
    results.details[case] = {
        "cameras": len(frames.cameras),
        "samples": len(frames),
        "looks": {name: told_of(seen, len(frames)) for name, seen in looks.items()},
        "rounds": rounds,
        "others_cpu_most": max(one["others_cpu"] for one in rounds[:-1]),
    }


def looked_at(
    root: Path, settings: Settings, sides: dict[str, Side], frames: LeRobotFrames
) -> tuple[dict[str, Look], dict[str, str]]:
    """What came of every side, and what is wrong with some."""
    looks: dict[str, Look] = {}
    wrong: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as folder:
        came: dict[str, tuple[Sequence[int], Path]] = {}
        for name, side in sides.items():
            path = Path(folder) / f"{name}.npz"
            try:
                looks[name] = look(side, root, settings, path)
                came[name] = looks[name].samples[: settings.pictures], path
            except SideFailed as error:
                wrong[name] = str(error)
            say(f"looked at {name}: {wrong.get(name, '') or f'{len(looks[name].samples)} samples'}")
        for name, verdict in verdicts(frames, settings.image_size, came).items():
            looks[name].facts["pictures"] = asdict(verdict)
            wrong |= told_wrong(name, verdict)
    if OURS in wrong:
        raise SystemExit(f"{root.name}: millpond: {wrong[OURS]}")
    return looks, wrong


def told_wrong(name: str, verdict: Verdict) -> dict[str, str]:
    return {name: f"other pictures: {verdict.wrong}"} if verdict.wrong else {}


def look(side: Side, root: Path, settings: Settings, path: Path) -> Look:
    """Construct it, and go through an epoch that is not timed; the first one is cold."""
    with MemorySampler(side.pid, interval_seconds=LOOK_EVERY_SECONDS) as sampler:
        facts = side.ask("construct", **settings.construct(root), **settings.besides(side.name))
        seen = side.ask("look", seconds=settings.look_seconds, pictures=settings.pictures, path=str(path))
    return Look(**seen, growth_bytes=sampler.peak_growth_bytes, facts=facts)


def rounds_of(
    settings: Settings, ceiling: Ceiling, sides: dict[str, Side], wrong: dict[str, str]
) -> list[dict[str, Any]]:
    """All rounds, and the ceiling once more; a side that fails in one is added to `wrong`, and is in none of them."""
    rounds = [one_round(number, settings, ceiling, sides, wrong) for number in range(settings.rounds)]
    rounds.append({CEILING: ceiling_slice(ceiling, settings)})
    return [{name: found for name, found in one.items() if name not in wrong} for one in rounds]


def one_round(
    number: int, settings: Settings, ceiling: Ceiling, sides: dict[str, Side], wrong: dict[str, str]
) -> dict[str, Any]:
    """Peers begin at another one each time."""
    machine = psutil.cpu_times_percent(interval=0.5)  # everybody waits: what is used now is used by others
    measured: dict[str, Any] = {"others_cpu": (100.0 - machine.idle) / 100.0}
    measured[CEILING] = ceiling_slice(ceiling, settings)
    measured[OURS] = sides[OURS].ask("epoch")
    peers = [name for name in sides if name != OURS]
    first = number % len(peers) if peers else 0
    for name in peers[first:] + peers[:first]:
        if name not in wrong:
            try:
                measured[name] = sides[name].ask("slice", seconds=settings.seconds)
            except SideFailed as error:
                wrong[name] = str(error)
    rates = ", ".join(f"{name} {rate(one):.0f}" for name, one in measured.items() if name != "others_cpu")
    say(f"round {number}: others use {measured['others_cpu']:.0%} of the machine; samples/s: {rates}")
    return measured


def ceiling_slice(ceiling: Ceiling, settings: Settings) -> dict[str, float]:
    """In the form of the others' answers."""
    found = ceiling.measure(settings.ceiling_seconds)
    samples = found.samples_per_second * found.wall_seconds
    return {"samples": samples, "wall_seconds": found.wall_seconds, "cpu_seconds": found.cpu_seconds}


def rate(one: dict[str, float]) -> float:
    return one["samples"] / one["wall_seconds"]


def add_rates(case: str, rounds: list[dict[str, Any]], results: Results) -> None:
    """Each round of millpond is held against its own peers, and the ceiling just before it and just after it."""
    ceilings = [one[CEILING] for one in rounds]
    between = [(rate(before) + rate(after)) / 2 for before, after in pairwise(ceilings)]
    names = [name for name in rounds[0] if name not in ("others_cpu", CEILING)]
    results.add(case, CEILING, RATE, "samples/s", between)
    for name in names:
        results.add(case, name, RATE, "samples/s", [rate(one[name]) for one in rounds[:-1]])
    for name in (CEILING, *names):
        spent = [1e3 * one[name]["cpu_seconds"] / one[name]["samples"] for one in rounds[:-1]]
        results.add(case, name, CPU, "ms of CPU", spent)
    for name in (CEILING, *names):
        if name != OURS:
            results.compare(case, RATE, over=name, sides=[OURS])
            results.compare(case, CPU, over=name, sides=[OURS])


def add_looks(case: str, looks: dict[str, Look], frames: LeRobotFrames, settings: Settings, results: Results) -> None:
    for name, seen in looks.items():
        results.add(case, name, MEMORY, "MiB of PSS", [seen.growth_bytes / 2**20])
    for name, seen in looks.items():
        if seen.is_whole:
            results.add(case, name, COUNTED, "of an epoch's", [len(set(seen.samples)) / len(frames)])
    for name, seen in looks.items():
        if seen.is_whole or len(seen.batches) >= ENOUGH_BATCHES:
            mixed = mixing_of(seen.batches, frames, settings.batch_size)
            results.add(case, name, MIXING, "of a full shuffle's", [mixed])


def told_of(look: Look, planned: int) -> dict[str, Any]:
    """What an epoch lost and what came twice; of an epoch that was cut short, only the latter is known."""
    times = Counter(look.samples)
    return {
        **look.facts,
        "wall_seconds": look.wall_seconds,
        "growth_bytes": look.growth_bytes,
        "is_whole": look.is_whole,
        "delivered": len(look.samples),
        "distinct": len(times),
        "lost": planned - len(times) if look.is_whole else None,
        "came_again": len(look.samples) - len(times),
    }


def mixing_of(batches: list[list[int]], frames: LeRobotFrames, batch_size: int) -> float:
    """Mean distinct episodes of full batches, over that of full shuffles of the dataset; 0: no batch is full."""
    full = [batch for batch in batches if len(batch) == batch_size]
    if not full:
        return 0.0
    episodes = np.asarray(frames.columns["episode_index"])
    draw = np.random.default_rng(0)
    shuffled = [len(set(draw.permutation(episodes)[:batch_size].tolist())) for _ in range(500)]
    return statistics.mean(len(set(episodes[batch].tolist())) for batch in full) / statistics.mean(shuffled)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
