"""What does the plan alone cost at 10^6 episodes, 10^9 frames and 1,024 ranks, and what would a store be asked?

Nothing is decoded or fetched: the dataset is a model (bench/_scale_model.py) of as many episodes as you like, whose
metadata is on disk and opened as `LeRobotDataset(lazy=True)` does, and ranks are the loader's own code up to where it
would open its arena. A process of its own for each look tells what a start takes, how memory grows by it, and what all
draws of its epoch take: a task handed out and taken back, a batch that is ready taken and let go of.

Planning is done by one thread, so its CPU seconds are what it takes on a machine that nobody shares.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from _process import Contender
from _results import Results
from _scale_metadata import write_metadata
from _scale_model import Shape, as_dict
from _scale_ranks import balance_of, requests_of, steps_differ

CANONICAL_WORLDS = (1, 2, 4, 8)


def look(shape: Shape, rounds: int, metadata: Path | None = None, **options: Any) -> dict[str, list[float]]:
    """What a rank with a `Loader` of these options tells of its start and of its draws; a process for each round."""
    told: dict[str, list[float]] = {}
    for _ in range(rounds):
        with Contender("_scale_rank.py") as rank:
            found = rank.ask("start", shape=as_dict(shape), metadata=metadata and str(metadata), **options)
            found |= rank.ask("draw")
        for name, value in found.items():
            told.setdefault(name, []).append(value)
    return told


def loader_options(options: argparse.Namespace, world_size: int) -> dict[str, Any]:
    """Of a rank in the middle."""
    return {
        "rank": world_size // 2,
        "world_size": world_size,
        "batch_size": options.batch_size,
        "shuffle": True,
        "memory": options.memory,
        "num_workers": options.num_workers,
        "output": "numpy",
    }


def add_costs(results: Results, case: str, side: str, told: dict[str, list[float]]) -> None:
    """The rows of one size. What is planned anew for each epoch counts for its samples; what a start has, does not."""
    results.add(case, side, "start_cpu_seconds", "s", told["start_cpu_seconds"])
    for name in ("anon", "peak"):
        results.add(case, side, f"{name}_growth_mb", "MB", [size / 1e6 for size in told[f"{name}_growth_bytes"]])
    planned = [sum(both) for both in zip(told["order_cpu_seconds"], told["pond_cpu_seconds"], strict=True)]
    for name, seconds, per in (
        ("plan_us_per_sample", planned, "samples"),
        ("draws_us_per_sample", told["draw_cpu_seconds"], "samples"),
        ("us_per_draw", told["draw_cpu_seconds"], "tasks"),
    ):
        values = [1e6 * spent / count for spent, count in zip(seconds, told[per], strict=True)]
        results.add(case, side, name, "us", values)


def measure_rank(results: Results, shape: Shape, options: argparse.Namespace) -> None:
    """A rank of the whole dataset, and what is wanted of it."""
    case, side = f"one of {options.ranks:,} ranks", "millpond"
    with TemporaryDirectory() as folder:
        write_metadata(Path(folder), shape)
        told = look(shape, options.rounds, Path(folder), **loader_options(options, options.ranks))
    add_costs(results, case, side, told)
    results.details["rank"] = told
    for name in ("open", "loader", "order", "pond"):
        results.add(f"start of {case}", name, "cpu_seconds", "s", told[f"{name}_cpu_seconds"])

    def median(quantity: str) -> float:
        return results.row(case, side, quantity).median

    results.claim("start of a rank, CPU s", median("start_cpu_seconds"), 2.0, is_limit=True)
    results.claim("memory that a rank's start takes, at its peak, MB", median("peak_growth_mb"), 200, is_limit=True)
    spent = median("plan_us_per_sample") + median("draws_us_per_sample")
    results.claim("plan and draws, us a sample", spent, 5.0, is_limit=True)


def measure_growth(results: Results, shape: Shape, options: argparse.Namespace) -> None:
    """Draws may grow with the logarithm of a rank's size at most; a canonical shard has segments of the same length."""
    case, sizes = "ranks of several sizes", sorted(options.sizes)
    for size in sizes:
        episodes = max(2, round(size / shape.episode_frames))
        alone = loader_options(options, 1) | {"canonical_shards": 1}
        add_costs(results, case, side_of(size), look(replace(shape, episodes=episodes), options.rounds, **alone))
    if len(sizes) > 1:
        first, last = (results.row(case, side_of(size), "us_per_draw").median for size in (sizes[0], sizes[-1]))
        limit = math.log(sizes[-1]) / math.log(sizes[0])
        results.claim(f"a draw's growth from {sizes[0]:,} to {sizes[-1]:,}", last / first, limit, is_limit=True)


