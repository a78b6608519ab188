"""Does an epoch that is shared out to several ranks cost more than one loader, and is it the same epoch?

Every side goes through the same epochs, in turn, with as many rows in all ranks' batches together and as much memory
for all of them. Before it is timed each is looked at: which samples come in which batch, and at what memory.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from _compare import BYTES_OF, CPU, MEMORY, MIXING, RATE, mixing_of, say
from _epochs import dataset_of
from _lerobot_frames import LeRobotFrames, read_frames
from _rank_groups import Look, RankGroup, Shape
from _results import Results
from millpond._observe.memory import MemorySampler

SIDES = {
    "one loader": Shape(1, 2),
    "2 ranks": Shape(2, 1),
    "2 ranks, canonical": Shape(2, 1, is_canonical=True),
    "1 rank, canonical": Shape(1, 2, is_canonical=True),
    "4 ranks": Shape(4, 1),
}
ONE, *OTHERS = SIDES
MOST_RANKS = 4
DECODED, MIXING_OF_RANK, PADDED = "frames_decoded_per_frame", "mixing_of_a_rank", "padded_rows"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "datasets", nargs="*", type=Path, metavar="DATASET", help="of LeRobot v3; none: a synthetic one"
    )
    parser.add_argument("--json", type=Path, help="figures go here, too")
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("H", "W"))
    parser.add_argument("--batch-size", type=int, default=64, help="rows of all ranks together")
    parser.add_argument("--memory", default="2GiB", help="of all ranks together")
    parser.add_argument("--shards", type=int, default=8, help="of the canonical sides")
    parser.add_argument("--rounds", type=int, default=5, help="of an epoch of each side")
    parser.add_argument("--sides", nargs="*", choices=OTHERS, default=OTHERS, help=f"beside {ONE!r}")
    return parser.parse_args()


def main() -> None:
    options = parse()
    assert __doc__ is not None
    settings = {name: value for name, value in vars(options).items() if name not in ("datasets", "json")}
    results = Results("ranks", __doc__.splitlines()[0], settings)
    with ExitStack() as stack:
        sides = {name: RankGroup.started(SIDES[name].ranks, stack) for name in (ONE, *options.sides)}
        for given in options.datasets or [None]:
            with dataset_of(argparse.Namespace(dataset=given)) as root:
                measure(root, options, sides, results)
            results.write_results(options.json)
    results.publish(options.json)


def measure(root: Path, options: argparse.Namespace, sides: dict[str, RankGroup], results: Results) -> None:
    """Look at every side, time all in turn, then see whether canonical orders are what they are to be."""
    case, frames = root.name, read_frames(root, 1)
    looks = {name: looked_at(name, root, options, sides, frames, results) for name in sides}
    rounds = [one_round(number, sides) for number in range(options.rounds)]
    add_rates(case, rounds, frames, results)
    for side in sides.values():
        side.close_loaders()
    with several_ranks(list(sides.values())) as groups:
        seen = {SIDES[name].ranks: look.steps for name, look in looks.items() if SIDES[name].is_canonical}
        claim_one_order(root, options, groups, seen, results)
        for group in groups.values():
            group.close_loaders()
    results.details[case] = {
        "cameras": len(frames.cameras),
        "samples": len(frames),
        "rounds": rounds,
        "others_cpu_most": max(one["others_cpu"] for one in rounds),
    }


def looked_at(
    name: str,
    root: Path,
    options: argparse.Namespace,
    sides: dict[str, RankGroup],
    frames: LeRobotFrames,
    results: Results,
) -> Look:
    """Construct a side's loaders, and go through an epoch that is not timed."""
    shape, side = SIDES[name], sides[name]
    others = {os.getpid()}.union(*(other.pids for other in sides.values() if other is not side))
    with MemorySampler(without=others) as sampler:
        facts = construct(side, root, options, workers=shape.workers, is_canonical=shape.is_canonical)
        look = side.look()
    results.add(root.name, name, MEMORY, "MiB of PSS", [sampler.peak_growth_bytes / 2**20])
    results.details.setdefault("memory_plans", {})[f"{name}, {root.name}"] = facts[0]["memory_plan"]
    add_look(root.name, name, look, frames, options.batch_size, results)
    say(f"looked at {name}: {len(look.samples)} samples")
    return look


def construct(
    side: RankGroup, root: Path, options: argparse.Namespace, *, workers: int, is_canonical: bool
) -> list[dict[str, Any]]:
    memory_bytes = int(float(options.memory[:-3]) * BYTES_OF[options.memory[-3:]])
    return side.construct(
        root=str(root),
        image_size=options.image_size,
        batch_size=options.batch_size // len(side),
        memory=memory_bytes // len(side),
        num_workers=workers,
        canonical_shards=options.shards if is_canonical else None,
    )


