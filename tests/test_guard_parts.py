"""The parts of the guard without a process: parcels, slots, names of functions, words of errors."""

from __future__ import annotations

import functools
import os
import pickle
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

import guard_tasks
from millpond._guard import functions, patience, result_slots, slot_writer
from millpond._guard.adoption import Adopter, SurroundingsWatch
from millpond._guard.call_errors import in_words, named
from millpond._guard.functions import Reference, is_within, name_of, reference_of, resolve
from millpond._guard.parcels import LARGE_BYTES, pack, unpack
from millpond._guard.result_slots import ResultReader, ResultSlots
from millpond._guard.slot_file import SlotFile
from millpond._guard.slot_writer import SlotWriter
from millpond._workers.surroundings import ONE_THREAD, with_streamed_copies
from millpond.errors import DecodeTimeout, RemoteError, WorkerDied

# ---- parcels


class Slot:
    """A slot in this process: where parcels are put, and read again."""

    def __init__(self) -> None:
        self.bytes = memoryview(bytearray(10_000_000))
        self.asked_bytes = 0

    def map(self, size_bytes: int) -> Any:
        self.asked_bytes = size_bytes
        return self

    def view(self, start: int, stop: int) -> memoryview:
        return self.bytes[start:stop]

    def take(self, parts: Sequence[tuple[int, int]]) -> list[memoryview]:
        return [self.bytes[start:stop] for start, stop in parts]


@pytest.mark.parametrize("by_value", [True, False])
@pytest.mark.parametrize("sizes", [(), (10,), (LARGE_BYTES,), (LARGE_BYTES + 1, 3, 2 * LARGE_BYTES)])
@pytest.mark.parametrize("text_size", [1, 3 * LARGE_BYTES])
def test_a_parcel_is_the_same_by_slot_and_by_message(sizes: tuple[int, ...], text_size: int, by_value: bool) -> None:
    value = [np.arange(size, dtype=np.uint8) for size in sizes], "x" * text_size
    slot = Slot()
    by_slot = unpack(pack(value, by_value=by_value).send(SlotWriter(slot.map)), slot)
    by_message = unpack(pack(value, by_value=by_value).send())
    for arrays, text in (by_slot, by_message):
        assert text == value[1]
        assert all(np.array_equal(one, other) for one, other in zip(arrays, value[0], strict=True))
        assert all(array.flags.writeable for array in arrays)


