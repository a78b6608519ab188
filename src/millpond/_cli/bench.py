"""`millpond bench`: shuffled epochs against the ceiling, in turns, in one call."""

from __future__ import annotations

import importlib.util
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from millpond._cli.epoch_page import write_epoch_page
from millpond._cli.measure import EpochMeasure, mebibytes, mixing_text, run_epoch, with_environment
from millpond._cli.terminal import print_lines, progress_bar
from millpond._datasets.lerobot import LeRobotDataset
from millpond._loader.loader import Loader
from millpond._observe.ceiling import Ceiling, CeilingSlice
from millpond._observe.memory import MemorySampler
from millpond._workers.cores import usable_cores


def run_bench(
    dataset: Path,
    *,
    memory: str,
    batch_size: int,
    num_workers: int | None,
    image_size: tuple[int, int] | None,
    seed: int,
    repeats: int,
    as_json: bool,
    report: Path | None,
    quiet: bool = False,
) -> None:
    """Run epochs and slices of the ceiling in turns, and say how they compare."""
    if importlib.util.find_spec("torch") is not None:
        import torch  # noqa: F401 - what the user would have imported does not count as the loader's
    workers = usable_cores() if num_workers is None else num_workers
    opened = LeRobotDataset(dataset, image_size=image_size)
    for problem in opened.problems.values():
        raise problem  # neither an epoch nor the ceiling can get past it
    epochs: list[EpochMeasure] = []
    slices: list[CeilingSlice] = []
    with _ceiling(opened, workers, image_size) as ceiling:
        sampler = MemorySampler(without=ceiling.pids if ceiling else (), interval_seconds=1.0)
        with (
            sampler,
            Loader(
                opened, batch_size=batch_size, shuffle=True, seed=seed, memory=memory, num_workers=workers
            ) as loader,
            progress_bar("epochs", unit="turns", total=2 + repeats, quiet=quiet, ticks=False) as bar,
        ):
            bar.show(what="first epoch")
            first = run_epoch(loader)  # opens arena and workers, reads sidecars: shown, not counted
            bar.show(1, what="warm epoch")
            warm = run_epoch(loader)
            sampler.close()  # looking at memory would count as the training process's work
            for turn in range(repeats):
                bar.show(2 + turn, what="ceiling and epoch" if ceiling else "epoch")
                if ceiling:
                    slices.append(ceiling.measure(warm.wall_seconds))
                epochs.append(run_epoch(loader))
            bar.show(2 + repeats, what="measured")
            statistics = loader.statistics()
    plan = loader.memory_plan()
    ratios = [epoch.samples_per_second / one.samples_per_second for epoch, one in zip(epochs, slices, strict=False)]
    mixings = [epoch.mixing for epoch in epochs if epoch.mixing is not None]
    measured: dict[str, Any] = {
        "dataset": dataset.name,
        "image_size": image_size,
        "batch_size": batch_size,
        "num_workers": workers,
        "memory_bytes": plan.memory_bytes,
        "samples": len(opened),
        "samples_per_second": median(epoch.samples_per_second for epoch in epochs),
        "ceiling_samples_per_second": median(one.samples_per_second for one in slices) if slices else None,
        "ratio_to_ceiling": median(ratios) if ratios else None,
        "ratios": ratios,
        "first_epoch_seconds": first.wall_seconds,
        "seconds_to_first_batch": median(epoch.meter.seconds_to_first_batch for epoch in epochs),
        "training_process_cpu": median(epoch.cpu_seconds / epoch.wall_seconds for epoch in epochs),
        "peak_pss_growth_bytes": sampler.peak_growth_bytes,
        "peak_pss_over_memory": sampler.peak_growth_bytes / plan.memory_bytes,
        "mixing": sum(mixings) / len(mixings) if mixings else None,
        "decodes_per_frame": plan.decodes_per_frame,
        "heap_copies": statistics.heap_copies,
        "books": str(statistics.books),
    }
    if report is not None:
        turns = " in turns with the ceiling" if slices else ""
        write_epoch_page(
            report,
            f"millpond bench {dataset.name}",
            f"{repeats} shuffled epoch{'s' * (repeats > 1)}{turns}; the one before is drawn.",
            loader,
            warm,
            sampler,
            headlines=_headlines(measured),
            ceiling_samples_per_second=slices[-1].samples_per_second if slices else None,
        )
    if as_json:
        print(json.dumps(with_environment(measured), indent=2))
    else:
        table = Table(title=f"{measured['dataset']}, {workers} workers", show_header=False)
        for name, text in rows_for_people(measured).items():
            table.add_row(name, text)
        console = Console()
        console.print(table)
        if report is not None:
            print_lines(console, [f"report: {report}"])


def _ceiling(
    opened: LeRobotDataset, workers: int, image_size: tuple[int, int] | None
) -> AbstractContextManager[Ceiling | None]:
    """Over the cameras that have videos; None, after a line that says so, where no camera has."""
    found = {camera: sorted((Path(opened.root) / "videos" / camera).rglob("*.mp4")) for camera in opened.cameras}
    files = {camera: paths for camera, paths in found.items() if paths}
    without = ", ".join(camera for camera in found if camera not in files) or "a dataset without cameras"
    if not files:
        print(f"no ceiling and no ratio to it: no videos to decode ({without})", file=sys.stderr)
        return nullcontext()
    if len(files) < len(found):
        print(f"the ceiling decodes no pictures of {without}, which are no videos", file=sys.stderr)
    return Ceiling(files, num_workers=max(workers, 1), image_size=image_size)


def _headlines(measured: dict[str, Any]) -> dict[str, str]:
    ratio, used, budget = (measured[name] for name in ("ratio_to_ceiling", "peak_pss_growth_bytes", "memory_bytes"))
    return {
        "samples/s": f"{measured['samples_per_second']:.0f}",
        **({} if ratio is None else {"of the ceiling": f"{ratio:.2f}"}),
        "memory": f"{mebibytes(used)} of {mebibytes(budget)}",
    }


def rows_for_people(measured: dict[str, Any]) -> dict[str, str]:
    """What is measured, by what it is, in the units that people read."""
    size, ratios = measured["image_size"], measured["ratios"]
    if ratios:
        ceiling = {
            "ceiling, samples/s": f"{measured['ceiling_samples_per_second']:.0f}",
            "of the ceiling": f"{measured['ratio_to_ceiling']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        }
    else:
        ceiling = {"of the ceiling": "no videos to decode"}
    return {
        "image size": "as stored" if size is None else f"{size[1]}x{size[0]}",
        "batch size": str(measured["batch_size"]),
        "samples": str(measured["samples"]),
        "samples/s": f"{measured['samples_per_second']:.0f}",
        **ceiling,
        "first epoch": f"{measured['first_epoch_seconds']:.2f} s",
        "first batch after": f"{measured['seconds_to_first_batch']:.2f} s",
        "CPU of the training process": f"{measured['training_process_cpu']:.0%} of a core",
        "memory budget": mebibytes(measured["memory_bytes"]),
        "peak growth of PSS": f"{mebibytes(measured['peak_pss_growth_bytes'])}, "
        f"{measured['peak_pss_over_memory']:.0%} of the budget",
        "mixing": mixing_text(measured["mixing"]),
        "decodes per frame": f"{measured['decodes_per_frame']:.2f}",
        "heap copies": str(measured["heap_copies"]),
        "books": measured["books"],
    }
