"""Draw what a bench measured as a small SVG: rates of contenders; or memory as lines, over accesses or over time.

The SVG follows the reader's light or dark setting, and is written by hand: it needs no plotting library.
"""

from __future__ import annotations

import argparse
import html
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _lines import Line, Panel, drawn_panel
from _sweep_lines import leak_panels, of_sweep_leak

WIDTH, LABEL, VALUE, BAR, GAP, HEAD = 760, 250, 210, 18, 6, 30
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #14201c }
.name { font-weight: 600 } .quiet { fill: #5b6a64 }
.ceiling { fill: #c9d2ce } .millpond { fill: #1f6fb2 } .lerobot { fill: #c98a2b }
.grid { stroke: #c9d2ce; fill: none } .line { fill: none; stroke-width: 2 } .second { stroke-dasharray: 5 3 }
.line.millpond { stroke: #1f6fb2 } .line.lerobot { stroke: #c98a2b } .line.ceiling { stroke: #93a19b; fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e6ede9 } .quiet { fill: #94a49d }
  .ceiling { fill: #46544e } .millpond { fill: #5aa9e6 } .lerobot { fill: #e0aa54 }
  .grid { stroke: #46544e } .line { fill: none } .line.millpond { stroke: #5aa9e6 } .line.lerobot { stroke: #e0aa54 }
}"""


KINDS = {
    "numpy": "fresh numpy samples, default_collate",
    "torch": "fresh tensors, default_collate",
    "custom": "a collate function that stacks",
    "prebuilt": "the same batch again and again",
    "small": "256 small samples",
}
LABELS = {"millpond": "millpond.torch.DataLoader", "torch": "torch", "torch-malloc": "torch, the heap kept, too"}


@dataclass(frozen=True)
class Bar:
    """One contender.

    Attributes:
        label: Before the bar.
        look: Its class in the style.
        rate: How long it is: samples/s, or how many times another's.
        note: Behind the rate.
        digits: Of the rate, behind the point.
    """

    label: str
    look: str
    rate: float
    note: str = ""
    digits: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measured", type=Path, help="JSON of a bench")
    parser.add_argument("drawing", type=Path, help="SVG to write")
    arguments = parser.parse_args()
    arguments.drawing.write_text(draw(json.loads(arguments.measured.read_text(encoding="utf-8"))), encoding="utf-8")


def draw(measured: dict[str, Any]) -> str:
    title = f"{TITLES.get(measured['bench'], circumstances)(measured)}, {measured['environment']['machine']}"
    panels_of = PANELS.get(measured["bench"])
    marks, y = bars(measured) if panels_of is None else lines(panels_of(measured))
    marks.append(f'<text class="quiet" x="0" y="{y + 12}">{html.escape(title)}</text>')
    body = "\n".join(marks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 20}" width="{WIDTH}" role="img">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}\n</style>\n{body}\n</svg>\n"
    )


def bars(measured: dict[str, Any]) -> tuple[list[str], int]:
    """Marks, and their height, of a group of bars for each dataset or kind of batches."""
    bars_of = BARS.get(measured["bench"], compared)
    groups = {name: list(bars_of(case)) for name, case in cases_of(measured).items()}
    has_own_scales = measured["bench"] in ("transport", "random_access")
    highest = max(bar.rate for bars in groups.values() for bar in bars)
    marks, y = [], 0
    for name, bars in groups.items():
        marks.append(f'<text class="name" x="0" y="{y + 20}">{html.escape(name)}</text>')
        y += HEAD
        top = max(bar.rate for bar in bars) if has_own_scales else highest
        for bar in bars:
            marks.append(drawn(bar, top, y))
            y += BAR + GAP
        y += 12
    return marks, y


def cases_of(measured: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a group of bars is drawn of, by its title: a dataset, a kind of batches, or a way to ask a dataset."""
    if measured["bench"] == "transport":
        return {KINDS.get(name, name): case for name, case in measured["kinds"].items()}
    datasets: dict[str, dict[str, Any]] = measured["datasets"]
    if measured["bench"] != "random_access":
        return datasets
    cases = {}
    for name, dataset in datasets.items():
        cases[f"{name}: samples at random"] = dataset["random"]
        for span, batches in dataset["batches"].items():
            cases[f"{name}: batches of {dataset['batch_size']} frames of one {span}, sorted"] = batches
    return cases


def cache_panels(measured: dict[str, Any]) -> list[Panel]:
    """The trajectory of the first seed of each side: memory, descriptors, and memory without a bound."""
    panels = [
        Panel("RSS over its baseline, MB", "accesses", list(trajectories(measured["bounded"], grown))),
        Panel("open descriptors", "accesses", list(trajectories(measured["bounded"], opened))),
    ]
    if "unbounded" in measured:
        few = measured["unbounded"]
        panels.append(Panel(f"without a bound, {few['files']} files: MB", "accesses", list(trajectories(few, grown))))
    return panels


def lines(panels: list[Panel]) -> tuple[list[str], float]:
    """Marks of panels, one below the other, and their height."""
    marks: list[str] = []
    y = 0.0
    for panel in panels:
        of_panel, height = drawn_panel(panel, y, WIDTH)
        marks += of_panel
        y += height
    return marks, y


def trajectories(measured: dict[str, Any], value: Callable[[dict[str, Any]], list[float]]) -> Iterator[Line]:
    seen: set[str] = set()
    for side, found in measured["sides"].items():
        looks = found["runs"][0]["looks"]
        values = value(looks)
        look = "lerobot" if side.startswith("torchcodec") else "millpond"
        yield Line(
            f"{label_of(side)}: {values[-1]:,.0f}",
            f"{look} second" if look in seen else look,
            list(zip(looks["accesses"], values, strict=True)),
        )
        seen.add(look)


def label_of(side: str) -> str:
    name, _, size = side.partition(":")
    return name.replace("-", " ") + (f", cap {size}" if size and size != "none" else "")


def grown(looks: dict[str, Any]) -> list[float]:
    return [(rss - looks["rss_bytes"][0]) / 1e6 for rss in looks["rss_bytes"]]


def opened(looks: dict[str, Any]) -> list[float]:
    return [float(count) for count in looks["descriptors"]]


def circumstances(measured: dict[str, Any]) -> str:
    return f"samples/s, {workers_of(measured)}"


def of_transport(measured: dict[str, Any]) -> str:
    shape = "x".join(map(str, measured["settings"]["frame_shape"]))
    return f"batches/s, {workers_of(measured)}, batches of {measured['settings']['batch_size']} samples of {shape}"


def of_streaming(measured: dict[str, Any]) -> str:
    settings = measured["settings"]
    return (
        f"samples/s, {workers_of(measured)} on one core; {1e3 * settings['latency']:g} ms to the first byte, "
        f"{settings['mib_per_second']:g} MiB/s a connection"
    )


def of_random_access(measured: dict[str, Any]) -> str:
    return "times the rate of torchcodec one by one, in one process, one thread"


def of_decoder_cache(measured: dict[str, Any]) -> str:
    bounded, size = measured["bounded"], measured["settings"]["max_size"]
    return f"a random frame of {bounded['files']:,} files, {'no cap' if size is None else f'cap {size}'}"


def workers_of(measured: dict[str, Any]) -> str:
    workers = measured["settings"]["num_workers"]
    return f"{workers} worker{'s' if workers > 1 else ''}"


def compared(dataset: dict[str, Any]) -> Iterator[Bar]:
    """millpond beside the ceiling and LeRobot."""
    result = dataset["results"]
    yield Bar("ceiling", "ceiling", result["ceiling_samples_per_second"])
    note = f" ({result['over_ceiling']:.0%} of the ceiling)"
    yield Bar("millpond", "millpond", result["millpond_samples_per_second"], note)
    if "lerobot_samples_per_second" in result:
        note = f" (millpond is {result['over_lerobot']:.1f} times as fast)"
        yield Bar("LeRobotDataset", "lerobot", result["lerobot_samples_per_second"], note)


def streamed(dataset: dict[str, Any]) -> Iterator[Bar]:
    """millpond from a store beside millpond from memory, and what fsspec offers."""
    results, beside = dataset["pinned"]["results"], dataset["side_by_side"]
    yield Bar("from memory", "ceiling", results["ram"]["samples_per_second"])
    for name, label in (("streamed", "streamed"), ("faults", "streamed, under faults")):
        note = f" (keep-up {results[name]['keep_up']:.2f})"
        yield Bar(label, "millpond", results[name]["samples_per_second"], note)
    firsts = (
        ("memory", "from memory", "ceiling"),
        ("millpond", "streamed", "millpond"),
        ("fsspec_download", "fsspec download, then read", "lerobot"),
        ("fsspec_readahead", "fsspec and torchcodec", "lerobot"),
    )
    for name, label, look in firsts:
        if isinstance(beside[name], dict):
            yield Bar(f"first epoch: {label}", look, beside[name]["samples_per_second"])


def transported(kind: dict[str, Any]) -> Iterator[Bar]:
    """millpond's DataLoader beside torch's."""
    for side, found in kind["sides"].items():
        over = kind["over"].get(side)
        note = f" (millpond is {over['batches_per_second']['median']:.1f} times as fast)" if over else ""
        yield Bar(LABELS.get(side, side), "lerobot" if over else "millpond", found["batches_per_second"], note)


def at_random(case: dict[str, Any]) -> Iterator[Bar]:
    """Each side over torchcodec, which decodes one by one."""
    for side, found in case["sides"].items():
        over = case["over"].get(side)
        look = "lerobot" if side.startswith("torchcodec") else "millpond"
        ratio = over["per_second"]["median"] if over else 1.0
        yield Bar(side, look, ratio, f" ({found['frames_per_second']:,.0f} frames/s)", digits=2)


TITLES = {
    "transport": of_transport,
    "streaming": of_streaming,
    "random_access": of_random_access,
    "decoder_cache": of_decoder_cache,
    "sweep_leak": of_sweep_leak,
}
PANELS = {"decoder_cache": cache_panels, "sweep_leak": leak_panels}
BARS = {"transport": transported, "streaming": streamed, "random_access": at_random}


def drawn(bar: Bar, top: float, y: int) -> str:
    length = max(1.0, bar.rate / top * (WIDTH - LABEL - VALUE))
    return (
        f'<text class="quiet" x="0" y="{y + 14}">{html.escape(bar.label)}</text>'
        f'<rect class="{bar.look}" x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>'
        f'<text x="{LABEL + length + 8:.1f}" y="{y + 14}">{bar.rate:,.{bar.digits}f}{bar.note}</text>'
    )


if __name__ == "__main__":
    main()
