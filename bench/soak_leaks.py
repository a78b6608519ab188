"""Does `millpond soak` find leaks that are put in on purpose, how soon, does it call flat what is flat, at what cost?

Four programs leak as those do that people run: decoders that are never closed, a pipe left open per job, 3 MB of
shared memory per batch, 72 MB from C per cycle. Four are flat: millpond's own loader over epochs, garbage that is
collected now and then, workers that grow and are replaced, caches that fill and are full. Each runs under `millpond
soak`, several at a time. How soon a leak is found is told afterwards, by judging what had been seen by then.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _results import Results
from _soak_programs import PROGRAMS
from millpond._soak.kinds import Bound
from millpond._soak.results import judge_all
from millpond._soak.series import Series
from millpond._soak.verdict import Verdict

LEAKS = {
    "decoder_cache": ("pss_bytes", 0.5),
    "pipe_per_job": ("pipes", 1.0),
    "shared_memory": ("shared_bytes", 0.5),
    "cycle": ("pss_bytes", 6.0),
}
"""The series that each must be found in, and the seconds of a cycle."""
FLAT = {"loader": 1.0, "garbage": 1.0, "recycled": 1.0, "steps": 1.5}
_NEED_DATA = {"decoder_cache", "loader"}
PROGRAMS_FILE = Path(__file__).resolve().parent / "_soak_programs.py"
MOST_CORE_SHARE = 0.01
_MOST_PREFIXES = 50
"""That are judged to find out how soon a leak is found."""


def soak(name: str, cycle_seconds: float, data: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One program; what `soak.json` says, and how soon the verdict was there to stay."""
    out = folder / name
    how = ["--duration", f"{options.duration}s", "--warmup", str(options.warmup), "--interval", str(options.interval)]
    how += ["--core-share", str(options.core_share)]
    command = [sys.executable, str(PROGRAMS_FILE), name, str(cycle_seconds), str(data)]
    soaked = [sys.executable, "-m", "millpond", "soak", *how, "--out", str(out), "--quiet", "--", *command]
    done = subprocess.run(soaked, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    if not (out / "soak.json").exists():
        raise RuntimeError(f"soaking {name} ended with exit code {done.returncode}, and without a verdict")
    found: dict[str, Any] = json.loads((out / "soak.json").read_text(encoding="utf-8"))
    if found["ended_by"] != "duration":
        raise RuntimeError(f"{name} was to run until it is ended, and ended by itself; its error is above")
    print(f"{name}: {found['verdict']}, exit code {done.returncode}", file=sys.stderr, flush=True)
    if name in LEAKS:
        found["found_after_seconds"] = found_after(LEAKS[name][0], out / "samples.jsonl", options)
    return found


def found_after(name: str, samples: Path, options: argparse.Namespace) -> float | None:
    """Seconds since the soak began, after which a series would have been called growing, and ever since."""
    looks = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    looks = [look for look in looks if name in look]
    since: float | None = None
    series = Series()
    for number, look in enumerate(looks):
        series.add(look["seconds"], look[name])
        if number % max(1, len(looks) // _MOST_PREFIXES) == 0:
            is_found = judge_all({name: series}, dict.fromkeys(Bound, 1e12), options.warmup)[name].verdict
            if is_found is not Verdict.GROWING:
                since = None
            elif since is None:
                since = look["seconds"]
    return since


def row(results: Results, name: str, found: dict[str, Any]) -> None:
    """Figures of one program."""
    case = "leaks" if name in LEAKS else "flat"
    if name in LEAKS:
        series = LEAKS[name][0]
        judged = found["series"][series]
        results.add(case, name, f"slope of {series}", "an hour", [judged["per_hour"].get("slope", 0.0)])
        if found["found_after_seconds"] is not None:
            results.add(case, name, "found after", "s", [found["found_after_seconds"]])
        results.claim(f"{name} is called growing in {series}", float(judged["verdict"] == Verdict.GROWING), 1.0)
    else:
        growing = [judged for judged in found["series"].values() if judged["verdict"] == "growing" and judged["counts"]]
        results.claim(f"{name}: series called growing", float(len(growing)), 0.0, is_limit=True)
    results.add(case, name, "cost", "of a core", [found["cost"]["core_share"]])
    results.details[name] = {
        "verdict": found["verdict"],
        "said": {key: judged["said"] for key, judged in found["series"].items() if judged["peak"]},
        "looks": found["looks"],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--duration", type=float, default=180.0, help="of each soak, in seconds")
    parser.add_argument("--warmup", type=float, default=10.0, help="seconds")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds")
    parser.add_argument("--core-share", type=float, default=MOST_CORE_SHARE, help="that a soak may cost")
    parser.add_argument("--faster", type=float, default=1.0, help="cycles of programs are so much shorter")
    parser.add_argument("--at-a-time", type=int, default=4, help="soaks that run side by side")
    parser.add_argument("--smoke", action="store_true", help="a few seconds: one leak, a quick one")
    parser.add_argument("--json", type=Path, help="the report goes here, too")
    options = parser.parse_args()
    if options.smoke:
        options.programs, options.duration, options.warmup = ["shared_memory"], 2.0, 0.2
        options.interval, options.faster, options.core_share = 0.05, 20.0, 100.0
    return options


def main() -> None:
    options = parse()
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    question = "Does a soak find the leaks that are put in, how soon, and what does it cost?"
    results = Results("soak_leaks", question, settings, ["scipy", "psutil"])
    seconds = {name: cycle / options.faster for name, (_, cycle) in LEAKS.items()} | {
        name: cycle / options.faster for name, cycle in FLAT.items()
    }
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as place:
        data, folder = Path(place, "data"), Path(place)
        if _NEED_DATA.intersection(options.programs):
            from millpond._synth import write_dataset  # a second to import

            write_dataset(data, episodes=4, frames=60, cameras=1, size=(240, 320), codec="h264", gop=10)
        with ThreadPoolExecutor(options.at_a_time) as pool:
            running = {name: pool.submit(soak, name, seconds[name], data, folder, options) for name in options.programs}
        for name, one in running.items():
            row(results, name, one.result())
    shares = [one.values[0] for one in results.rows if one.quantity == "cost"]
    results.claim("cost, share of a core", max(shares), options.core_share, is_limit=True)
    results.publish(options.json)


if __name__ == "__main__":
    main()
