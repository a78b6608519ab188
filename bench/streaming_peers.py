"""How fast do short clips in an object store become batches of frames, beside WebDataset's shards of the same clips?
And what is lost where the store fails now and then?

The store is that of bench/streaming.py: a server of our own, so many milliseconds from its first byte and so many MiB/s
a connection, on a core of its own; clients share another, and take turns of an epoch each. millpond fetches clip by
clip, at random; WebDataset reads tars front to back, and shuffles in a buffer. Each has every number of workers that
is asked for, since what waits for a store wants more of them. All are held against an independent decode before.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _clip_checks import TOLERANCE
from _clip_losses import Outcome
from _clips_data import SIZES, Clip, look_at, write_clips, write_rows, write_shards
from _peer_clips import PACKAGES
from _pinning import pinned, two_cores
from _process import Contender
from _results import Results
from _streaming_data import temporary_folder
from _streaming_store import Store

OURS = "millpond"
PEERS = tuple(side for side in PACKAGES if side.startswith("WebDataset"))
MOST_FAULTS = 0.15
"""Share of requests that fail in each way: with more, whoever tries again has to fail, too."""
CALM, FAULTS = "from the store", "from the store, under faults"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--sides", nargs="*", choices=PEERS, default=PEERS, help="peers")
    add("--peers-python", type=Path, default=Path(sys.executable), help="of an environment that has them")
    add("--num-workers", type=int, nargs="+", default=[2, 4], help="of each side, in turn")
    add("--rounds", type=int, default=3)
    add("--num-clips", type=int, default=48, help="that are made")
    add("--repeats", type=int, default=2, help="times that an epoch goes through them")
    add("--clip-seconds", type=int, default=2, help="least length of a clip")
    add("--clip-size", type=int, nargs=2, metavar=("H", "W"), help="of those; none: three sizes in turn")
    add("--num-frames", type=int, default=16, help="of a clip")
    add("--size", type=int, nargs=2, default=(224, 224), metavar=("H", "W"), help="that frames are resized to")
    add("--batch-size", type=int, default=8)
    add("--shards", type=int, default=8, help="tars; at least as many as workers")
    add("--memory", default="1GiB", help="of millpond")
    add("--latency", type=float, default=0.05, help="seconds to the first byte")
    add("--mib-per-second", type=float, default=5.0, help="of a connection")
    add("--faults", type=float, default=6.0, help="of an epoch, of each side: 503, reset, truncated; 0: none")
    add("--ram", type=Path, default=Path("/dev/shm"), help="a folder that is in memory")
    add("--json", type=Path, help="the report goes here, too")
    options = parser.parse_args()
    if options.shards < max(options.num_workers):
        parser.error(f"{max(options.num_workers)} workers need as many shards, not {options.shards}")
    return options


def peer_options(options: argparse.Namespace, num_workers: int) -> dict[str, Any]:
    names = ("num_frames", "size", "batch_size", "memory")
    return {name: getattr(options, name) for name in names} | {"num_workers": num_workers, "stall_seconds": 60.0}


def served(folder: Path, options: argparse.Namespace) -> tuple[list[Clip], list[str]]:
    """Clips, and shards of the same, in a folder that is served."""
    sizes = [tuple(options.clip_size)] if options.clip_size else SIZES
    paths = write_clips(folder / "clips", options.num_clips, sizes, options.clip_seconds)
    clips = [look_at(path, options.num_frames, options.size) for path in paths]
    assert None not in clips, "clips are too short for so many frames"
    whole = [clip for clip in clips if clip is not None]
    return whole, write_shards(folder / "shards", whole, options.shards, options.repeats)


def contenders(
    sides: list[str], folder: Path, core: int, options: argparse.Namespace, stack: ExitStack, results: Results
) -> dict[str, Contender]:
    """One for each side and number of workers; all of them on one core, each with caches of its own."""
    found = {}
    for side in sides:
        python = sys.executable if side == OURS else str(options.peers_python)
        for count in options.num_workers:
            own = stack.enter_context(temporary_folder())
            environment = os.environ | {"MILLPOND_CACHE_DIR": str(own), "TMPDIR": str(own)}
            with pinned(core):
                asked = stack.enter_context(Contender("_peer_clips.py", python=python, environment=environment))
            if reason := asked.ask("why_not", side=side)["reason"]:
                results.absent[side] = reason
                break
            opened = asked.ask("open", side=side, folder=str(folder), options=peer_options(options, count))
            results.peers[side] = opened["versions"]
            found[f"{side}, {count} workers"] = asked
    return found


def checked(name: str, asked: Contender, folder: Path, num_clips: int, store: Store, repeats: int) -> dict[str, Any]:
    """An epoch: which clips came, how often, and with what the server did for it."""
    store.forget()
    came = asked.ask("check", reference=str(folder / "reference.npy"))["came"]
    found = Outcome(num_clips)
    for one in came:
        found.add(one)
    traffic = store.traffic()
    wrong = sum(one["off_by"] > TOLERANCE for one in came)
    told = {"lost": num_clips * repeats - len(came), "wrong": wrong, **asdict(traffic)}
    print(f"{name}: {told}", file=sys.stderr, flush=True)
    return told


def measure(
    asked: dict[str, Contender], folder: Path, clips: list[Clip], store: Store, options: argparse.Namespace
) -> list[dict[str, dict[str, Any]]]:
    """Rounds of epochs in turn, begun by another one each time."""
    names, rounds = list(asked), []
    for number in range(options.rounds):
        one: dict[str, dict[str, Any]] = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            store.forget()
            epoch = asked[name].ask("epoch")
            assert epoch["samples"] == len(clips) * options.repeats, (name, epoch)
            one[name] = epoch | {"traffic": asdict(store.traffic())}
        rounds.append(one)
        rates = {name: round(one[name]["samples"] / one[name]["seconds"], 1) for name in names}
        print(f"round {number}: {rates} clips/s", file=sys.stderr, flush=True)
    return rounds


def tell(rounds: list[dict[str, dict[str, Any]]], results: Results) -> None:
    for name in rounds[0]:
        of_side = [one[name] for one in rounds]
        results.add(CALM, name, "clips_per_second", "clips/s", [one["samples"] / one["seconds"] for one in of_side])
        cpu = [1e3 * one["cpu_seconds"] / one["samples"] for one in of_side]
        results.add(CALM, name, "cpu_ms_per_clip", "ms", cpu)
        results.add(CALM, name, "first_batch_seconds", "s", [one["first_seconds"] for one in of_side])
        sent = [one["traffic"]["bytes_sent"] / one["samples"] / 1024 for one in of_side]
        results.add(CALM, name, "kib_sent_per_clip", "KiB", sent)
    for name in rounds[0]:
        side, _, workers = name.partition(", ")
        if side != OURS:
            results.compare(CALM, "clips_per_second", over=name, sides=[f"{OURS}, {workers}"])


def run(options: argparse.Namespace, results: Results) -> None:
    client_core, server_core = two_cores()
    settings = {"latency_seconds": options.latency, "bytes_per_second": options.mib_per_second * 2**20}
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder(options.ram, num_bytes=256 << 20))
        wanted = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millpond-bench-")))
        clips, shards = served(folder, options)
        store = stack.enter_context(Store(server_core, **settings))
        store.serve(folder)
        write_rows(wanted, clips, options.repeats, url=f"{store.url}/clips")
        urls = [f"{store.url}/shards/{name}" for name in shards]
        (wanted / "shards.json").write_text(json.dumps(urls), encoding="utf-8")
        asked = contenders([OURS, *options.sides], wanted, client_core, options, stack, results)
        for name, contender in asked.items():
            calm = checked(name, contender, wanted, len(clips), store, options.repeats)
            if calm["lost"] or calm["wrong"]:
                raise SystemExit(f"{name}: {calm}")
        rounds = measure(asked, wanted, clips, store, options)
        tell(rounds, results)
        results.details["rounds"] = rounds
        for name, contender in asked.items() if options.faults else ():
            share = min(MOST_FAULTS, options.faults / 3 / rounds[0][name]["traffic"]["requests"])
            store.begin_faults(unavailable=share, reset=share, truncated=share)
            found = checked(name, contender, wanted, len(clips), store, options.repeats)
            store.end_faults()
            results.add(FAULTS, name, "lost", f"of {len(clips) * options.repeats} clips", [found["lost"]])
            results.add(FAULTS, name, "faults", "served", [found["faults"]])


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that folders in memory go, too
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = "127.0.0.1,localhost"
    if options.sides and shutil.which("curl") is None:
        raise SystemExit("WebDataset reads URLs through curl, which is not installed: install it, or pass --sides")
    leave_out = ("json", "ram", "peers_python")
    settings = {name: value for name, value in vars(options).items() if name not in leave_out}
    results = Results("streaming_peers", "how fast clips in an object store become batches", settings)
    run(options, results)
    results.publish(options.json)


if __name__ == "__main__":
    main()
