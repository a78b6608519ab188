"""`millpond bench`: shuffled epochs against the ceiling, in turns, in one call."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from millpond._cli.measure import EpochMeasure, as_json, mebibytes, report_epoch, run_epoch
from millpond._cli.options import BatchSize, DatasetPath, ImageSize, Memory, NumWorkers, Seed, parse_image_size
from millpond._datasets.lerobot import LeRobotDataset
from millpond._loader.loader import Loader
from millpond._observe.ceiling import Ceiling, CeilingSlice
from millpond._observe.environment import usable_cores
from millpond._observe.memory import MemorySampler


def bench(
    dataset: DatasetPath,
    memory: Memory = "2GiB",
    batch_size: BatchSize = 32,
    num_workers: NumWorkers = None,
    image_size: ImageSize = None,
    seed: Seed = 0,
    repeats: Annotated[int, typer.Option(help="Epochs, each beside a slice of the ceiling.", min=1)] = 5,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    report: Annotated[Path | None, typer.Option(help="Also write a page.")] = None,
) -> None:
    """Measure samples/s, their ratio to the ceiling, the training process's CPU, peak PSS and mixing."""
    size = parse_image_size(image_size)
    if importlib.util.find_spec("torch") is not None:
        import torch  # noqa: F401 - what the user would have imported does not count as the loader's
    workers = usable_cores() if num_workers is None else num_workers
    opened = LeRobotDataset(dataset, image_size=size)
    files = {camera: sorted((opened.root / "videos" / camera).rglob("*.mp4")) for camera in opened.video_facts}
    epochs: list[EpochMeasure] = []
    slices: list[CeilingSlice] = []
    with Ceiling(files, num_workers=max(workers, 1), image_size=size) as ceiling:
        sampler = MemorySampler(without=ceiling.pids, interval_seconds=1.0)
        with (
            sampler,
            Loader(
                opened, batch_size=batch_size, shuffle=True, seed=seed, memory=memory, num_workers=workers
            ) as loader,
        ):
            first = run_epoch(loader)  # opens arena and workers, reads sidecars: shown, not counted
            warm = run_epoch(loader)
            sampler.close()  # looking at memory would count as the training process's work
            for _ in range(repeats):
                slices.append(ceiling.measure(warm.wall_seconds))
                epochs.append(run_epoch(loader))
            statistics = loader.statistics()
    plan = loader.memory_plan()
    ratios = [epoch.samples_per_second / one.samples_per_second for epoch, one in zip(epochs, slices, strict=True)]
    mixings = [epoch.mixing for epoch in epochs if epoch.mixing is not None]
    measured: dict[str, Any] = {
        "dataset": dataset.name,
        "image_size": size,
        "batch_size": batch_size,
        "num_workers": workers,
        "memory_bytes": plan.memory_bytes,
        "samples": len(opened),
        "samples_per_second": median(epoch.samples_per_second for epoch in epochs),
        "ceiling_samples_per_second": median(one.samples_per_second for one in slices),
        "ratio_to_ceiling": median(ratios),
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
        headlines = {
            "samples/s": f"{measured['samples_per_second']:.0f}",
            "of the ceiling": f"{measured['ratio_to_ceiling']:.2f}",
            "memory": f"{mebibytes(sampler.peak_growth_bytes)} of {mebibytes(plan.memory_bytes)}",
        }
        report_epoch(
            report,
            f"millpond bench {dataset.name}",
            f"{repeats} shuffled epochs in turns with the ceiling; the one before them is drawn.",
            loader,
            warm,
            sampler,
            headlines=headlines,
            ceiling_samples_per_second=slices[-1].samples_per_second,
        )
    if json_:
        print(json.dumps(as_json(measured), indent=2))
    else:
        _print_table(measured)


def _print_table(measured: dict[str, Any]) -> None:
    table = Table(title=f"{measured['dataset']}, {measured['num_workers']} workers", show_header=False)
    for name, value in measured.items():
        if name not in ("dataset", "ratios", "num_workers"):
            table.add_row(name.replace("_", " "), f"{value:.3f}" if isinstance(value, float) else str(value))
    Console().print(table)
