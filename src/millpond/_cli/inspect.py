"""`millpond inspect`: what a dataset is, and what shuffling it will cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from millpond._cli.options import BatchSize, DatasetPath, ImageSize, Memory, NumWorkers, parse_image_size
from millpond._datasets.lerobot import LeRobotDataset
from millpond._loader.loader import Loader
from millpond._plan.memory import MemoryPlan, choose


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
            console.print(_trade_table("other budgets, every GOP decoded once", _by_memory(loader)))
            console.print(
                _trade_table("other segments within this budget; Loader(mixing=...) chooses", _by_segment(loader))
            )
            console.print(
                "samples: of a segment; mixing: distinct episodes per batch over a full shuffle's; decodes: per frame; "
                "first: samples decoded before the first batch",
                highlight=False,
            )
    finally:
        opened.close()


def _cameras_table(dataset: LeRobotDataset) -> Table:
    table = Table(box=None)
    for name in ("camera", "codec", "size", "files", "frames", "GOP", "MB", "backend"):
        table.add_column(name, justify="left" if name in ("camera", "codec", "backend") else "right", overflow="fold")
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


def _trade_table(title: str, rows: list[tuple[str, MemoryPlan]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in ("", "samples", "GOPs", "layout", "horizon", "arena", "mixing", "decodes", "first"):
        table.add_column(name, justify="left" if name in ("", "GOPs", "layout") else "right", no_wrap=True)
    for mark, plan in rows:
        table.add_row(
            mark,
            f"{plan.samples_per_segment:.0f}",
            "split" if plan.splits_gops else "whole",
            plan.layout,
            f"{plan.horizon_batches}",
            f"{plan.arena_bytes / 2**20:.0f} MiB",
            f"{plan.mixing:.2f}",
            f"{plan.decodes_per_frame:.2f}",
            f"{plan.first_batch_samples}",
        )
    return table


def _by_segment(loader: Loader) -> list[tuple[str, MemoryPlan]]:
    chosen = loader.memory_plan()
    plans = sorted(loader.memory_plans(), key=lambda plan: (plan.splits_gops, plan.num_segments, plan.layout))
    return [("chosen" if plan == chosen else "", plan) for plan in plans]


def _by_memory(loader: Loader) -> list[tuple[str, MemoryPlan]]:
    """What other budgets would choose."""
    budget = loader.memory_plan().memory_bytes
    found = []
    for size in (budget // 4, budget // 2, budget, budget * 2, budget * 4):
        plans = [plan for plan in loader.memory_plans(size) if not plan.splits_gops]
        best = choose(plans, mixing=None)
        if best is not None:
            found.append((f"{size >> 20} MiB", best))
    return found
