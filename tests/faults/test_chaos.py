"""An epoch in which workers are killed, stopped and made to hang: the same samples, in the same order, each once."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from fakes import FakeDataset
from millpond._loader.loader import Loader
from test_loader_inline import checked, make_loader, take
from torment import BallastDataset, Chaos, SpinningDataset, Tormentor

TOTAL = 1600


def ready_pids(loader: Loader) -> list[int]:
    """Workers that have been started; one that is stopped before it is ready is the start limit's concern."""
    assert loader._running is not None
    assert loader._running.supervisor is not None
    workers = loader._running.supervisor.statistics().workers
    return [worker.pid for worker in workers if worker.pid is not None and worker.state in ("idle", "busy")]


def numbers(batch: dict[str, Any]) -> list[int]:
    samples: list[int] = batch["index"].tolist()
    return samples


def torment(tormentor: Tormentor, what: str, loader: Loader) -> None:
    """Do it once a worker can be hit; see a kill through, or who is dead already might be hit again."""
    if what == "spin":
        tormentor.spin()
        return
    restarts, done, deadline = loader.statistics().worker_restarts, replace(tormentor.done), time.monotonic() + 20
    while tormentor.done == done or (what == "kill" and loader.statistics().worker_restarts == restarts):
        if tormentor.done == done:
            getattr(tormentor, what)()
        assert time.monotonic() < deadline, f"{what}: {tormentor.done}, {loader.statistics()}"
        time.sleep(0.001)


@pytest.mark.parametrize("offsets", [None, (-2, 0, 1)], ids=["direct", "windows"])
def test_chaos_changes_neither_samples_nor_order(offsets: tuple[int, ...] | None, tmp_path: Path) -> None:
    """Also where blocks are gathered. Moments are drawn by batch, so that a slow machine changes nothing."""
    fake = BallastDataset(total=TOTAL, offsets=offsets)
    dataset, chance = SpinningDataset(fake, tmp_path / "spin"), random.Random(11)
    look = checked if offsets is None else numbers
    with make_loader(fake, memory="300MiB") as inline:
        calm = [look(batch) for batch in inline]
    moments = dict(zip(chance.sample(range(5, 120, 5), 11), ["kill"] * 8 + ["stop"] * 2 + ["spin"], strict=True))
    got = []
    with make_loader(cast(FakeDataset, dataset), num_workers=3, memory="300MiB", stall_timeout=1.0) as loader:
        tormentor = Tormentor(lambda: ready_pids(loader), dataset.flag, seed=3)
        for number, batch in enumerate(loader):
            got.append(look(batch))
            if number in moments:
                torment(tormentor, moments[number], loader)
        statistics = loader.statistics()
    assert got == calm
    assert statistics.books is not None
    assert (statistics.books.delivered, statistics.books.balance) == (TOTAL, 0)
    assert statistics.worker_restarts >= tormentor.done.kills == 8
    assert (tormentor.done.stops, tormentor.done.spins, dataset.flag.exists()) == (2, 1, False)


def test_a_reader_that_hangs_once_costs_nothing_but_time_and_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = SpinningDataset(FakeDataset(), tmp_path / "spin")
    with make_loader(cast(FakeDataset, dataset), num_workers=2, memory="300MiB", stall_timeout=0.5) as loader:
        dataset.flag.touch()
        assert sorted(sample for batch in take(loader) for sample in batch) == [*range(400)]
        assert loader.statistics().worker_restarts >= 1
    assert "made no progress for" in caplog.text
    assert not dataset.flag.exists()


def test_chaos_by_the_clock_torments_until_its_block_ends(tmp_path: Path) -> None:
    seen: list[str] = []
    tormentor = Tormentor(list, tmp_path / "spin")
    tormentor.kill, tormentor.stop = lambda: seen.append("kill"), lambda: seen.append("stop")  # type: ignore[method-assign]
    with Chaos(tormentor, (0.01, 0.02, 0.03)):
        deadline = time.monotonic() + 20
        while not (len(seen) > 5 and tormentor.done.spins) and time.monotonic() < deadline:
            time.sleep(0.001)
    assert seen.count("kill") > seen.count("stop") > 0
    assert tormentor.done.spins == 1  # nobody has met it
