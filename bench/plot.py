"""Draw what `epoch.py`, `windows.py`, `streaming.py` or `transport.py` measured: rates of contenders, as a small SVG.

The SVG follows the reader's light or dark setting, and is written by hand: it needs no plotting library.
"""

from __future__ import annotations

import argparse
import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIDTH, LABEL, VALUE, BAR, GAP, HEAD = 760, 250, 210, 18, 6, 30
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #14201c }
.name { font-weight: 600 } .quiet { fill: #5b6a64 }
.ceiling { fill: #c9d2ce } .millpond { fill: #1f6fb2 } .lerobot { fill: #c98a2b }
@media (prefers-color-scheme: dark) {
  text { fill: #e6ede9 } .quiet { fill: #94a49d }
  .ceiling { fill: #46544e } .millpond { fill: #5aa9e6 } .lerobot { fill: #e0aa54 }
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
        rate: Samples/s.
        note: Behind the rate.
    """

    label: str
    look: str
    rate: float
    note: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measured", type=Path, help="JSON of a bench")
    parser.add_argument("drawing", type=Path, help="SVG to write")
    arguments = parser.parse_args()
    arguments.drawing.write_text(draw(json.loads(arguments.measured.read_text(encoding="utf-8"))), encoding="utf-8")


def draw(measured: dict[str, Any]) -> str:
    is_transport = measured["bench"] == "transport"
    bars_of = transported if is_transport else streamed if measured["bench"] == "streaming" else compared
    cases = (
        {KINDS.get(name, name): case for name, case in measured["kinds"].items()}
        if is_transport
        else measured["datasets"]
    )
    groups = {name: list(bars_of(case)) for name, case in cases.items()}
    highest = max(bar.rate for bars in groups.values() for bar in bars)
    marks, y = [], 0
    for name, bars in groups.items():
        marks.append(f'<text class="name" x="0" y="{y + 20}">{html.escape(name)}</text>')
        y += HEAD
        top = max(bar.rate for bar in bars) if is_transport else highest  # kinds of batches have scales of their own
        for bar in bars:
            marks.append(drawn(bar, top, y))
            y += BAR + GAP
        y += 12
    unit = "batches/s" if is_transport else "samples/s"
    title = f"{unit}, {circumstances(measured)}, {measured['environment']['machine']}"
    marks.append(f'<text class="quiet" x="0" y="{y + 12}">{html.escape(title)}</text>')
    body = "\n".join(marks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 20}" width="{WIDTH}" role="img">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}\n</style>\n{body}\n</svg>\n"
    )


def circumstances(measured: dict[str, Any]) -> str:
    settings = measured["settings"]
    workers = f"{settings['num_workers']} worker{'s' if settings['num_workers'] > 1 else ''}"
    if measured["bench"] == "transport":
        return (
            f"{workers}, batches of {settings['batch_size']} samples of {'x'.join(map(str, settings['frame_shape']))}"
        )
    if measured["bench"] != "streaming":
        return workers
    return (
        f"{workers} on one core; {1e3 * settings['latency']:g} ms to the first byte, "
        f"{settings['mib_per_second']:g} MiB/s a connection"
    )


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


def drawn(bar: Bar, top: float, y: int) -> str:
    length = max(1.0, bar.rate / top * (WIDTH - LABEL - VALUE))
    return (
        f'<text class="quiet" x="0" y="{y + 14}">{html.escape(bar.label)}</text>'
        f'<rect class="{bar.look}" x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>'
        f'<text x="{LABEL + length + 8:.1f}" y="{y + 14}">{bar.rate:,.0f}{bar.note}</text>'
    )


if __name__ == "__main__":
    main()
