"""`millpond demo`: one shuffled epoch, from nothing to a report."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from millpond._cli.epoch_page import write_epoch_page
from millpond._cli.measure import mebibytes, mixing_text, run_epoch
from millpond._cli.options import DEMO_DATA
from millpond._cli.terminal import print_lines, progress_bar
from millpond._datasets.lerobot import LeRobotDataset
from millpond._loader.loader import Loader
from millpond._observe.memory import MemorySampler
from millpond._synth.writer import write_dataset
from millpond.errors import ObjectMissing


def run_demo(
    dataset: Path, *, memory: str, batch_size: int, num_workers: int | None, seed: int, report: Path, quiet: bool
) -> None:
    """Run the epoch and say how it went; at the default place, a dataset that is not there is made first."""
    console = Console()
    if not dataset.exists():
        _make(dataset, console, quiet=quiet)
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
            with progress_bar("one shuffled epoch", unit="samples", total=len(opened), quiet=quiet) as bar:
                epoch = run_epoch(loader, bar.advance)
            statistics = loader.statistics()
        sampler.close()
        growth = sampler.peak_growth_bytes
        headlines = {
            "samples/s": f"{epoch.samples_per_second:.0f}",
            "memory": f"{mebibytes(growth)} of {mebibytes(loader.memory_plan().memory_bytes)}",
            "mixing": "" if epoch.mixing is None else f"{epoch.mixing:.2f}",
            "first batch after": f"{epoch.meter.seconds_to_first_batch:.2f} s",
        }
        subtitle = f"One shuffled epoch of {dataset.name}, {epoch.meter.samples} samples in batches of {batch_size}."
        write_epoch_page(report, "millpond demo", subtitle, loader, epoch, sampler, headlines=headlines)
    lines = (
        f"{epoch.meter.samples} samples in {epoch.wall_seconds:.2f} s: {epoch.samples_per_second:.0f} samples/s "
        f"({len(opened.cameras)} cameras each), first batch after {epoch.meter.seconds_to_first_batch:.2f} s",
        f"memory: grew by {headlines['memory']} (PSS of the process tree, peak)",
        f"mixing: {mixing_text(epoch.mixing)}",
        f"books: {statistics.books}",
        f"report: {report}",
    )
    print_lines(console, lines)


def _make(dataset: Path, console: Console, *, quiet: bool) -> None:
    if dataset != DEMO_DATA:  # a dataset that was asked for by name and mistyped is not replaced by another one
        raise ObjectMissing(f"'{dataset}' is not there; `millpond synth {dataset}` makes a dataset", path=str(dataset))
    with progress_bar("making a small dataset", unit="frames", total=20 * 100 * 2, quiet=quiet) as bar:
        write_dataset(
            dataset, episodes=20, frames=100, cameras=2, size=(240, 320), codec="av1", gop=2, progress=bar.advance
        )
    print_lines(console, [f"made {dataset}: 20 episodes of 100 frames, 2 cameras, AV1"])
