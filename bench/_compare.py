"""Run contenders side by side: the ceiling, millpond and LeRobot in turn, round by round."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from _process import Contender
from millpond._observe.ceiling import Ceiling
from millpond._observe.environment import environment_facts
from millpond._observe.memory import MemorySampler

BYTES_OF = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class Settings:
    """What a bench compares; `delta_timestamps` None: one frame of each camera a sample."""

    image_size: tuple[int, int] | None
    window_frames: int
    batch_size: int
    num_workers: int
    memory: str
    mixing: float | None
    rounds: int
    epochs: int
    ceiling_seconds: float
    lerobot_python: str | None
    lerobot_rounds: int
    lerobot_seconds: float

    @property
    def memory_bytes(self) -> int:
        return int(float(self.memory[:-3]) * BYTES_OF[self.memory[-3:]])


def settings_parser(
    question: str, *, window_frames: int, image_size: tuple[int, int] | None
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=question, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path, metavar="DATASET", help="folder of a LeRobot v3 dataset")
    parser.add_argument("--out", type=Path, help="JSON goes here, too")
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("H", "W"), default=image_size)
    parser.add_argument("--window-frames", type=int, default=window_frames, help="frames of each camera in a sample")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--mixing", type=float, help="as in Loader(mixing=...)")
    parser.add_argument("--rounds", type=int, default=5, help="of ceiling, then millpond")
    parser.add_argument("--epochs", type=int, default=1, help="of millpond in a round")
    parser.add_argument("--ceiling-seconds", type=float, default=4.0, help="slice of the ceiling in a round")
    parser.add_argument("--lerobot-python", help="Python of the peers' environment; without it LeRobot is left out")
    parser.add_argument("--lerobot-rounds", type=int, default=3, help="the first rounds in which LeRobot takes part")
    parser.add_argument("--lerobot-seconds", type=float, default=10.0, help="least slice of LeRobot in a round")
    return parser


def settings_of(arguments: argparse.Namespace) -> Settings:
    chosen = {name: value for name, value in vars(arguments).items() if name not in ("datasets", "out")}
    return Settings(**chosen | {"image_size": tuple(arguments.image_size) if arguments.image_size else None})


def run(name: str, arguments: argparse.Namespace) -> None:
    """Compare on every dataset; print JSON, and write it to `--out` after each dataset."""
    settings = settings_of(arguments)
    measured: dict[str, Any] = {
        "bench": name,
        "settings": vars(settings) | {"lerobot_python": settings.lerobot_python is not None},
        "environment": environment_facts(),
        "datasets": {},
    }
    for root in arguments.datasets:
        measured["datasets"][root.name] = compare(root, settings)
        if arguments.out:
            arguments.out.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(measured, indent=1))


def compare(root: Path, settings: Settings) -> dict[str, Any]:
    info = json.loads((root / "meta" / "info.json").read_text(encoding="utf-8"))
    cameras = [key for key, feature in info["features"].items() if feature["dtype"] == "video"]
    files = {camera: sorted((root / "videos" / camera).glob("*/*.mp4")) for camera in cameras}
    construct = {
        "root": str(root),
        "delta_timestamps": windows(cameras, settings.window_frames, info["fps"]),
        "image_size": settings.image_size,
    }
    with ExitStack() as stack:
        millpond = stack.enter_context(Contender("_peer_millpond.py"))
        first = construct_and_look(millpond, construct, settings)
        ceiling = stack.enter_context(
            Ceiling(files, num_workers=max(1, settings.num_workers), image_size=settings.image_size)
        )
        lerobot = None
        if settings.lerobot_python:
            lerobot = stack.enter_context(Contender("_peer_lerobot.py", python=settings.lerobot_python))
            lerobot.ask("construct", **construct, batch_size=settings.batch_size, num_workers=settings.num_workers)
        rounds = [one_round(number, settings, ceiling, millpond, lerobot) for number in range(settings.rounds)]
        last_ceiling = ceiling.measure(settings.ceiling_seconds).samples_per_second
    return {
        "cameras": len(cameras),
        **first,
        "lerobot_versions": lerobot.facts if lerobot else None,
        "rounds": rounds,
        "last_ceiling": last_ceiling,
        "results": results(rounds, last_ceiling, first),
    }


def windows(cameras: Sequence[str], frames: int, fps: int) -> dict[str, list[float]] | None:
    """The `frames` latest frames of every camera, the sample's own last."""
    seconds = [back / fps for back in range(1 - frames, 1)]
    return dict.fromkeys(cameras, seconds) if frames > 1 else None