@pytest.mark.parametrize("start", [0, 1, 4, 8])
@pytest.mark.parametrize("size", [LARGE_BYTES, LARGE_BYTES + 1, LARGE_BYTES + 7])
def test_buffers_of_any_alignment_and_size_are_copied_whole(start: int, size: int) -> None:
    slot, array = Slot(), np.random.default_rng(0).integers(0, 256, size + 8, np.uint8)[start : start + size]
    nans = array[: size // 4 * 4].view(np.float32)  # all kinds of NaN among them
    found, found_nans = unpack(pack([array, nans], by_value=False).send(SlotWriter(slot.map)), slot)
    assert found.tobytes() == array.tobytes()
    assert found_nans.tobytes() == nans.tobytes()


def test_parts_lie_on_cache_lines_and_small_parcels_touch_no_slot() -> None:
    slot = Slot()
    arrays = unpack(
        pack([np.zeros(LARGE_BYTES + n, np.uint8) for n in range(5)], by_value=False).send(SlotWriter(slot.map)), slot
    )
    start = np.frombuffer(slot.bytes, np.uint8).ctypes.data
    assert all((array.ctypes.data - start) % 64 == 0 for array in arrays)
    slot = Slot()
    assert unpack(pack({"a": 1}, by_value=True).send(SlotWriter(slot.map)), slot) == {"a": 1}
    assert slot.asked_bytes == 0


def test_a_slot_that_cannot_be_mapped_is_done_without() -> None:
    def refuse(_: int) -> Any:
        raise OSError("no room")

    value = np.arange(LARGE_BYTES)
    assert np.array_equal(unpack(pack(value, by_value=False).send(SlotWriter(refuse))), value)


# ---- slots


def slots(max_leases: int = 2) -> ResultSlots:
    return ResultSlots(max_leases)


def put(slots: ResultSlots, slot: int, data: bytes) -> None:
    slots.mapping(slot, len(data)).bytes[: len(data)] = data


def test_the_slot_that_was_used_last_is_used_first() -> None:
    kept = slots()
    first, second = kept.reserve(), kept.reserve()
    kept.release(second)
    kept.release(first)
    assert [kept.reserve(), kept.reserve()] == [first, second]


def test_a_lent_slot_is_free_when_the_last_view_of_any_part_is_gone() -> None:
    kept = slots()
    slot = kept.reserve()
    put(kept, slot, b"abcdef")
    parts = kept.lend(slot, [(0, 3), (3, 6)])
    assert parts is not None
    one, other = parts
    other = memoryview(other)[1:].toreadonly()
    del parts, one
    assert kept.reserve() != slot
    assert bytes(other) == b"ef"
    del other
    assert kept.reserve() == slot


def test_no_more_slots_are_lent_than_allowed() -> None:
    kept = slots(max_leases=1)
    first, second = kept.reserve(), kept.reserve()
    lent = kept.lend(first, [(0, 10)])
    assert kept.lend(second, [(0, 10)]) is None
    reader = ResultReader(kept, second)
    put(kept, second, b"0123456789")
    assert [bytes(part) for part in reader.take([(0, 3), (5, 10)])] == [b"012", b"56789"]
    reader.close()
    assert not reader.is_lent
    assert lent is not None
    assert kept.leased == 1


def test_memory_of_large_slots_and_of_too_many_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_slots, "SLOT_KEPT_BYTES", 50_000)
    monkeypatch.setattr(result_slots, "ALL_KEPT_BYTES", 70_000)
    kept = slots()

    def pages() -> int:
        return os.fstat(kept.descriptor).st_blocks * 512

    taken = [kept.reserve() for _ in range(4)]
    for slot, size in zip(taken, (60_000, 30_000, 30_000, 30_000), strict=True):
        put(kept, slot, b"x" * size)
    assert pages() >= 150_000
    for slot in taken:
        kept.release(slot)
    kept.reserve()
    assert pages() <= 80_000
    assert kept.memory_bytes == 60_000


def test_slots_that_a_fork_may_have_seen_are_not_used_again() -> None:
    kept = slots()
    seen, unseen = kept.reserve(), kept.reserve()
    lent = kept.lend(seen, [(0, 10)])
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    del lent
    kept.release(unseen)
    assert {kept.reserve(), kept.reserve(), kept.reserve()}.isdisjoint({seen})


def test_while_a_fork_is_under_way_nothing_changes_hands() -> None:
    kept = slots()
    slot = kept.reserve()
    lent = kept.lend(slot, [(0, 10)])
    kept.hold_still()
    del lent  # another thread's doing
    assert kept.reserve() != slot
    kept.retire_leased()
    assert kept.reserve() != slot


def test_after_close_what_is_mapped_can_be_read_and_nothing_else() -> None:
    kept = slots()
    slot, other = kept.reserve(), kept.reserve()
    put(kept, slot, b"abc")
    kept.close()
    kept.close()
    assert bytes(kept.view(slot, 0, 3)) == b"abc"
    with pytest.raises(OSError, match="is closed"):
        kept.view(other, 0, 3)


def test_a_slot_is_mapped_anew_only_when_it_has_grown() -> None:
    kept = slots()
    file = SlotFile(os.dup(kept.descriptor))
    small = file.mapping(3, 100)
    assert file.mapping(3, 1 << 20) is small
    assert file.mapping(3, (1 << 20) + 1) is not small
    file.close()


# ---- functions