def add_look(case: str, name: str, look: Look, frames: LeRobotFrames, rows: int, results: Results) -> None:
    """How an epoch is mixed and filled up; and whether it is one."""
    of_ranks = [batch for batches in look.batches for batch in batches]
    mixed = mixing_of(look.steps, frames, rows)
    results.add(case, name, MIXING, "of a full shuffle's", [mixed])
    mixed = mixing_of(of_ranks, frames, rows // len(look.batches))
    results.add(case, name, MIXING_OF_RANK, "of a full shuffle's", [mixed])
    results.add(case, name, PADDED, "rows", [look.padded_rows])
    times, lengths = Counter(look.samples), list(map(len, look.batches))
    once = sum(count == 1 for sample, count in times.items() if 0 <= sample < len(frames))
    results.claim(f"{case}, {name}: samples that come once", once - (len(look.samples) - once), len(frames))
    results.claim(f"{case}, {name}: batches of the rank that gives fewest", min(lengths), max(lengths))


def one_round(number: int, sides: dict[str, RankGroup]) -> dict[str, Any]:
    """Begin at another side each time."""
    machine = psutil.cpu_times_percent(interval=0.5)  # everybody waits: what is used now is used by others
    measured: dict[str, Any] = {"others_cpu": (100.0 - machine.idle) / 100.0}
    names = list(sides)
    first = number % len(names)
    for name in names[first:] + names[:first]:
        measured[name] = sides[name].epoch()
    rates = ", ".join(f"{name} {measured[name]['samples'] / measured[name]['wall_seconds']:.0f}" for name in names)
    say(f"round {number}: others use {measured['others_cpu']:.0%} of the machine; samples/s: {rates}")
    return measured


def add_rates(case: str, rounds: list[dict[str, Any]], frames: LeRobotFrames, results: Results) -> None:
    planned = len(frames) * len(frames.cameras)
    for name in rounds[0]:
        if name == "others_cpu":
            continue
        epochs = [one[name] for one in rounds]
        results.add(case, name, RATE, "samples/s", [one["samples"] / one["wall_seconds"] for one in epochs])
        results.add(case, name, CPU, "ms of CPU", [1e3 * one["cpu_seconds"] / one["samples"] for one in epochs])
        results.add(case, name, DECODED, "of the dataset", [one["frames_decoded"] / planned for one in epochs])
    for quantity in (RATE, CPU, DECODED):
        results.compare(case, quantity, over=ONE)


@contextmanager
def several_ranks(sides: Sequence[RankGroup]) -> Iterator[dict[int, RankGroup]]:
    """1, 2 and 4 of the sides' processes, as another group each; those that lack are started."""
    with ExitStack() as stack:
        lacking = max(0, MOST_RANKS - sum(map(len, sides)))
        whole = RankGroup.joined([*sides, RankGroup.started(lacking, stack)])
        yield {count: whole.first(count) for count in (1, 2, MOST_RANKS)}


def claim_one_order(
    root: Path,
    options: argparse.Namespace,
    groups: dict[int, RankGroup],
    seen: dict[int, list[list[int]]],
    results: Results,
) -> None:
    """Steps have the same samples on every number of ranks, and after a resume; `seen`: those that were looked at."""

    def constructed(count: int) -> RankGroup:
        construct(groups[count], root, options, workers=1, is_canonical=True)
        return groups[count]

    for count in groups:
        if count not in seen:
            seen[count] = constructed(count).look().steps
    steps = max(seen.values(), key=len)
    before = constructed(MOST_RANKS).look(num_batches=len(steps) // 2)
    after = constructed(2).look(state=before.states[0])
    resumed = before.steps + after.steps
    for what, several in (("on 1, 2 and 4 ranks", [*seen.values()]), ("after 4 -> 2 ranks", [steps, resumed])):
        results.claim(f"{root.name}: canonical steps that are the same {what}", alike(several), len(steps))
    same_states = sum(state == before.states[0] for state in before.states)
    results.claim(f"{root.name}: ranks that save the same state", same_states, MOST_RANKS)


def alike(several: list[list[list[int]]]) -> int:
    """Steps whose samples are the same, in the same rows, in all of them; a step too many is one that is not."""
    same = sum(all(step == steps[0] for step in steps) for steps in zip(*several, strict=False))
    return same - (max(map(len, several)) - min(map(len, several)))


if __name__ == "__main__":
    main()
