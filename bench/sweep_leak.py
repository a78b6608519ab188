"""Does a sweep of jobs that leak below Python stay flat, and at what?

Each job takes 72 MB from C and never gives them back, as an environment of a simulator does. The sweep is watched from
outside: the summed PSS of the whole process tree, the sweep itself and its keeper included. Ways take turns: chunks of
10 jobs; `--chunk-size auto` with a budget; a script that takes its jobs from `millpond.sweep_jobs()`, with the same
budget; and a few of the jobs in one process, without millpond, for the slope that all of them would go on with.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _results import Results
from _sweeps import JOB, SCRIPT, SweptChunk, bench_folder, chunks_of, summary, sweep_argv, write_jobs
from millpond._amounts import parse_bytes
from millpond._arena.memory import available_bytes
from millpond._observe.memory import MemoryPoint, MemorySampler
from millpond._soak.trend import trend_of

WAYS = {
    "chunks": "a fixed number of jobs a process",
    "auto": "--chunk-size auto --max-rss BUDGET",
    "script": "a script with millpond.sweep_jobs(), and --max-rss BUDGET",
    "one process": "a few jobs, without millpond",
}
MOST_SPREAD, MOST_BESIDE_MB = 0.02, 150.0
"""What is wanted: chunks' peaks that are one like the other, and little beside what a chunk may take."""


@dataclass(frozen=True)
class Watched:
    """A command that was looked at while it ran.

    Attributes:
        began_at: Seconds since the epoch.
        seconds: Until it ended.
        points: Looks at its tree; `elapsed_seconds` is when one was over, since `began_at`.
        interval_seconds: From the end of a look to the beginning of the next.
    """

    began_at: float
    seconds: float
    points: list[MemoryPoint]
    interval_seconds: float

    @property
    def peak_mb(self) -> float:
        """Of the whole tree."""
        return max(megabytes(point.total.pss_bytes) for point in self.points)

    def chunk_peak_mb(self, chunk: SweptChunk) -> float:
        """Of the whole tree, by looks that began while a chunk ran; 0.0 if none did."""
        start = chunk.began_at - self.began_at
        stop = start + (chunk.seconds or 0.0)
        return max(
            (
                megabytes(point.total.pss_bytes)
                for before, point in itertools.pairwise(self.points)
                if start <= before.elapsed_seconds + self.interval_seconds <= stop
            ),
            default=0.0,
        )


def watch(argv: list[str], interval_seconds: float) -> Watched:
    """Run a command to its end, and look at it from outside.

    Raises:
        RuntimeError: It failed; its error is above.
    """
    began_at = time.time()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        with MemorySampler(process.pid, interval_seconds=interval_seconds) as sampler:
            code = process.wait()
    finally:
        process.terminate()
    if code:
        raise RuntimeError(f"{argv[1:5]} ended with exit code {code}")
    points = [point for point in sampler.points if point.total.num_processes]
    return Watched(began_at, time.time() - began_at, points, interval_seconds)


def megabytes(num_bytes: float) -> float:
    return num_bytes / 1e6


