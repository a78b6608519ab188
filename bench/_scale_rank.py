"""A rank of bench/scale.py that plans and draws, and decodes nothing; `_process.Contender` starts one for each look.

A plan has no public name of its own, so this goes to what `Loader` goes to.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet  # noqa: F401 - what opening a dataset imports is not what it takes

from _scale_model import ModelledDataset, Shape
from _serving import serve
from millpond import LeRobotDataset
from millpond._loader.loader import Loader
from millpond._plan.epoch import EpochPlan
from millpond._plan.memory import plan_within
from millpond._plan.pond import Pond

_RUSAGE_BYTES = 1 if sys.platform == "darwin" else 1024


def status_bytes(name: str) -> int:
    """A line of /proc/self/status, such as RssAnon; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def peak_rss_bytes() -> int:
    """The most that this program ever had; where the system does not tell, that of who started it may count, too."""
    return status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RUSAGE_BYTES


def plan_of(loader: Loader, epoch: int = 0) -> EpochPlan:
    """The order of a rank's epoch, as `iter` makes it."""
    demand, plan = loader._demand, loader.memory_plan()
    cutting = demand.cut(target_samples=plan.segment_samples, split=plan.splits_gops)
    return plan_within(demand, plan, cutting, epoch)


def drive(pond: Pond) -> dict[str, int]:
    """Draw all of an epoch: whatever may start is done at once, and whatever is ready is let go of at once."""
    counts = {"tasks": 0, "batches": 0, "samples": 0}
    while True:
        out = []
        while (task := pond.next_task()) is not None:
            out.append(task.task_id)
        for task_id in out:
            pond.complete(task_id, {})
        ready = pond.take_ready()
        if not out and ready is None:
            return counts
        counts["tasks"] += len(out)
        while ready is not None:
            counts["batches"] += 1
            counts["samples"] += len(ready.samples)
            pond.release(ready.slot)
            ready = pond.take_ready()


def opened_part(metadata: str, rank: int, world_size: int) -> list[object]:
    """A LeRobot dataset, and a rank's part of it, of which no file is there: looking for them is all that is done."""
    whole = LeRobotDataset(metadata, lazy=True)
    start, stop = (len(whole) * number // world_size for number in (rank, rank + 1))
    return [whole, whole.opened_for(start, stop)]


class Rank:
    """One rank's loader, up to where it would open its arena."""

    kept: tuple[object, ...]
    pond: Pond

    def start(self, *, shape: dict[str, Any], metadata: str | None, **options: Any) -> dict[str, float]:
        """From nothing to a pond from which tasks can be drawn.

        Args:
            shape: Of the dataset.
            metadata: Folder of a LeRobot dataset of this shape, of which a rank's part is opened first; None: no such.
            options: Of the loader.
        """
        whole = ModelledDataset(Shape(**shape))
        gc.collect()
        anon, rss, clocks = status_bytes("RssAnon"), psutil.Process().memory_info().rss, [_clocks()]
        opened = None if metadata is None else opened_part(metadata, options["rank"], options["world_size"])
        clocks.append(_clocks())
        loader = Loader(whole, **options)
        clocks.append(_clocks())
        plan, order = loader.memory_plan(), plan_of(loader)
        clocks.append(_clocks())
        self.pond = Pond(
            order,
            num_parts=-(-len(whole.parts) // plan.parts_per_task),
            layout=plan.layout,
            pond_slots=list(range(plan.pond_slots)),
            outlet_slots=list(range(plan.outlet_slots)) or None,
        )
        clocks.append(_clocks())
        self.kept = opened, loader
        names = ("open", "loader", "order", "pond")
        spent = {name: later[1] - sooner[1] for name, (sooner, later) in zip(names, pairwise(clocks), strict=True)}
        return {
            "start_seconds": clocks[-1][0] - clocks[0][0],
            "start_cpu_seconds": sum(spent.values()),
            **{f"{name}_cpu_seconds": seconds for name, seconds in spent.items()},
            "anon_growth_bytes": status_bytes("RssAnon") - anon,
            "peak_growth_bytes": max(0, peak_rss_bytes() - rss),
            "samples": len(order.samples),
            "batches": order.num_batches,
            "segments": order.num_segments,
            "open_batches": plan.pond_slots,
        }

    def draw(self) -> dict[str, float]:
        """All of the epoch that `start` made."""
        wall, cpu = _clocks()
        counts = drive(self.pond)
        wall_now, cpu_now = _clocks()
        return {**counts, "draw_seconds": wall_now - wall, "draw_cpu_seconds": cpu_now - cpu}


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    rank = Rank()
    serve({"start": rank.start, "draw": rank.draw})
