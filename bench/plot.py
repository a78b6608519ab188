"""Draw what benches measured: an SVG for each JSON, under the name that README and docs show it by.

Bars of contenders, with the least and the most of their rounds; or memory as lines, over accesses or over time. The SVG
follows the reader's light or dark setting.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from _bars import Bar, bar_of, draw_bars
from _cache_lines import cache_panels
from _charts import save
from _lines import Panel, draw_panels
from _sweep_lines import leak_panels

Report = dict[str, Any]

NAMES = {"sweep_leak": "sweep"}
"""Of drawings that are not called like their bench."""


def workers_of(report: Report) -> str:
    workers = report["settings"]["num_workers"]
    return f"{workers} worker{'s' if workers > 1 else ''}"


def of_transport(report: Report) -> str:
    shape = "x".join(map(str, report["settings"]["frame_shape"]))
    return f"{workers_of(report)}, batches of {report['settings']['batch_size']} samples of {shape}"


def of_store(report: Report) -> str:
    settings = report["settings"]
    return (
        f"{workers_of(report)} on one core; {1e3 * settings['latency']:g} ms to the first byte, "
        f"{settings['mib_per_second']:g} MiB/s a connection"
    )


def of_store_peers(report: Report) -> str:
    settings = report["settings"]
    return (
        f"clients on one core; {1e3 * settings['latency']:g} ms to the first byte, "
        f"{settings['mib_per_second']:g} MiB/s a connection"
    )


def of_clips(report: Report) -> str:
    settings = report["settings"]
    height, width = settings["size"]
    return f"{settings['num_frames']} frames of each clip, {height}x{width}; {workers_of(report)}"


def of_random_access(report: Report) -> str:
    return "times the rate of torchcodec one by one, in one process, one thread"


def of_guard(report: Report) -> str:
    return f"a call that answers with {report['settings']['bytes'] / 1e6:g} MB"


def of_scale(report: Report) -> str:
    rows = report["settings"]["batch_size"]
    return f"CPU of a draw (a segment handed out and taken back, with the batches of {rows} that it completes)"


def of_decoder_cache(report: Report) -> str:
    size = report["settings"]["max_size"]
    files = report["details"]["bounded"]["files"]
    return f"a random frame of {files:,} files, {'no cap' if size is None else f'cap {size}'}"


def of_sweep_leak(report: Report) -> str:
    settings = report["settings"]
    return f"PSS of the process tree; {settings['jobs']} jobs, each leaks {settings['leak_bytes'] / 1e6:g} MB"


RATES: dict[str, tuple[tuple[str, ...], Callable[[Report], str]]] = {
    "epoch": (("samples_per_second",), workers_of),
    "windows": (("samples_per_second",), workers_of),
    "clips": (("clips_per_second",), of_clips),
    "transport": (("batches_per_second",), of_transport),
    "streaming": (("samples_per_second",), of_store),
    "streaming_peers": (("clips_per_second",), of_store_peers),
    "random_access": (("rate_over_torchcodec",), of_random_access),
    "scale": (("us_per_draw",), of_scale),
    "guard": (("ms_per_call", "ms_to_next_answer"), of_guard),
}
"""Bench: the quantities that are drawn as bars, and under which circumstances they were measured."""

PANELS: dict[str, tuple[Callable[[Report], list[Panel]], Callable[[Report], str]]] = {
    "decoder_cache": (cache_panels, of_decoder_cache),
    "sweep_leak": (leak_panels, of_sweep_leak),
}


def draw(report: Report) -> tuple[Figure, str] | None:
    """The drawing and what it says in words; None for a bench of which there is none."""
    bench = report["bench"]
    circumstances = RATES.get(bench, PANELS.get(bench, (None, None)))[1]
    if circumstances is None:
        return None
    title = f"{circumstances(report)}; {report['environment']['machine']}"
    if bench in PANELS:
        return draw_panels(PANELS[bench][0](report), title), title
    return draw_bars(groups_of(report, RATES[bench][0]), title), title


def groups_of(report: Report, quantities: tuple[str, ...]) -> dict[str, list[Bar]]:
    """A group of bars for each case, in the order that they were measured in."""
    groups: dict[str, list[Report]] = {}
    for row in report["results"]:
        if row["quantity"] in quantities:
            groups.setdefault(row["case"], []).append(row)
    if not groups:
        raise LookupError(f"no {' or '.join(quantities)} among its results")
    return {case: [bar_of(row, rows) for row in rows] for case, rows in groups.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", nargs="+", type=Path, help="JSON of benches")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the drawings (default: here)")
    options = parser.parse_args()
    for path in options.measured:
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            drawn = draw(report)
        except OSError as error:
            sys.exit(f"{path}: {error.strerror}")
        except (ValueError, LookupError, TypeError) as error:
            sys.exit(f"{path}: not what a bench of today writes, run it again ({type(error).__name__}: {error})")
        if drawn is None:
            print(f"{path}: there is no drawing of {report['bench']}", file=sys.stderr)
            continue
        place = options.out / f"{NAMES.get(report['bench'], report['bench'])}.svg"
        save(drawn[0], place, drawn[1])
        print(place)


if __name__ == "__main__":
    main()
