"""What is left of 200 jobs in a row, each with a loader of its own? millpond.torch.DataLoader beside torch's.

A job goes through its loader, breaks off in the middle, or ends with what its dataset raised. After each one we look at
the process: memory, shared memory, descriptors, pipes, threads, processes. Contenders are processes of their own and
take turns, job by job.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from _loader_kinds import SIDES
from _process import Contender
from _results import Results
from millpond._soak.trend import trend_of

TRENDS = (
    "rss_bytes",
    "rss_before_collection_bytes",
    "pss_bytes",
    "heaps_of_all_bytes",
    "shared_bytes",
    "dev_shm_bytes",
)
COUNTS = ("shared_bytes", "descriptors", "pipes", "sockets", "shared_descriptors", "threads", "processes")


def run(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """All jobs of all sides."""
    names = ("frame_shape", "batch_size", "batches", "num_workers")
    arguments = {name: getattr(options, name) for name in names}
    looks: dict[str, list[dict[str, Any]]] = {side: [] for side in options.sides}
    with ExitStack() as stack:
        peers = {side: stack.enter_context(Contender("_peer_jobs.py")) for side in options.sides}
        for number in range(options.jobs):
            for side, peer in peers.items():
                looks[side].append(peer.ask("job", side=side, number=number, **arguments))
            if (number + 1) % 20 == 0:
                rss = {side: looks[side][-1]["rss_bytes"] >> 10 for side in peers}
                print(f"{number + 1} jobs, RSS in KiB: {rss}", file=sys.stderr, flush=True)
        ends = {side: peer.ask("end") for side, peer in peers.items()}
    return {side: summary(looks[side], ends[side], options.warm_up) for side in options.sides}


def summary(looks: list[dict[str, Any]], end: dict[str, Any], warm_up: int) -> dict[str, Any]:
    """Slopes are per job, of the jobs after `warm_up`; `left` is most after any of them, less the fewest before."""
    counted = looks[warm_up:]
    return {
        "trends": {name: slope([look[name] for look in counted]) for name in TRENDS},
        "left": {
            name: max(look[name] for look in counted) - min(look[name] for look in looks[:warm_up]) for name in COUNTS
        },
        "processes_after_a_job": max(look["processes"] for look in looks),
        "garbage_objects_after_a_job": max(look["garbage_objects"] for look in counted),
        "first": looks[0],
        "last": looks[-1],
        "after_shutdown": end,
        "looks": {name: [look[name] for look in looks] for name in ("rss_bytes", "pss_bytes", "shared_bytes")},
    }


def slope(series: list[float]) -> dict[str, Any]:
    trend = trend_of(series)
    facts = {"bytes_per_job": trend.slope, "low": trend.low, "high": trend.high, "rise": trend.rise}
    return {name: round(value) for name, value in facts.items()} | {
        "noise": round(trend.noise),
        "is_flat": trend.is_flat,
    }


def verdict(found: dict[str, Any]) -> dict[str, bool]:
    """The row of the table."""
    return {
        "rss is flat": found["trends"]["rss_bytes"]["is_flat"],
        "heaps of all processes are flat": found["trends"]["heaps_of_all_bytes"]["is_flat"],
        "shared memory is flat": found["trends"]["shared_bytes"]["is_flat"],
        "no descriptor left": found["left"]["descriptors"] <= 0,
        "no pipe left": found["left"]["pipes"] <= 0,
        "no thread left": found["left"]["threads"] <= 0,
        "no process left": found["processes_after_a_job"] == 0,
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"{SIDES}.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--sides", nargs="+", default=["millpond", "torch"])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--warm-up", type=int, default=20, help="jobs whose looks do not count, at least one")
    parser.add_argument("--batches", type=int, default=8, help="of a job that goes through its loader")
    parser.add_argument("--frame-shape", type=int, nargs="+", default=[3, 224, 224], help="of a sample, uint8")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="the report goes here, too")
    return parser.parse_args()


def main() -> None:
    options = parse()
    sides = run(options)
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    results = Results("loader_jobs", "what is left of many jobs in a row, a loader each", settings)
    results.details["sides"] = sides
    for side, found in sides.items():
        for name in TRENDS:
            trend = found["trends"][name]
            results.add("", side, f"{name.removesuffix('_bytes')}_bytes_per_job", "B", [trend["bytes_per_job"]])
        for name in COUNTS:
            results.add("", side, f"{name}_left", name, [found["left"][name]])
        for name, is_so in verdict(found).items():
            results.claim(f"{side}: {name}", float(is_so), 1.0)
    results.publish(options.json)


if __name__ == "__main__":
    main()
