"""How batches are put into slots and taken out of them, and what is said of those that did not come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from millpond._guard.parcels import pack
from millpond._guard.result_slots import ResultSlots
from millpond._guard.slot_file import SlotFile, create_slot_file
from millpond._guard.slot_writer import SlotWriter
from millpond._workers.lifecycle import Attempt, Cause
from millpond._workers.verdicts import End, Hang, task_failed
from millpond.errors import ArenaFull, BatchTimeout, WorkerDied

torch = pytest.importorskip("torch", reason="the DataLoader needs torch")

from millpond._torch import verdicts  # noqa: E402
from millpond._torch.batch_slot import BatchSlot  # noqa: E402
from millpond._torch.receiving import Receiver  # noqa: E402

MIB = 1 << 20


# ---- the receiver


@pytest.fixture
def slots() -> Iterator[ResultSlots]:
    made = ResultSlots(8, keeps_memory=True)
    yield made
    made.close()


def sent(slots: ResultSlots, value: Any) -> tuple[int, bytes]:
    """A value in a slot, and its message."""
    slot = slots.reserve()
    return slot, pack(value, by_value=False).send(SlotWriter(lambda size: slots.mapping(slot, size)))


def test_a_receiver_lends_so_many_slots_and_copies_beyond(slots: ResultSlots) -> None:
    receiver = Receiver(slots, held_batches=1, memory_bytes=None, num_workers=1)
    values = [np.full(MIB, number, np.uint8) for number in range(3)]
    messages = [sent(slots, value) for value in values]
    held = [receiver.receive(message, slot) for slot, message in messages]
    assert (receiver.held_batches, receiver.heap_copies, receiver.copied_bytes) == (1, 2, 2 * MIB)
    assert [int(array[-1]) for array in held] == [0, 1, 2]
    del held[1:]
    assert receiver.copied_bytes == 0


def test_a_receiver_with_a_budget_allows_for_what_is_held_copied_and_under_way(slots: ResultSlots) -> None:
    receiver = Receiver(slots, held_batches=1, memory_bytes=4 * MIB, num_workers=2)
    assert [receiver.has_room(in_use) for in_use in (0, 1, 2)] == [True, True, False]
    held = [receiver.receive(message, slot) for slot, message in [sent(slots, np.ones(MIB, np.uint8))]]
    assert [receiver.has_room(in_use) for in_use in (0, 1, 2, 3)] == [True, True, True, False]
    slot, message = sent(slots, np.ones(MIB, np.uint8))
    held.append(receiver.receive(message, slot))
    assert [receiver.has_room(in_use) for in_use in (0, 1, 2)] == [True, True, False]
    held.clear()
    assert receiver.has_room(3)


def test_what_is_said_when_there_is_no_room_names_who_has_it(slots: ResultSlots) -> None:
    receiver = Receiver(slots, held_batches=1, memory_bytes=3 * MIB, num_workers=1)
    messages = [sent(slots, np.ones(MIB, np.uint8)) for _ in range(3)]
    held = [receiver.receive(message, slot) for slot, message in messages[:2]]
    with pytest.raises(ArenaFull, match=r"1 batches are held on their slots, and 1 as copies of 1\.0 MiB") as caught:
        receiver.receive(messages[2][1], messages[2][0])
    assert caught.value.facts["free_bytes"] == MIB
    assert len(held) == 2


# ---- slots as they are written


@pytest.fixture
def file() -> Iterator[SlotFile]:
    made = SlotFile(create_slot_file())
    yield made
    made.close()


def test_a_part_that_was_made_in_the_slot_is_found_there(file: SlotFile) -> None:
    slot = BatchSlot(file, 0, None)
    small, large = slot.empty((3,), torch.float32), slot.empty((4, 5000), torch.int64)
    large.fill_(7)
    parcel = pack([large, small], by_value=False)
    address = large.data_ptr() - file.mapping(0, 1).address
    assert np.frombuffer(slot.send(parcel)[8:24], np.uint64).tolist() == [address, address + 160_000]


def test_a_part_of_what_was_made_in_the_slot_is_found_only_from_its_start(file: SlotFile) -> None:
    writer = SlotWriter(lambda size: file.mapping(0, size))
    address = writer.reserve(100)
    start = address - (file.mapping(0, 100).address or 0)
    whole = file.mapping(0, 100).bytes[start : start + 100]
    assert writer.put((whole,)) == (start, start + 100)
    assert writer.put((whole[:40],)) == (start, start + 40)
    assert writer.put((whole[10:40],))[0] >= start + 100


def test_a_slot_s_limit_holds_for_what_is_made_in_it_too(file: SlotFile) -> None:
    slot = BatchSlot(file, 0, 2 * MIB)
    slot.empty((MIB,), torch.uint8)
    with pytest.raises(ArenaFull, match="does not fit into memory=2 MiB"):
        slot.empty((MIB + 1,), torch.uint8)


def test_a_tensor_that_is_kept_beyond_its_batch_is_its_keeper_s_own(file: SlotFile) -> None:
    slot = BatchSlot(file, 0, None)
    kept = slot.empty((5000,), torch.int64).fill_(3)
    slot.close()
    next_slot = BatchSlot(file, 0, None)
    next_slot.empty((5000,), torch.int64).fill_(4)
    assert kept.unique().tolist() == [3]


# ---- what is said


def end(**changed: Any) -> End:
    facts = {"worker_index": 0, "pid": 42, "wait_status": 9, "hang": None, "stack": ""}
    return End(**{**facts, **changed})


def attempt(count: int, cause: Cause = Cause.DIED) -> Attempt:
    return Attempt(cause, count)


@pytest.mark.parametrize(
    ("count", "indices", "where"),
    [
        (0, [4, 5], "before its first sample"),
        (1, [4, 5], "at sample 4"),
        (2, [4, 5], "at sample 5"),
        (3, [4, 5], "while it was collated"),
        (2, [None, None, None], "at sample 2 of 3 of it"),
        (1, 7, "while it was fetched"),
        (2, 7, "while it was collated"),
    ],
)
def test_a_verdict_names_where_it_happened(count: int, indices: Any, where: str) -> None:
    error = verdicts.told(task_failed(1, [attempt(count)] * 2, end()), 3, indices, is_left_out=False)
    assert where in str(error)
    assert isinstance(error, WorkerDied)
    assert (error.facts["worker_id"], error.facts["indices"], error.facts["attempts"]) == (3, indices, 2)
    assert str(error).startswith("DataLoader worker (pid 42) is killed by signal: SIGKILL")


def test_a_verdict_on_an_exit_is_in_torchs_words() -> None:
    failed = task_failed(1, [attempt(1)] * 2, end(wait_status=7 << 8))
    error = verdicts.told(failed, 0, list(range(20)), is_left_out=False)
    assert "DataLoader worker (pid 42) exited unexpectedly: it exited with code 7; attempt 2" in str(error)
    assert "[0, 1, 2, 3, 4, 5, 6, 7, ... (20 in all)]" in str(error)


def test_a_verdict_on_a_hang_has_its_limit_and_its_stack() -> None:
    hang = Hang(Cause.TIMED_OUT, 2.0, 2.25)
    failed = task_failed(1, [attempt(1, Cause.TIMED_OUT)] * 2, end(hang=hang, stack="in f"))
    told = verdicts.told(failed, 0, [1], is_left_out=False)
    assert isinstance(told, BatchTimeout)
    assert str(told).startswith("DataLoader timed out after 2.2 seconds (timeout=2; attempt 2): worker 0 (pid 42)")
    assert "Raise timeout=" in str(told)
    assert "Raise" not in str(verdicts.told(failed, 0, [1], is_left_out=True))
    assert "in f" in told.__notes__[0]


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (end(), "DataLoader worker (pid 42) exited unexpectedly: worker 1 was killed by SIGKILL"),
        (None, "DataLoader worker 1 had its time"),
    ],
)
def test_a_place_that_is_lost_says_how_and_what_helps(last: End | None, words: str) -> None:
    error = verdicts.place_lost(1, 5, last)
    assert words in str(error)
    assert "had made 5 batches" in str(error)
    assert "state_dict() and load_state_dict()" in str(error)
