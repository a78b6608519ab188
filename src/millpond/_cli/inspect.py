"""`millpond inspect`: what a dataset is, and what shuffling it will cost."""

from __future__ import annotations

import re
from collections.abc import Sequence

import av
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from millpond._cli.options import as_options, parse_storage_options, token_of
from millpond._datasets.lerobot import LeRobotDataset
from millpond._loader.loader import Loader
from millpond._plan.memory import MemoryPlan, choose
from millpond._urls import scheme_of


def run_inspect(
    dataset: str,
    *,
    memory: str,
    batch_size: int,
    num_workers: int | None,
    image_size: tuple[int, int] | None,
    storage_options: Sequence[str],
    token_env: str | None,
) -> None:
    """Print it all; nothing of options, tokens and what is secret in URLs."""
    console = Console()
    opened = LeRobotDataset(
        dataset,
        image_size=image_size,
        storage_options=parse_storage_options(storage_options) or None,
        token=token_of(token_env),
    )
    try:
        counts = f"{opened.num_episodes} episodes, {len(opened)} frames, {opened.fps:g} fps"
        name = opened.root if scheme_of(dataset) else dataset
        console.print(f"[bold]{escape(name)}[/bold]: {counts}", soft_wrap=True)
        console.print(_cameras_table(opened, is_resized=image_size is not None))
        for episode, problem in sorted(opened.problems.items()):
            console.print(_problem_text(episode, str(problem)), highlight=False, soft_wrap=True)
        with Loader(opened, batch_size=batch_size, shuffle=True, memory=memory, num_workers=num_workers) as loader:
            console.print()
            console.print(str(loader.memory_plan()), highlight=False, soft_wrap=True)
            console.print()
            console.print(_trade_table("other budgets, every GOP decoded once", _by_memory(loader)))
            console.print(
                _trade_table("other segments within this budget; Loader(mixing=...) chooses", _by_segment(loader))
            )
            console.print(
                "samples: of a segment; mixing: distinct episodes per batch, a full shuffle is 1; decodes: per frame; "
                "first: samples decoded before the first batch",
                highlight=False,
            )
    finally:
        opened.close()


def _problem_text(episode: int, problem: str) -> str:
    """One line, which names the episode once."""
    subject = f"episode {episode}"
    named = re.match(rf"{subject}\b", problem)
    rest = problem[named.end() :] if named else f": {problem}"
    return f"[red]{subject}[/red]{escape(as_options(rest))}"


def _cameras_table(dataset: LeRobotDataset, *, is_resized: bool) -> Table:
    delivered = {field.name: field.shape[-3:-1] for field in dataset.fields if field.frames}
    table = Table(box=None)
    for name in ("camera", "codec", "size", "files", "frames", "GOP", "MB", "backend"):
        table.add_column(name, justify="left" if name in ("camera", "codec", "backend") else "right", overflow="fold")
    for name, facts in dataset.video_facts.items():
        # pictures in parquet are looked at when they are read; as they are delivered is as info.json says they are
        size = delivered[name] if "image" in facts.backends and not is_resized else facts.picture_size
        table.add_row(
            name,
            ", ".join(map(_codec_text, facts.codecs)),
            _size_text(size),
            str(facts.num_files),
            str(facts.num_frames),
            _gop_text(facts.gop_frames),
            f"{facts.size_bytes / 1e6:.1f}" if facts.size_bytes else "",
            ", ".join(facts.backends),
        )
    return table


def _codec_text(decoder: str) -> str:
    """The codec, and the decoder where that has a name of its own: "av1 (libdav1d)"."""
    try:
        codec = av.codec.Codec(decoder, "r").canonical_name
    except av.codec.codec.UnknownCodecError:  # pictures in parquet
        return decoder
    return decoder if codec == decoder else f"{codec} ({decoder})"


def _size_text(size: tuple[int, ...]) -> str:
    """Width x height, or nothing where no file opened."""
    height, width = size
    return f"{width}x{height}" if height and width else ""


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
