"""Does a dataset in an object store come as fast as one in memory, and what does it fetch, hold and lose?

The store is a server of our own, so many milliseconds from its first byte and so many MiB/s a connection, on a core
that it has for itself; each client (training process, workers, its store's threads) has another, whether it reads from
memory or from the store. Epochs of the same order are run in turn: from memory, from the store, from the store under
faults. Beside them: whole files downloaded by fsspec and then read, and fsspec's file objects under torchcodec, as
LeRobot's streaming does. The exit code is 1 if a sample was lost, came twice or elsewhere, or had other pixels.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import _streaming_rows as rows
from _pinning import two_cores
from _results import Results
from _streaming_data import SYNTH, copied, look_at, temporary_folder
from _streaming_store import Store
from millpond._synth import write_dataset
from millpond._workers.cores import usable_cores

TARGETS = {
    "keep_up": (">=", 0.97),
    "bytes_over_needed": ("<=", 1.03),
    "requests_per_range": ("<=", 1.05),
    "samples_lost_or_twice_or_altered": ("<=", 0),
    "faults_served": (">=", 1),
    "keep_up_with_faults": (">=", 0.9),
    "cache_peak_over_max": ("<=", 1.0),
    "held_over_ring": ("<=", 1.0),
    "index_seconds": ("<=", 10.0),
    "index_seconds_long_headers": ("<=", 10.0),
}

SIDES = {"ram": "from memory", "streamed": "streamed", "faults": "streamed, under faults"}
BESIDE = {
    "memory": "from memory",
    "millpond": "streamed",
    "fsspec_download": "fsspec download, then read",
    "fsspec_readahead": "fsspec and torchcodec",
}
WRONG = ("lost", "twice", "altered", "misplaced", "unbalanced")
"""What samples of an epoch from the store may be, beside those of the same epoch from memory."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("datasets", nargs="*", type=Path, metavar="DATASET", help="of LeRobot v3; none: one that is made for this")
    add("--json", type=Path, help="JSON goes here, too")
    add("--ram", type=Path, default=Path("/dev/shm"), help="a folder that is in memory (default: %(default)s)")
    add("--rounds", type=int, default=5, help="(default: %(default)s)")
    add("--seconds", type=float, default=10.0, help="least length of a timed epoch (default: %(default)s)")
    add("--num-workers", type=int, default=1, help="of a client on one core (default: %(default)s)")
    add("--batch-size", type=int, default=32, help="(default: %(default)s)")
    add("--memory", default="2GiB", help="(default: %(default)s)")
    add("--seed", type=int, default=0, help="of the order (default: %(default)s)")
    add("--latency", type=float, default=0.05, help="seconds to the first byte (default: %(default)s)")
    add("--mib-per-second", type=float, default=5.0, help="of a connection (default: %(default)s)")
    add(
        "--faults",
        type=float,
        nargs=3,
        default=(0.02, 0.01, 0.01),
        metavar=("503", "RESET", "TRUNCATED"),
        help="shares of requests (default: %(default)s)",
    )
    add("--free-rounds", type=int, default=2, help="with every core for everybody (default: %(default)s)")
    add("--cache-bytes", type=int, default=16 << 20, help="least size of the byte cache (default: %(default)s)")
    add("--cache-passes", type=int, default=3, help="through the episodes (default: %(default)s)")
    add("--peer-rounds", type=int, default=3, help="of what begins from nothing (default: %(default)s)")
    add("--peer-seconds", type=float, default=10.0, help="of torchcodec over fsspec, in a round (default: %(default)s)")
    add("--index-files", type=int, default=1000, help="0: none (default: %(default)s)")
    return parser.parse_args()