def construct_and_look(millpond: Contender, construct: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Memory and mixing of construction and of two epochs; the first one is cold, and none of this is timed."""
    loader = {
        "batch_size": settings.batch_size,
        "shuffle": True,
        "seed": 0,
        "num_workers": settings.num_workers,
        "memory": settings.memory,
    } | ({} if settings.mixing is None else {"mixing": settings.mixing})
    with MemorySampler(millpond.pid) as sampler:
        began = time.monotonic()
        constructed = millpond.ask("construct", **construct, loader=loader)
        construct_seconds = time.monotonic() - began
        cold = millpond.ask("epoch")
        mixing = millpond.ask("mixing")
    return {
        **constructed,
        "construct_seconds": construct_seconds,
        "cold_epoch": cold,
        **mixing,
        "memory": {
            "budget_bytes": settings.memory_bytes,
            "baseline_pss_bytes": sampler.baseline.pss_bytes,
            "peak_growth_bytes": sampler.peak_growth_bytes,
            "looks": len(sampler.points),
        },
    }


def one_round(
    number: int, settings: Settings, ceiling: Ceiling, millpond: Contender, lerobot: Contender | None
) -> dict[str, Any]:
    machine = psutil.cpu_times_percent(interval=0.5)  # everybody waits: what is used now is used by others
    measured: dict[str, Any] = {"others_cpu": (100.0 - machine.idle) / 100.0}
    measured["ceiling"] = ceiling.measure(settings.ceiling_seconds).samples_per_second
    epochs = [millpond.ask("epoch") for _ in range(settings.epochs)]
    wall = sum(epoch["wall_seconds"] for epoch in epochs)
    measured["millpond"] = sum(epoch["samples"] for epoch in epochs) / wall
    measured["training_cpu"] = sum(epoch["training_cpu_seconds"] for epoch in epochs) / wall
    measured["epochs"] = epochs
    if lerobot and number < settings.lerobot_rounds:
        done = lerobot.ask("slice", seconds=settings.lerobot_seconds)
        measured["lerobot"] = done["samples"] / done["wall_seconds"]
    progress = {name: round(value, 3) for name, value in measured.items() if name != "epochs"}
    print(f"round {number}: {progress}", file=sys.stderr, flush=True)
    return measured


def results(rounds: list[dict[str, Any]], last_ceiling: float, first: dict[str, Any]) -> dict[str, Any]:
    """Medians; each round is held against the ceiling just before it and just after it, and its own LeRobot.

    `others_cpu_most` is the share of the whole machine that somebody else used: above a few per cent, measure again.
    """
    ceilings = [one["ceiling"] for one in rounds] + [last_ceiling]
    over_ceiling = [
        one["millpond"] * 2 / (before + after)
        for one, before, after in zip(rounds, ceilings[:-1], ceilings[1:], strict=True)
    ]
    with_lerobot = [one for one in rounds if "lerobot" in one]
    found = {
        "ceiling_samples_per_second": statistics.median(ceilings),
        "millpond_samples_per_second": statistics.median(one["millpond"] for one in rounds),
        "over_ceiling": statistics.median(over_ceiling),
        "over_ceiling_least": min(over_ceiling),
        "over_ceiling_most": max(over_ceiling),
        "others_cpu_most": max(one["others_cpu"] for one in rounds),
        "training_cpu": statistics.median(one["training_cpu"] for one in rounds),
        "memory_growth_over_budget": first["memory"]["peak_growth_bytes"] / first["memory"]["budget_bytes"],
        "mixing": first["mixing"],
    }
    if with_lerobot:
        found["lerobot_samples_per_second"] = statistics.median(one["lerobot"] for one in with_lerobot)
        found["over_lerobot"] = statistics.median(one["millpond"] / one["lerobot"] for one in with_lerobot)
    return found
