"""How fast do short clips become batches of frames, beside torch's DataLoader with torchcodec, PyAV and decord2, and
beside SPDL? And what becomes of an epoch in which some clips are damaged, or never open?

Every side takes the same frames of the same clips, evenly spread, resized, as uint8 (B, T, 3, H, W), with as many
workers or threads; each is a process of its own, and they take turns of an epoch each, after each was held against an
independent decode. A library that is not installed is left out, and named.
"""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from _clip_checks import TOLERANCE
from _clip_losses import Outcome, outcome
from _clips_data import SIZES, SUFFIXES, Clip, damaged, look_at, never_opening, write_clips, write_rows
from _peer_clips import PACKAGES
from _process import Contender
from _results import Results
from millpond._observe.memory import MemorySampler
from millpond._workers.cores import usable_cores

SIDES = tuple(side for side in PACKAGES if not side.startswith("WebDataset"))
OURS, *PEERS = SIDES
OWN = "made for this"
NEVER_OPENS = "a clip never opens"
ENOUGH_SECONDS = 120.0
"""For whatever does not hang."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("folders", nargs="*", type=Path, metavar="FOLDER", help="of clips, besides those that are made")
    add("--sides", nargs="*", choices=PEERS, default=PEERS, help="peers")
    add("--peers-python", type=Path, default=Path(sys.executable), help="of an environment that has them")
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=3.0, help="that millpond's epoch takes, or so; others do the same")
    add("--num-clips", type=int, default=40, help="that are made; 0: none")
    add("--clip-seconds", type=int, default=2, help="least length of those")
    add("--clip-size", type=int, nargs=2, metavar=("H", "W"), help="of those; none: three sizes in turn")
    add("--num-frames", type=int, default=16, help="of a clip")
    add("--size", type=int, nargs=2, default=(224, 224), metavar=("H", "W"), help="that frames are resized to")
    add("--batch-size", type=int, default=8)
    add("--num-workers", type=int, default=usable_cores(), help="workers, or threads of SPDL")
    add("--memory", default="1GiB", help="of millpond")
    add("--stall-seconds", type=float, default=3.0, help="millpond's limit for a clip that does not go on")
    add("--patience", type=float, default=30.0, help="seconds after which an epoch counts as hung; 0: none is made to")
    add("--json", type=Path, help="the report goes here, too")
    return parser.parse_args()


def peer_options(options: argparse.Namespace) -> dict[str, Any]:
    names = ("num_frames", "size", "batch_size", "num_workers", "memory", "stall_seconds")
    return {name: getattr(options, name) for name in names}


def cases(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, list[Clip]]]:
    """Name, and clips that have frames enough."""
    if options.num_clips:
        sizes = [tuple(options.clip_size)] if options.clip_size else SIZES
        yield OWN, looked_at(write_clips(folder / "made", options.num_clips, sizes, options.clip_seconds), options)
    for given in options.folders:
        paths = [path.resolve() for path in sorted(given.iterdir()) if path.suffix in SUFFIXES]
        yield given.name, looked_at(paths, options)


def looked_at(paths: list[Path], options: argparse.Namespace) -> list[Clip]:
    looked = [look_at(path, options.num_frames, options.size) for path in paths]
    return [clip for clip in looked if clip is not None]


def usable(options: argparse.Namespace, results: Results) -> list[str]:
    """Sides that can run here; why the others cannot goes into the results."""
    found = [OURS]
    for side in options.sides:
        with contender(side, options) as asked:
            reason = asked.ask("why_not", side=side)["reason"]
        if reason:
            results.absent[side] = reason
        else:
            found.append(side)
    return found


def python_of(side: str, options: argparse.Namespace) -> str:
    return sys.executable if side == OURS else str(options.peers_python)


def contender(side: str, options: argparse.Namespace) -> Contender:
    return Contender("_peer_clips.py", python=python_of(side, options))


def timed(name: str, clips: list[Clip], sides: list[str], options: argparse.Namespace, results: Results) -> None:
    """Epochs in turn; the clips are gone through as often as it takes for one of millpond's to last long enough."""
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as folder, ExitStack() as stack:
        once, often = Path(folder) / "once", Path(folder) / "often"
        write_rows(once, clips)
        contenders = {side: stack.enter_context(contender(side, options)) for side in sides}
        grown = {side: look(side, contenders[side], once, len(clips), options, results) for side in sides}
        seconds = contenders[OURS].ask("epoch")["seconds"]
        repeats = max(1, math.ceil(options.seconds / seconds))
        write_rows(often, clips, repeats)
        for side, asked in contenders.items():
            asked.ask("open", side=side, folder=str(often), options=peer_options(options))
            asked.ask("epoch")  # workers start
        rounds = [one_round(number, contenders, len(clips) * repeats) for number in range(options.rounds)]
    for side in sides:
        of_side = [one[side] for one in rounds]
        results.add(name, side, "clips_per_second", "clips/s", [one["samples"] / one["seconds"] for one in of_side])
        cpu = [1e3 * one["cpu_seconds"] / one["samples"] for one in of_side]
        results.add(name, side, "cpu_ms_per_clip", "ms", cpu)
        results.add(name, side, "first_batch_seconds", "s", [one["first_seconds"] for one in of_side])
        results.add(name, side, "memory_growth_mib", "MiB", [grown[side]])
    for peer in sides[1:]:
        results.compare(name, "clips_per_second", over=peer, sides=sides[:1])
    results.details[name] = {
        "clips": len(clips),
        "repeats": repeats,
        "others_cpu_most": max(one["others"]["cpu"] for one in rounds),
    }