def measure(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    client_core, server_core = two_cores()
    settings = {"latency_seconds": options.latency, "bytes_per_second": options.mib_per_second * 2**20}
    with copied(root, options.ram) as copy:
        videos = look_at(copy)
        with Store(server_core, **settings) as store:
            store.serve(copy.parent)
            rig = rows.Rig(options, store, copy, videos, (client_core,), options.num_workers)
            rows.say(f"{root.name}: side by side")
            beside = rows.side_by_side(rig)
            rows.say(f"{root.name}: in turn, pinned")
            found = rows.keep_up(rig, rounds=options.rounds, with_faults=True)
            cache = rows.byte_cache(rig)
        free = {}
        if options.free_rounds:
            with Store(**settings) as store:
                store.serve(copy.parent)
                rows.say(f"{root.name}: in turn, not pinned")
                rig = rows.Rig(options, store, copy, videos, (), usable_cores())
                free = rows.keep_up(rig, rounds=options.free_rounds, with_faults=False)
    return {
        "packet_bytes": videos.packet_bytes,
        "file_bytes": videos.file_bytes,
        "pinned": found,
        "not_pinned": free,
        "byte_cache": cache,
        "side_by_side": beside,
    }


def figures(measured: dict[str, Any]) -> dict[str, float]:
    """What the table asks of a dataset."""
    pinned = measured["pinned"]
    calm, faults = pinned["results"]["streamed"], pinned["results"]["faults"]
    wrong = [pinned[name][kind] for name in ("samples_calm", "samples_faults") for kind in WRONG]
    timed = pinned["samples_timed"]
    return {
        "keep_up": calm["keep_up"],
        "bytes_over_needed": calm["bytes_over_needed"],
        "requests_per_range": calm["requests_per_range"],
        "samples_lost_or_twice_or_altered": sum(wrong) + timed["miscounted"] + timed["unbalanced"],
        "faults_served": timed["faults_served"],
        "keep_up_with_faults": faults["keep_up"],
        "cache_peak_over_max": measured["byte_cache"]["peak_over_max"],
        "held_over_ring": pinned["held_over_ring"],
    }


def claim(results: Results, case: str, found: dict[str, float]) -> None:
    """Each figure beside what it must reach."""
    for name, figure in found.items():
        sign, target = TARGETS[name]
        results.claim(f"{case}: {name}", figure, target, is_limit=sign == "<=")


def tell(case: str, measured: dict[str, Any], results: Results) -> None:
    """Rows of one dataset: samples/s and CPU of epochs in turn, round by round, and of first epochs from nothing."""
    rounds = measured["pinned"]["rounds"]
    for name, side in SIDES.items():
        for quantity, unit in (("samples_per_second", "samples/s"), ("cpu_us_per_sample", "us")):
            results.add(case, side, quantity, unit, [one[name][quantity] for one in rounds])
    for name in ("streamed", "faults"):
        keep_up = tuple(measured["pinned"]["results"][name]["keep_ups"])
        results.row(case, SIDES[name], "samples_per_second").over[SIDES["ram"]] = keep_up
    for name, side in BESIDE.items():
        if isinstance(beside := measured["side_by_side"][name], dict):
            results.add(
                f"{case}: first epoch, from nothing",
                side,
                "samples_per_second",
                "samples/s",
                [beside["samples_per_second"]],
            )
        else:
            results.absent[side] = beside
    claim(results, case, figures(measured))


def main() -> int:
    options = parse()
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = "127.0.0.1,localhost"
    client_core, server_core = two_cores()
    settings = {name: value for name, value in vars(options).items() if name not in ("datasets", "json", "ram")}
    results = Results("streaming", "whether a dataset in an object store comes as fast as one in memory", settings)
    results.details |= {"has_a_core_each": client_core != server_core, "datasets": {}}
    with ExitStack() as stack:
        roots = list(options.datasets)
        if not roots:
            roots = [write_dataset(stack.enter_context(temporary_folder()) / "synth", **SYNTH)]
        for root in roots:
            measured = results.details["datasets"][root.name] = measure(root, options)
            tell(root.name, measured, results)
            results.write_results(options.json)  # each takes minutes
    if options.index_files:
        with Store(server_core, latency_seconds=options.latency) as store:
            built = rows.index(options, store, (client_core,))
        seconds = {
            "index_seconds": built["dataset"]["seconds"],
            "index_seconds_long_headers": built["files"]["seconds"],
        }
        results.details["index"] = built
        claim(results, f"{options.index_files:,} files", seconds)
    results.publish(options.json)
    wrong = [of for of in results.claims if of.name.endswith("samples_lost_or_twice_or_altered")]
    return int(not all(of.is_met for of in wrong))


if __name__ == "__main__":
    sys.exit(main())
