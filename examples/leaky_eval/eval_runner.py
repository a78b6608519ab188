"""Evaluate a policy on every job of a file: `python -m examples.leaky_eval.eval_runner --eval_jobs_config jobs.json`.

Each job is evaluated by a simulator of its own, which leaks 72 MB. Run by itself it grows with every job; under
`millpond sweep` a fresh process does each chunk of jobs, and nothing in here has to know.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from examples.leaky_eval.simulator import Simulator


def evaluate(job: dict[str, Any], *, leak_bytes: int) -> dict[str, Any]:
    """All episodes of a job; its metrics."""
    simulator = Simulator(job["group"], leak_bytes=leak_bytes)
    episodes = [simulator.run(job["seed"] + number) for number in range(job["num_episodes"])]
    return {
        "count": len(episodes),
        "return": sum(episode.total_reward for episode in episodes) / len(episodes),
        "success_rate": sum(episode.is_success for episode in episodes) / len(episodes),
        "solved": all(episode.is_success for episode in episodes),
    }


def main() -> None:
    """Evaluate what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eval_jobs_config", type=Path, required=True, help="the jobs, as JSON")
    parser.add_argument("--metrics_file", type=Path, help="where each job's metrics go, a line each")
    parser.add_argument("--leak_mb", type=float, default=72.0, help="that each job's simulator leaves behind")
    given = parser.parse_args()
    for job in json.loads(given.eval_jobs_config.read_text(encoding="utf-8"))["jobs"]:
        metrics = evaluate(job, leak_bytes=int(given.leak_mb * 10**6))
        print(f"{job['name']}: return {metrics['return']:.2f}, success {metrics['success_rate']:.0%}", flush=True)
        if given.metrics_file is not None:
            with given.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"name": job["name"], "metrics": metrics}) + "\n")


if __name__ == "__main__":
    main()
