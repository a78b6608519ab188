"""Stores that fail, workers that die, and both at once: every sample once, every pixel as in the calm folder."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from millpond import LeRobotDataset, Loader, errors
from store_server import StoreServer
from streamed import (
    MANY,
    Batches,
    SmallSteps,
    assert_same,
    assert_same_rows,
    camera_paths,
    copied,
    epoch_of,
    limit,
    loader_of,
    quarantined,
    rows_of,
    samples_of,
    streamed,
    taken,
    transcode,
)
from synthesized import FRONT, FRONT_PATH, MakeDataset
from torment import DeadlyDataset, SpinningDataset, Tormentor

RING_BYTES = 8 << 10
"""Three or four tasks."""

ISSUE = {"unavailable": 0.02, "reset": 0.01, "truncated": 0.01}
WORSE = {"unavailable": 0.1, "reset": 0.08, "truncated": 0.07}


pytestmark = pytest.mark.usefixtures("quick_tries", "small_ring")


@pytest.fixture
def small_ring(small_steps: SmallSteps) -> None:
    small_steps(RING_BYTES)


@pytest.fixture
def root(synth: MakeDataset) -> Path:
    return synth(**MANY)


@pytest.fixture
def calm(root: Path) -> Iterator[list[Batches]]:
    """Three epochs from the folder, in one process."""
    with loader_of(LeRobotDataset(root), num_workers=0) as loader:
        yield [taken(loader) for _ in range(3)]


def assert_balance(loader: Loader, skipped: int = 0) -> None:
    books = loader.statistics().books
    assert books is not None
    assert (books.delivered, books.skipped, books.balance) == (144 - skipped, skipped, 0)


# ---- the store fails


@pytest.mark.parametrize("rates", [ISSUE, WORSE], ids=["as in the issue", "worse"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_requests_that_fail_by_lot_cost_nothing_but_time(
    rates: dict[str, float], num_workers: int, root: Path, calm: list[Batches]
) -> None:
    with streamed(root) as (dataset, server), loader_of(dataset, num_workers=num_workers) as loader:
        server.forget()
        server.set(**rates, seed=5)
        for expected in calm:
            assert_same(taken(loader), expected)
            assert_balance(loader)
        told = loader.statistics().counters
        assert server.counts.faults > 2
        assert told["retries"] == server.counts.faults
        assert told.get("late_requests", 0) == 0


def test_a_dataset_is_opened_by_a_store_that_fails_by_lot(root: Path, calm: list[Batches]) -> None:
    with streamed(root, server={**WORSE, "seed": 2}) as (dataset, server):
        assert server.counts.faults > 2
        assert not dataset.check()
        server.set(**dict.fromkeys(WORSE, 0.0))
        assert_same(epoch_of(dataset), calm[0])


@pytest.mark.parametrize("fault", [503, 429, 500, 408, "reset", "reset amid", "truncated", "short"])
def test_every_kind_of_failure_is_tried_again(fault: str | int, root: Path, calm: list[Batches]) -> None:
    with streamed(root) as (dataset, server), loader_of(dataset) as loader:
        names = [path.removeprefix(dataset.root) for path in camera_paths(dataset, FRONT)]
        for name in names:
            server.script(name, fault, fault, "ok", fault)
        assert_same(taken(loader), calm[0])
        assert loader.statistics().counters["retries"] == 3 * len(names)


@pytest.mark.hedged
@pytest.mark.parametrize("fault", ["hang", "hang amid"])
def test_a_request_that_hangs_is_overtaken_by_another(fault: str, root: Path, calm: list[Batches]) -> None:
    with streamed(root) as (dataset, server), loader_of(dataset) as loader:
        limit(dataset, hedge_seconds=0.1)  # for a new store: opening the dataset has hedged nothing of it
        server.set(hang_seconds=600.0)
        server.script(camera_paths(dataset, FRONT)[1].removeprefix(dataset.root), fault)
        assert_same(taken(loader), calm[0])
        assert loader.statistics().counters["hedges"] >= 1


@pytest.mark.hedged
def test_requests_that_hang_by_lot_cost_nothing_but_time(root: Path, calm: list[Batches]) -> None:
    """More of them than there are hedges: the others are cut off, and tried again."""
    with streamed(root) as (dataset, server), loader_of(dataset) as loader:
        limit(dataset, timeout_seconds=6.0, hedge_seconds=0.1)
        server.set(slow=0.05, hang_seconds=600.0, seed=7)
        assert_same(taken(loader), calm[0])
        assert server.counts.faults > 1


def test_a_slow_store_that_is_left_amid_its_answers_disturbs_no_later_epoch(root: Path, calm: list[Batches]) -> None:
    with streamed(root) as (dataset, server), loader_of(dataset) as loader:
        server.set(latency_seconds=0.02, bytes_per_second=200_000.0)
        for _ in range(5):
            loader.set_epoch(0)
            assert_same(taken(loader, 2), calm[0][:2])
        loader.set_epoch(0)
        for expected in calm:
            assert_same(taken(loader), expected)


def test_a_store_that_is_down_for_a_while_is_waited_for(root: Path, calm: list[Batches]) -> None:
    with streamed(root) as (dataset, server), loader_of(dataset) as loader:
        for path in camera_paths(dataset, FRONT):
            server.script(path.removeprefix(dataset.root), "ok", "ok", *[503] * 6)
        assert_same(taken(loader), calm[0])
        assert loader.statistics().counters["retries"] == 6 * 4


# ---- workers die


def ready_pids(loader: Loader) -> list[int]:
    """Workers that have been started."""
    assert loader._running is not None
    assert loader._running.supervisor is not None
    workers = loader._running.supervisor.statistics().workers
    return [worker.pid for worker in workers if worker.pid is not None and worker.state in ("idle", "busy")]


def torment(tormentor: Tormentor, what: str, loader: Loader) -> None:
    """Do it once a worker can be hit; see a kill through, or who is dead already might be hit again."""
    restarts, done, deadline = loader.statistics().worker_restarts, replace(tormentor.done), time.monotonic() + 20
    while tormentor.done == done or (what == "kill" and loader.statistics().worker_restarts == restarts):
        if tormentor.done == done:
            getattr(tormentor, what)()
        assert time.monotonic() < deadline, f"{what}: {tormentor.done}, {loader.statistics()}"
        time.sleep(0.001)


@pytest.mark.parametrize("layout", ["direct", "gathered"])
def test_workers_that_are_killed_and_stopped_while_requests_fail_change_nothing(
    layout: str, root: Path, small_steps: SmallSteps, tmp_path: Path
) -> None:
    """Moments are drawn by batch, so that a slow machine changes nothing."""
    small_steps(RING_BYTES, layout=layout)
    windows = {FRONT: [-0.1, 0.0, 1 / 30]}
    with loader_of(LeRobotDataset(root, delta_timestamps=windows), num_workers=0) as local:
        expected = [taken(local) for _ in range(2)]
    moments = dict(zip(random.Random(4).sample(range(1, 17), 6), ["kill"] * 4 + ["stop"] * 2, strict=True))
    with streamed(root, delta_timestamps=windows) as (dataset, server), loader_of(dataset, num_workers=3) as loader:
        assert loader.memory_plan().layout == layout
        server.set(**WORSE, seed=1)
        tormentor = Tormentor(lambda: ready_pids(loader), tmp_path / "spin", seed=3)
        for epoch in expected:
            found: Batches = []
            for number, batch in enumerate(loader):
                found.append(copied(batch))
                if number in moments:
                    torment(tormentor, moments[number], loader)
            assert_same(found, epoch)
            assert_balance(loader)
        assert loader.statistics().worker_restarts >= tormentor.done.kills == 8
        assert tormentor.done.stops == 4


def wrapped(dataset: Any) -> LeRobotDataset:
    return cast(LeRobotDataset, dataset)


@pytest.mark.parametrize("dies_after", [False, True], ids=["before it reads", "after it has read"])
def test_the_bytes_of_a_task_outlive_its_worker(
    dies_after: bool, root: Path, calm: list[Batches], tmp_path: Path, small_steps: SmallSteps
) -> None:
    """They stay in the ring, and whoever is given the task next, whole or in pieces, reads them there."""
    small_steps(RING_BYTES, segment=12)
    with loader_of(LeRobotDataset(root), num_workers=0) as local:
        expected = [taken(local) for _ in range(2)]
    with streamed(root) as (dataset, _):
        deadly = DeadlyDataset(dataset, tmp_path / "flag", sample=40, dies_after=dies_after)
        with loader_of(wrapped(deadly)) as loader:
            for epoch in expected:
                deadly.flag.touch()
                assert_same(taken(loader), epoch)
                assert not deadly.flag.exists()
            told = loader.statistics()
            assert told.worker_restarts == 2
            assert told.counters.get("late_requests", 0) == 0
            assert told.counters["requests"] == told.counters["ranges_planned"]


def test_a_worker_that_hangs_over_its_bytes_costs_nothing_but_time(
    root: Path, calm: list[Batches], tmp_path: Path
) -> None:
    with streamed(root) as (dataset, _):
        spinning = SpinningDataset(dataset, tmp_path / "flag")
        with loader_of(wrapped(spinning), stall_timeout=0.5) as loader:
            spinning.flag.touch()
            assert_same(taken(loader), calm[0])
            assert not spinning.flag.exists()
            assert loader.statistics().worker_restarts >= 1


def test_a_sample_that_kills_every_worker_gives_its_room_back(root: Path, calm: list[Batches], tmp_path: Path) -> None:
    quarantine = tmp_path / "q.jsonl"
    with streamed(root) as (dataset, _):
        deadly = DeadlyDataset(dataset, tmp_path / "flag", sample=40, always=True)
        with loader_of(wrapped(deadly), on_error="skip", quarantine=quarantine) as loader:
            found = taken(loader)
            assert_balance(loader, skipped=6)
            assert_same_rows(found, calm[0], [s for s in rows_of(calm[0]) if not 36 <= s < 42])
            again = taken(loader, 2)
            assert_same_rows(again, calm[1], [*rows_of(again)])
        lines = quarantined(quarantine)
        assert {line["sample"] for line in lines} == {*range(36, 42)}
        assert {line["error"] for line in lines} == {"WorkerDied"}


def test_workers_that_fetch_for_themselves_are_killed_amid_it(
    root: Path, calm: list[Batches], tmp_path: Path, small_steps: SmallSteps
) -> None:
    """Nothing fits the ring, so every byte is fetched by who reads it, from a store that fails."""
    small_steps(1)
    with streamed(root) as (dataset, server), loader_of(dataset) as loader:
        server.set(unavailable=0.02, truncated=0.02, latency_seconds=0.005, seed=3)
        tormentor = Tormentor(lambda: ready_pids(loader), tmp_path / "spin", seed=1)
        found: Batches = []
        for number, batch in enumerate(loader):
            found.append(copied(batch))
            if number in (2, 9):
                torment(tormentor, "kill", loader)
        assert_same(found, calm[0])


def assert_waits_for_a_fetch(dataset: LeRobotDataset, server: StoreServer) -> None:
    """A fetch ends by its own limit, which is longer than that of stalling."""
    limit(dataset, timeout_seconds=4.5)
    server.set(slow=1.0, hang_seconds=600.0)
    with loader_of(dataset, shuffle=False, batch_size=6, num_workers=1, stall_timeout=2.0) as loader:
        with pytest.raises(errors.FetchTimeout) as caught:
            next(iter(loader))
        assert caught.value.limit_seconds == 4.5
        assert loader.statistics().worker_restarts == 0


def test_a_worker_that_waits_for_a_store_is_not_taken_for_hung(root: Path, small_steps: SmallSteps) -> None:
    small_steps(1)
    with streamed(root, cameras=[FRONT]) as (dataset, server):
        assert_waits_for_a_fetch(dataset, server)


def test_a_worker_that_waits_for_a_header_is_not_taken_for_hung(
    root: Path, tmp_path: Path, small_steps: SmallSteps
) -> None:
    """Where no sidecar is kept whoever reads a video makes its table anew."""
    small_steps(1, segment=18)
    with streamed(root, cache_dir=tmp_path / "cache", episodes=[0], cameras=[FRONT]) as (dataset, server):
        for table in (tmp_path / "cache").rglob("*.table*.npz"):
            table.unlink()
        assert_waits_for_a_fetch(dataset, server)


def test_a_worker_that_waits_for_a_whole_video_is_not_taken_for_hung(damaged: MakeDataset) -> None:
    root = damaged()
    transcode(root / FRONT_PATH, "mpeg4", {"g": "6"})
    with streamed(root, cameras=[FRONT]) as (dataset, server):
        assert_waits_for_a_fetch(dataset, server)


def test_a_killed_worker_is_no_reason_to_fetch_a_second_time(root: Path, tmp_path: Path) -> None:
    with streamed(root) as (dataset, server), loader_of(dataset) as loader:
        tormentor = Tormentor(lambda: ready_pids(loader), tmp_path / "spin", seed=1)
        seen: list[int] = []
        server.forget()
        for number, batch in enumerate(loader):
            seen += samples_of([batch])
            if number in (3, 6, 12):
                torment(tormentor, "kill", loader)
        assert sorted(seen) == [*range(144)]
        assert loader.statistics().counters["ranges_planned"] == len(server.requests)
