"""The loader with workers, over a dataset without media: the same as in one process, also when workers die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import millpond
from fakes import FakeDataset, identity_of
from millpond import errors
from millpond._loader.driver import Driving
from millpond._workers.supervisor import Supervisor
from millpond._workers.wakeup import Wakeup
from test_loader_inline import checked, flat, make_loader, take
from transforms import Unpicklable, index_only, sleep_at_77

HERE = Path(__file__).parent


def worker_pids(loader: millpond.Loader, count: int) -> tuple[int, ...]:
    """Of all `count` workers: a batch may be there before the zygote has told of the last one."""
    deadline = time.monotonic() + 20
    while len(pids := loader.statistics().worker_pids) < count:
        assert time.monotonic() < deadline, pids
        time.sleep(0.01)  # no event tells of it
    return pids


@pytest.fixture(scope="module")
def calm() -> list[list[int]]:
    """Two epochs in one process: what every other way must give."""
    with make_loader(memory="300MiB") as loader:
        return take(loader) + take(loader)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_order_does_not_depend_on_the_number_of_workers(num_workers: int, calm: list[list[int]]) -> None:
    with make_loader(num_workers=num_workers, memory="300MiB") as loader:
        assert take(loader) + take(loader) == calm


def test_a_killed_worker_costs_nothing_but_time(tmp_path: Path) -> None:
    dataset = FakeDataset(deadly=frozenset({200}), died=tmp_path / "died")
    with make_loader(dataset, num_workers=2, memory="300MiB") as loader, make_loader(memory="300MiB") as inline:
        assert take(loader) == take(inline)
        assert loader.statistics().worker_restarts == 1
        assert (tmp_path / "died").exists()
        (lost,) = (span for span in loader.timeline() if span.name == "died")
        assert lost.stage == "decode"
        assert lost.began_ns < lost.ended_ns
        assert lost.facts["pid"] not in (0, *loader.statistics().worker_pids)


def test_workers_that_are_killed_from_outside_are_replaced_between_batches() -> None:
    with make_loader(num_workers=2, memory="300MiB") as loader:
        samples: list[int] = []
        pids: tuple[int, ...] = ()
        for number, batch in enumerate(loader):
            samples += checked(batch)
            pids = worker_pids(loader, 2) if number == 0 else pids
            if number in (5, 20):
                os.kill(pids[number == 20], signal.SIGKILL)
        assert sorted(samples) == list(range(400))
        books = loader.statistics().books
        assert books is not None
        assert books.balance == 0


def test_a_sample_that_kills_every_worker_is_an_error_that_names_the_signal() -> None:
    with make_loader(FakeDataset(deadly=frozenset({200})), num_workers=2, memory="300MiB", shuffle=False) as loader:
        with pytest.raises(errors.WorkerDied, match="SIGKILL") as caught:
            take(loader)
        assert caught.value.signal_name == "SIGKILL"
        assert loader.statistics().samples >= 100  # what came before it was delivered


def clamped(sample: int, offsets: tuple[int, ...]) -> list[int]:
    """The frames that a sample shows, in episodes of 50."""
    first = sample // 50 * 50
    return [min(max(sample + offset, first), first + 49) for offset in offsets]


@pytest.mark.parametrize(
    ("offsets", "layout"),
    [(None, "direct"), ((-2, -1, 0, 3), "direct"), ((-2, -1, 0, 3), "gathered")],
    ids=["frames", "windows", "gathered windows"],
)
def test_such_a_sample_costs_its_gop_and_nothing_else(
    offsets: tuple[int, ...] | None, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if layout == "gathered":
        monkeypatch.setattr("millpond._plan.memory._layouts", lambda demand: ("gathered",))
    dataset = FakeDataset(deadly=frozenset({200}), gop=5, offsets=offsets)
    with make_loader(
        dataset, num_workers=2, memory="300MiB", on_error="skip", quarantine=tmp_path / "q.jsonl"
    ) as loader:
        assert loader.memory_plan().layout == layout
        assert loader.memory_plan().samples_per_segment > 5
        samples = []
        for batch in loader:
            for row, sample in enumerate(batch["index"].tolist()):
                samples.append(sample)
                wanted = [sample] if offsets is None else clamped(sample, offsets)
                shown = batch["front"][row].reshape(-1, *batch["front"].shape[-3:])
                assert [identity_of(picture)[0] for picture in shown] == wanted
        books = loader.statistics().books
        assert books is not None
        assert (books.skipped, books.balance) == (5, 0)
        assert sorted({*range(400)} - {*samples}) == [*range(200, 205)]
        assert loader.statistics().counters["tasks_split"] >= 1


def test_a_reader_that_makes_no_progress_meets_the_stall_limit_and_a_transform_does_not(tmp_path: Path) -> None:
    def think(sample: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.4 if sample["index"] == 7 else 0)  # what a slow transform does; it has no counter
        return {"index": sample["index"]}

    dataset = FakeDataset(stuck=frozenset({303}), total=400, gop=5)
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "q.jsonl", "memory": "300MiB"}
    with make_loader(dataset, transform=think, num_workers=2, stall_timeout=0.3, **options) as loader:
        samples = [sample for batch in loader for sample in batch["index"].tolist()]
    lines = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert sorted({*range(400)} - {*samples}) == sorted(line["sample"] for line in lines) == [*range(300, 305)]
    assert all("made no progress" in line["message"] for line in lines)


def test_workers_are_recycled_in_an_epoch_and_nothing_changes(calm: list[list[int]]) -> None:
    with make_loader(num_workers=2, memory="300MiB", max_tasks_per_worker=1) as loader:
        assert take(loader) + take(loader) == calm
        for _ in range(8):
            take(loader)
        statistics = loader.statistics()
        assert (statistics.worker_restarts, statistics.worker_recycles > 0) == (0, True)


def test_a_first_sample_that_hangs_does_not_hold_up_the_making_of_a_loader(tmp_path: Path) -> None:
    dataset = FakeDataset(stuck=frozenset({0}), gop=1)
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "q.jsonl", "memory": "300MiB"}
    transform = index_only
    with make_loader(dataset, transform=transform, num_workers=2, stall_timeout=0.3, **options) as loader:
        samples = [sample for batch in loader for sample in batch["index"].tolist()]
    assert sorted(samples) == [*range(1, 400)]


def test_a_hang_is_an_error_that_shows_where() -> None:
    with make_loader(transform=sleep_at_77, num_workers=2, memory="300MiB", timeout=0.5) as loader:
        with pytest.raises(errors.DecodeTimeout) as caught:
            for _ in loader:
                pass
        assert "sleep_at_77" in caught.value.stack
        assert caught.value.limit_seconds == 0.5


def test_a_transform_that_hangs_costs_its_sample_and_nothing_else_when_skipped(tmp_path: Path) -> None:
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "q.jsonl", "timeout": 0.5}
    with make_loader(transform=sleep_at_77, num_workers=2, memory="300MiB", **options) as loader:
        samples = [sample for batch in loader for sample in batch["index"].tolist()]
    skipped = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert sorted(samples + [line["sample"] for line in skipped]) == list(range(400))
    assert [(line["sample"], line["error"]) for line in skipped] == [(77, "DecodeTimeout")]
    assert "in sleep_at_77" in skipped[0]["stack"]


def test_a_stopped_worker_changes_nothing(calm: list[list[int]]) -> None:
    with make_loader(num_workers=2, memory="300MiB", timeout=0.5) as loader:
        iterator = iter(loader)
        first = checked(next(iterator))
        os.kill(loader.statistics().worker_pids[0], signal.SIGSTOP)
        rest = [checked(batch) for batch in iterator]
        assert [first, *rest, *take(loader)] == calm


def test_workers_that_were_shut_down_are_missed_at_once() -> None:
    with make_loader(num_workers=1, memory="300MiB") as loader:
        take(loader)
        millpond.shutdown()
        for _ in range(2):
            with pytest.raises(errors.ClosedError):
                take(loader)


def test_a_loader_closed_by_another_thread_lets_its_consumer_go() -> None:
    taken, waiting = threading.Event(), threading.Event()
    seen: list[BaseException] = []

    def block(sample: dict[str, Any]) -> dict[str, Any]:
        while sample["index"] >= 0:
            time.sleep(0.01)
        return sample

    def consume() -> None:
        try:
            iterator = iter(loader)
            taken.set()
            next(iterator)
        except BaseException as error:  # noqa: BLE001 - it is what the test looks at
            seen.append(error)
        waiting.set()

    loader = make_loader(transform=lambda sample: sample, num_workers=1, memory="300MiB")
    loader._transform = block
    thread = threading.Thread(target=consume)
    thread.start()
    assert taken.wait(20)
    loader.close()
    assert waiting.wait(20)
    thread.join()
    assert isinstance(seen[0], errors.ClosedError)


def test_an_exception_that_does_not_travel_fails_its_sample_and_no_more(tmp_path: Path) -> None:
    def fail(sample: dict[str, Any]) -> dict[str, Any]:
        if sample["index"] == 57:
            raise Unpicklable("the reason")
        return {"index": sample["index"]}

    quarantine = tmp_path / "q.jsonl"
    options: dict[str, Any] = {"transform": fail, "on_error": "skip", "quarantine": quarantine}
    with make_loader(num_workers=1, memory="300MiB", **options) as loader:
        samples = flat(batch["index"].tolist() for batch in loader)
    assert sorted(samples) == [sample for sample in range(400) if sample != 57]
    assert json.loads(quarantine.read_text())["message"] == "Unpicklable: the reason"


def test_breaking_off_again_and_again_loses_no_slot() -> None:
    with make_loader(num_workers=2, memory="300MiB") as loader:
        for _ in range(10):
            for number, _batch in enumerate(loader):
                if number == 3:
                    break
            del _batch
        assert sorted(flat(take(loader))) == list(range(400))
        assert loader.statistics().heap_copies == 0


def test_the_end_of_a_lease_wakes_idle_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    idle, taken = threading.Event(), threading.Event()
    wake_on, take_slot = Supervisor.wake_on, Driving._take

    def told(supervisor: Supervisor, wakeup: Wakeup) -> None:
        wake_on(supervisor, wakeup)
        idle.set()

    def taken_back(driver: Driving, slot: int) -> None:
        take_slot(driver, slot)
        taken.set()

    monkeypatch.setattr(Supervisor, "wake_on", told)
    monkeypatch.setattr(Driving, "_take", taken_back)
    with make_loader(num_workers=2, memory="300MiB") as loader:
        iterator = iter(loader)
        batch = next(iterator)
        assert idle.wait(60)  # every slot is full
        assert not taken.is_set()
        del batch
        assert taken.wait(60)


class Interrupting(FakeDataset):
    """Ctrl-C, once, when the slot of a batch is lent already and the batch has not come to the caller."""

    is_armed = False

    def decorate(self, batch: dict[str, Any], samples: Any) -> None:
        if self.is_armed:
            self.is_armed = False
            raise KeyboardInterrupt
        super().decorate(batch, samples)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_interrupt_amid_handing_over_gives_no_slot_back_twice(
    num_workers: int, calm: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, were_out = Interrupting(), list[bool]()
    usual = Driving._take

    def take_slot(driver: Driving, slot: int) -> None:
        were_out.append(slot in driver._setup.slots.out)
        usual(driver, slot)

    monkeypatch.setattr(Driving, "_take", take_slot)
    with make_loader(dataset, num_workers=num_workers, memory="300MiB") as loader:
        iterator = iter(loader)
        next(iterator)
        dataset.is_armed = True
        with pytest.raises(KeyboardInterrupt):
            next(iterator)
        with pytest.raises(errors.ClosedError):
            next(iterator)
        loader.set_epoch(0)
        assert take(loader) == calm[: len(calm) // 2]
    assert len(were_out) >= 2
    assert all(were_out)


def test_resume_with_another_number_of_workers() -> None:
    with make_loader(num_workers=2, memory="300MiB") as loader:
        whole = take(loader)
    with make_loader(num_workers=3, memory="300MiB") as loader:
        got = []
        for batch in loader:
            got.append(checked(batch))
            if len(got) == 17:
                break
        state = loader.state_dict()
    with make_loader(num_workers=0, memory="300MiB") as loader:
        loader.load_state_dict(state)
        assert got + take(loader) == whole


def test_close_ends_the_thread_and_the_workers_while_tasks_are_out() -> None:
    loader = make_loader(num_workers=2, memory="300MiB")
    next(iter(loader))
    pids = worker_pids(loader, 2)
    loader.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "millpond-driver"]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_loader_that_is_forgotten_ends_its_workers() -> None:
    loader = make_loader(num_workers=1, memory="300MiB")
    next(iter(loader))
    (pid,) = loader.statistics().worker_pids
    del loader
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_error_of_ours_in_a_worker_reaches_the_training_loop() -> None:
    with make_loader(FakeDataset(broken=True), num_workers=1, memory="300MiB") as loader:
        with pytest.raises(TypeError, match="a bug in a reader"):
            take(loader)


def test_a_transform_from_a_closure_travels_by_value() -> None:
    factor = 3

    def scale(sample: dict[str, Any]) -> dict[str, Any]:
        return {"index": sample["index"] * factor, "pid": np.asarray(os.getpid())}

    with make_loader(transform=scale, num_workers=2, memory="300MiB") as loader:
        rows = [(int(i), int(p)) for batch in loader for i, p in zip(batch["index"], batch["pid"], strict=True)]
    assert sorted(index for index, _ in rows) == list(range(0, 1200, 3))
    assert os.getpid() not in {pid for _, pid in rows}


def test_batches_are_tensors_where_torch_is_installed() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with make_loader(num_workers=1, memory="300MiB", output="auto") as loader:
        for batch in loader:
            assert batch["front"].is_contiguous(memory_format=torch.channels_last)
            assert identity_of(batch["front"][0].numpy())[0] == int(batch["index"][0])
            break
        del batch


def test_it_works_on_platforms_without_memfd(monkeypatch: pytest.MonkeyPatch, calm: list[list[int]]) -> None:
    monkeypatch.setenv("MILLPOND_POSIX_SHARED_MEMORY", "1")
    with make_loader(num_workers=2, memory="300MiB") as loader:
        assert take(loader) + take(loader) == calm


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from fakes import FakeDataset
from millpond._loader.loader import Loader

class Doubled:  # of __main__, which no worker imports
    def __call__(self, sample):
        assert sys.modules["__main__"].__spec__ is None or "millpond" in sys.modules["__main__"].__spec__.name
        return {{"index": sample["index"] * 2}}

print("once")
with Loader(FakeDataset(), batch_size=8, num_workers=2, memory="300MiB", output="numpy", transform=Doubled()) as loader:
    print(sum(int(batch["index"].sum()) for batch in loader))
"""


@pytest.mark.parametrize("way", ["script", "stdin", "command"])
def test_it_works_in_a_plain_script_without_an_import_guard(way: str, tmp_path: Path) -> None:
    text = SCRIPT.format(tests=str(HERE))
    script = tmp_path / "script.py"
    script.write_text(text)
    command = {"script": [str(script)], "stdin": ["-"], "command": ["-c", text]}[way]
    done = subprocess.run(
        [sys.executable, *command],
        input=text if way == "stdin" else None,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["once", str(2 * sum(range(400)))], done.stderr