def test_functions_are_found_by_name_through_their_wrappers() -> None:
    for function, wrappers in ((guard_tasks.echo, 0), (guard_tasks.seven, 0), (guard_tasks.seven.__wrapped__, 1)):  # type: ignore[attr-defined]
        reference = reference_of(function)
        assert reference is not None
        assert (reference.module, reference.wrappers) == ("guard_tasks", wrappers)
        assert resolve(reference) is function
    inner = guard_tasks.doubled_limited_pid.__wrapped__.__wrapped__  # type: ignore[attr-defined]
    assert reference_of(inner) == Reference("guard_tasks", "doubled_limited_pid", 2)
    assert reference_of(guard_tasks.Reader.read) == Reference("guard_tasks", "Reader.read", 0)
    assert reference_of(len) == Reference("builtins", "len", 0)


def test_what_cannot_be_found_by_name_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def local() -> None: ...

    values: list[object] = [local, lambda: None, functools.partial(print), guard_tasks.Reader("a").read, 3, [1].append]
    for value in values:
        assert reference_of(value) is None
    monkeypatch.setattr(local, "__module__", "guard_tasks")
    monkeypatch.setattr(local, "__qualname__", "echo")  # the name is another function's
    assert reference_of(local) is None


def test_modules_that_the_user_wants_by_value_go_by_value() -> None:
    cloudpickle.register_pickle_by_value(guard_tasks)
    try:
        assert reference_of(guard_tasks.echo) is None
    finally:
        cloudpickle.unregister_pickle_by_value(guard_tasks)


def test_the_main_module_of_a_spawned_child_goes_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    main = types.ModuleType("__mp_main__")
    exec("def work(): ...", main.__dict__)
    monkeypatch.setitem(sys.modules, "__mp_main__", main)
    functions.send_main_by_value()
    try:
        assert reference_of(main.work) is None
        assert pickle.loads(cloudpickle.dumps(main.work)) is not main.work
        assert name_of(main.work) == "work"
    finally:
        cloudpickle.unregister_pickle_by_value(main)


def test_wrappers_are_gone_through_to_tell_whether_it_is_the_same_function() -> None:
    outer = guard_tasks.doubled_limited_pid
    assert is_within(outer, outer)
    assert is_within(outer.__wrapped__.__wrapped__, outer)  # type: ignore[attr-defined]
    assert not is_within(guard_tasks.echo, outer)


def test_a_wrapper_without_end_is_no_endless_search() -> None:
    class Mock:
        __module__, __qualname__ = "guard_tasks", "echo"

        @property
        def __wrapped__(self) -> Mock:
            return Mock()

    assert not is_within(guard_tasks.echo, Mock())  # type: ignore[arg-type]
    assert reference_of(Mock()) is None


# ---- surroundings


def test_surroundings_go_along_only_after_a_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    watch = SurroundingsWatch()
    assert watch.encoded() == b""
    with monkeypatch.context() as patch:
        patch.setenv("SURROUNDINGS_TEST", "1")
        changed = watch.encoded()
        assert b"SURROUNDINGS_TEST" in changed
        assert watch.encoded() is changed
    assert b"SURROUNDINGS_TEST" not in watch.encoded() != b""  # a worker may have been started meanwhile


def test_surroundings_are_adopted_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    watch = SurroundingsWatch()
    with monkeypatch.context() as patch:
        for name in ONE_THREAD:  # which adopting sets in any case
            patch.setenv(name, "1")
        patch.chdir(tmp_path)
        encoded = watch.encoded()
        patch.chdir("/")
        adopter = Adopter()
        adopter.adopt(encoded)
        assert os.getcwd() == str(tmp_path)
        os.chdir("/")
        adopter.adopt(encoded)  # the function's own change stays
        adopter.adopt(b"")
        assert os.getcwd() == "/"


def test_copies_are_streamed_unless_the_user_has_chosen() -> None:
    assert with_streamed_copies({"A": "b"}) == {"A": "b", "GLIBC_TUNABLES": with_streamed_copies({})["GLIBC_TUNABLES"]}
    other = "glibc.malloc.check=3"
    assert with_streamed_copies({"GLIBC_TUNABLES": other})["GLIBC_TUNABLES"].startswith(f"{other}:glibc.cpu.")
    chosen = {"GLIBC_TUNABLES": "glibc.cpu.x86_non_temporal_threshold=0x100000"}
    assert with_streamed_copies(chosen) == chosen


