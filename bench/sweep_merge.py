"""Are merged metrics the same bytes however a sweep was cut, run, killed and resumed?

All ways go over the same jobs, whose metrics are floats of which the sum depends on the order: chunks of several sizes,
two at a time, the command as it is (nothing to split), sweeps whose process is killed (SIGKILL) three times, each time
after a random number of jobs, and resumed, and chunks through Ray. Each is held against what the command reports
without millpond. Jobs leave a mark when they begin and when they have reported, so it is known what ran twice: what was
at work at a kill may, what had reported never.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _results import Results
from _sweeps import JOB, bench_folder, chunks_of, sweep_argv, write_jobs
from _usable import why_not

_POLL_SECONDS, _MOST_JITTER_SECONDS = 0.002, 0.1


@dataclass(frozen=True)
class Way:
    """How the jobs are swept.

    Attributes:
        name: In the report.
        options: Of the command line.
        kill_seed: Of the moments of the kills; None: there are none.
    """

    name: str
    options: tuple[str, ...]
    kill_seed: int | None = None


def ways_of(options: argparse.Namespace) -> list[Way]:
    """All; where everything would be one chunk, asking for a retry has it run as a chunk, and not as it is."""
    size = ("--chunk-size", str(options.killed_size))
    ways = [Way(f"chunks of {count}", ("--chunk-size", str(count), "--retries", "1")) for count in options.chunk_sizes]
    ways.append(Way("two at a time", (*size, "--parallel", "2")))
    ways.append(Way("as it is", ()))
    for seed in options.kill_seeds:
        parallel = ("--parallel", str(1 + seed % 2))
        ways.append(Way(f"killed {options.kills} times, seed {seed}", (*size, *parallel, "--resume"), seed))
    if options.ray and (reason := why_not("ray")):
        print(f"ray is left out, since it is not to be used here: {reason}", file=sys.stderr)
    elif options.ray:
        ways.append(Way("ray", ("--chunk-size", str(options.ray_size), "--engine", "ray")))
    return ways


def run_way(
    way: Way, jobs: Path, expected: dict[str, Any], folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Sweep in one way; what came of it, and what ran twice."""
    out, marks = folder / "out", folder / "marks"
    argv = sweep_argv(jobs, out, *way.options, command=(*JOB, str(marks)))
    began = time.monotonic()
    reported = [] if way.kill_seed is None else killed(argv, marks, way.kill_seed, options)
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return {
        "options": list(way.options),
        "metrics_sha256": digest(out / "metrics.json"),
        "summary_sha256": digest(out / "summary.json"),
        "seconds": round(time.monotonic() - began, 2),
        "chunks": len(chunks_of(out)),
        "reported_at_kills": reported,
        **twice(marks_of(marks)),
        "is_as_without_millpond": json.loads((out / "metrics.json").read_text(encoding="utf-8")) == expected,
    }


def killed(argv: list[str], marks: Path, seed: int, options: argparse.Namespace) -> list[int]:
    """Start a sweep and kill it, again and again; how many jobs had reported each time."""
    chance = random.Random(seed)
    moments = sorted(chance.sample(range(1, options.jobs * 3 // 4), options.kills))
    return [start_and_kill(argv, marks, moment, chance.uniform(0, _MOST_JITTER_SECONDS)) for moment in moments]


def start_and_kill(argv: list[str], marks: Path, moment: int, jitter_seconds: float) -> int:
    """Let a sweep run until so many jobs have reported, and a little longer.

    Raises:
        RuntimeError: It ended before it could be killed.
    """
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while num_reported(marks) < moment and process.poll() is None:
            time.sleep(_POLL_SECONDS)
        time.sleep(jitter_seconds)
    finally:
        process.kill()
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError(f"the sweep ended with {process.returncode} before it was killed: more --jobs are needed")
    return num_reported(marks)


def num_reported(marks: Path) -> int:
    return sum(1 for event, _ in marks_of(marks) if event == "reported")


def marks_of(marks: Path) -> list[tuple[str, str]]:
    """What jobs did, in order: (begun or reported, name)."""
    try:
        lines = marks.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [(event, name) for event, _, name in (line.partition(" ") for line in lines)]


def twice(marks: list[tuple[str, str]]) -> dict[str, int]:
    """How many jobs ran more than once, and how many of them although they had reported."""
    reported: set[str] = set()
    needless: set[str] = set()
    for event, name in marks:
        if event == "reported":
            reported.add(name)
        elif name in reported:
            needless.add(name)
    begun = Counter(name for event, name in marks if event == "begun")
    return {
        "jobs_run_twice": sum(1 for count in begun.values() if count > 1),
        "jobs_run_again_after_their_report": len(needless),
    }


def without_millpond(jobs: Path, folder: Path) -> dict[str, Any]:
    """What the command reports when it is simply run."""
    reports = folder / "metrics.jsonl"
    subprocess.run([part.format(jobs=jobs, metrics=reports) for part in JOB], check=True)
    records = map(json.loads, reports.read_text(encoding="utf-8").splitlines())
    return {record["name"]: record["metrics"] for record in records}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def wanted_of(ways: dict[str, dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """What they came to, and what they may come to at most."""
    counts = {
        f"different {name}.json": len({way[f"{name}_sha256"] for way in ways.values()})
        for name in ("metrics", "summary")
    }
    rows = {name: (count, 1) for name, count in counts.items()}
    differ = sum(1 for way in ways.values() if not way["is_as_without_millpond"])
    rows["ways with other metrics than without millpond"] = (differ, 0)
    needless = sum(way["jobs_run_again_after_their_report"] for way in ways.values())
    rows["jobs run again after their report"] = (needless, 0)
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--job-seconds", type=float, default=0.01, help="that each takes (default: %(default)s)")
    parser.add_argument("--chunk-sizes", type=int, nargs="*", default=[1, 7, 50, 200], help="(default: %(default)s)")
    parser.add_argument(
        "--kill-seeds",
        type=int,
        nargs="*",
        default=[0, 1, 2],
        help="a sweep each; of odd ones two chunks run at a time (default: %(default)s)",
    )
    parser.add_argument("--kills", type=int, default=3, help="of each such sweep (default: %(default)s)")
    parser.add_argument("--killed-size", type=int, default=7, help="of their chunks (default: %(default)s)")
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True, help="(default: %(default)s)")
    parser.add_argument("--ray-size", type=int, default=50, help="of Ray's chunks (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="the report goes here, too")
    return parser.parse_args()


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that the temporary folder goes, too
    ways: dict[str, dict[str, Any]] = {}
    with bench_folder() as folder:
        jobs = write_jobs(folder / "jobs.json", options.jobs, seconds=options.job_seconds)
        expected = without_millpond(jobs, folder)
        for number, way in enumerate(ways_of(options)):
            (own := folder / str(number)).mkdir()
            ways[way.name] = found = run_way(way, jobs, expected, own, options)
            print(f"{way.name}: {found['metrics_sha256'][:12]}, {found['seconds']:.1f} s", file=sys.stderr, flush=True)
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    results = Results("sweep_merge", "whether merged metrics are the same bytes however a sweep was run", settings)
    results.details["ways"] = ways
    for name, way in ways.items():
        results.add("", name, "wall_seconds", "s", [way["seconds"]])
    for name, (found, wanted) in wanted_of(ways).items():
        results.claim(name, found, wanted, is_limit=True)
    results.publish(options.json)


if __name__ == "__main__":
    main()
