"""Is memory flat when frames are read at random from thousands of MP4 files, through a cache of decoders?

Each access is a random frame of a random file. A side is a fresh process with its own cache and its own folder for
sidecars, empty at first; sides take turns. Its baseline is looked at when it has imported what it needs, before its
first access.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _many_files import ManyFiles, make_many_files
from _process import Contender
from _results import Results
from _streaming_data import temporary_folder
from _usable import why_not
from millpond._soak.trend import Trend, trend_of

SIDES = {
    "millpond": "millpond.VideoDecoderCache, and torch for the tensors",
    "millpond-without-torch": "the same where torch is not installed: arrays",
    "torchcodec": "decoders of torchcodec as LeRobot opens them, the least recently used one dropped",
}
NEEDS: dict[str, set[str]] = {
    "millpond": {"torch"},
    "millpond-without-torch": set(),
    "torchcodec": {"torch", "torchcodec.decoders"},
}
MOST_RISE, MOST_GROWTH_MB, MORE_DESCRIPTORS, MOST_SPREAD = 0.02, 150.0, 20, 0.05
"""What is wanted of millpond at its cap."""
ROWS = {
    "baseline_mb": "MB",
    "growth_mb": "MB",
    "most_rise": "of the RSS after the first accesses",
    "most_descriptors": "descriptors",
    "accesses_per_second": "accesses/s",
    "cpu_ms_per_access": "ms",
}
"""What is told of each seed, and its unit."""
LOOKS = ("rss_bytes", "pss_bytes", "uss_bytes", "anon_bytes", "descriptors", "threads", "cached")


def run_all(sides: Sequence[str], files: Path, seed: int, accesses: int, options: argparse.Namespace) -> dict[str, Any]:
    """All sides with one seed, in turns of `--every` accesses."""
    with ExitStack() as stack:
        peers, looks = {}, {}
        for side in sides:
            own = stack.enter_context(temporary_folder())
            peer = Contender("_peer_decoder_cache.py", environment=os.environ | {"MILLPOND_CACHE_DIR": str(own)})
            peers[side] = stack.enter_context(peer)
            name, size = split(side)
            looks[side] = [peer.ask("construct", side=name, max_size=size, files=str(files), seed=seed)]
        for done in range(0, accesses, options.every):
            for side, peer in peers.items():
                looks[side].append(peer.ask("access", count=min(options.every, accesses - done)))
            if (done // options.every + 1) % 10 == 0:
                rss = {side: looks[side][-1]["rss_bytes"] >> 20 for side in peers}
                print(f"seed {seed}, {done + options.every} accesses, RSS in MiB: {rss}", file=sys.stderr, flush=True)
    counts = [0, *(min(done + options.every, accesses) for done in range(0, accesses, options.every))]
    first = min(options.first, accesses // 2)
    return {side: one_run(seed, counts, looks[side], first) for side in sides}


def named(side: str, max_size: int | None) -> str:
    """With its cap: "torchcodec:50" has its own, "torchcodec:none" has none, and "torchcodec" has `--max-size`."""
    return side if ":" in side else f"{side}:{'none' if max_size is None else max_size}"


def split(side: str) -> tuple[str, int | None]:
    name, _, size = side.partition(":")
    return name, size_of(size)


def size_of(text: str) -> int | None:
    return None if text == "none" else int(text)


def one_run(seed: int, counts: list[int], looks: list[dict[str, Any]], first: int) -> dict[str, Any]:
    """What one process did; trends are of the RSS, after the first accesses and in the second half of those."""
    baseline, after = looks[0], [look for count, look in zip(counts, looks, strict=True) if count >= first]
    rss = [look["rss_bytes"] for look in after]
    timed = looks[1:]
    trend = trend_of(rss)
    later = trend_of(rss[len(rss) // 2 :])
    return {
        "seed": seed,
        "baseline_mb": megabytes(baseline["rss_bytes"]),
        "first_mb": megabytes(rss[0]),
        "last_mb": megabytes(rss[-1]),
        "most_mb": megabytes(max(rss)),
        "rise": rss[-1] / rss[0] - 1.0,
        "most_rise": max(rss) / rss[0] - 1.0,
        "growth_mb": megabytes(rss[-1] - baseline["rss_bytes"]),
        "most_growth_mb": megabytes(max(look["rss_bytes"] for look in looks) - baseline["rss_bytes"]),
        "anon_growth_mb": megabytes(after[-1]["anon_bytes"] - baseline["anon_bytes"]),
        "most_descriptors": max(look["descriptors"] for look in looks),
        "most_threads": max(look["threads"] for look in looks),
        "most_cached": max(look["cached"] for look in looks),
        "accesses_per_second": counts[-1] / sum(look["seconds"] for look in timed),
        "cpu_ms_per_access": 1e3 * sum(look["cpu_seconds"] for look in timed) / counts[-1],
        "trend": {**asdict(trend), "is_flat": trend.is_flat, "unit": "bytes a look"},
        "mb_per_million_accesses": per_million(trend, counts[1]),
        "mb_per_million_accesses_second_half": per_million(later, counts[1]),
        "looks": {
            "accesses": counts,
            **{name: [look[name] for look in looks] for name in LOOKS},
            "seconds": [0.0, *(round(look["seconds"], 4) for look in timed)],
        },
        "crcs": [look["crc"] for look in timed],
    }


def per_million(trend: Trend, accesses_a_look: int) -> dict[str, float]:
    """What a run that goes on would add, in MB, and its interval."""
    slopes = {"slope": trend.slope, "low": trend.low, "high": trend.high}
    return {name: round(slope / accesses_a_look, 1) for name, slope in slopes.items()}


def megabytes(num_bytes: float) -> float:
    return round(num_bytes / 1e6, 2)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over seeds, and how far they are apart, over the median."""
    names = ("baseline_mb", "first_mb", "last_mb", "rise", "growth_mb", "accesses_per_second", "cpu_ms_per_access")
    found: dict[str, Any] = {name: round(statistics.median(run[name] for run in runs), 5) for name in names}
    for name in ("last_mb", "growth_mb"):
        values = [run[name] for run in runs]
        found[f"{name}_spread"] = round((max(values) - min(values)) / statistics.median(values), 4)
    for name in ("most_rise", "most_growth_mb", "most_descriptors", "most_cached"):
        found[name] = round(max(run[name] for run in runs), 5)
    for name in ("mb_per_million_accesses", "mb_per_million_accesses_second_half"):
        found[name] = [run[name]["slope"] for run in runs]
    found["is_flat"] = [run["trend"]["is_flat"] for run in runs]
    return found