def one_round(number: int, contenders: dict[str, Contender], num_samples: int) -> dict[str, Any]:
    """An epoch of each, begun by another one each time."""
    others = psutil.cpu_times_percent(interval=0.3)  # everybody waits: what is used now is used by others
    found: dict[str, Any] = {"others": {"cpu": (100.0 - others.idle) / 100.0}}
    names = list(contenders)
    for side in names[number % len(names) :] + names[: number % len(names)]:
        found[side] = contenders[side].ask("epoch")
        assert found[side]["samples"] == num_samples, (side, found[side], num_samples)
    rates = {side: round(found[side]["samples"] / found[side]["seconds"], 1) for side in names}
    print(f"round {number}: {rates} clips/s", file=sys.stderr, flush=True)
    return found


def look(
    side: str, asked: Contender, folder: Path, num_clips: int, options: argparse.Namespace, results: Results
) -> float:
    """Go through the clips once: every one comes, with the frames that an independent decode has.

    Returns:
        How much all its processes grew, in MiB.

    Raises:
        SystemExit: A clip did not come, or shows something else.
    """
    with MemorySampler(asked.pid) as sampler:
        opened = asked.ask("open", side=side, folder=str(folder), options=peer_options(options))
        came = asked.ask("check", reference=str(folder / "reference.npy"))["came"]
    results.peers[side] = opened["versions"]
    found = Outcome(num_clips)
    for one in came:
        found.add(one)
    if found.lost:
        off = {number: off for number, off in found.off_by.items() if off > TOLERANCE}
        raise SystemExit(f"{side} lost {found.lost} of {num_clips} clips; off by {off}")
    return sampler.peak_growth_bytes / 2**20


def with_damage(clips: list[Clip], sides: list[str], options: argparse.Namespace, results: Results) -> None:
    """Two epochs of each side: some clips are damaged; one never opens."""
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as temporary:
        folder = Path(temporary)
        kinds = {
            "some clips are damaged": damaged(clips, folder / "damaged"),
            NEVER_OPENS: {never_opening(clips[0], folder): 0},
        }
        if not options.patience:
            del kinds[NEVER_OPENS]
        for number, (kind, bad) in enumerate(kinds.items()):
            write_rows(folder / str(number), [*clips, *bad])
            for side in sides:
                found = outcome(
                    side,
                    folder / str(number),
                    peer_options(options),
                    whole=len(clips),
                    originals=list(bad.values()),
                    patience_seconds=options.patience or ENOUGH_SECONDS,
                    python=python_of(side, options),
                )
                results.add(kind, side, "lost", f"of {len(clips)} whole clips", [found.lost])
                results.add(kind, side, "altered_and_delivered", f"of {len(bad)} bad clips", [found.altered])
                results.details.setdefault(kind, {})[side] = found.as_dict()
                print(f"{kind}: {side}: {found.as_dict()}", file=sys.stderr, flush=True)


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that contenders that hang go, too
    logging.getLogger("millpond").setLevel(logging.ERROR)
    settings = {name: value for name, value in vars(options).items() if name not in ("folders", "peers_python", "json")}
    results = Results("clips", "how fast short clips become batches of frames", settings)
    sides = usable(options, results)
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as folder:
        for number, (name, clips) in enumerate(cases(options, Path(folder))):
            timed(name, clips, sides, options, results)
            if number == 0:
                with_damage(clips, sides, options, results)
            results.write_results(options.json)
    results.publish(options.json)


if __name__ == "__main__":
    main()
