"""How fast do batches come from the workers of millpond.torch.DataLoader, beside torch's, and at what CPU?

Contenders are processes of their own, and take turns in slices of a few seconds. The consumer reads one byte of every
page of every batch, and each is checked.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from _loader_kinds import KINDS, SIDES
from _process import Contender
from _results import Results

WANTED = {"numpy": 4.0, "torch": 4.0, "custom": 1.5, "prebuilt": 1.0, "small": 1.0}
"""What millpond's figures over the others' should at least be."""


def compare(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """All sides with one kind of samples, round by round."""
    construct = {name: getattr(options, name) for name in ("frame_shape", "batch_size", "num_workers")}
    with ExitStack() as stack:
        peers = {}
        for side in options.sides:
            peers[side] = stack.enter_context(Contender("_peer_transport.py"))
            peers[side].ask("construct", side=side, kind=kind, **construct)
            peers[side].ask("slice", seconds=options.seconds / 2, skipped=options.skipped)
        rounds = [one_round(kind, number, peers, options) for number in range(options.rounds)]
        ends = {side: peer.ask("end") for side, peer in peers.items()}
    found = {side: summary([one[side] for one in rounds]) for side in options.sides}
    others_cpu = max(one["others_cpu"] for one in rounds)
    return {"sides": found, "others_cpu_most": others_cpu, "ends": ends, "rounds": rounds}


def one_round(kind: str, number: int, peers: dict[str, Contender], options: argparse.Namespace) -> dict[str, Any]:
    machine = psutil.cpu_times_percent(interval=0.2)  # everybody waits: what is used now is used by others
    measured: dict[str, Any] = {"others_cpu": (100.0 - machine.idle) / 100.0}
    for side, peer in peers.items():
        measured[side] = peer.ask("slice", seconds=options.seconds, skipped=options.skipped)
    progress = {side: round(measured[side]["batches_per_second"], 1) for side in peers}
    print(f"{kind}, round {number}: {progress}", file=sys.stderr, flush=True)
    return measured


def summary(slices: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of one side."""
    roles = slices[0]["cpu_ms_per_batch"]
    cpu = {role: statistics.median(one["cpu_ms_per_batch"][role] for one in slices) for role in roles}
    return {
        "batches_per_second": round(statistics.median(one["batches_per_second"] for one in slices), 2),
        "cpu_ms_per_batch": {role: round(milliseconds, 4) for role, milliseconds in cpu.items() if milliseconds},
        "batches": sum(one["batches"] for one in slices),
    }


def tell(kind: str, rounds: list[dict[str, Any]], sides: list[str], results: Results) -> None:
    """Rows of one kind, and what is wanted of the first side: "small" is judged by its rate alone."""
    first, *others = sides
    for side in sides:
        of_side = [one[side] for one in rounds]
        results.add(kind, side, "batches_per_second", "batches/s", [one["batches_per_second"] for one in of_side])
        cpu = [one["cpu_ms_per_batch"]["total"] for one in of_side]
        results.add(kind, side, "cpu_ms_per_batch", "ms", [max(1e-9, milliseconds) for milliseconds in cpu])
    for other in others:
        results.compare(kind, "batches_per_second", over=other, sides=[first])
        results.compare(kind, "cpu_ms_per_batch", over=first, sides=[other])
        rates = results.row(kind, first, "batches_per_second").over[other]
        results.claim(f"{kind}: rate over {other}", statistics.median(rates), WANTED[kind])
        if kind != "small":
            cpu = results.row(kind, other, "cpu_ms_per_batch").over[first]
            results.claim(f"{kind}: CPU of {other} over ours", statistics.median(cpu), WANTED[kind])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"{SIDES}. Kinds: {'; '.join(f'{name}: {text}' for name, text in KINDS.items())}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--sides", nargs="+", default=["millpond", "torch", "torch-malloc"])
    parser.add_argument("--frame-shape", type=int, nargs="+", default=[2, 3, 480, 640], help="of a sample, uint8")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each side in a round")
    parser.add_argument("--skipped", type=int, default=8, help="batches of a slice that are not timed, the first ones")
    parser.add_argument("--json", type=Path, help="the report goes here, too")
    return parser.parse_args()


def main() -> None:
    options = parse()
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    results = Results("transport", "how fast batches come from workers of a DataLoader", settings)
    results.details["kinds"] = {kind: compare(kind, options) for kind in options.kinds}
    for kind, found in results.details["kinds"].items():
        tell(kind, found["rounds"], options.sides, results)
    results.publish(options.json)


if __name__ == "__main__":
    main()
