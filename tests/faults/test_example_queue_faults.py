"""The service of examples/queue_worker under SIGKILL, SIGTERM and a leak: each task has one outcome, the right one."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ByteSize

from examples.queue_worker import demo
from examples.queue_worker.agreed import Task
from examples.queue_worker.app import serving_queue
from examples.queue_worker.client import QueueClient
from examples.queue_worker.image_server import ImageServer, serving_images
from examples.queue_worker.pictures import picture
from examples.queue_worker.settings import WorkerSettings
from programs import Program, program, start_python

pytest.importorskip("torch", reason="the service loads with millpond.torch.DataLoader, which needs torch")

from examples.queue_worker.service import Service

SERVE = "import runpy; runpy.run_module('examples.queue_worker', run_name='__main__')"
TOLD_TO_STOP_AS_IT_BEGINS_ANEW = f"""
import os, signal, sys, types
from examples.queue_worker.stopping import block_stop_signals
block_stop_signals()
if "QUEUE_WORKER_LIFE" not in os.environ:
    sys.modules["millpond.torch"] = types.SimpleNamespace(DataLoader=None)  # this life loads nothing
    from examples.queue_worker import service
    os.kill(os.getpid(), signal.SIGTERM)
    service.begin_anew()
{SERVE}
"""

TOLD_TO_STOP_WHEN_SOMEBODY_UNBLOCKED_THE_SIGNAL = """
import os, signal
from multiprocessing import resource_tracker
from examples.queue_worker.stopping import block_stop_signals, is_told_to_stop
block_stop_signals()
print(is_told_to_stop())
resource_tracker.ensure_running()
os.kill(os.getpid(), signal.SIGTERM)
print(is_told_to_stop(), signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving_images() as server:
        yield server


@pytest.fixture
def queue(tmp_path: Path, clock: Clock, images: ImageServer) -> Iterator[QueueClient]:
    with serving_queue(tmp_path / "tasks.db", clock) as url, QueueClient(url) as queue:
        yield queue


@contextmanager
def service(queue: QueueClient, folder: Path, code: str = SERVE, **settings: str) -> Iterator[Program]:
    """A service whose images may take a minute: no machine is so slow that a good one is a timeout."""
    given = {"queue_url": queue.url, "image_timeout_seconds": "60", "poll_seconds": "0.2", "tasks_per_job": "16"}
    given |= {"quarantine": str(folder.with_suffix(".jsonl")), **settings}
    environment = {f"QUEUE_WORKER_{name.upper()}": value for name, value in given.items()}
    with program(code, folder, environment=environment) as running:
        yield running


@contextmanager
def queue_process(listening: socket.socket, folder: Path) -> Iterator[None]:
    """A queue in a process that is killed in the end. Who connects to the socket afterwards waits for the next one."""
    arguments = (str(folder / "tasks.db"), "--fd", str(listening.fileno()))
    code = "from examples.queue_worker.app import main; main()"
    with start_python(code, *arguments, pass_fds=[listening.fileno()]) as process:
        try:
            yield
        finally:
            process.kill()


def end_in_good_order(running: Program) -> str:
    """Tell a service to end; it leaves nothing. Returns what it logged."""
    running.process.send_signal(signal.SIGTERM)
    code, _, log = running.ended()
    assert (code, running.left(10)) == (0, []), log
    return log


def enqueue(queue: QueueClient, images: ImageServer, kinds: Sequence[str], subject: str = "s") -> dict[str, str]:
    """Tasks of these kinds. Returns what must become of each: the kind of its error, or the label of its disc."""
    named = [f"{subject}-{number}-{kind}" for number, kind in enumerate(kinds)]
    urls = [images.url(kind, number) for number, kind in enumerate(kinds)]
    queue.enqueue([Task(id=name, image_url=url, reply_subject=subject) for name, url in zip(named, urls, strict=True)])
    ends = [kind if kind in ("missing", "corrupt") else picture(n).label for n, kind in enumerate(kinds)]
    return dict(zip(named, ends, strict=True))


def replies(queue: QueueClient, count: int, subject: str = "s") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        found += queue.replies(subject, found[-1]["done"] if found else 0, wait_seconds=5)
    return found


def ends_of(found: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What became of each task; each came once."""
    ends = {each["id"]: each["error"]["kind"] if "error" in each else label_of(each["result"]) for each in found}
    assert len(ends) == len(found)
    return ends


def label_of(result: dict[str, Any]) -> str:
    (only,) = result["objects"]
    return str(only["label"])


def worker_that_waits(images: ImageServer, running: Program) -> psutil.Process:
    """The loader worker of a service that has asked for an image that hangs."""
    port = images.hanging.get(timeout=60).client_port
    processes = psutil.Process(running.process.pid).children(recursive=True)
    return next(each for each in processes if port in ports_of(each))


def ports_of(process: psutil.Process) -> list[int]:
    try:
        return [end.laddr.port for end in process.net_connections("tcp")]
    except psutil.Error:  # it was killed before
        return []


MIXED = ["good", "missing", "hanging", "corrupt", "good", "slow", "good", "good"]
MANY = MIXED + 3 * ["good", "good", "corrupt", "missing"]


@dataclass
class Story:
    """What became of the tasks of one service that lost workers, a lease and its life, and of the one after it.

    A service takes seconds to begin, most of them to import torch: these two are asked for all that they can show.

    Attributes:
        expected, found: By subject, what must become of each task, and its replies.
        counts: The queue's, by when they were taken.
        given_back: Tasks that somebody leases after that.
    """

    queue: QueueClient
    clock: Clock
    folder: Path
    expected: dict[str, dict[str, str]] = field(default_factory=dict)
    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    given_back: int = 0

    def enqueue(self, images: ImageServer, kinds: Sequence[str], subject: str) -> None:
        self.expected[subject] = enqueue(self.queue, images, kinds, subject)

    def take(self, subject: str, count: int | None = None) -> None:
        """Wait for the replies of a subject, all of them or so many."""
        wanted = len(self.expected[subject]) if count is None else count
        self.found[subject] = replies(self.queue, wanted, subject)

    def count(self, when: str) -> None:
        self.counts[when] = self.queue.statistics()


def kill_workers(story: Story, running: Program) -> None:
    with serving_images() as images:
        story.enqueue(images, MIXED, "twice")
        for _ in range(2):
            worker_that_waits(images, running).kill()
        story.take("twice")
        story.enqueue(images, MANY, "once")
        worker_that_waits(images, running).kill()
        images.hanging.get(timeout=60)  # somebody does it again
        images.released.set()
        story.take("once")
    story.count("workers were killed")


def end_its_lease(story: Story, running: Program) -> None:
    with serving_images() as images:
        story.enqueue(images, MIXED, "lost")
        worker_that_waits(images, running)
        story.clock.now += 3600
        job = story.queue.lease(16, 60)
        assert job is not None
        images.released.set()
        story.take("lost", 4)  # the batch that it had is not lost
        story.enqueue(images, ["good"], "after")
        story.take("after")  # so it has left the job
        story.count("a lease was lost")
        story.queue.release(job["lease"], counts=False)
        story.take("lost")


def kill_it(story: Story, images: ImageServer, running: Program) -> None:
    story.enqueue(images, MANY, "killed")
    worker_that_waits(images, running)
    story.count("it was alive")
    running.process.kill()
    assert not running.left(20)  # its loader's workers go with it, also one that waits for an image


def tell_it_to_end(story: Story, running: Program) -> None:
    with serving_images() as images:
        story.enqueue(images, ["hanging", *31 * ["good"]], "told")
        worker_that_waits(images, running)
        running.process.send_signal(signal.SIGTERM)
        images.released.set()
        code, _, log = running.ended()
        assert (code, running.left(10)) == (0, []), log
    story.count("it was told to end")
    story.found["told"] = story.queue.replies("told", 0, wait_seconds=0)
    job = story.queue.lease(32, 60)
    story.given_back = len(job["tasks"]) if job is not None else 0


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder, clock = tmp_path_factory.mktemp("story"), Clock()
    with (
        pytest.MonkeyPatch.context() as patch,
        serving_queue(folder / "tasks.db", clock) as url,
        QueueClient(url) as queue,
        serving_images() as images,
    ):
        patch.setenv("no_proxy", "127.0.0.1")
        story = Story(queue, clock, folder)
        with service(queue, folder / "a") as killed:
            kill_workers(story, killed)
            end_its_lease(story, killed)
            kill_it(story, images, killed)
        with service(queue, folder / "b") as other:
            clock.now += 3600
            images.released.set()
            story.take("killed")
            story.count("another took over")
            tell_it_to_end(story, other)
        return story


def test_a_loader_worker_that_is_killed_costs_no_task_and_a_task_whose_worker_dies_twice_is_an_error(
    story: Story,
) -> None:
    assert ends_of(story.found["twice"]) == {**story.expected["twice"], "twice-2-hanging": "left_out"}  # it alone
    assert (story.folder / "a.jsonl").exists()  # as the message says
    assert ends_of(story.found["once"]) == story.expected["once"]
    assert story.counts["workers were killed"]["expired"] == 0


def test_a_service_that_has_lost_its_lease_leaves_the_job(story: Story) -> None:
    assert story.counts["a lease was lost"]["leased"] == 4
    assert ends_of(story.found["lost"]) == story.expected["lost"]


def test_a_service_that_is_killed_costs_no_task(story: Story) -> None:
    before, after = story.counts["it was alive"], story.counts["another took over"]
    assert ends_of(story.found["killed"]) == story.expected["killed"]
    assert after["expired"] - before["expired"] == before["leased"] > 0


def test_a_service_told_to_end_gives_back_what_it_has(story: Story) -> None:
    before, after = story.counts["another took over"], story.counts["it was told to end"]
    assert after["leased"] == 0
    assert [after[name] - before[name] for name in ("expired", "duplicates")] == [0, 0]
    assert 0 < len(story.found["told"]) < len(story.expected["told"])
    assert len(story.found["told"]) + after["waiting"] == len(story.expected["told"])
    assert story.given_back == after["waiting"]  # not halved: they count as never tried


def test_a_queue_that_is_killed_costs_no_task(images: ImageServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with QueueClient(url) as queue, service(queue, tmp_path / "a") as running:
            with queue_process(listening, tmp_path):
                ends = enqueue(queue, images, MIXED)
                worker_that_waits(images, running)
            images.released.set()  # and nobody there to be told of it
            with queue_process(listening, tmp_path):
                assert ends_of(replies(queue, len(ends))) == ends
                end_in_good_order(running)


def test_a_service_that_grows_begins_anew_and_drops_no_task(
    queue: QueueClient, images: ImageServer, tmp_path: Path
) -> None:
    ends = enqueue(queue, images, 4 * ["good", "good", "missing", "good"])
    with service(queue, tmp_path / "a", memory_limit="768MiB", leak_per_task="64MiB") as running:
        found = replies(queue, len(ends))
        log = end_in_good_order(running)
    lives = {each["worker"].rpartition("-")[2] for each in found}
    assert ends_of(found) == ends
    assert {f"{running.process.pid}.1", f"{running.process.pid}.2"} <= lives, log
    assert queue.statistics()["expired"] == 0


def test_a_limit_below_what_it_needs_is_refused(queue: QueueClient) -> None:
    with pytest.raises(ValueError, match="QUEUE_WORKER_MEMORY_LIMIT is 1 MiB, and the service has"):
        Service(WorkerSettings(memory_limit=ByteSize(1 << 20)), queue)


def test_a_signal_while_it_begins_anew_is_not_lost(queue: QueueClient, tmp_path: Path) -> None:
    with service(queue, tmp_path / "a", TOLD_TO_STOP_AS_IT_BEGINS_ANEW) as running:
        code, _, log = running.ended()
    assert (code, running.left(10)) == (0, []), log
    assert f"-{running.process.pid}.2 ends: it was told to" in log


def test_a_signal_that_a_library_unblocked_is_not_lost(tmp_path: Path) -> None:
    with program(TOLD_TO_STOP_WHEN_SOMEBODY_UNBLOCKED_THE_SIGNAL, tmp_path / "a") as running:
        code, printed, errors = running.ended()
    assert (code, printed.split()) == (0, ["False", "True", "True"]), errors


def test_the_demo_counts_every_task(tmp_path: Path) -> None:
    calm = ["--tasks", "40", "--services", "1", "--kill-seconds", "0", "--image-timeout-seconds", "60", "--seed", "5"]
    report = demo.run(demo.parse(calm), tmp_path)
    assert (report["missing"], report["problems"]) == ([], [])
    assert report["results"] + sum(report["errors"].values()) == 40
    assert report["errors"].keys() == {"missing", "corrupt"}
    assert 0 < max(report["rss_mib"]) <= report["rss_peak_mib"]
