"""`millpond inspect`: what a dataset is, and what shuffling it will cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from millpond._cli.options import BatchSize, DatasetPath, ImageSize, Memory, NumWorkers, parse_image_size
from millpond._datasets.lerobot import LeRobotDataset
from millpond._loader.loader import Loader
from millpond._plan.memory import MemoryPlan


def inspect(
    dataset: DatasetPath,
    memory: Memory = "2GiB",
    batch_size: BatchSize = 32,
    num_workers: NumWorkers = None,
    image_size: ImageSize = None,
) -> None:
    """Show episodes, cameras, codecs, GOPs and bytes; the memory plan; the trade of memory, mixing and decoding."""
    console = Console()
    opened = LeRobotDataset(dataset, image_size=parse_image_size(image_size))
    try:
        console.print(f"{dataset}: {opened.num_episodes} episodes, {len(opened)} frames, {opened.fps} fps")
        console.print(_cameras_table(opened))
        for episode, problem in sorted(opened.problems.items()):
            console.print(f"[red]episode {episode}:[/red] {problem}", soft_wrap=True)
        with Loader(opened, batch_size=batch_size, shuffle=True, memory=memory, num_workers=num_workers) as loader:
            console.print()
            console.print(str(loader.memory_plan()), highlight=False, soft_wrap=True)
            console.print()
            console.print(_trade_table(loader.memory_plans(), loader.memory_plan()))
    finally:
        opened.close()


def _cameras_table(dataset: LeRobotDataset) -> Table:
    table = Table(title="cameras")
    for name in ("camera", "codec", "size", "files", "frames", "GOP", "MB", "backend"):
        table.add_column(name, justify="left" if name in ("camera", "codec", "backend") else "right")
    for name, facts in dataset.video_facts.items():
        height, width = facts.picture_size
        table.add_row(
            name,
            ", ".join(facts.codecs),
            f"{width}x{height}",
            str(facts.num_files),
            str(facts.num_frames),
            _gop_text(facts.gop_frames),
            f"{facts.size_bytes / 1e6:.1f}",
            ", ".join(facts.backends),
        )
    return table


def _gop_text(gop_frames: NDArray[np.int64]) -> str:
    """The usual GOP, and the longest where that is another."""
    if len(gop_frames) == 0:
        return ""
    usual, longest = int(np.median(gop_frames)), int(gop_frames.max())
    return f"{usual}" if usual == longest else f"{usual}, up to {longest}"


def _trade_table(plans: list[MemoryPlan], chosen: MemoryPlan) -> Table:
    table = Table(
        title=f"the trade at {chosen.memory_bytes >> 20} MiB; Loader(mixing=...) chooses", title_justify="left"
    )
    columns = ("segment", "GOPs", "layout", "horizon", "arena MiB", "mixing", "decodes/frame", "first batch after", "")
    for name in columns:
        table.add_column(name, justify="right")
    for plan in sorted(plans, key=lambda plan: (plan.splits_gops, plan.segment_samples, plan.layout)):
        table.add_row(
            f"{plan.segment_samples}",
            "split" if plan.splits_gops else "whole",
            plan.layout,
            f"{plan.horizon_batches}",
            f"{plan.arena_bytes / 2**20:.0f}",
            f"{plan.mixing:.2f}",
            f"{plan.decodes_per_frame:.2f}",
            f"{plan.first_batch_samples}",
            "chosen" if plan == chosen else "",
        )
    return table