def side_of(size: int) -> str:
    return f"millpond, {size:,} samples"


def measure_ranks(results: Results, shape: Shape, options: argparse.Namespace) -> None:
    """What all ranks give and read, and what one of them asks of a store."""
    balance = balance_of(shape, options.ranks, options.batch_size)
    case = f"all {options.ranks:,} ranks"
    for name, unit in (("samples", "samples"), ("batches", "batches"), ("files", "files")):
        results.add(case, "millpond", f"{name}_per_rank", unit, balance[name])
    results.add(case, "millpond", "padding_rows_share", "", [balance["padding_share"]])
    results.details["files"] = {"of_all": shape.num_files, "most_of_a_rank": max(balance["files"])}
    results.claim("samples of ranks differ by less than a batch", float(np.ptp(balance["samples"])), options.batch_size,
                  is_limit=True)  # fmt: skip
    results.claim("ranks with another number of batches", float(np.ptp(balance["batches"])), 0, is_limit=True)
    results.claim("samples that no rank gives, or two", balance["lost_or_twice"], 0, is_limit=True)
    even = shape.num_files / options.ranks
    results.claim(f"sidecars of a rank, of {shape.num_files:,}", max(balance["files"]), even + 2 * shape.cameras,
                  is_limit=True)  # fmt: skip
    asked = requests_of(shape, loader_options(options, options.ranks), options.request_tasks)
    rate = options.samples_per_second * asked["requests_per_sample"]
    for name, unit in (("requests_per_sample", ""), ("mean_request_kib", "KiB"), ("fetched_over_needed", "")):
        results.add("of a store", "a rank", name, unit, [asked[name]])
    mbps = 8e-6 * options.samples_per_second * asked["bytes_per_sample"]
    for side, ranks in (("a rank", 1), (f"{options.ranks:,} ranks", options.ranks)):
        results.add("of a store", side, "requests_per_second", "/s", [ranks * rate])
        results.add("of a store", side, "gbit_per_second", "Gbit/s", [ranks * mbps / 1e3])


def measure_canonical(results: Results, shape: Shape, options: argparse.Namespace) -> None:
    """The same global steps on 1, 2, 4 and 8 ranks."""
    episodes = max(8, round(options.canonical_samples / shape.episode_frames))
    found = steps_differ(replace(shape, episodes=episodes), CANONICAL_WORLDS, 8 * options.batch_size)
    results.details["canonical"] = found
    results.add("canonical_shards=8", "on 1, 2, 4 and 8 ranks", "global_steps", "steps", [found["steps"]])
    results.claim("global steps that differ between 1, 2, 4, 8 ranks", found["differ"], 0, is_limit=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1_000_000)
    parser.add_argument("--episode-frames", type=int, default=1000, help="in the mean; a half more or less")
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=32, help="of a rank")
    parser.add_argument("--gop", type=int, default=30)
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=[224, 224], help="height and width of a picture")
    parser.add_argument("--frame-bytes", type=int, default=8000, help="compressed, in the mean")
    parser.add_argument("--key-factor", type=float, default=8.0, help="a keyframe's bytes over another frame's")
    parser.add_argument("--episodes-per-file", type=int, default=25, help="of a camera: 200 MB by default")
    parser.add_argument("--samples-per-second", type=float, default=1000, help="that a rank takes")
    parser.add_argument("--memory", default="2GiB", help="of a rank")
    parser.add_argument("--num-workers", type=int, default=8, help="of a rank; none is started")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="samples of a rank")
    parser.add_argument("--canonical-samples", type=int, default=400_000, help="that 8 canonical shards share")
    parser.add_argument("--request-tasks", type=int, default=4000, help="whose requests are planned")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="the report goes here, too")
    return parser.parse_args()


def main() -> None:
    options = parse()
    names = ("episodes", "episode_frames", "gop", "cameras", "episodes_per_file", "frame_bytes", "key_factor")
    shape = Shape(**{name: getattr(options, name) for name in names}, size=tuple(options.size))
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    results = Results("scale", "what the plan alone costs at 10^9 frames, and what a store would be asked", settings)
    measure_rank(results, shape, options)
    measure_growth(results, shape, options)
    measure_ranks(results, shape, options)
    measure_canonical(results, shape, options)
    results.publish(options.json)


if __name__ == "__main__":
    main()
