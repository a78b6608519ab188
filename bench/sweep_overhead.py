"""What does a sweep cost per chunk, over `subprocess.run` of the same command?

Turns alternate: N commands by `subprocess.run` from a loop, then a sweep of N chunks of one job each, again and again,
and the loop once more. A chunk's wall time is that from its beginning to the beginning of the next one, as the ledger
has it: everything that a sweep does for a chunk lies in there, and nothing of its start and end, which are told apart.
Its overhead is that less the median of `subprocess.run` just before and just after. A command's output goes to a file
either way; a sweep also writes the chunk's jobs file, reads its metrics, and has both on the disk, in its ledger.

CPU is of all processes, as the kernel counted it when they were waited for: of a sweep of N chunks less that of one of
2, over the N - 2 chunks more. The ledger's share is what its two transactions take by themselves, in the same folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _results import Results
from _sweeps import FOLDER, JOB, bench_folder, chunks_of, summary, sweep_argv, write_jobs
from millpond._plan.chunks import JobState, JobVerdict
from millpond._sweep.ledger import Ledger
from millpond._sweep.orders import ChunkOutcome

MOST_MS = 30.0
"""What is wanted of a chunk's wall time over `subprocess.run`."""
COMMANDS: dict[str, tuple[str, ...]] = {
    "true": ("true", "{jobs}"),
    "python": (sys.executable, "-c", "pass", "{jobs}"),
    "python that reports": JOB,
}
FUNCTION = "function"
ALL = {
    "true": "a program that does nothing",
    "python": "python that does nothing",
    "python that reports": "python without site, which writes a job's metrics",
    FUNCTION: "a chunk of millpond.sweep(jobs, function), beside the very process that it starts",
}


@dataclass(frozen=True)
class Contest:
    """A command as a sweep runs it, and as `subprocess.run` does.

    Attributes:
        sweep: The sweep's own command line, for so many chunks, into a folder.
        argv: What a chunk runs.
        environment: Of the latter.
    """

    sweep: Callable[[int, Path], list[str]]
    argv: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class SweepTurn:
    """One sweep.

    Attributes:
        periods_ms: From each chunk's beginning to the next one's.
        runs_ms: Of each chunk: from before its files are written until its process tree is gone.
        start_ms: Until the first chunk began.
        end_ms: Since the last one ended.
        cpu_seconds: Of everything.
    """

    periods_ms: list[float]
    runs_ms: list[float]
    start_ms: float
    end_ms: float
    cpu_seconds: float


def contest_of(name: str, folder: Path) -> Contest:
    """Make what both sides need, in a folder."""
    if name == FUNCTION:
        return _function_contest(folder)
    command = COMMANDS[name]

    def sweep(count: int, out: Path) -> list[str]:
        jobs = write_jobs(folder / f"jobs-{count}.json", count)
        return sweep_argv(jobs, out, "--chunk-size", "1", command=command)

    jobs = write_jobs(folder / "one.json", 1)
    argv = [part.format(jobs=jobs, metrics=folder / "metrics.jsonl") for part in command]
    return Contest(sweep, argv, {**os.environ, "PYTHONUNBUFFERED": "1"})


def _function_contest(folder: Path) -> Contest:
    script, kept = str(FOLDER / "_sweep_function.py"), folder / "kept"
    kept.mkdir()
    subprocess.run([sys.executable, script, "1", str(folder / "capture"), str(kept)], check=True)
    command = json.loads((kept / "command.json").read_text(encoding="utf-8"))
    return Contest(
        lambda count, out: [sys.executable, script, str(count), str(out)], command["argv"], command["environment"]
    )


def by_subprocess(contest: Contest, count: int, log: Path) -> tuple[list[float], float]:
    """Milliseconds of each, and CPU seconds of all, those of this process included."""
    taken, began = [], cpu_seconds()
    with log.open("ab") as output:
        for _ in range(count):
            start = time.perf_counter()
            subprocess.run(
                contest.argv,
                env=contest.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=True,
            )
            taken.append((time.perf_counter() - start) * 1e3)
    return taken, cpu_seconds() - began


def by_sweep(contest: Contest, count: int, folder: Path) -> SweepTurn:
    """One sweep of so many chunks."""
    out = folder / "out"
    argv = contest.sweep(count, out)
    cpu, began_at = cpu_seconds(), time.time()
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    ended_at, cpu = time.time(), cpu_seconds() - cpu
    chunks = chunks_of(out)
    shutil.rmtree(out)
    if [chunk.num_done for chunk in chunks] != [1] * count:
        raise RuntimeError(f"not every chunk of {argv} did its job")
    last = chunks[-1]
    return SweepTurn(
        periods_ms=[(later.began_at - chunk.began_at) * 1e3 for chunk, later in itertools.pairwise(chunks)],
        runs_ms=[(chunk.seconds or 0.0) * 1e3 for chunk in chunks],
        start_ms=(chunks[0].began_at - began_at) * 1e3,
        end_ms=(ended_at - last.began_at - (last.seconds or 0.0)) * 1e3,
        cpu_seconds=cpu,
    )


