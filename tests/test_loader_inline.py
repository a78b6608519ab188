"""The loader in one process, over a dataset without media: order, books, leases, resume, misuse."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import threading
import warnings
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeDataset, identity_of
from millpond import errors
from millpond._loader.loader import Loader


def make_loader(dataset: FakeDataset | None = None, **changes: Any) -> Loader:
    options: dict[str, Any] = {
        "batch_size": 8,
        "shuffle": True,
        "num_workers": 0,
        "memory": "160MiB",
        "output": "numpy",
    } | changes
    return Loader(dataset or FakeDataset(), **options)


def take(loader: Loader) -> list[list[int]]:
    """Samples of each batch of one epoch, every one checked against its pixels and its numbers."""
    return [checked(batch) for batch in loader]


def flat(batches: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(batches))


def checked(batch: dict[str, Any]) -> list[int]:
    samples: list[int] = batch["index"].tolist()
    for row, sample in enumerate(samples):
        assert identity_of(batch["front"][row]) == (sample, 0)
        assert identity_of(batch["wrist"][row]) == (sample, 1)
        assert batch["state"][row].tolist() == [sample, -sample]
        assert batch["task"][row] == f"task {sample % 3}"
    return samples


@pytest.mark.parametrize("shuffle", [False, True])
def test_every_sample_is_delivered_once(shuffle: bool) -> None:
    with make_loader(shuffle=shuffle) as loader:
        batches = take(loader)
        assert len(batches) == len(loader) == 50
        assert sorted(flat(batches)) == list(range(400))
        assert (flat(batches) == list(range(400))) is not shuffle
        assert str(loader.statistics().books) == (
            "400 planned + 0 padded = 400 delivered + 0 skipped + 0 failed + 0 dropped"
        )


def test_frames_come_channels_first_in_channels_last_memory() -> None:
    with make_loader() as loader:
        batch = next(iter(loader))
        assert batch["front"].shape == (8, 3, 4, 6)
        assert batch["front"].strides[1] == 1


def test_epochs_differ_and_set_epoch_repeats_one() -> None:
    with make_loader() as loader:
        first, second = take(loader), take(loader)
        loader.set_epoch(0)
        assert first == take(loader) != second


def test_an_epoch_is_over_with_its_last_batch_for_who_counts_them() -> None:
    with make_loader() as loader:
        first = iter(loader)
        begun = [checked(next(first)) for _ in range(len(loader))]
        assert flat(take(loader)) != flat(begun)  # the next epoch, though nobody asked the first for one batch more
        assert loader.statistics().epochs == 2


def test_an_iterator_that_gave_nothing_has_not_begun_its_epoch() -> None:
    with make_loader() as loader, make_loader() as other:
        iter(loader)  # as a framework looks whether there can be one
        assert take(loader) == take(other)
        epoch = iter(loader)
        checked(next(epoch))
        state = loader.state_dict()
        del epoch
    with make_loader() as loader:
        loader.load_state_dict(state)
        iter(loader)
        assert len(take(loader)) == 49
        books = loader.statistics().books
        assert books is not None
        assert (books.planned, books.delivered) == (400, 400)


def test_an_epoch_that_stopped_at_its_first_batch_is_followed_by_the_next() -> None:
    with make_loader(FakeDataset(bad=frozenset({3})), shuffle=False, on_error="raise") as loader:
        for epoch in range(3):
            with pytest.raises(errors.CorruptMedia, match="front is corrupt"):
                take(loader)
            books = loader.statistics().books
            assert books is not None
            assert (books.failed, loader.state_dict()["epoch"]) == (1, epoch)


def test_the_last_batch_is_short_or_dropped() -> None:
    with make_loader(FakeDataset(total=20)) as loader:
        assert [len(batch) for batch in take(loader)] == [8, 8, 4]
    with make_loader(FakeDataset(total=20), drop_last=True) as loader:
        assert [len(batch) for batch in take(loader)] == [8, 8]
        books = loader.statistics().books
        assert books is not None
        assert (books.dropped, books.balance) == (4, 0)


def shown(batch: dict[str, Any], offsets: tuple[int, ...]) -> list[int]:
    """Samples of a batch of windows, every step checked against its pixels."""
    samples: list[int] = batch["index"].tolist()
    for row, sample in enumerate(samples):
        first = sample // 50 * 50
        expected = [min(max(sample + offset, first), first + 49) for offset in offsets]
        assert [identity_of(picture)[0] for picture in batch["front"][row]] == expected
    return samples


@pytest.mark.parametrize(
    ("layout", "memory", "offsets"),
    [("direct", 160 << 20, (-2, 0, 3)), ("gathered", (128 << 20) + 600_000, tuple(range(-50, 50)))],
)
def test_windows_show_the_frames_around_clamped_to_the_episode(
    layout: str, memory: int, offsets: tuple[int, ...]
) -> None:
    # A budget that holds few open batches of a hundred-frame window makes the plan keep segments instead.
    dataset = FakeDataset(offsets=offsets, cameras=("front",))
    with make_loader(dataset, memory=memory) as loader:
        assert loader.memory_plan().layout == layout
        assert sorted(flat(shown(batch, offsets) for batch in loader)) == list(range(400))


def test_an_error_stops_the_epoch_at_its_batch_and_names_the_sample() -> None:
    with make_loader(FakeDataset(bad=frozenset({133})), shuffle=False) as loader:
        got = []
        with pytest.raises(errors.CorruptMedia) as caught:
            got += [checked(batch) for batch in loader]
        assert len(got) == 0  # the list comprehension was cut short: count by statistics
        assert loader.statistics().samples == 128
        assert "sample 133 of epoch 0: {'episode_index': 2, 'frame_index': 33}" in caught.value.__notes__


def test_skip_closes_the_batch_up_and_writes_the_sample_down(tmp_path: Path) -> None:
    bad = frozenset({3, 133, 399})
    quarantine = tmp_path / "quarantine.jsonl"
    with make_loader(FakeDataset(bad=bad), on_error="skip", quarantine=quarantine) as loader:
        calm = make_loader()
        expected = [[sample for sample in batch if sample not in bad] for batch in take(calm)]
        calm.close()
        assert take(loader) == expected
        books = loader.statistics().books
        assert books is not None
        assert (books.skipped, books.delivered, books.balance) == (3, 397, 0)
    lines = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert sorted(line["sample"] for line in lines) == sorted(bad)
    assert {line["error"] for line in lines} == {"CorruptMedia"}


def test_a_batch_that_lost_every_row_is_left_out(tmp_path: Path) -> None:
    dataset = FakeDataset(total=24, bad=frozenset(range(8, 16)))
    with make_loader(dataset, on_error="skip", quarantine=tmp_path / "q", shuffle=False) as loader:
        assert take(loader) == [list(range(8)), list(range(16, 24))]


def test_rows_beyond_a_short_batch_hold_nobodys_pixels(tmp_path: Path) -> None:
    with make_loader(
        FakeDataset(bad=frozenset({3})), on_error="skip", quarantine=tmp_path / "q", shuffle=False
    ) as loader:
        batch = next(iter(loader))
        assert len(batch["index"]) == 7
        running = loader._running
        assert running is not None
        (slot,) = running.driver.leases.held()
        assert not running.outbox._pool.view(running.outbox._arena.buffer, slot, "front")[7].any()


def test_a_resumed_loader_goes_on_with_the_next_batch() -> None:
    with make_loader() as loader:
        whole = take(loader) + take(loader)
    states, got = [], []
    with make_loader() as loader:
        for _ in range(2):
            for batch in loader:
                got.append(checked(batch))
                states.append(json.loads(json.dumps(loader.state_dict())))
    assert got == whole
    for at in (0, 3, 48, 49, 50, 98):
        with make_loader() as loader:
            loader.load_state_dict(states[at])
            assert loader.state_dict() == states[at]
            rest = take(loader)
            assert rest == whole[at + 1 : 50 if at < 50 else 100]
            books = loader.statistics().books
            assert books is not None
            assert books.balance == 0


def test_a_state_of_something_else_is_refused() -> None:
    with make_loader() as loader:
        state = loader.state_dict()
    with make_loader(seed=1) as loader, pytest.raises(ValueError, match="seed was 0 and is 1"):
        loader.load_state_dict(state)
    with make_loader() as loader, pytest.raises(ValueError, match="version"):
        loader.load_state_dict(state | {"version": 99})


def test_a_larger_budget_goes_on_in_the_order_of_the_smaller() -> None:
    small = (128 << 20) + 40_000
    with make_loader(memory=small) as loader:
        whole = take(loader) + take(loader)
    with make_loader(memory=small) as loader:
        iterator = iter(loader)
        got = [checked(next(iterator)) for _ in range(5)]
        state = loader.state_dict()
        del iterator
    with make_loader(memory="160MiB") as loader:
        assert loader.state_dict()["order"] != state["order"]
        loader.load_state_dict(state)
        assert got + take(loader) + take(loader) == whole
    with make_loader(memory="160MiB") as loader:
        state = loader.state_dict()
    with make_loader(memory=small) as loader, pytest.raises(ValueError, match="at least the memory="):
        loader.load_state_dict(state)


def test_after_a_break_the_next_epoch_begins_and_the_state_is_where_it_stopped() -> None:
    with make_loader() as loader:
        first, second = take(loader), take(loader)
    with make_loader() as loader:
        iterator = iter(loader)
        for _ in range(3):
            next(iterator)
        del iterator
        assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, 3)
        assert take(loader) == second != first


def test_two_iterators_at_once_are_refused() -> None:
    with make_loader() as loader:
        iterator = iter(loader)
        next(iterator)
        with pytest.raises(errors.UsageError, match="being iterated already"):
            iter(loader)


def test_a_closed_loader_says_so() -> None:
    loader = make_loader()
    loader.close()
    loader.close()
    with pytest.raises(errors.ClosedError):
        iter(loader)


def test_a_forked_child_gets_a_clear_error() -> None:
    with make_loader() as loader:
        iterator = iter(loader)
        next(iterator)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                next(iterator)
            except errors.UsageError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert len(next(iterator)["index"]) == 8


def test_a_batch_stays_untouched_while_any_view_of_it_lives() -> None:
    with make_loader(held_batches=2) as loader:
        iterator = iter(loader)
        batch = next(iterator)
        kept, samples = batch["front"][3:5], batch["index"].tolist()
        del batch
        for _ in range(20):
            next(iterator)
        assert [identity_of(picture)[0] for picture in kept] == samples[3:5]


def test_batches_beyond_those_that_may_be_held_are_copies_warned_of_once() -> None:
    with make_loader(held_batches=2) as loader:
        with pytest.warns(RuntimeWarning, match="held_batches=2") as caught:
            batches = list(loader)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert sorted(flat(checked(batch) for batch in batches)) == list(range(400))
        assert loader.statistics().heap_copies == 48
        del batches
        gc.collect()
        assert loader.statistics().held_batches == 0


def test_copies_beyond_the_budget_are_an_error_that_names_the_holders() -> None:
    with make_loader() as loader, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        iterator = iter(loader)
        assert loader._running is not None
        loader._running.outbox._heap_limit = 3 * 4096
        with pytest.raises(errors.ArenaFull, match="0, 1 are held on their slots, and 2, 3, 4 as copies") as caught:
            list(iterator)
        assert caught.value.free_bytes < caught.value.wanted_bytes


def test_batches_outlive_the_loader() -> None:
    with make_loader() as loader:
        batch = next(iter(loader))
    assert len(checked(batch)) == 8


def shrink(sample: dict[str, Any]) -> dict[str, Any]:
    if sample["index"] == 77:
        raise KeyError("no such thing as 77")
    return {"mean": sample["front"].mean(dtype=np.float64), "front": sample["front"][:, ::2], "index": sample["index"]}


def test_a_transform_runs_on_each_sample_and_its_failure_is_that_samples(tmp_path: Path) -> None:
    quarantine = tmp_path / "q.jsonl"
    with make_loader(transform=shrink, on_error="skip", quarantine=quarantine) as loader:
        shapes = []
        samples = []
        for batch in loader:
            shapes.append({name: value.shape[1:] for name, value in batch.items()})
            samples += batch["index"].tolist()
    assert all(shape == {"mean": (), "front": (3, 2, 6), "index": ()} for shape in shapes)
    assert sorted(samples) == [sample for sample in range(400) if sample != 77]
    assert json.loads(quarantine.read_text())["error"] == "KeyError"


def test_a_transform_that_changes_its_shapes_is_named() -> None:
    def ragged(sample: dict[str, Any]) -> dict[str, Any]:
        return {"x": np.zeros(int(sample["index"]) + 1)}

    with make_loader(transform=ragged) as loader, pytest.raises(ValueError, match="same shape and dtype"):
        take(loader)


def test_a_bug_in_a_reader_stops_the_epoch_even_under_skip(tmp_path: Path) -> None:
    with make_loader(FakeDataset(broken=True), on_error="skip", quarantine=tmp_path / "q") as loader:
        with pytest.raises(TypeError, match="a bug in a reader"):
            take(loader)


def test_a_budget_that_cannot_work_names_the_smallest_that_can() -> None:
    with pytest.raises(ValueError, match="the smallest that can") as caught:
        make_loader(memory="1MiB")
    smallest = str(caught.value).split('"')[1]
    with make_loader(memory=smallest) as loader:
        assert sorted(flat(take(loader))) == list(range(400))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"timeout": 0}, "timeout"),
        ({"num_workers": -1}, "num_workers"),
        ({"held_batches": 0}, "held_batches"),
        ({"on_error": "ignore"}, "on_error"),
        ({"output": "jax"}, "output"),
        ({"memory": "much"}, "is no size"),
        ({"mixing": 5.0}, "cannot be reached"),
    ],
)
def test_misuse_is_named_at_construction(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_loader(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 2.5}, "batch_size must be an integer"),
        ({"memory": None}, "a size is a number of bytes"),
        ({"transform": 5}, "transform must be a function"),
        ({"transform": threading.Lock().locked, "num_workers": 1}, "cannot travel to workers"),
        ({"mixing": "good"}, "mixing must be a number"),
    ],
)
def test_arguments_of_a_wrong_type_are_named_at_construction(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make_loader(**options)


def test_skipping_is_told_at_the_end_of_the_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with make_loader(FakeDataset(bad=frozenset({3})), on_error="skip", quarantine=tmp_path / "q.jsonl") as loader:
        take(loader)
    assert "1 of 400 samples were skipped" in caplog.text


def test_books_of_an_unfinished_epoch_say_what_is_to_come() -> None:
    with make_loader() as loader:
        next(iter(loader))
        assert str(loader.statistics().books).endswith("+ 392 to come")


def test_what_readers_learn_reaches_the_dataset() -> None:
    dataset = FakeDataset()
    with make_loader(dataset) as loader:
        take(loader)
    assert len(dataset.learned) == len(loader.dataset.parts) * loader.memory_plan().num_segments


def test_data_that_no_sample_stands_for_is_an_error_or_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    dataset = FakeDataset(lost=(errors.DataError("rows of episode 9, which the metadata does not know", episode=9),))
    with pytest.raises(errors.DataError, match="episode 9"):
        make_loader(dataset)
    with make_loader(dataset, on_error="skip") as loader:
        assert len(loader) == 50
    assert "not served: rows of episode 9" in caplog.text


def test_a_batch_that_found_no_room_comes_when_there_is_some() -> None:
    with make_loader(shuffle=False) as loader, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        iterator = iter(loader)
        assert loader._running is not None
        loader._running.outbox._heap_limit = 3 * 4096
        held, got, full = [], [], 0
        while loader.statistics().samples < 400:
            try:
                held.append(next(iterator))
                got += held[-1]["index"].tolist()
            except errors.ArenaFull:
                full += 1
                held.clear()
        assert got == list(range(400))
        assert full > 5


def test_where_warnings_are_errors_no_batch_is_lost() -> None:
    with make_loader(shuffle=False) as loader, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        iterator = iter(loader)
        held = [next(iterator), next(iterator)]
        with pytest.raises(RuntimeWarning, match="held_batches=2"):
            next(iterator)
        held += list(iterator)
        assert flat(batch["index"].tolist() for batch in held) == list(range(400))


def test_a_stop_iteration_of_a_transform_does_not_end_the_epoch_in_silence() -> None:
    def stop(sample: dict[str, Any]) -> dict[str, Any]:
        if sample["index"] == 57:
            raise StopIteration("next() of an empty iterator")
        return {"index": sample["index"]}

    with make_loader(transform=stop) as loader, pytest.raises(RuntimeError, match="transform raised StopIteration"):
        for _ in loader:
            pass


def test_a_quarantine_that_cannot_be_written_stops_the_epoch(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    dataset = FakeDataset(bad=frozenset({3}))
    with make_loader(dataset, on_error="skip", quarantine=tmp_path / "file" / "q.jsonl") as loader:
        iterator = iter(loader)
        with pytest.raises(OSError, match="file"):
            for _ in iterator:
                pass
        with pytest.raises(errors.ClosedError):
            next(iterator)


def test_a_forked_child_crashes_rather_than_see_another_batch() -> None:
    with make_loader() as loader:
        batch = next(iter(loader))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            faulthandler.disable()
            os._exit(int(batch["index"][0]) % 2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV


@pytest.mark.parametrize(("epoch", "batch"), [(0, 51), (0, -1), (-1, 0)])
def test_a_state_that_stands_nowhere_is_refused(epoch: int, batch: int) -> None:
    with make_loader() as loader, pytest.raises(ValueError, match="there is none"):
        loader.load_state_dict(loader.state_dict() | {"epoch": epoch, "batch": batch})


def test_set_epoch_amid_an_epoch_leaves_its_position() -> None:
    with make_loader() as loader:
        iterator = iter(loader)
        next(iterator)
        loader.set_epoch(7)
        assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (0, 1)
        with pytest.raises(ValueError, match="at least 0"):
            loader.set_epoch(-1)