@pytest.mark.parametrize("streams", [False, True])
def test_large_copies_arrive_whole_either_way(streams: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot_writer, "_STREAMS", streams)
    monkeypatch.setattr(slot_writer, "STREAMED_BYTES", 100_000)
    sent = np.arange(200_003).astype(np.uint8)
    slot = Slot()
    start, stop = SlotWriter(slot.map).put((memoryview(sent.tobytes()),))
    assert bytes(slot.bytes[start:stop]) == sent.tobytes()


# ---- patience


def test_after_a_quick_answer_the_next_is_looked_for_and_not_where_that_was_no_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "_HAS_CORES", True)
    own = patience.Patience()
    assert own.looks_until(10) == 10
    own.note_answer(10, 10, 10.0001)
    assert own.looks_until(11) == 11 + patience.QUICK_SECONDS
    own.note_answer(11, 11 + patience.QUICK_SECONDS, 11.0001)
    assert own.looks_until(12) > 12
    pauses = []
    for _ in range(10):
        own.note_answer(12, 12 + patience.QUICK_SECONDS, 12.5)  # in vain
        own.note_answer(12, 12, 12.0001)
        calls = 0
        while own.looks_until(13) == 13:
            calls += 1
        pauses.append(calls)
    assert pauses == [2, 6, 14, 30, 62, 126, 254, 256, 256, 256]
    for _ in range(9):
        own.note_answer(14, 14 + patience.QUICK_SECONDS, 14.0001)
    own.note_answer(15, 15 + patience.QUICK_SECONDS, 15.5)
    own.note_answer(16, 16, 16.0001)
    assert [own.looks_until(17) > 17 for _ in range(3)] == [False, False, True]


# ---- words


class Shapeless:
    @property
    def shape(self) -> tuple[int, ...]:
        raise RuntimeError("closed")


def test_arguments_in_words_are_short_and_run_no_code_of_theirs() -> None:
    class Loud:
        def __repr__(self) -> str:
            raise AssertionError("nobody asked")

    words = in_words(("clip.mp4", b"x" * 100, Path("a/b"), Loud(), np.zeros((2, 3)), None), {"fps": 4.5})
    assert words == "'clip.mp4', <100 bytes>, 'a/b', <Loud>, <ndarray of shape (2, 3)>, None, fps=4.5"
    assert in_words((), {}) == ""
    assert in_words((10**5000, Shapeless()), {}) == "<int>, <Shapeless>"
    long = in_words(("x" * 1000, "y" * 1000), {})
    assert len(long) <= 120
    assert "..." in long


def test_errors_name_function_and_item_and_others_stay() -> None:
    timeout = DecodeTimeout(
        "task 3 did not end",
        limit_seconds=1.0,
        elapsed_seconds=1.25,
        pid=7,
        worker_index=0,
        task=3,
        stack="File x",
        attempts=(),
    )
    found = named(timeout, "load", "'a.mp4'")
    assert str(found) == (
        "load('a.mp4') did not end in 1.2 s (limit 1.0 s); killed and replaced worker 0 (pid 7), its stack is below"
    )
    assert isinstance(found, DecodeTimeout)
    assert (found.function, found.item, found.elapsed_seconds) == ("load", "'a.mp4'", 1.25)
    died = WorkerDied("worker 0 (pid 7) exited with code 3 while it ran task 3 (attempt 1)", task=3, pid=7, attempts=())
    assert str(named(died, "load", "1")) == "worker 0 (pid 7) exited with code 3 while it ran load(1); it was replaced"
    # a function may raise what a supervisor does; so does a guard within it
    for other in (ValueError("x"), RemoteError("y"), WorkerDied("the zygote has died"), DecodeTimeout("mine")):
        assert named(other, "load", "1") is other
