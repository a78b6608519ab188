"""Workers of a DataLoader that die, hang, leave or have had their time: nothing is lost, and what is bad is named."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from millpond._workers.zygote import shutdown
from millpond.errors import BatchTimeout, ClosedError, MillpondError, WorkerDied

torch = pytest.importorskip("torch", reason="the DataLoader needs torch")

from millpond.torch import DataLoader  # noqa: E402
from torch_datasets import (  # noqa: E402
    InOneGo,
    Made,
    MarkedStream,
    Numbered,
    Stream,
    TellingStream,
    all_identities,
    exit_politely,
    flat,
    hang,
    hang_in_c,
    identities,
    kill,
    leave,
    once,
    random_words,
    refuse,
    segfault,
)

IN_BATCHES = [list(range(start, start + 4)) for start in range(0, 40, 4)]
DEATHS = {"kill": kill, "segfault": segfault, "leave": leave, "leave 0": partial(leave, 0), "exit": exit_politely}


@pytest.fixture
def flag(tmp_path: Path) -> str:
    """A file for `once`, not there yet."""
    return str(tmp_path / "happened")


def everything(batches: Any) -> list[Any]:
    """Batches as their samples, and errors as they are, until the end."""
    found: list[Any] = []
    while True:
        try:
            found.append(identities(next(batches)))
        except StopIteration:
            return found
        except (MillpondError, ValueError) as error:
            found.append(error)


def kill_one_of(loader: Any) -> None:
    """From outside, whatever it does; nobody, if the next ones are not there yet."""
    for pid in loader.statistics().worker_pids[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def quarantined(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- deaths, map-style


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS.keys())
def test_a_batch_whose_worker_died_is_made_again(death: Callable[[], None], flag: str) -> None:
    with DataLoader(Numbered(40, {17: partial(once, flag, death)}), 4, num_workers=2) as loader:
        assert all_identities(loader) == IN_BATCHES
        assert loader.statistics().worker_restarts == 1


def test_workers_killed_from_outside_at_any_moment_cost_nothing_but_time() -> None:
    with DataLoader(Numbered(400), 4, num_workers=2) as loader:
        numbers, batches = [], iter(loader)
        for place, batch in enumerate(batches):
            numbers += identities(batch)
            if place % 10 == 5:
                kill_one_of(loader)
        assert numbers == list(range(400))
        assert loader.statistics().worker_restarts > 2


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS.keys())
def test_a_deadly_sample_is_an_error_at_its_turn_and_named(death: Callable[[], None]) -> None:
    with DataLoader(Numbered(40, {17: death}), 4, num_workers=2) as loader:
        found = everything(iter(loader))
        error = found[4]
        assert found[:4] + found[5:] == IN_BATCHES[:4] + IN_BATCHES[5:]
        assert isinstance(error, WorkerDied)
        assert isinstance(error, RuntimeError)
        assert re.match(rf"DataLoader worker \(pid {error.pid}\) (is killed by signal|exited unexpectedly)", str(error))
        assert "at sample 17" in str(error)
        assert (error.facts["worker_id"], error.facts["indices"]) == (0, [16, 17, 18, 19])
        assert loader.statistics().worker_restarts == 2


def test_the_stack_of_a_segfault_is_a_note() -> None:
    with DataLoader(Numbered(8, {5: segfault}), 4, num_workers=1) as loader:
        error = everything(iter(loader))[1]
    assert any("torch_datasets.py" in note for note in error.__notes__)


def test_random_numbers_of_a_worker_that_follows_another_are_new_ones(flag: str) -> None:
    def draw(index: int) -> Any:
        if index == 5:
            once(flag, kill)
        return random_words()

    with DataLoader(Made(draw, 12), 1, num_workers=1, generator=torch.Generator().manual_seed(1)) as loader:
        drawn = [tuple(batch.view(-1).tolist()) for batch in loader]
    assert len(set(drawn)) == 12
    assert all(len(set(column)) == 12 for column in zip(*drawn, strict=True))


def test_restarts_that_no_batch_makes_up_for_are_limited() -> None:
    troubles: dict[int, Any] = dict.fromkeys(range(8, 40), kill)
    with DataLoader(Numbered(40, troubles), 4, num_workers=1, max_restarts=5) as loader:
        batches = iter(loader)
        assert [identities(next(batches)) for _ in range(2)] == IN_BATCHES[:2]
        with pytest.raises(WorkerDied, match=r"replaced 6 times more than tasks were completed \(limit 5\)"):
            everything_until_fatal(batches)
        with pytest.raises(ClosedError):
            next(batches)


def everything_until_fatal(batches: Any) -> None:
    while True:
        try:
            next(batches)
        except WorkerDied as error:
            if "worker_id" not in error.facts:  # of no batch
                raise


@pytest.mark.parametrize("death", [kill, leave, exit_politely])
def test_a_worker_init_fn_that_ends_its_worker_is_an_error_that_says_so(death: Callable[[], None]) -> None:
    with DataLoader(Numbered(4), 4, num_workers=1, worker_init_fn=lambda seat: death()) as loader:
        with pytest.raises(WorkerDied, match="before its first sample"):
            next(iter(loader))


def test_a_worker_init_fn_that_dies_once_is_run_again(flag: str) -> None:
    with DataLoader(Numbered(40), 4, num_workers=2, worker_init_fn=lambda seat: once(flag, kill)) as loader:
        assert all_identities(loader) == IN_BATCHES


def test_a_worker_init_fn_that_raises_is_an_error_of_each_batch() -> None:
    with DataLoader(Numbered(12), 4, num_workers=1, worker_init_fn=lambda seat: refuse()) as loader:
        found = everything(iter(loader))
    assert [str(error).splitlines()[0] for error in found] == ["Caught ValueError in DataLoader worker process 0."] * 3


def test_a_collate_function_that_ends_its_worker_is_named() -> None:
    with DataLoader(Numbered(8), 4, num_workers=1, collate_fn=lambda samples: kill()) as loader:
        with pytest.raises(WorkerDied, match="while it was collated"):
            next(iter(loader))


def test_persistent_workers_that_die_between_epochs_are_replaced() -> None:
    with DataLoader(Numbered(40), 4, num_workers=2, persistent_workers=True) as loader:
        assert all_identities(loader) == IN_BATCHES
        for pid in loader.statistics().worker_pids:
            os.kill(pid, signal.SIGKILL)
        assert all_identities(loader) == IN_BATCHES


# ---- hangs


@pytest.mark.parametrize("trouble", [hang, hang_in_c])
def test_a_batch_that_hangs_is_an_error_with_the_stack(trouble: Callable[[], None]) -> None:
    with DataLoader(Numbered(12, {5: trouble}), 4, num_workers=1, timeout=1.0) as loader:
        found = everything(iter(loader))
    error = found[1]
    assert [found[0], found[2]] == [IN_BATCHES[0], IN_BATCHES[2]]
    assert isinstance(error, BatchTimeout)
    assert isinstance(error, RuntimeError)
    assert re.match(r"DataLoader timed out after [\d.]+ seconds \(timeout=1; attempt 2\): worker 0", str(error))
    assert "at sample 5" in str(error)
    assert any(trouble.__name__ in note for note in error.__notes__)


def test_a_hang_that_does_not_happen_again_is_made_up_for(flag: str) -> None:
    with DataLoader(Numbered(40, {6: partial(once, flag, hang)}), 4, num_workers=2, timeout=2.0) as loader:
        assert all_identities(loader) == IN_BATCHES


def test_a_sample_that_makes_no_progress_is_told_from_a_long_batch() -> None:
    with DataLoader(Numbered(8, {5: hang}), 4, num_workers=1, stall_timeout=1.0) as loader:
        error = everything(iter(loader))[1]
    assert isinstance(error, BatchTimeout)
    assert "stall_timeout=1;" in str(error)


def test_a_worker_init_fn_that_hangs_is_an_error() -> None:
    with DataLoader(Numbered(4), 4, num_workers=1, timeout=1.0, worker_init_fn=lambda seat: hang()) as loader:
        with pytest.raises(BatchTimeout, match=r"before its first sample \(importing, worker_init_fn") as caught:
            next(iter(loader))
    assert any("hang" in note for note in caught.value.__notes__)


# ---- skipping


@pytest.mark.parametrize("num_workers", [0, 2])
def test_samples_that_raise_are_left_out_and_written_down(num_workers: int, tmp_path: Path) -> None:
    file = tmp_path / "bad" / "samples.jsonl"
    troubles: dict[int, Any] = dict.fromkeys((5, 17, 18, 20, 21, 22, 23), refuse)
    options: dict[str, Any] = {"on_error": "skip", "quarantine": file}
    with DataLoader(Numbered(40, troubles), 4, num_workers=num_workers, **options) as loader:
        found = all_identities(loader)
        statistics = loader.statistics()
    good = [[number for number in batch if number not in troubles] for batch in IN_BATCHES]
    assert found == [batch for batch in good if batch]
    assert (statistics.samples, statistics.skipped, statistics.batches) == (33, 7, 9)
    records = quarantined(file)
    assert [record["sample"] for record in records] == list(troubles)
    assert records[0].items() >= {"epoch": 0, "index": 5, "dataset": "Numbered", "error": "ValueError"}.items()


@pytest.mark.parametrize("kind", [Numbered, InOneGo])
def test_samples_that_end_their_worker_are_found_left_out_and_written_down(kind: Any, tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    troubles: dict[int, Any] = {6: kill, 7: refuse, 17: segfault, 30: leave}
    with DataLoader(kind(40, troubles), 4, num_workers=2, on_error="skip", quarantine=file) as loader:
        assert flat(loader) == [number for number in range(40) if number not in troubles]
        statistics = loader.statistics()
    assert statistics.samples + statistics.skipped == 40
    records = {record["sample"]: record for record in quarantined(file)}
    assert {number: record["error"] for number, record in records.items()} == {
        6: "WorkerDied", 7: "ValueError", 17: "WorkerDied", 30: "WorkerDied"
    }  # fmt: skip
    assert "torch_datasets.py" in records[17]["stack"]


def test_samples_that_hang_are_left_out_with_their_stack(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    options: dict[str, Any] = {"on_error": "skip", "quarantine": file, "timeout": 1.0}
    with DataLoader(Numbered(12, {5: hang_in_c}), 4, num_workers=1, **options) as loader:
        assert flat(loader) == [number for number in range(12) if number != 5]
    assert "hang_in_c" in quarantined(file)[0]["stack"]


def test_single_samples_that_end_their_worker_are_left_out(tmp_path: Path) -> None:
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "bad.jsonl"}
    with DataLoader(Numbered(6, {2: kill}), None, num_workers=1, **options) as loader:
        assert [identities(batch[None]) for batch in loader] == [[0], [1], [3], [4], [5]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_iterator_that_raises_goes_on_behind_the_sample(num_workers: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "bad.jsonl"}
    with DataLoader(MarkedStream(14, {5: refuse, 13: refuse}), 4, num_workers=num_workers, **options) as loader:
        assert all_identities(loader) == [[0, 1, 2, 3], [4, 6, 7, 8], [9, 10, 11, 12]]
        assert loader.statistics().skipped == 2
    assert len(quarantined(tmp_path / "bad.jsonl")) == 2


# ---- iterable datasets


def test_a_stream_that_cannot_tell_where_it_was_is_an_error_and_the_others_go_on(flag: str) -> None:
    with DataLoader(Stream(24, {8: partial(once, flag, kill)}), 2, num_workers=2) as loader:
        found = everything(iter(loader))
    errors = [error for error in found if isinstance(error, WorkerDied)]
    assert len(errors) == 1
    assert "where its IterableDataset was is lost with it" in str(errors[0])
    assert "SIGKILL" in str(errors[0])
    assert found[:4] == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert [number for batch in found if isinstance(batch, list) for number in batch if number % 2] == list(
        range(1, 24, 2)
    )


def test_a_stream_whose_worker_dies_at_its_start_begins_anew(flag: str) -> None:
    with DataLoader(Stream(16, {0: partial(once, flag, kill)}), 2, num_workers=2) as loader:
        assert sorted(flat(loader)) == list(range(16))


@pytest.mark.parametrize("kind", [MarkedStream, TellingStream])
@pytest.mark.parametrize("number", [2, 13, 23])
def test_a_stream_that_can_tell_goes_on_exactly_there(kind: Any, number: int, flag: str) -> None:
    with DataLoader(kind(24), 2, num_workers=2) as loader:
        expected = all_identities(loader)
    with DataLoader(kind(24, {number: partial(once, flag, kill)}), 2, num_workers=2) as loader:
        assert all_identities(loader) == expected
        assert loader.statistics().worker_restarts == 1


def test_a_stream_killed_from_outside_again_and_again_goes_on() -> None:
    with DataLoader(MarkedStream(120), 2, num_workers=2) as loader:
        numbers = []
        for place, batch in enumerate(loader):
            numbers += identities(batch)
            if place % 9 == 4:
                kill_one_of(loader)
        assert sorted(numbers) == list(range(120))
        assert len(numbers) == 120


def test_a_stream_goes_on_behind_an_error_in_a_worker_that_follows_another(flag: str) -> None:
    troubles: dict[int, Any] = {5: refuse, 9: partial(once, flag, kill)}
    with DataLoader(MarkedStream(16, troubles), 2, num_workers=1) as loader:
        found = everything(iter(loader))
    assert [batch for batch in found if isinstance(batch, list)] == [
        [0, 1],
        [2, 3],
        [6, 7],
        [8, 9],
        [10, 11],
        [12, 13],
        [14, 15],
    ]
    assert [type(error) for error in found if not isinstance(error, list)] == [ValueError]


def test_a_deadly_sample_of_a_stream_is_an_error_under_skip_too(tmp_path: Path) -> None:
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "bad.jsonl"}
    with DataLoader(MarkedStream(16, {5: kill}), 2, num_workers=1, **options) as loader:
        found = everything(iter(loader))
    assert found[:2] == [[0, 1], [2, 3]]
    assert isinstance(found[2], WorkerDied)


# ---- workers that had their time


def test_workers_are_followed_by_others_after_so_many_batches() -> None:
    with DataLoader(Numbered(400), 4, num_workers=2, max_tasks_per_worker=20) as loader:
        assert flat(loader) == list(range(400))
        statistics = loader.statistics()
    assert (statistics.worker_recycles >= 2, statistics.worker_restarts) == (True, 0)


def test_streams_that_can_tell_go_on_in_the_worker_that_follows() -> None:
    with DataLoader(TellingStream(200), 4, num_workers=2, max_tasks_per_worker=5) as loader:
        assert sorted(flat(loader)) == list(range(200))
        assert loader.statistics().worker_recycles >= 2


def test_streams_that_cannot_tell_keep_their_workers() -> None:
    with DataLoader(Stream(80), 2, num_workers=1, max_tasks_per_worker=5) as loader:
        assert flat(loader) == list(range(80))
        assert loader.statistics().worker_recycles == 0


def test_a_worker_with_too_much_memory_is_followed_by_another() -> None:
    kept: list[bytearray] = []

    def leak(index: int) -> int:
        kept.append(bytearray(8 << 20))
        return index

    with DataLoader(Made(leak, 120), 2, num_workers=1, max_worker_anon="150MiB") as loader:
        assert [number for batch in loader for number in batch.tolist()] == list(range(120))
        assert loader.statistics().worker_recycles >= 2


def test_errors_come_at_their_turn_and_the_rest_goes_on() -> None:
    with DataLoader(Numbered(40, {9: refuse, 30: refuse}), 4, num_workers=2) as loader:
        found = everything(iter(loader))
    assert [type(batch) for batch in found] == [list] * 2 + [ValueError] + [list] * 4 + [ValueError] + [list] * 2


def test_a_batch_that_cannot_travel_is_an_error_at_its_turn() -> None:
    def odd(samples: list[int]) -> Any:
        return (number for number in samples) if samples[0] == 2 else samples

    with DataLoader(Made(int), 2, num_workers=1, collate_fn=odd) as loader:
        batches = iter(loader)
        assert next(batches) == [0, 1]
        with pytest.raises(TypeError, match=r"(?s)Caught TypeError in DataLoader worker process 0.*generator"):
            next(batches)
        assert list(batches) == [[4, 5], [6, 7]]


def test_shutdown_ends_loaders_that_are_open() -> None:
    loader = DataLoader(Numbered(400), 4, num_workers=2)
    batches = iter(loader)
    held = next(batches)
    shutdown()
    with pytest.raises(ClosedError, match=r"millpond.shutdown\(\) has ended the worker processes"):
        all_identities(batches)
    assert identities(held) == [0, 1, 2, 3]
    with pytest.raises(ClosedError):
        next(batches)
    loader.close()
