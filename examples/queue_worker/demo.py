"""Everything on one machine: `python -m examples.queue_worker.demo --tasks 500`.

A queue, a server of good and bad images, and services that are killed now and then and begun again, until every task
has its outcome. Each outcome is held against what the image is known to show; the exit code is 1 if one is missing,
wrong or doubled.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from examples.queue_worker.agreed import Task
from examples.queue_worker.app import serving_queue
from examples.queue_worker.client import QueueClient
from examples.queue_worker.image_server import ImageServer, serving_images
from examples.queue_worker.pictures import picture

SHARES = {"good": 85.0, "slow": 5.0, "missing": 5.0, "corrupt": 4.5, "hanging": 0.5}
"""Percent of the images."""
EXPECTED = {"missing": {"missing"}, "corrupt": {"corrupt"}, "hanging": {"timeout"}}
"""The error of each kind of image that has no result."""
_REPOSITORY = Path(__file__).resolve().parents[2]
_SUBJECT = "demo"
_DRAIN_SECONDS = 120.0  # far more than a batch may take


class Keeper:
    """Keeps services running, as an init system or an orchestrator would: one that has ended is begun again.

    Args:
        environment: Of the services, on top of this process's.
        log: Where they write.
        num_services: How many.
    """

    def __init__(self, environment: dict[str, str], log: Path, num_services: int) -> None:
        self._environment = {**os.environ, **environment}
        self._log = log.open("ab")
        self._services = [self._start() for _ in range(num_services)]
        self.num_begun_again = 0

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Tell them to drain, and wait until they have."""
        for service in self._services:
            service.send_signal(signal.SIGTERM)
        for service in self._services:
            _wait(service)
        self._log.close()

    def look(self) -> None:
        """Begin again what has ended."""
        for number, service in enumerate(self._services):
            if service.poll() is not None:
                self._services[number] = self._start()
                self.num_begun_again += 1

    def processes(self) -> list[psutil.Process]:
        """The services."""
        return [psutil.Process(service.pid) for service in self._services if service.poll() is None]

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "examples.queue_worker"]
        return subprocess.Popen(command, cwd=_REPOSITORY, env=self._environment, stderr=self._log)


