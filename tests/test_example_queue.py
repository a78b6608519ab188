"""The parts of examples/queue_worker: the queue, what loader workers make of images, the models."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from examples.queue_worker import client as client_module
from examples.queue_worker.agreed import COLOURS, IMAGE_PIXELS, Task
from examples.queue_worker.app import serving_queue
from examples.queue_worker.client import QueueClient
from examples.queue_worker.image_server import ImageServer, serving_images
from examples.queue_worker.images import ImageError, Loaded, TaskImages, collate, decode, download
from examples.queue_worker.models import make
from examples.queue_worker.pictures import picture
from examples.queue_worker.settings import WorkerSettings
from examples.queue_worker.store import MAX_ATTEMPTS, TaskStore
from examples.queue_worker.vision import Vision

RESULT: dict[str, Any] = {"result": {"objects": []}, "worker": "a"}


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def tasks(count: int, subject: str = "cats") -> list[Task]:
    return [Task(id=f"{subject}-{n}", image_url=f"http://h/{n}", reply_subject=subject) for n in range(count)]


def ids(leased: list[Task]) -> list[str]:
    return [task["id"] for task in leased]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[TaskStore]:
    store = TaskStore(tmp_path / "tasks.db", clock)
    yield store
    store.close()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock, no_proxy: None) -> Iterator[QueueClient]:
    with serving_queue(tmp_path / "tasks.db", clock) as url, QueueClient(url) as queue:
        yield queue


@pytest.fixture
def images(no_proxy: None) -> Iterator[ImageServer]:
    with serving_images() as server:
        yield server


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # whatever proxy this machine has


def test_a_task_is_leased_to_one_at_a_time(store: TaskStore) -> None:
    store.enqueue(tasks(5))
    taken = [ids(store.lease(name, 2, 60)) for name in "abcd"]
    assert taken == [["cats-0", "cats-1"], ["cats-2", "cats-3"], ["cats-4"], []]


def test_a_known_task_is_not_added_again(store: TaskStore) -> None:
    assert (store.enqueue(tasks(2)), store.enqueue(tasks(3))) == (2, 1)
    assert store.statistics()["tasks"] == 3


def test_who_asks_again_for_its_lease_gets_the_same_tasks(store: TaskStore) -> None:
    store.enqueue(tasks(4))
    assert store.lease("a", 2, 60) == store.lease("a", 2, 60)


def test_a_lease_that_ends_gives_its_tasks_to_others(store: TaskStore, clock: Clock) -> None:
    store.enqueue(tasks(2))
    store.lease("a", 2, 60)
    clock.now += 59
    assert store.extend("a", 60) == 2
    clock.now += 59
    assert store.lease("b", 2, 60) == []
    clock.now += 1
    assert (ids(store.lease("b", 1, 60)), store.extend("a", 60)) == (["cats-0"], 0)
    assert store.statistics()["expired"] == 2


def test_the_first_outcome_stands_whoever_brings_it(store: TaskStore, clock: Clock) -> None:
    store.enqueue(tasks(1))
    store.lease("a", 1, 60)
    clock.now += 60
    store.lease("b", 1, 60)
    late = [store.finish([("cats-0", {**RESULT, "worker": worker})]) for worker in "ab"]
    assert late == [1, 0]
    assert [reply["worker"] for reply in store.replies("cats", 0, 10)] == ["a"]
    assert store.statistics() == {
        **dict.fromkeys(("waiting", "leased", "errors", "given_up"), 0),
        **dict.fromkeys(("tasks", "results", "duplicates", "expired"), 1),
    }


def test_what_is_given_back_uncounted_was_never_tried(store: TaskStore) -> None:
    store.enqueue(tasks(4))
    for number in range(2 * MAX_ATTEMPTS):
        store.lease(str(number), 4, 60)
        assert store.release(str(number), counts=False) == 4
    assert len(store.lease("last", 4, 60)) == 4


def test_a_task_that_nobody_survives_is_given_up_alone(store: TaskStore) -> None:
    store.enqueue(tasks(32))
    for number in range(1000):
        leased = ids(store.lease(str(number), 32, 60))
        if not leased:
            break
        if "cats-17" in leased:
            store.release(str(number), counts=True)
        else:
            store.finish([(task, RESULT) for task in leased])
    replies = {reply["id"]: reply for reply in store.replies("cats", 0, 100)}
    assert len(replies) == 32
    assert replies.pop("cats-17")["error"]["kind"] == "given_up"
    assert all("result" in reply for reply in replies.values())


def test_who_waits_hears_of_what_is_given_up(queue: QueueClient, clock: Clock) -> None:
    queue.enqueue(tasks(1))
    for _ in range(MAX_ATTEMPTS):
        assert queue.lease(1, 60) is not None
        clock.now += 60
    assert [reply["error"]["kind"] for reply in queue.replies("cats", wait_seconds=30)] == ["given_up"]


def test_what_was_answered_outlives_a_queue_that_is_killed(store: TaskStore, tmp_path: Path, clock: Clock) -> None:
    store.enqueue(tasks(3))
    store.lease("a", 2, 60)
    store.finish([("cats-0", RESULT)])
    again = TaskStore(tmp_path / "tasks.db", clock)  # the first is still open: nothing was said in farewell
    assert again.statistics() == store.statistics()
    assert (again.extend("a", 60), ids(again.lease("b", 9, 60))) == (1, ["cats-2"])
    again.close()


def test_replies_are_those_of_the_subject_and_after_a_number(store: TaskStore) -> None:
    store.enqueue(tasks(2) + tasks(2, "dogs"))
    store.finish([(name, RESULT) for name in ("cats-1", "dogs-0", "cats-0", "dogs-1")])
    first, second = store.replies("cats", 0, 10)
    assert (first["id"], second["id"]) == ("cats-1", "cats-0")
    assert store.replies("cats", first["done"], 10) == [second]
    assert store.replies("cats", 0, 1) == [first]


def test_whoever_waits_for_tasks_gets_them_when_they_come(queue: QueueClient) -> None:
    found: list[Any] = []
    with QueueClient(queue.url) as waiting:
        thread = threading.Thread(target=lambda: found.append(waiting.lease(9, 60, wait_seconds=30)))
        thread.start()
        queue.enqueue(tasks(2))
        thread.join()
    assert ids(found[0]["tasks"]) == ["cats-0", "cats-1"]
    assert queue.lease(9, 60) is None


def test_nothing_is_leased_to_somebody_who_has_hung_up(queue: QueueClient) -> None:
    gone = http.client.HTTPConnection(queue.url.removeprefix("http://"))
    gone.request("PUT", "/leases/gone", json.dumps({"max_tasks": 9, "seconds": 60, "wait_seconds": 30}))
    gone.sock.shutdown(socket.SHUT_WR)
    assert gone.sock.recv(1) == b"", "the service has noticed, and hangs up, too"
    gone.close()
    queue.enqueue(tasks(2))
    assert queue.statistics()["waiting"] == 2


def test_outcomes_renew_the_lease_on_the_rest(queue: QueueClient, clock: Clock) -> None:
    queue.enqueue(tasks(3))
    job = queue.lease(3, 60)
    assert job is not None
    clock.now += 50
    assert queue.finish(job["lease"], [{"id": "cats-0", **RESULT}], 60) == 2
    clock.now += 50
    assert queue.extend(job["lease"], 60) == 2
    assert queue.release(job["lease"], counts=False) == 2
    assert queue.statistics()["waiting"] == 2
    assert [reply["id"] for reply in queue.replies("cats", wait_seconds=30)] == ["cats-0"]


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("POST", "/tasks", [{"id": "1"}]),
        ("PUT", "/leases/a", {"max_tasks": 0, "seconds": 60}),
        ("PATCH", "/leases/a", {"seconds": -1}),
        ("GET", "/replies/cats?after=first", None),
        ("POST", "/outcomes", {"lease": "a", "seconds": 1, "outcomes": [{"id": "cats-0", "worker": "a"}]}),
    ],
)
def test_what_is_no_request_is_refused(queue: QueueClient, method: str, path: str, asked: Any) -> None:
    assert httpx.request(method, queue.url + path, json=asked).status_code == 422


def test_a_queue_that_is_not_there_is_an_error_in_the_end(monkeypatch: pytest.MonkeyPatch, no_proxy: None) -> None:
    monkeypatch.setattr(client_module, "GIVE_UP_SECONDS", 0.0)
    with QueueClient("http://127.0.0.1:9") as queue, pytest.raises(httpx.ConnectError):
        queue.statistics()


@pytest.mark.parametrize(
    ("kind", "limits", "error"),
    [
        ("missing", (60, 1 << 20), "missing"),
        ("good", (60, 100), "too_large"),
        ("hanging", (0.05, 1 << 20), "timeout"),
        ("slow", (0.05, 1 << 20), "timeout"),
    ],
)
def test_a_download_that_fails_says_why(images: ImageServer, kind: str, limits: tuple[float, int], error: str) -> None:
    with pytest.raises(ImageError) as raised:
        download(images.url(kind, 1), *limits)
    assert raised.value.kind == error


def test_only_what_http_names_is_fetched(tmp_path: Path) -> None:
    for url, kind in (
        (tmp_path.as_uri(), "refused"),
        ("http://127.0.0.1:9/x", "unreachable"),
        ("http://", "unreachable"),
    ):
        with pytest.raises(ImageError) as raised:
            download(url, 60, 100)
        assert raised.value.kind == kind


def test_what_can_be_named_is_a_value(images: ImageServer) -> None:
    named = [Task(id=kind, image_url=images.url(kind, 3), reply_subject="s") for kind in ("good", "corrupt", "missing")]
    dataset = TaskImages(named, 60, 1 << 20)
    good, corrupt, missing = (dataset[position] for position in range(len(dataset)))
    assert good.image is not None
    assert (good.image.shape, good.error) == ((3, IMAGE_PIXELS, IMAGE_PIXELS), None)
    assert [each.error[0] for each in (corrupt, missing) if each.error] == ["corrupt", "missing"]


def test_a_batch_has_images_beside_errors() -> None:
    image = decode(picture(0).jpeg)
    batch = collate([Loaded(4, None, ("missing", "no")), Loaded(5, image, None)])
    assert (batch["positions"].tolist(), batch["errors"]) == ([5], [(4, "missing", "no")])
    np.testing.assert_array_equal(batch["images"], image[None])


def test_the_models_find_what_the_pictures_show() -> None:
    shown = [picture(number) for number in range(5 * len(COLOURS))]
    found = Vision().look(np.stack([decode(each.jpeg) for each in shown]))
    assert [[one["label"] for one in each] for each in found] == [[each.label] for each in shown]
    away = [
        max(abs(each[0]["x"] - truth.x), abs(each[0]["y"] - truth.y)) for each, truth in zip(found, shown, strict=True)
    ]
    assert max(away) < 0.05


def test_nothing_is_found_in_nothing() -> None:
    grey = np.full((1, 3, IMAGE_PIXELS, IMAGE_PIXELS), 128, np.uint8)
    assert (Vision().look(grey), Vision().look(grey[:0])) == ([[]], [])


@pytest.mark.parametrize(("name", "made"), [("detector", make.make_detector), ("classifier", make.make_classifier)])
def test_the_models_are_those_that_the_script_makes(name: str, made: Any) -> None:
    kept, fresh = onnx.load(make.FOLDER / f"{name}.onnx"), made()
    assert onnx.printer.to_text(kept) == onnx.printer.to_text(fresh)
    assert [weight.raw_data for weight in kept.graph.initializer] == [
        weight.raw_data for weight in fresh.graph.initializer
    ]


def test_a_lease_outlasts_a_batch_that_hangs_twice() -> None:
    settings = WorkerSettings(batch_size=8, image_timeout_seconds=5, slack_seconds=10)
    assert (settings.batch_timeout_seconds, settings.lease_seconds) == (50, 110)
