"""How long until the first batch is there, and how large are workers that have a dataset of tensors? Beside torch's.

Every figure is of a fresh process, which has imported torch and made its dataset before the clock starts; then a second
loader in the same process. Sides take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from _loader_kinds import SIDES
from _process import Contender
from _results import Results

TURNS = ("first_loader", "second_loader")


def measure(side: str, options: argparse.Namespace) -> dict[str, Any]:
    """One process: two loaders, one after the other."""
    arguments = {"side": side, "batch_size": options.batch_size, "num_workers": options.num_workers}
    with Contender("_peer_first_batch.py") as peer:
        last_batches = options.batch_size * options.num_workers
        peer.ask("construct", tensors=options.dataset_mib, as_arrays=options.arrays, thorough=last_batches)
        found = {}
        for turn in TURNS:
            found[turn] = peer.ask("first", **arguments) | peer.ask("rest")
            peer.ask("end")
    print(f"{side}: {[round(one['first_batch_seconds'], 3) for one in found.values()]}", file=sys.stderr, flush=True)
    return found


def summary(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of one side's processes; memory in MiB, of a worker when the whole dataset has been read."""
    found: dict[str, Any] = {}
    for turn in TURNS:
        ones = [one[turn] for one in measured]
        seconds = {name: [one[name] for one in ones] for name in ones[0] if name.endswith("seconds")}
        found[turn] = {name: round(statistics.median(values), 4) for name, values in seconds.items()}
        found[turn]["first_batch_seconds_most"] = round(max(seconds["first_batch_seconds"]), 4)
        found[turn]["memory_mib"] = {
            role: _memory([process for one in ones for process in one["processes"][role]])
            for role in ones[0]["processes"]
            if ones[0]["processes"][role]
        }
        found[turn]["below_pss_mib"] = _mib(statistics.median(_sum_pss(one["processes"]) for one in ones))
        found[turn]["parent_pss_mib"] = _mib(statistics.median(one["parent"]["pss_bytes"] for one in ones))
    return found


def _memory(processes: list[dict[str, int]]) -> dict[str, float]:
    names = processes[0]
    kinds = {name.removesuffix("_bytes"): [process[name] for process in processes] for name in names}
    return {f"{kind}": _mib(statistics.median(values)) for kind, values in kinds.items()}


def _sum_pss(processes: dict[str, list[dict[str, int]]]) -> int:
    return sum(process["pss_bytes"] for group in processes.values() for process in group)


def _mib(count_bytes: float) -> float:
    return round(count_bytes / 2**20, 1)


def over_forkserver(sides: dict[str, Any]) -> dict[str, float]:
    """The first side over torch's forkserver; 1 and below is what is wanted."""
    ours = next(iter(sides.values()))
    theirs = sides.get("torch:forkserver")
    if theirs is None:
        return {}
    found: dict[str, float] = {}
    for turn in TURNS:
        found[f"{turn} first_batch_seconds"] = ours[turn]["first_batch_seconds"] / theirs[turn]["first_batch_seconds"]
        for kind in ("rss", "pss", "uss"):
            worker, other = (side[turn]["memory_mib"]["worker"][kind] for side in (ours, theirs))
            found[f"{turn} worker {kind}"] = worker / other
        found[f"{turn} below_pss"] = ours[turn]["below_pss_mib"] / theirs[turn]["below_pss_mib"]
    return {name: round(ratio, 3) for name, ratio in found.items()}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"{SIDES}.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--sides", nargs="+", default=["millpond", "torch:forkserver", "torch:fork"])
    parser.add_argument("--rounds", type=int, default=7, help="processes of each side")
    parser.add_argument("--dataset-mib", type=int, default=200, help="size of the dataset, in tensors of 1 MiB")
    parser.add_argument("--arrays", action="store_true", help="the dataset holds numpy arrays instead")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="the report goes here, too")
    return parser.parse_args()


def main() -> None:
    options = parse()
    rounds = [{side: measure(side, options) for side in options.sides} for _ in range(options.rounds)]
    sides = {side: summary([one[side] for one in rounds]) for side in options.sides}
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    results = Results("first_batch", "how long a DataLoader's first batch takes, and what its workers weigh", settings)
    results.details["sides"] = sides
    for turn in TURNS:
        for side in options.sides:
            ones = [one[side][turn] for one in rounds]
            results.add(turn, side, "first_batch_seconds", "s", [one["first_batch_seconds"] for one in ones])
            pss = [_mib(_sum_pss(one["processes"])) for one in ones]
            results.add(turn, side, "below_pss_mib", "MiB", pss)
    for name, ratio in over_forkserver(sides).items():
        results.claim(f"{name}, over torch's forkserver", ratio, 1.0, is_limit=True)
    results.publish(options.json)


if __name__ == "__main__":
    main()
