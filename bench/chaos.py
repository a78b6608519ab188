"""What does it cost when workers are killed, stopped and made to hang all the time, and is anything lost?

Three epochs of one loader, the same by seed and number: a calm one, one under chaos, a calm one. Under chaos a random
worker is SIGKILLed every second, another SIGSTOPped every 3 s, and one made to spin in C with the GIL held every 10 s.
Every sample must come once, in the calm order, with the calm pixels (by CRC-32); else the exit code is 1. The
throughput is held against that of the two calm epochs around it. Then one worker alone is made to hang, several times:
how long after the limit is the next batch there?
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import numpy as np

from _epochs import (
    Epoch,
    add_options,
    dataset_of,
    make_loader,
    open_dataset,
    repeats_to_fill,
    run_epoch,
    settings_of,
)
from _repeated import RepeatedDataset
from _results import Results
from millpond._observe.memory import MemorySampler
from torment import Chaos, SpinningDataset, Tormentor


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, seconds=60.0, num_workers=4)
    parser.add_argument("--stall-timeout", type=float, default=1.0, help="(default: %(default)s)")
    parser.add_argument("--periods", type=float, nargs=3, default=(1.0, 3.0, 10.0), metavar=("KILL", "STOP", "SPIN"))
    parser.add_argument("--hangs", type=int, default=5, help="of one worker alone; 0: none (default: %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="show what the loader logs of each worker")
    return parser.parse_args()


def compare(root: Path, options: argparse.Namespace, flag: Path) -> dict[str, Any]:
    once = open_dataset(root, options)
    repeats = repeats_to_fill(root, options)
    dataset = SpinningDataset(RepeatedDataset(once, repeats), flag)
    epochs: dict[str, Epoch] = {}
    with make_loader(dataset, options, stall_timeout=options.stall_timeout) as loader, MemorySampler() as sampler:
        tormentor = Tormentor(lambda: loader.statistics().worker_pids, flag, options.seed)
        before = after = loader.statistics()
        for name in ("calm", "chaos", "calm again"):
            if name == "chaos":
                before = loader.statistics()
            with Chaos(tormentor, tuple(options.periods)) if name == "chaos" else nullcontext():
                epochs[name] = run_epoch(loader)
            if name == "chaos":
                after = loader.statistics()
                flag.unlink(missing_ok=True)  # that nobody has met
            print(f"{name}: {epochs[name]}", file=sys.stderr, flush=True)
        plan = loader.memory_plan()
    calm, chaos, again = epochs.values()
    counts = np.bincount([index for index, _ in chaos.samples], minlength=len(once))
    assert after.books is not None
    return {
        "samples": len(dataset),
        "repeats": repeats,
        "every_sample_once": bool((counts == repeats).all()) and after.books.balance == 0,
        "same_order_and_pixels": chaos.samples == calm.samples == again.samples,
        "over_calm": 2 * chaos.samples_per_second / (calm.samples_per_second + again.samples_per_second),
        "samples_per_second": {name: epoch.samples_per_second for name, epoch in epochs.items()},
        "wall_seconds": {name: epoch.wall_seconds for name, epoch in epochs.items()},
        "longest_wait_seconds": {name: epoch.longest_wait_seconds for name, epoch in epochs.items()},
        "training_cpu": {name: epoch.training_cpu_seconds / epoch.wall_seconds for name, epoch in epochs.items()},
        **asdict(tormentor.done),
        "worker_restarts": after.worker_restarts - before.worker_restarts,
        "tasks_split": after.counters.get("tasks_split", 0) - before.counters.get("tasks_split", 0),
        "memory": {
            "budget_bytes": plan.memory_bytes,
            "peak_growth_bytes": sampler.peak_growth_bytes,
            "looks": len(sampler.points),
        },
    }


def seconds_to_next_batch(root: Path, options: argparse.Namespace, flag: Path) -> list[float]:
    """From the moment a hang passes its limit to the next batch, where the only worker hangs; one for each hang."""
    taken: list[float] = []
    arrived: list[float] = []
    dataset = SpinningDataset(RepeatedDataset(open_dataset(root, options), 50), flag)
    with (
        make_loader(dataset, options, num_workers=1, stall_timeout=options.stall_timeout) as loader,
        Watch(flag) as watch,
    ):
        for number, _batch in enumerate(loader):
            arrived.append(time.monotonic())
            taken = watch.taken_at
            is_over = not taken or arrived[-1] > taken[-1] + options.stall_timeout
            if is_over and len(taken) == options.hangs:
                break
            if is_over and number % 20 == 10 and not flag.exists():
                flag.touch()
    limits = [moment + options.stall_timeout for moment in taken]
    return [min(moment for moment in arrived if moment >= limit) - limit for limit in limits]


class Watch:
    """Notes when a flag was taken away: then a worker begins to hang."""

    def __init__(self, flag: Path) -> None:
        self.taken_at: list[float] = []
        self._flag = flag
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        was_there = False
        while not self._ending.wait(0.001):
            is_there = self._flag.exists()
            if was_there and not is_there:
                self.taken_at.append(time.monotonic())
            was_there = is_there


def main() -> int:
    options = parse()
    if not options.verbose:
        logging.getLogger("millpond").setLevel(logging.ERROR)
    with dataset_of(options) as root, tempfile.TemporaryDirectory(prefix="millpond-chaos-") as folder:
        flag = Path(folder) / "spin"
        found = compare(root, options, flag)
        waits = seconds_to_next_batch(root, options, flag) if options.hangs else []
    results = Results("chaos", "what workers cost that are killed, stopped and made to hang", settings_of(options))
    results.details |= found
    for name, rate in found["samples_per_second"].items():
        results.add("", name, "samples_per_second", "samples/s", [rate])
        results.add("", name, "longest_wait_seconds", "s", [found["longest_wait_seconds"][name]])
    results.row("", "chaos", "samples_per_second").over["calm"] = (found["over_calm"],)
    if waits:
        results.add("", "a hang", "from_limit_to_next_batch_seconds", "s", waits)
    for name in ("every_sample_once", "same_order_and_pixels"):
        results.claim(name.replace("_", " "), float(found[name]), 1.0)
    results.publish(options.json)
    return 0 if found["every_sample_once"] and found["same_order_and_pixels"] else 1


if __name__ == "__main__":
    sys.exit(main())