def cpu_seconds() -> float:
    """Of this process and all that it waited for, and those by theirs."""
    both = (resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def measure(name: str, chunks: int, turns: int) -> dict[str, Any]:
    """One command, all turns."""
    loops: list[list[float]] = []
    sweeps: list[SweepTurn] = []
    loop_cpu_ms, few_cpu_seconds = [], []
    with bench_folder() as folder:
        contest = contest_of(name, folder)
        for turn in range(turns + 1):
            taken, cpu = by_subprocess(contest, chunks, folder / "log")
            loops.append(taken)
            loop_cpu_ms.append(cpu * 1e3 / chunks)
            if turn < turns:
                few_cpu_seconds.append(by_sweep(contest, 2, folder).cpu_seconds)
                sweeps.append(by_sweep(contest, chunks, folder))
        ledger_ms = ledger_transactions_ms(folder / "ledger.sqlite", chunks)
    base = statistics.median(few_cpu_seconds)
    sweep_cpu_ms = [(sweep.cpu_seconds - base) * 1e3 / (chunks - 2) for sweep in sweeps]
    return {
        "chunks": chunks * turns,
        **over_subprocess(loops, sweeps),
        "cpu_ms": {
            "subprocess": summary(loop_cpu_ms),
            "sweep": summary(sweep_cpu_ms),
            "over": summary([mine - around(loop_cpu_ms, turn) for turn, mine in enumerate(sweep_cpu_ms)]),
        },
        "ledger_ms": spread_of(ledger_ms),
        "start_ms": summary([turn.start_ms for turn in sweeps]),
        "end_ms": summary([turn.end_ms for turn in sweeps]),
    }


def over_subprocess(loops: list[list[float]], sweeps: list[SweepTurn]) -> dict[str, Any]:
    """Wall times: each chunk's less those of the commands around its turn."""
    medians = [statistics.median(loop) for loop in loops]
    over = [period - around(medians, turn) for turn, sweep in enumerate(sweeps) for period in sweep.periods_ms]
    running = [run - around(medians, turn) for turn, sweep in enumerate(sweeps) for run in sweep.runs_ms]
    periods = list(itertools.chain(*(sweep.periods_ms for sweep in sweeps)))
    commands = list(itertools.chain(*loops))
    return {
        "wall_ms": {"subprocess": spread_of(commands), "sweep": spread_of(periods), "over": spread_of(over)},
        "over_by_turn_ms": summary(
            [statistics.median(sweep.periods_ms) - around(medians, turn) for turn, sweep in enumerate(sweeps)]
        ),
        "over_of_means_ms": round(statistics.fmean(periods) - statistics.fmean(commands), 3),
        "over_while_it_runs_ms": spread_of(running),
        "turns_ms": {
            "subprocess": medians,
            "sweep": [statistics.median(sweep.periods_ms) for sweep in sweeps],
        },
    }


def around(values: Sequence[float], turn: int) -> float:
    """Of the loops just before and just after a sweep."""
    return (values[turn] + values[turn + 1]) / 2


def ledger_transactions_ms(path: Path, chunks: int) -> list[float]:
    """What begin and end of a chunk of one job take, each chunk."""
    names = [f"job-{number:03d}" for number in range(chunks)]
    taken = []
    with Ledger.create(path, {}, names) as ledger:
        for number, name in enumerate(names, start=1):
            start = time.perf_counter()
            ledger.begin(number, (name,), attempt=1, log="chunk.log", began_at=time.time())
            done = JobVerdict(name, JobState.DONE, 1)
            ledger.end(ChunkOutcome(number, 0), (done,), {name: {"return": 1.5}})
            taken.append((time.perf_counter() - start) * 1e3)
    return taken


def spread_of(values: Sequence[float]) -> dict[str, float]:
    """Median, and the tenths at both ends: on a machine that others use, too, the extremes are theirs."""
    tenths = statistics.quantiles(values, n=10)
    found = {"median": statistics.median(values), "p10": tenths[0], "p90": tenths[-1], "mean": statistics.fmean(values)}
    return {**{name: round(value, 3) for name, value in found.items()}, "count": len(values)}


def parse() -> argparse.Namespace:
    commands = "; ".join(f"{name}: {text}" for name, text in ALL.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"Commands: {commands}.", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", nargs="+", choices=ALL, default=list(ALL), help="(default: all)")
    parser.add_argument("--chunks", type=int, default=20, help="of a turn, at least 4 (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=10, help="sweeps of each command (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="the report goes here, too")
    options = parser.parse_args()
    if options.chunks < 4 or options.turns < 1:
        parser.error("a turn has at least 4 chunks, and there is at least one")
    return options


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that the temporary folder goes, too
    found = {}
    for name in options.commands:
        found[name] = measure(name, options.chunks, options.turns)
        print(f"{name}: {found[name]['wall_ms']['over']}", file=sys.stderr, flush=True)
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    results = Results("sweep_overhead", "what a sweep costs per chunk, over subprocess.run", settings)
    results.details["commands"] = found
    for name, case in found.items():
        for side, values in case.pop("turns_ms").items():
            results.add(name, side, "chunk_ms", "ms", values)
        results.claim(
            f"{name}: ms of a chunk over subprocess.run", case["wall_ms"]["over"]["median"], MOST_MS, is_limit=True
        )
    results.publish(options.json)


if __name__ == "__main__":
    main()
