"""Results: the same bit for bit, lent without a copy, never altered while somebody holds them."""

from __future__ import annotations

import gc
import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import guard_tasks
from guard_tasks import echo, filled, random_bytes
from millpond import Guard
from millpond._arena.leases import Lease
from millpond._guard import call_pool, result_slots, slot_file
from millpond._guard.parcels import LARGE_BYTES
from programs import forked

LARGE = 4 * LARGE_BYTES


@pytest.fixture
def guard() -> Iterator[Guard]:
    with Guard(1, timeout=30) as guard:
        yield guard


def owner_of(array: NDArray[Any]) -> object:
    """What an array stands on in the end."""
    base: Any = array
    while (
        below := getattr(base, "obj", None) if isinstance(base, memoryview) else getattr(base, "base", None)
    ) is not None:
        base = below
    return base


def checksum(array: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(memoryview(array)).digest()  # type: ignore[arg-type]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def mappings() -> int:
    with open("/proc/self/maps") as file:
        return sum("millpond-results" in line for line in file)


STRUCTURED = np.zeros(LARGE // 8, [("frame", "i4"), ("pts", "f4")])
STRUCTURED["pts"] = np.arange(len(STRUCTURED))
PICTURE = np.random.default_rng(0).integers(0, 256, (4, 90, 160, 3), np.uint8)
ARRAYS = {
    "large": np.arange(LARGE, dtype=np.float32),
    "small": np.arange(10),
    "empty": np.empty((0, 3, 224, 224), np.float32),
    "scalar": np.array(3.5),
    "bool": np.arange(LARGE) % 3 == 0,
    "complex": np.arange(LARGE).astype(np.complex64),
    "text": np.array(["a", "bc"] * LARGE_BYTES),
    "object": np.array([{"a": 1}, None, "x"], object),
    "structured": STRUCTURED,
    "datetime": np.arange(LARGE).astype("M8[us]"),
    "big endian": np.arange(LARGE, dtype=">f4"),
    "fortran": np.asfortranarray(np.arange(LARGE).reshape(64, -1)),
    "channels last": PICTURE.transpose(0, 3, 1, 2),
    "every second": PICTURE[:, ::2, ::2],
    "backwards": PICTURE[::-1, :, ::-1],
    "broadcast": np.broadcast_to(np.arange(300.0), (300, 300)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_bit_for_bit(guard: Guard, name: str) -> None:
    array = ARRAYS[name]
    result = guard.call(echo, array)
    assert (result.dtype, result.shape, type(result)) == (array.dtype, array.shape, np.ndarray)
    assert result.tobytes() == array.tobytes() if name != "object" else np.array_equal(result, array)


def test_channels_last_memory_stays_so(guard: Guard) -> None:
    result = guard.call(echo, ARRAYS["channels last"])
    assert result.strides == ARRAYS["channels last"].strides
    assert isinstance(owner_of(result), Lease)


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("slicing", [slice(None), slice(None, None, 2)])
def test_read_only_arrays_stay_read_only_and_others_writable(guard: Guard, size: int, slicing: slice) -> None:
    array = np.arange(2 * size, dtype=np.float32)[slicing]
    assert guard.call(echo, array).flags.writeable
    array.flags.writeable = False
    assert not guard.call(echo, array).flags.writeable


@pytest.mark.parametrize(
    "size", [0, 1, LARGE_BYTES - 100, LARGE_BYTES, LARGE_BYTES + 1, 65536, 10_000_000, 100_000_000]
)
def test_bytes_of_any_size_pass(guard: Guard, size: int) -> None:
    data = random_bytes(size, size).tobytes()
    result = guard.call(lambda: random_bytes(size, size).tobytes())
    assert isinstance(result, bytes)
    assert result == data
    mutable = guard.call(lambda: bytearray(random_bytes(size, size)))
    assert isinstance(mutable, bytearray)
    assert mutable == data


def test_a_result_of_100_mb_is_lent_and_its_memory_given_back(guard: Guard) -> None:
    result = guard.call(filled, 25_000_000)
    assert isinstance(owner_of(result), Lease)
    assert (result == 1.5).all()
    assert guard.statistics().shared_bytes >= 100_000_000
    del result
    guard.call(echo, 1)
    assert guard.statistics().shared_bytes == 0


def test_values_in_values_come_back(guard: Guard) -> None:
    value = {"frames": [PICTURE, PICTURE[0]], "pts": (1.5, None), "set": {3}, "raw": b"x" * LARGE, "text": "ü" * LARGE}
    result = guard.call(echo, value)
    assert np.array_equal(result["frames"][0], PICTURE)
    assert np.array_equal(result["frames"][1], PICTURE[0])
    assert {**result, "frames": 0} == {**value, "frames": 0}


def test_many_small_arrays_are_one_large_pickle(guard: Guard) -> None:
    value = [np.full(500, number) for number in range(1000)]
    result = guard.call(echo, value)
    assert all(np.array_equal(one, other) for one, other in zip(result, value, strict=True))
    assert guard.statistics().results_held == 0


# ---- leases


def test_a_large_result_is_no_copy_and_its_slot_free_after_the_last_view(guard: Guard) -> None:
    view = guard.call(filled, LARGE)[5:7].reshape(2, 1)
    assert isinstance(owner_of(view), Lease)
    gc.collect()
    guard.call(echo, 1)
    assert guard.statistics().results_held == 1
    del view
    assert guard.statistics().results_held == 0


def test_results_that_are_held_are_never_altered(guard: Guard) -> None:
    held = [guard.call(random_bytes, seed, LARGE + seed) for seed in range(60)]
    views = [array[::7].copy() for array in held]
    for seed in range(60, 90):
        guard.call(random_bytes, seed, 2 * LARGE)
    for seed, (array, view) in enumerate(zip(held, views, strict=True)):
        expected = random_bytes(seed, LARGE + seed)
        assert checksum(array) == checksum(expected)
        assert np.array_equal(view, expected[::7])


def test_results_beyond_a_few_are_copies_that_cost_no_descriptors_and_no_mappings(guard: Guard) -> None:
    held = [guard.call(filled, LARGE, 0.0)]
    before = descriptors()
    held += [guard.call(filled, LARGE, float(number)) for number in range(1, 200)]
    most = 1 + call_pool._MORE_LEASES
    assert guard.statistics().results_held == most
    assert sum(isinstance(owner_of(array), Lease) for array in held) == most
    assert descriptors() == before
    assert mappings() <= most + 1
    assert all((array == number).all() for number, array in enumerate(held))
    assert all(array.flags.writeable for array in held)


def test_slots_are_used_again(guard: Guard) -> None:
    guard.call(filled, LARGE)
    for number in range(100):
        assert guard.call(filled, LARGE, number)[-1] == number
    assert guard.statistics().shared_bytes <= 2 * 4 * LARGE + 1000


def test_leases_may_end_in_another_thread_amid_a_garbage_collection(guard: Guard) -> None:
    class Cycle:
        def __init__(self, array: NDArray[Any]) -> None:
            self.array, self.itself = array, self

    for number in range(30):
        Cycle(guard.call(filled, LARGE, number))
        collector = threading.Thread(target=gc.collect)
        collector.start()
        assert guard.call(filled, LARGE, -1)[0] == -1
        collector.join()
    gc.collect()
    assert guard.statistics().results_held == 0


def test_a_forked_child_reads_what_it_inherited_while_the_parent_calls_on(guard: Guard) -> None:
    held = [guard.call(random_bytes, 1, LARGE)]
    go, gone = os.pipe()

    def work() -> bytes:
        os.read(go, 1)  # the parent has let go of it, and called again
        return checksum(held.pop())

    with forked(work) as result:
        expected = checksum(held.pop())
        for seed in range(20):
            guard.call(random_bytes, seed, 2 * LARGE)
        os.write(gone, b"x")
        assert result() == expected
    os.close(go)
    os.close(gone)


def test_forks_without_end_cost_no_memory_without_end(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_slots, "RETIRED_BYTES", 20 * LARGE)
    lent = 0
    for number in range(40):
        held = guard.call(filled, LARGE, number)
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        assert held[0] == number
        lent += isinstance(owner_of(held), Lease)
    assert 5 < lent < 10
    assert guard.statistics().shared_bytes < 40 * LARGE


# ---- where there is no shared memory


def test_without_a_file_of_slots_results_pass_through_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError("not here")

    monkeypatch.setattr(result_slots, "create_slot_file", refuse)
    with Guard(1, timeout=30) as guard:
        for name in ("large", "channels last", "structured"):
            result = guard.call(echo, ARRAYS[name])
            assert result.tobytes() == ARRAYS[name].tobytes()
            assert result.flags.writeable
        assert guard.call(echo, b"x" * 10_000_000) == b"x" * 10_000_000


def test_where_the_caller_cannot_map_results_are_read(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(slot_file, "Mapping", refuse)
    assert np.array_equal(guard.call(random_bytes, 1, 3_000_000), random_bytes(1, 3_000_000))
    assert guard.call(lambda: b"x" * 3_000_000) == b"x" * 3_000_000


def test_a_worker_that_cannot_map_sends_through_the_socket(guard: Guard) -> None:
    def refuse_from_now_on() -> None:
        def refuse(*_: object) -> None:
            raise OSError("no room")

        setattr(sys.modules["millpond._guard.slot_file"], "Mapping", refuse)  # noqa: B010 - of a module that is known

    guard.call(refuse_from_now_on)
    array = guard.call(random_bytes, 1, 3_000_000)
    assert not isinstance(owner_of(array), Lease)
    assert np.array_equal(array, random_bytes(1, 3_000_000))


# ---- torch


def test_tensors_travel_as_buffers_of_their_own(guard: Guard) -> None:
    torch = pytest.importorskip("torch", reason="tensors need torch")
    frames = torch.arange(2 * 3 * 64 * 64, dtype=torch.float32).reshape(2, 3, 64, 64)
    value = {
        "plain": frames,
        "bfloat16": [frames.to(torch.bfloat16)],
        "channels last": frames.to(memory_format=torch.channels_last),
        "sliced": frames[:, :, ::2],
        "conjugated": torch.complex(frames, frames).conj(),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "with gradient": torch.ones(LARGE, requires_grad=True),
        "parameter": torch.nn.Parameter(torch.ones(LARGE)),
        "sparse": torch.eye(3).to_sparse(),
    }
    results = guard.call(echo, value)
    for name, tensor in value.items():
        tensor, result = (tensor[0], results[name][0]) if isinstance(tensor, list) else (tensor, results[name])
        assert (type(result), result.dtype, result.shape) == (type(tensor), tensor.dtype, tensor.shape)
        assert result.requires_grad == tensor.requires_grad
        assert torch.equal(result.to_dense(), tensor.to_dense())
    assert results["channels last"].stride() == value["channels last"].stride()
    assert results["plain"].untyped_storage().nbytes() == frames.nbytes
    assert guard.statistics().results_held == 1


def test_a_tensor_keeps_its_slot(guard: Guard) -> None:
    torch = pytest.importorskip("torch", reason="tensors need torch")
    tensor = guard.call(echo, torch.full((LARGE,), 7.0))[3:]
    gc.collect()
    for number in range(10):
        guard.call(filled, LARGE, number)
    assert (tensor == 7).all()
    tensor += 1
    del tensor
    assert guard.statistics().results_held == 0


def test_a_worker_imports_no_torch_of_its_own(guard: Guard) -> None:
    assert guard.call(lambda: "torch" in sys.modules) is False
    assert guard.call(guard_tasks.filled, 3).tolist() == [1.5] * 3