def wanted_of(side: str, found: dict[str, Any], num_seeds: int) -> dict[str, tuple[float, float]]:
    """What a side of millpond's came to, and what it may come to at most."""
    rows = {
        "rss_rise_after_first": (found["most_rise"], MOST_RISE),
        "growth_mb": (found["most_growth_mb"], MOST_GROWTH_MB),
    }
    size = split(side)[1]
    if size is not None:
        rows["descriptors"] = (found["most_descriptors"], size + MORE_DESCRIPTORS)
    if num_seeds > 1:
        rows["spread_of_rss"] = (found["last_mb_spread"], MOST_SPREAD)
        rows["spread_of_growth"] = (found["growth_mb_spread"], MOST_SPREAD)
    return rows


def same_pictures(runs: dict[str, list[dict[str, Any]]]) -> bool:
    """Every side saw the same pixels, seed by seed, in those accesses that were looked at."""
    return len({json.dumps([run["crcs"] for run in of]) for of in runs.values()}) <= 1


def measure(
    sides: Sequence[str],
    files: ManyFiles,
    seeds: Sequence[int],
    accesses: int,
    folder: Path,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """All seeds of some sides."""
    manifest = folder / "files.json"
    manifest.write_text(json.dumps({"paths": files.paths, "clip_of": files.clip_of, "seconds": files.seconds}))
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for seed in seeds:
        for side, run in run_all(sides, manifest, seed, accesses, options).items():
            runs[side].append(run)
    is_same = same_pictures(runs)
    for run in (run for of in runs.values() for run in of):
        del run["crcs"]
    return {
        "files": len(files.paths),
        "accesses": accesses,
        "same_pictures": is_same,
        "sides": {side: {"results": summary(of), "runs": of} for side, of in runs.items()},
    }


def available(sides: Sequence[str], max_size: int | None, results: Results) -> list[str]:
    """Those that can be measured here; the results say why the others cannot."""
    found = []
    for side in (named(side, max_size) for side in sides):
        missing = {module: reason for module in NEEDS[split(side)[0]] if (reason := why_not(module))}
        for module, reason in missing.items():
            results.absent[side] = f"{module} is not to be used here: {reason}"
        if not missing:
            found.append(side)
    return found


def parse() -> argparse.Namespace:
    kinds = "; ".join(f"{name}: {text}" for name, text in SIDES.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"Sides, with their own cap behind a colon, or `none`: {kinds}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("sources", nargs="*", type=Path, metavar="DATASET", help="LeRobot folders that clips are of")
    parser.add_argument(
        "--sides", nargs="+", default=["millpond", "millpond-without-torch", "torchcodec", "torchcodec:50"]
    )
    parser.add_argument("--max-size", type=size_of, default=100, help="cap of a side that names none; or `none`")
    parser.add_argument("--files", type=int, default=8390, help="distinct files, two cameras an episode")
    parser.add_argument("--accesses", type=int, default=20_000, help="of each side and seed")
    parser.add_argument("--first", type=int, default=1000, help="accesses after which RSS should rise no more")
    parser.add_argument("--every", type=int, default=100, help="accesses from look to look")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--unbounded-sides", nargs="*", default=["millpond:none", "torchcodec:none"])
    parser.add_argument("--unbounded-files", type=int, default=300)
    parser.add_argument("--unbounded-accesses", type=int, default=3000)
    parser.add_argument("--synth-frames", type=int, default=90, help="of a clip, where no DATASET is given")
    parser.add_argument("--synth-size", type=int, nargs=2, metavar=("H", "W"), default=[480, 640], help="of the same")
    parser.add_argument("--json", type=Path, help="the report goes here, too")
    options = parser.parse_args()
    if unknown := {side.partition(":")[0] for side in options.sides + options.unbounded_sides} - SIDES.keys():
        parser.error(f"no such side: {', '.join(sorted(unknown))}")
    if min(options.accesses - options.first, options.unbounded_accesses // 2) < 5 * options.every:
        parser.error("a trend needs some looks: more accesses, or fewer from look to look")
    return options


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that the temporary folder goes, too
    synth = {"frames": options.synth_frames, "size": tuple(options.synth_size)}
    settings = {name: value for name, value in vars(options).items() if name not in ("json", "sources")}
    results = Results("decoder_cache", "whether memory is flat while frames are read at random", settings)
    report = results.details
    sides = available(options.sides, options.max_size, results)
    unbounded = available(options.unbounded_sides, None, results)
    with temporary_folder() as folder:
        files = make_many_files(folder, options.files, options.sources, synth=synth)
        report["clips"] = files.facts()
        report["bounded"] = measure(sides, files, options.seeds, options.accesses, folder, options)
        if unbounded:
            few = ManyFiles(
                files.paths[: options.unbounded_files], files.clip_of, files.seconds, files.clips, files.how
            )
            accesses = options.unbounded_accesses
            report["unbounded"] = measure(unbounded, few, options.seeds[:1], accesses, folder, options)
    for case in ("bounded", "unbounded"):
        for side, found in report.get(case, {"sides": {}})["sides"].items():
            tell(case, side, found, len(options.seeds), results)
    results.publish(options.json)


def tell(case: str, side: str, found: dict[str, Any], num_seeds: int, results: Results) -> None:
    """Rows of one side, a value for each seed; and what is wanted of millpond at its cap."""
    for quantity, unit in ROWS.items():
        results.add(case, side, quantity, unit, [run[quantity] for run in found["runs"]])
    if case == "bounded" and side.startswith("millpond"):
        for name, (value, wanted) in wanted_of(side, found["results"], num_seeds).items():
            results.claim(f"{side}: {name}", value, wanted, is_limit=True)


if __name__ == "__main__":
    main()