class Figures:
    """Memory of the services over time: the services alone (RSS), and with all they started (PSS)."""

    def __init__(self) -> None:
        self._rss: list[int] = []
        self._pss: list[int] = []

    def look(self, services: Sequence[psutil.Process]) -> None:
        """Look at them now."""
        trees = [(service, *_children(service)) for service in services]
        self._rss.append(sum(_memory(tree[0]).get("rss", 0) for tree in trees))
        self._pss.append(sum(_memory(process).get("pss", 0) for tree in trees for process in tree))

    def report(self) -> dict[str, Any]:
        """MiB, all services together; RSS at ten moments, from the first to the last."""
        last = len(self._rss) - 1
        return {
            "rss_mib": [self._rss[last * step // 9] >> 20 for step in range(10)],
            "rss_peak_mib": max(self._rss) >> 20,
            "pss_with_workers_peak_mib": max(self._pss) >> 20,
        }


def make_tasks(images: ImageServer, count: int, seed: int) -> dict[str, Task]:
    """By id, which names the image's kind and number. The same for the same seed."""
    chance = random.Random(seed)
    kinds = chance.choices(list(SHARES), list(SHARES.values()), k=count)
    named = [(f"{number}-{kind}", kind, number) for number, kind in enumerate(kinds)]
    return {
        name: Task(id=name, image_url=images.url(kind, number), reply_subject=_SUBJECT) for name, kind, number in named
    }


def check(reply: dict[str, Any]) -> str | None:
    """What is wrong with an outcome; None if it is what its image deserves.

    A task that was killed with its worker or its service, time and again, is left out or given up: that is an answer.
    """
    number, kind = reply["id"].split("-")
    error = reply.get("error")
    if error is not None:
        deserved = EXPECTED.get(kind, set()) | {"left_out", "given_up"}
        return None if error["kind"] in deserved else f"{reply['id']}: {error['kind']} ({error['message']})"
    truth, found = picture(int(number)), reply["result"]["objects"]
    if kind in EXPECTED:
        return f"{reply['id']}: has a result"
    if [each["label"] for each in found] != [truth.label]:
        return f"{reply['id']}: {found} where a {truth.label} disc is"
    is_near = abs(found[0]["x"] - truth.x) < 0.05 and abs(found[0]["y"] - truth.y) < 0.05
    return None if is_near else f"{reply['id']}: {found}, the disc is at {truth.x:.3f}, {truth.y:.3f}"


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Serve so many tasks, and say what came of them."""
    replies: dict[str, dict[str, Any]] = {}
    figures, problems, kinds = Figures(), [], Counter[str]()
    with ExitStack() as stack:
        images = stack.enter_context(serving_images())
        url = stack.enter_context(serving_queue(folder / "tasks.db"))
        queue = stack.enter_context(QueueClient(url))
        tasks = make_tasks(images, arguments.tasks, arguments.seed)
        listed = list(tasks.values())
        for first in range(0, len(listed), 1000):
            queue.enqueue(listed[first : first + 1000])
        begun = time.monotonic()
        keeper = stack.enter_context(Keeper(_environment(arguments, url, folder), folder / "log", arguments.services))
        killer = _kills(keeper, arguments.kill_seconds, arguments.seed)
        for reply in _replies(queue, len(tasks)):
            if reply is not None:
                problems += [f"{reply['id']}: came twice"] if reply["id"] in replies else []
                problems += filter(None, [check(reply)])
                replies[reply["id"]] = reply
                kinds[reply["error"]["kind"] if "error" in reply else "result"] += 1
                continue
            figures.look(keeper.processes())
            next(killer)
            keeper.look()
        seconds = time.monotonic() - begun
        statistics = queue.statistics()
    lives = {reply["worker"] for reply in replies.values()} - {None}
    return {
        "tasks": len(tasks),
        "results": kinds.pop("result", 0),
        "errors": dict(kinds),
        "missing": sorted(tasks.keys() - replies.keys()),
        "problems": problems,
        "seconds": round(seconds, 1),
        "tasks_per_second": round(len(tasks) / seconds, 1),
        "begun_again_after_a_kill": keeper.num_begun_again,
        "begun_anew_for_memory": sum(not name.endswith(".1") for name in lives),
        "queue": statistics,
        **figures.report(),
    }


def _environment(arguments: argparse.Namespace, url: str, folder: Path) -> dict[str, str]:
    return {
        "QUEUE_WORKER_QUEUE_URL": url,
        "QUEUE_WORKER_NUM_WORKERS": str(arguments.workers),
        "QUEUE_WORKER_MEMORY_LIMIT": arguments.memory_limit,
        "QUEUE_WORKER_LEAK_PER_TASK": arguments.leak_per_task,
        "QUEUE_WORKER_IMAGE_TIMEOUT_SECONDS": str(arguments.image_timeout_seconds),
        "QUEUE_WORKER_SLACK_SECONDS": "4",
        "QUEUE_WORKER_QUARANTINE": str(folder / "quarantine.jsonl"),
    }


def _replies(queue: QueueClient, count: int) -> Iterator[dict[str, Any] | None]:
    """Each as it comes, until there are so many; None about every half of a second, to do something else."""
    after, num_seen, looked = 0, 0, time.monotonic()
    while num_seen < count:
        for reply in queue.replies(_SUBJECT, after, wait_seconds=0.5):
            after, num_seen = reply["done"], num_seen + 1
            yield reply
        if time.monotonic() - looked > 0.5:
            yield None
            looked = time.monotonic()
    yield None


def _kills(keeper: Keeper, every_seconds: float, seed: int) -> Iterator[None]:
    """At each step, if it is time: SIGKILL to a service or to a process of its loader."""
    chance, killed = random.Random(seed), time.monotonic()
    while True:
        yield
        if not every_seconds or time.monotonic() - killed < every_seconds:
            continue
        services = keeper.processes()
        victims = services if chance.random() < 0.3 else [child for service in services for child in _children(service)]
        if victims:
            chance.choice(victims).kill()
            killed = time.monotonic()


def _wait(service: subprocess.Popen[bytes]) -> None:
    try:
        service.wait(_DRAIN_SECONDS)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _memory(process: psutil.Process) -> dict[str, int]:
    try:
        return dict(process.memory_full_info()._asdict())
    except psutil.Error:  # it has ended
        return {}


@contextmanager
def _folder(path: Path | None) -> Iterator[Path]:
    if path is None:
        with tempfile.TemporaryDirectory(prefix="queue-worker-demo-") as made:
            yield Path(made)
    else:
        path.mkdir(parents=True, exist_ok=True)
        yield path


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--services", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="loader workers of each service")
    parser.add_argument("--kill-seconds", type=float, default=5.0, help="between two SIGKILLs; 0: nobody is killed")
    parser.add_argument(
        "--image-timeout-seconds", type=float, default=2.0, help="after which a slow server is too slow"
    )
    parser.add_argument("--memory-limit", default="2GiB", help="of each service; beyond it, it begins anew")
    parser.add_argument("--leak-per-task", default="0", help="for instance 1MiB, to see that happen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the queue, the log and the quarantine; else a temporary one")
    return parser.parse_args(arguments)


def main() -> None:
    """Run, print, and say by the exit code whether every task has its outcome."""
    arguments = parse()
    with _folder(arguments.folder) as folder:
        report = run(arguments, folder)
    print(json.dumps(report, indent=2))
    sys.exit(bool(report["missing"] or report["problems"]))


if __name__ == "__main__":
    main()