def swept(way: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All jobs, through the command line."""
    how = {
        "chunks": (["--chunk-size", str(options.chunk_size)], JOB),
        "auto": (["--chunk-size", "auto", "--max-rss", options.max_rss], JOB),
        "script": (["--max-rss", options.max_rss, "--jobs-from-environment"], SCRIPT),
    }
    jobs = write_jobs(folder / "jobs.json", options.jobs, leak_bytes=options.leak_bytes, seconds=options.job_seconds)
    out = folder / "out"
    watched = watch(sweep_argv(jobs, out, *how[way][0], command=how[way][1]), options.interval)
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    chunks = chunks_of(out)
    return {
        **facts(watched),
        "jobs_done": len(metrics),
        "chunk_sizes": [chunk.num_done for chunk in chunks],
        "chunk_peaks_mb": [round(watched.chunk_peak_mb(chunk), 1) for chunk in chunks],
        "chunk_peaks_rss_mb": [round(megabytes(chunk.peak_rss_bytes), 1) for chunk in chunks],
        "sweep_itself_mb": round(max(megabytes(point.training.pss_bytes) for point in watched.points), 1),
    }


def in_one_process(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A few jobs by the command alone; what a job adds is told by the jobs themselves."""
    count = options.few_jobs
    jobs = write_jobs(folder / "jobs.json", count, leak_bytes=options.leak_bytes, seconds=options.job_seconds)
    reports = folder / "metrics.jsonl"
    filled = [part.format(jobs=jobs, metrics=reports) for part in JOB]
    watched = watch(filled, options.interval)
    rss = [json.loads(line)["metrics"]["rss_bytes"] for line in reports.read_text(encoding="utf-8").splitlines()]
    trend = trend_of([megabytes(value) for value in rss])
    return {
        **facts(watched),
        "jobs_done": len(rss),
        "mb_per_job": round(trend.slope, 3),
        "gb_for_all_by_the_slope": round((megabytes(rss[0]) + trend.slope * (options.jobs - 1)) / 1e3, 2),
    }


def facts(watched: Watched) -> dict[str, Any]:
    return {
        "peak_mb": round(watched.peak_mb, 1),
        "seconds": round(watched.seconds, 2),
        "looks": {
            "seconds": [round(point.elapsed_seconds, 2) for point in watched.points],
            "mb": [round(megabytes(point.total.pss_bytes), 1) for point in watched.points],
        },
    }


def results(way: str, runs: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Over all rounds of a way."""
    found: dict[str, Any] = {name: summary([run[name] for run in runs]) for name in ("peak_mb", "seconds")}
    if way == "one process":
        found["mb_per_job"] = summary([run["mb_per_job"] for run in runs], 3)
        found["gb_for_all_by_the_slope"] = summary([run["gb_for_all_by_the_slope"] for run in runs])
        return found
    found["chunks"] = [len(run["chunk_sizes"]) for run in runs]
    found["sweep_itself_mb"] = summary([run["sweep_itself_mb"] for run in runs])
    for name in ("chunk_peaks_mb", "chunk_peaks_rss_mb"):
        found[name] = summary(list(itertools.chain(*(whole_chunks(run, name) for run in runs))))
    if way == "chunks":
        found["over_jobs_of_a_chunk"] = round(found["peak_mb"]["most"] / chunk_mb(options), 4)
        trends = [trend_of(run["chunk_peaks_rss_mb"]) for run in runs if len(run["chunk_sizes"]) > 2]
        found["trend_of_chunk_peaks_rss"] = [{**asdict(trend), "is_flat": trend.is_flat} for trend in trends]
    else:
        most = max(max(run["chunk_peaks_rss_mb"]) for run in runs)
        found["chunk_over_budget"] = round(most / megabytes(parse_bytes(options.max_rss)), 4)
    return found


def whole_chunks(run: dict[str, Any], name: str) -> list[float]:
    """Peaks of chunks that got as many jobs as most did: not the first ones, that are for learning, nor the last."""
    usual = max(set(run["chunk_sizes"]), key=run["chunk_sizes"].count)
    return [peak for size, peak in zip(run["chunk_sizes"], run[name], strict=True) if size == usual]


def chunk_mb(options: argparse.Namespace) -> float:
    """What the jobs of a chunk of fixed size leak together."""
    return float(options.chunk_size * megabytes(options.leak_bytes))


def wanted_of(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """What each way came to, and what it may come to at most."""
    rows: dict[str, tuple[float, float]] = {}
    if "chunks" in found:
        chunks = found["chunks"]
        rows["chunks: spread of chunks' peak RSS"] = (chunks["chunk_peaks_rss_mb"]["spread"], MOST_SPREAD)
        rows["chunks: MB beside a chunk's jobs"] = (chunks["peak_mb"]["most"] - chunk_mb(options), MOST_BESIDE_MB)
    for way in ("auto", "script"):
        if way in found:
            beside = found[way]["peak_mb"]["most"] - megabytes(parse_bytes(options.max_rss))
            rows[f"{way}: MB beside the budget"] = (beside, MOST_BESIDE_MB)
    return rows


def parse() -> argparse.Namespace:
    ways = "; ".join(f"{name}: {text}" for name, text in WAYS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"Ways: {ways}.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--few-jobs", type=int, default=30, help="in one process; at least 3")
    parser.add_argument("--leak-bytes", type=int, default=72_000_000, help="of each job")
    parser.add_argument("--job-seconds", type=float, default=0.2, help="that a job takes after its leak")
    parser.add_argument("--chunk-size", type=int, default=10)
    parser.add_argument("--max-rss", default="800MiB", help="budget of `auto` and `script`")
    parser.add_argument("--interval", type=float, default=0.1, help="seconds from look to look")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="the report goes here, too")
    options = parser.parse_args()
    most = max(options.few_jobs, options.chunk_size) * options.leak_bytes
    if most > available_bytes() / 2:
        parser.error(f"a process would take {most / 1e9:.1f} GB, more than half of the memory that is free")
    return options


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that the temporary folder goes, too
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in options.ways}
    for number in range(options.rounds):
        for way in options.ways:
            with bench_folder() as folder:
                run = in_one_process(folder, options) if way == "one process" else swept(way, folder, options)
            runs[way].append(run)
            print(
                f"round {number}, {way}: {run['peak_mb']:,.0f} MB in {run['seconds']:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    for run in itertools.chain(*(of[1:] for of in runs.values())):
        del run["looks"]  # those of the first round are enough for a drawing
    found = {way: results(way, of, options) for way, of in runs.items()}
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    told = Results("sweep_leak", "whether a sweep of jobs that leak stays flat", settings)
    told.details["jobs_of_a_chunk_mb"] = chunk_mb(options)
    told.details["ways"] = {way: {"results": found[way], "runs": of} for way, of in runs.items()}
    for way, of in runs.items():
        told.add("", way, "peak_mb", "MB", [run["peak_mb"] for run in of])
        told.add("", way, "wall_seconds", "s", [run["seconds"] for run in of])
    for name, (value, wanted) in wanted_of(found, options).items():
        told.claim(name, round(value, 4), wanted, is_limit=True)
    told.publish(options.json)


if __name__ == "__main__":
    main()
