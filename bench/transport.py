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
from _report import publish
from millpond._observe.environment import environment_facts

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
    first, *others = options.sides
    over = {side: ratios([one[first] for one in rounds], [one[side] for one in rounds]) for side in others}
    others_cpu = max(one["others_cpu"] for one in rounds)
    return {"sides": found, "over": over, "others_cpu_most": others_cpu, "ends": ends, "rounds": rounds}


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


def ratios(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Round by round: our rate over theirs, and their CPU over ours; above 1 is better for us in both."""
    pairs = list(zip(ours, theirs, strict=True))
    rates = [our["batches_per_second"] / their["batches_per_second"] for our, their in pairs]
    cpu = [their["cpu_ms_per_batch"]["total"] / max(1e-9, our["cpu_ms_per_batch"]["total"]) for our, their in pairs]
    return {"batches_per_second": _spread(rates), "cpu_ms_per_batch": _spread(cpu)}


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
    }


def verdict(kind: str, over: dict[str, Any]) -> dict[str, Any]:
    """Held against what is wanted, by the median of rounds; "small" is judged by its rate alone."""
    names = ["batches_per_second"] if kind == "small" else ["batches_per_second", "cpu_ms_per_batch"]
    found = {f"{name} over {side}": figures[name]["median"] for side, figures in over.items() for name in names}
    return {"wanted": WANTED[kind], **found, "is_met": all(figure >= WANTED[kind] for figure in found.values())}


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
    report: dict[str, Any] = {
        "bench": "transport",
        "settings": {name: value for name, value in vars(options).items() if name != "json"},
        "environment": environment_facts(),
        "kinds": {kind: compare(kind, options) for kind in options.kinds},
    }
    report["table"] = {kind: verdict(kind, found["over"]) for kind, found in report["kinds"].items()}
    publish(report, options.json)


if __name__ == "__main__":
    main()
