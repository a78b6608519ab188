"""How fast does a local Ray cluster read a LeRobot dataset, with millpond's reader and with Ray's own?

Beside both a plain loader, which needs no Ray. They take turns, an epoch each, in order and at full size, since Ray's
reader neither shuffles nor resizes. Before that each is looked at: which samples come, with which pictures, at what
memory. Then one video is damaged, and each reads on as it is by default, and where it may leave out what is bad.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from _compare import BYTES_OF, CPU, LOOK_EVERY_SECONDS, MEMORY, RATE, rate, say
from _damage import Damaged, damaged_copy
from _epochs import dataset_of
from _lerobot_frames import LeRobotFrames, read_frames
from _pictures import verdicts
from _process import Contender
from _results import Results
from _sides import Side, SideFailed
from millpond._observe.memory import MemorySampler

SIDES = {"millpond.ray": "--ours", "ray": "--theirs", "one loader": "--loader"}
OURS, *OTHERS = SIDES
PEAK, LOST, ALTERED, RAISED, NAMED = (
    "peak_memory_mib",
    "good_samples_lost",
    "damaged_samples_delivered",
    "raises",
    "names_the_file",
)
ENDLESS_SECONDS = 1e9
STAND_INS = Path(__file__).resolve().parent.parent / "tests" / "with_lerobot" / "stand_ins"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "datasets", nargs="*", type=Path, metavar="DATASET", help="of LeRobot v3; none: a synthetic one"
    )
    parser.add_argument("--json", type=Path, help="figures go here, too")
    parser.add_argument("--cpus", type=int, default=2, help="of each cluster; workers of the loader")
    parser.add_argument("--blocks", type=int, default=4, help="read tasks of each reader")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--memory", default="1GiB", help="of the loader; each of millpond's tasks has 512 MiB")
    parser.add_argument("--object-store", default="2GiB", help="of each cluster")
    parser.add_argument("--pictures", type=int, default=4, help="samples of each side whose pictures are compared")
    parser.add_argument("--rounds", type=int, default=3, help="of an epoch of each side")
    parser.add_argument("--sides", nargs="*", choices=OTHERS, default=OTHERS, help=f"beside {OURS!r}")
    return parser.parse_args()


def main() -> None:
    options = parse()
    assert __doc__ is not None
    settings = {name: value for name, value in vars(options).items() if name not in ("datasets", "json")}
    results = Results("ray_data", __doc__.splitlines()[0], settings, packages=("ray", "torchcodec"))
    with ExitStack() as stack:
        sides = started([OURS, *options.sides], options, stack, results)
        for given in options.datasets or [None]:
            with dataset_of(argparse.Namespace(dataset=given)) as root:
                measure(root, options, sides, results)
            results.write_results(options.json)
    results.publish(options.json)


def started(names: Sequence[str], options: argparse.Namespace, stack: ExitStack, results: Results) -> dict[str, Side]:
    """A process for each, and for those that need it a cluster, in folders that go with them."""
    sides = {}
    for name in names:
        # addresses of sockets are short; Ray's own processes may still write while they end
        temporary = tempfile.TemporaryDirectory(prefix="mp-", dir="/tmp", ignore_cleanup_errors=True)
        folder = stack.enter_context(temporary)
        arguments = SIDES[name], folder, str(options.cpus), str(bytes_of(options.object_store))
        contender = Contender("_peer_ray_data.py", *arguments, environment=environment_of(name, folder))
        stack.enter_context(contender)
        if "absent" in contender.facts:
            results.absent[name] = contender.facts["absent"]
        else:
            sides[name] = Side(name, contender)
            results.peers[name] = contender.facts
    return sides


def environment_of(name: str, folder: str) -> dict[str, str]:
    """A side's, which writes into the folder alone.

    LeRobot is where `make setup` puts it, for those who do not have it installed.
    """
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "MILLPOND_CACHE_DIR": folder}
    environment["RAY_worker_niceness"] = "0"  # else 15: beside others a loader without Ray would have the machine
    beside = Path(sys.prefix) / "lerobot"
    if name == "ray" and beside.is_dir():
        paths = [str(STAND_INS), str(beside), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment


def bytes_of(amount: str) -> int:
    return int(float(amount[:-3]) * BYTES_OF[amount[-3:]])


def measure(root: Path, options: argparse.Namespace, sides: dict[str, Side], results: Results) -> None:
    """Look at every side, time those that are right in turn, then damage a video."""
    case, frames = root.name, read_frames(root, 1)
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as folder:
        whole = looked_at(root, options, sides, frames, Path(folder), results)
        rounds = [one_round(number, whole) for number in range(options.rounds)]
        add_rates(case, rounds, results)
        damaged = damaged_copy(root, Path(folder) / "damaged", frames)
        read_damaged(case, damaged, options, whole, frames, results)
        for side in whole.values():
            side.ask("close")
    results.details[case] = {
        "cameras": len(frames.cameras),
        "samples": len(frames),
        "rounds": rounds,
        "damaged_bytes": damaged.num_bytes,
        "damaged_samples": len(damaged.bad),
        "others_cpu_most": max(one["others_cpu"] for one in rounds),
        **results.details.get(case, {}),
    }


def construct(side: Side, root: Path, options: argparse.Namespace, policy: str, folder: Path) -> None:
    side.ask(
        "construct",
        root=str(root),
        batch_size=options.batch_size,
        num_workers=options.cpus,
        blocks=options.blocks,
        memory=options.memory,
        policy=policy,
        quarantine=str(folder / f"quarantine{SIDES[side.name]}"),
    )


def looked_at(
    root: Path,
    options: argparse.Namespace,
    sides: dict[str, Side],
    frames: LeRobotFrames,
    folder: Path,
    results: Results,
) -> dict[str, Side]:
    """An epoch of each that is not timed; who fails, or gives other pictures, is left out of what follows."""
    came: dict[str, tuple[Sequence[int], Path]] = {}
    for name, side in sides.items():
        try:
            samples, path = look(root, side, options, folder, results)
        except SideFailed as error:
            results.absent[f"{name}, {root.name}"] = str(error)
            continue
        once = sum(count == 1 for sample, count in Counter(samples).items() if 0 <= sample < len(frames))
        results.claim(f"{root.name}, {name}: samples that come once", once - (len(samples) - once), len(frames))
        came[name] = samples[: options.pictures], path
        say(f"looked at {name}: {len(samples)} samples")
    found = verdicts(frames, None, came)
    results.details[root.name] = {"pictures": {name: vars(verdict) for name, verdict in found.items()}}
    wrong = {f"{name}, {root.name}": f"other pictures: {one.wrong}" for name, one in found.items() if one.wrong}
    results.absent |= wrong
    return {name: sides[name] for name in came if not found[name].wrong}


def look(root: Path, side: Side, options: argparse.Namespace, folder: Path, results: Results) -> tuple[list[int], Path]:
    """Which samples come, in their order; and where their first pictures are."""
    path = folder / f"{SIDES[side.name]}.npz"
    with MemorySampler(side.pid, interval_seconds=LOOK_EVERY_SECONDS) as sampler:
        construct(side, root, options, "raise", folder)
        seen = side.ask("look", seconds=ENDLESS_SECONDS, pictures=options.pictures, path=str(path))
    results.add(root.name, side.name, PEAK, "MiB of PSS", [sampler.peak_pss_bytes / 2**20])
    results.add(root.name, side.name, MEMORY, "MiB of PSS", [sampler.peak_growth_bytes / 2**20])
    return [index for batch in seen["batches"] for index in batch], path


def one_round(number: int, sides: dict[str, Side]) -> dict[str, Any]:
    """Begin at another side each time."""
    machine = psutil.cpu_times_percent(interval=0.5)  # everybody waits: what is used now is used by others
    measured: dict[str, Any] = {"others_cpu": (100.0 - machine.idle) / 100.0}
    names = list(sides)
    first = number % len(names)
    for name in names[first:] + names[:first]:
        measured[name] = sides[name].ask("epoch")
    rates = ", ".join(f"{name} {rate(measured[name]):.0f}" for name in names)
    say(f"round {number}: others use {measured['others_cpu']:.0%} of the machine; samples/s: {rates}")
    return measured


def add_rates(case: str, rounds: list[dict[str, Any]], results: Results) -> None:
    for name in (name for name in rounds[0] if name != "others_cpu"):
        epochs = [one[name] for one in rounds]
        results.add(case, name, RATE, "samples/s", [rate(one) for one in epochs])
        results.add(case, name, CPU, "ms of CPU", [1e3 * one["cpu_seconds"] / one["samples"] for one in epochs])
    for quantity in (RATE, CPU):
        results.compare(case, quantity, over=OURS)


def read_damaged(
    case: str,
    damaged: Damaged,
    options: argparse.Namespace,
    sides: dict[str, Side],
    frames: LeRobotFrames,
    results: Results,
) -> None:
    """What each side makes of it, as it is and where it may leave things out."""
    good = set(range(len(frames))) - damaged.bad
    for policy, title in (("raise", "by default"), ("skip", "told to skip")):
        for name, side in sides.items():
            where = f"{case}, a damaged video, {title}"
            try:
                construct(side, damaged.root, options, policy, damaged.root.parent)
                path = str(damaged.root / "pictures.npz")
                seen = side.ask("look", seconds=ENDLESS_SECONDS, pictures=1, path=path)
            except SideFailed as error:
                results.details.setdefault("raised", {})[f"{name}, {where}"] = cause(error)
                results.add(where, name, RAISED, "an error", [1])
                results.add(where, name, NAMED, "is in it", [damaged.video.name in error.text])
                say(f"{where}: {name} raised {cause(error)}")
                continue
            samples = {index for batch in seen["batches"] for index in batch}
            results.add(where, name, RAISED, "an error", [0])
            results.add(where, name, LOST, f"of {len(good)}", [len(good - samples)])
            results.add(where, name, ALTERED, f"of {len(damaged.bad)}", [len(samples & damaged.bad)])
            say(f"{where}: {name} lost {len(good - samples)}, gave {len(samples & damaged.bad)} damaged ones")


def cause(error: SideFailed) -> str:
    """Ray's errors have a traceback within, and the error that a task raised at the end of that."""
    within = [line for line in error.text.splitlines() if re.match(r"[\w.]+: ", line)]
    return within[-1] if within else str(error)


if __name__ == "__main__":
    main()
