"""Where a DataLoader's batches lie, whom they belong to, for how long, and what `memory=` makes of it."""

from __future__ import annotations

import contextlib
import gc
import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from millpond._guard.slot_file import Mapping, SlotFile, create_slot_file
from millpond.errors import ArenaFull
from programs import forked

torch = pytest.importorskip("torch", reason="the DataLoader needs torch")

from torch.utils.data import default_collate  # noqa: E402

from millpond._torch.batch_slot import BatchSlot  # noqa: E402
from millpond.torch import DataLoader  # noqa: E402
from torch_datasets import WIDTH, Made, Numbered, all_identities, flat, identities, sample  # noqa: E402
from torch_memory import lies_in_arena  # noqa: E402

BATCH_BYTES = 4 * WIDTH * 8
VIEWS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda batch: batch,
    "row": lambda batch: batch[1],
    "slice": lambda batch: batch.view(-1)[5:70:3],
    "array": lambda batch: batch.numpy(),
    "row of the array": lambda batch: batch.numpy()[2],
    "detached": lambda batch: batch.detach(),
    "unbound": lambda batch: batch.unbind()[3],
    "transposed": lambda batch: batch.T,
    "bytes": lambda batch: batch.view(torch.uint8),
    "memoryview": lambda batch: memoryview(batch.numpy()),
    "storage": lambda batch: batch.untyped_storage(),
    "tensor of the array": lambda batch: torch.from_numpy(batch.numpy()[1:]),
}


def pairs(index: int) -> dict[str, Any]:
    return {"wide": sample(index), "array": np.full((64, 64), index, np.float32), "number": index}


def stack(samples: list[Any]) -> Any:
    return torch.stack(samples)


def take_all(batches: Any, held: list[Any]) -> None:
    """Into a list that an error leaves as it is."""
    for batch in batches:
        held.append(batch)  # noqa: PERF402


class Keeper:
    """A collate function that gives its former batch once more, with the next one."""

    def __init__(self) -> None:
        self._former: Any = None

    def __call__(self, samples: list[Any]) -> tuple[Any, Any]:
        former, self._former = self._former, default_collate(samples)
        return self._former, former


@pytest.mark.parametrize("collate", [None, stack, lambda samples: torch.stack(samples).numpy()])
def test_batches_lie_in_the_arena_however_they_are_collated(collate: Any) -> None:
    with DataLoader(Numbered(16), 4, num_workers=2, collate_fn=collate) as loader:
        assert all(lies_in_arena(torch.as_tensor(batch)) for batch in loader)


def test_every_large_field_of_a_batch_lies_in_the_arena_and_has_a_storage_of_its_own() -> None:
    with DataLoader(Made(pairs), 4, num_workers=1) as loader:
        batch = next(iter(loader))
        assert lies_in_arena(batch["wide"])
        assert lies_in_arena(batch["array"])
        assert batch["number"].tolist() == [0, 1, 2, 3]
        assert batch["array"].untyped_storage().nbytes() == 4 * 64 * 64 * 4


def test_saving_a_slice_writes_its_field_and_not_the_slot() -> None:
    with DataLoader(Made(pairs), 4, num_workers=1) as loader:
        file = io.BytesIO()
        torch.save(next(iter(loader))["array"][:1], file)
    assert 4 * 64 * 64 * 4 <= file.tell() < 4 * 64 * 64 * 4 + 4096


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_a_lease_ends_when_the_last_that_uses_it_is_gone(view: Callable[[Any], Any]) -> None:
    with DataLoader(Numbered(16), 4, num_workers=1) as loader:
        batches = iter(loader)
        held = view(next(batches))
        gc.collect()
        assert loader.statistics().held_batches == 1
        del held
        assert loader.statistics().held_batches == 0


def test_batches_that_are_kept_are_copied_beyond_what_may_be_held() -> None:
    with DataLoader(Numbered(80), 4, num_workers=2, held_batches=3) as loader:
        batches = list(loader)
        assert all_identities(batches) == [list(range(start, start + 4)) for start in range(0, 80, 4)]
        assert [lies_in_arena(batch) for batch in batches] == [True] * 3 + [False] * 17
        assert loader.statistics().heap_copies == 17


def test_with_no_batch_to_be_held_all_are_copies() -> None:
    with DataLoader(Numbered(16), 4, num_workers=1, held_batches=0) as loader:
        assert not any(lies_in_arena(batch) for batch in loader)
        assert loader.statistics().heap_copies == 4
        assert loader.statistics().copied_bytes == 0


def test_slots_are_used_again_and_hold_what_they_should() -> None:
    with DataLoader(Numbered(400), 4, num_workers=2) as loader:
        assert flat(loader) == list(range(400))
        assert loader.statistics().shared_bytes <= 6 * BATCH_BYTES + 4096


@pytest.mark.parametrize("held_batches", [0, 4])
def test_batches_that_were_made_for_an_epoch_that_was_broken_off_give_their_slots_back(held_batches: int) -> None:
    options: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4, "held_batches": held_batches}
    with DataLoader(Numbered(400), 4, num_workers=1, **options) as loader:
        for _ in range(10):
            batches = iter(loader)
            for _ in range(6):  # so that others behind it are here
                next(batches)
            slots = batches._crew.receiver.slots
        assert slots._count <= 14


def test_a_batch_that_is_kept_stays_as_it_was_while_others_come_and_go() -> None:
    with DataLoader(Numbered(200), 4, num_workers=2) as loader:
        batches = iter(loader)
        first = next(batches)
        others = all_identities(batches)
        assert len(others) == 49
        assert lies_in_arena(first)
        assert identities(first) == [0, 1, 2, 3]


