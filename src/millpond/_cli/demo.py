"""`millpond demo`: one shuffled epoch, from nothing to a report."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from millpond._cli.measure import mebibytes, report_epoch, run_epoch
from millpond._cli.options import BatchSize, Memory, NumWorkers, Seed
from millpond._datasets.lerobot import LeRobotDataset
from millpond._loader.loader import Loader
from millpond._observe.memory import MemorySampler
from millpond._synth.writer import write_dataset

DEMO_DATA = Path("demo-data")


def demo(
    dataset: Annotated[Path, typer.Argument(help="A LeRobot v3.0 dataset; made here if it is not there.")] = DEMO_DATA,
    memory: Memory = "512MiB",
    batch_size: BatchSize = 32,
    num_workers: NumWorkers = None,
    seed: Seed = 0,
    report: Annotated[Path, typer.Option(help="Where the page goes.")] = Path("report.html"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Run one shuffled epoch, show how it went, and write report.html."""
    console = Console()
    if not dataset.exists():
        with nullcontext() if quiet else console.status(f"making a small dataset in {dataset} ..."):
            _make(dataset)
        console.print(f"made {dataset}: 20 episodes of 100 frames, 2 cameras, AV1")
    opened = LeRobotDataset(dataset)
    with MemorySampler() as sampler:
        with Loader(
            opened,
            batch_size=batch_size,
            shuffle=True,
            seed=seed,
            memory=memory,
            num_workers=num_workers,
            output="numpy",  # importing torch would be most of what the memory curve shows
        ) as loader:
            with _progress(console, disable=quiet) as progress:
                bar = progress.add_task("one shuffled epoch", total=len(opened))
                epoch = run_epoch(loader, lambda samples: progress.advance(bar, samples))
            statistics = loader.statistics()
        sampler.close()
        growth = sampler.peak_growth_bytes
        mixing = "" if epoch.mixing is None else f"{epoch.mixing:.2f}"
        headlines = {
            "samples/s": f"{epoch.samples_per_second:.0f}",
            "memory": f"{mebibytes(growth)} of {mebibytes(loader.memory_plan().memory_bytes)}",
            "mixing": mixing,
            "first batch after": f"{epoch.meter.seconds_to_first_batch:.2f} s",
        }
        subtitle = f"One shuffled epoch of {dataset.name}, {epoch.meter.samples} samples in batches of {batch_size}."
        report_epoch(report, "millpond demo", subtitle, loader, epoch, sampler, headlines=headlines)
    console.print(
        f"{epoch.meter.samples} samples in {epoch.wall_seconds:.2f} s: {epoch.samples_per_second:.0f} samples/s "
        f"({len(opened.parts)} cameras each), first batch after {epoch.meter.seconds_to_first_batch:.2f} s"
    )
    console.print(f"memory: grew by {headlines['memory']} (PSS of the process tree, peak)")
    console.print(f"mixing: {mixing} distinct episodes per batch over a full shuffle's")
    console.print(f"books: {statistics.books}")
    console.print(f"report: {report}")


def _make(dataset: Path) -> None:
    """Write the dataset beside its place and then move it there, so that a killed demo leaves no half of one."""
    unfinished = dataset.with_name(f"{dataset.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_dataset(unfinished, episodes=20, frames=100, cameras=2, size=(240, 320), codec="av1", gop=2)
    unfinished.rename(dataset)


def _progress(console: Console, *, disable: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("samples"),
        TimeElapsedColumn(),
        console=console,
        disable=disable or not console.is_terminal,
    )
