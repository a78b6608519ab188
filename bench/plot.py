"""Draw what `epoch.py` and `windows.py` measured: samples/s of every contender, as a small SVG.

The SVG follows the reader's light or dark setting, and is written by hand: it needs no plotting library.
"""

from __future__ import annotations

import argparse
import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WIDTH, LABEL, VALUE, BAR, GAP, HEAD = 760, 150, 210, 18, 6, 30
CONTENDERS = {"ceiling": "ceiling", "millpond": "millpond", "lerobot": "LeRobotDataset"}
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #14201c }
.name { font-weight: 600 } .quiet { fill: #5b6a64 }
.ceiling { fill: #c9d2ce } .millpond { fill: #1f6fb2 } .lerobot { fill: #c98a2b }
@media (prefers-color-scheme: dark) {
  text { fill: #e6ede9 } .quiet { fill: #94a49d }
  .ceiling { fill: #46544e } .millpond { fill: #5aa9e6 } .lerobot { fill: #e0aa54 }
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measured", type=Path, help="JSON of a bench")
    parser.add_argument("drawing", type=Path, help="SVG to write")
    arguments = parser.parse_args()
    arguments.drawing.write_text(draw(json.loads(arguments.measured.read_text(encoding="utf-8"))), encoding="utf-8")


def draw(measured: dict[str, Any]) -> str:
    results = {name: dataset["results"] for name, dataset in measured["datasets"].items()}
    top = max(result["ceiling_samples_per_second"] for result in results.values())
    top = max(top, *(result["millpond_samples_per_second"] for result in results.values()))
    marks, y = [], 0
    for name, result in results.items():
        marks.append(f'<text class="name" x="0" y="{y + 20}">{html.escape(name)}</text>')
        y += HEAD
        for bar in bars(result, top, y):
            marks.append(bar)
            y += BAR + GAP
        y += 12
    title = f"samples/s, {measured['settings']['num_workers']} workers, {measured['environment']['machine']}"
    marks.append(f'<text class="quiet" x="0" y="{y + 12}">{html.escape(title)}</text>')
    body = "\n".join(marks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 20}" width="{WIDTH}" role="img">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}\n</style>\n{body}\n</svg>\n"
    )


def bars(result: dict[str, float], top: float, y: int) -> Iterator[str]:
    for key, label in CONTENDERS.items():
        rate = result.get(f"{key}_samples_per_second")
        if rate is None:
            continue
        length = max(1.0, rate / top * (WIDTH - LABEL - VALUE))
        note = {"millpond": f" ({result['over_ceiling']:.0%} of the ceiling)"}.get(key, "")
        if key == "lerobot":
            note = f" (millpond is {result['over_lerobot']:.1f} times as fast)"
        yield (
            f'<text class="quiet" x="0" y="{y + 14}">{label}</text>'
            f'<rect class="{key}" x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>'
            f'<text x="{LABEL + length + 8:.1f}" y="{y + 14}">{rate:,.0f}{note}</text>'
        )
        y += BAR + GAP


if __name__ == "__main__":
    main()