def test_held_batches_outlive_their_loader() -> None:
    with DataLoader(Numbered(16), 4, num_workers=2) as loader:
        batches = list(loader)
    del loader
    gc.collect()
    assert all_identities(batches) == [list(range(start, start + 4)) for start in range(0, 16, 4)]
    batches[0].fill_(7)


def test_a_user_may_write_to_a_batch_and_no_other_changes() -> None:
    with DataLoader(Numbered(80), 4, num_workers=2) as loader:
        for number, batch in enumerate(loader):
            assert identities(batch)[0] == 4 * number
            batch.fill_(-1)


def test_a_collate_function_that_keeps_its_batch_keeps_it_unchanged() -> None:
    with DataLoader(Numbered(48), 4, num_workers=1, collate_fn=Keeper()) as loader:
        formers = [former if former is None else identities(former) for _, former in loader]
    assert formers == [None] + [list(range(start, start + 4)) for start in range(0, 44, 4)]


def test_a_kept_batch_that_there_is_no_room_for_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object, size_bytes: int) -> None:
        raise OSError(f"no room for {size_bytes} bytes")

    monkeypatch.setattr(Mapping, "detach", refuse)
    with contextlib.closing(SlotFile(create_slot_file())) as file:
        slot = BatchSlot(file, 0, None)
        kept = slot.empty((100_000,), torch.uint8)
        with pytest.raises(OSError, match="no room"):
            slot.close()
        del kept
        slot.close()


def test_a_batch_twice_in_one_is_one() -> None:
    with DataLoader(Numbered(8), 4, num_workers=1, collate_fn=lambda samples: [stack(samples)] * 2) as loader:
        one, other = next(iter(loader))
        one[0, 0] = 5
        assert other[0, 0] == 5


def test_a_part_of_a_collated_batch_comes_as_that_part() -> None:
    def part(samples: list[Any]) -> Any:
        whole = default_collate(samples)
        return whole[:2], whole[1:], whole[:, ::2], default_collate([whole[0]] * 3)

    with DataLoader(Numbered(8), 4, num_workers=1, collate_fn=part) as loader:
        for number, (first, last, half, thrice) in enumerate(loader):
            start = 4 * number
            assert identities(first) == [start, start + 1]
            assert identities(last) == [start + 1, start + 2, start + 3]
            assert torch.equal(half, stack([sample(start + row)[::2] for row in range(4)]))
            assert identities(thrice) == [start] * 3


def test_small_batches_come_in_messages_and_count_as_nobodys() -> None:
    with DataLoader(Made(lambda index: torch.tensor(index)), 2, num_workers=1) as loader:
        batches = list(loader)
        assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3], [4, 5], [6, 7]]
        assert loader.statistics().held_batches == 0


# ---- memory=


def test_slots_in_use_stay_within_memory() -> None:
    with DataLoader(Numbered(120), 4, num_workers=2, prefetch_factor=4, memory=3 * BATCH_BYTES + 4096) as loader:
        batches = iter(loader)
        crew = batches._crew
        most, numbers = 0, identities(next(batches))
        for batch in batches:
            most = max(most, crew.supply._in_use + crew.receiver.held_batches)
            numbers += identities(batch)
            del batch
        assert numbers == list(range(120))
        assert most <= 3


def test_batches_that_are_held_beyond_memory_are_named_and_letting_go_helps() -> None:
    with DataLoader(Numbered(40), 4, num_workers=2, held_batches=8, memory=4 * BATCH_BYTES + 4096) as loader:
        held: list[Any] = []
        batches = iter(loader)
        with pytest.raises(ArenaFull, match=r"4 batches are held.*Let go sooner.*memory=") as caught:
            take_all(batches, held)
        assert caught.value.facts["holders"]["slots"] == len(held) == 4
        numbers = flat(held)
        held.clear()
        assert numbers + flat(batches) == list(range(40))


def test_copies_count_against_memory() -> None:
    with DataLoader(Numbered(40), 4, num_workers=1, held_batches=1, memory=4 * BATCH_BYTES + 4096) as loader:
        with pytest.raises(ArenaFull, match=r"1 batches are held on their slots, and \d as copies"):
            take_all(iter(loader), [])


def test_a_batch_beyond_memory_is_an_error_at_its_turn() -> None:
    with DataLoader(Numbered(8), 4, num_workers=1, memory=BATCH_BYTES - 4096) as loader:
        with pytest.raises(ArenaFull, match=r"does not fit into memory=") as caught:
            next(iter(loader))
    assert caught.value.facts["wanted_bytes"] >= BATCH_BYTES


def test_memory_of_one_batch_is_enough_for_who_holds_none() -> None:
    with DataLoader(Numbered(40), 4, num_workers=2, memory=BATCH_BYTES) as loader:
        numbers = []
        for batch in loader:
            numbers += identities(batch)
            del batch
    assert numbers == list(range(40))


# ---- forks of the training process


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_reads_what_was_held_while_the_parent_goes_on() -> None:
    with DataLoader(Numbered(80), 4, num_workers=2) as loader:
        batches = iter(loader)
        held = [next(batches)]
        read, write = os.pipe()

        def look() -> bytes:
            os.close(write)
            os.read(read, 1)  # until the parent has taken all others
            return bytes(flat(held))

        with forked(look) as result:
            os.close(read)
            held.clear()
            assert flat(batches) == list(range(4, 80))
            os.close(write)
            assert list(result()) == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_batches_are_under_way_takes_nothing_from_the_parent() -> None:
    with DataLoader(Numbered(80), 4, num_workers=2) as loader:
        numbers = []
        for batch in loader:
            numbers += identities(batch)
            if len(numbers) % 20 == 0:
                with forked(lambda: b"ended") as result:
                    assert result() == b"ended"
        assert numbers == list(range(80))
