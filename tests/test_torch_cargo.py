"""A dataset's way to the workers: what travels, what is shared on the way, and what is said of what cannot travel."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millpond._workers.supervisor import Supervisor
from programs import forked, run_python
from worker_tasks import results, workers

torch = pytest.importorskip("torch", reason="the DataLoader needs torch")

from millpond._torch.cargo import Cargo, open_cargo  # noqa: E402 - it imports torch

Parts = dict[str, Any]
SPAWN = multiprocessing.get_context("spawn")
MIB = 1 << 20


class Holder:
    """A handler that opens a cargo, and carries out functions of its parts."""

    def __init__(self, ticket: Any) -> None:
        self._ticket = ticket

    def attach(self, descriptors: Any, worker_index: int) -> None:
        self._parts = open_cargo(self._ticket, descriptors)

    def __call__(self, function: Callable[[Parts], Any], progress: Callable[[], None]) -> Any:
        return function(self._parts)


@contextlib.contextmanager
def sent(parts: Parts, num_workers: int = 1, **options: Any) -> Iterator[Supervisor]:
    """Workers that have the parts; tasks are functions of those."""
    with contextlib.closing(Cargo(parts, inherited=False)) as cargo:
        options = {"handler": Holder(cargo.ticket), "descriptors": cargo.descriptors, "preload": ("torch",), **options}
        with workers(num_workers, **options) as supervisor:
            yield supervisor


def opened(parts: Parts) -> Parts:
    """The parts after their way, in this process."""
    with contextlib.closing(Cargo(parts, inherited=False)) as cargo:
        return open_cargo(cargo.ticket, [os.dup(descriptor) for descriptor in cargo.descriptors])


def refusal(**parts: Any) -> str:
    with pytest.raises(TypeError) as caught:
        Cargo(parts, inherited=False)
    return str(caught.value)


class Bag:
    """Whatever a dataset may hold."""

    def __init__(self, **things: Any) -> None:
        self.__dict__.update(things)


def test_arrays_and_tensors_come_as_they_were() -> None:
    things = [
        np.arange(100_000).reshape(10, -1).T,
        np.arange(100_000)[::3],
        np.array(["a" * 100] * 1000),
        torch.arange(100_000).reshape(10, -1).t(),
        torch.ones(300, 300, dtype=torch.bfloat16),
        torch.ones(20_000, dtype=torch.complex64).conj() * 1j,
        torch.empty(0, 3),
    ]
    for thing, found in zip(things, opened({"all": things})["all"], strict=True):
        assert type(found) is type(thing)
        assert found.dtype == thing.dtype
        assert (found != thing).sum() == 0
        assert found.shape == thing.shape


def test_a_module_keeps_its_parameters() -> None:
    linear = torch.nn.Linear(300, 300)
    found = opened({"transform": linear})["transform"]
    assert isinstance(found.weight, torch.nn.Parameter)
    assert found.weight.requires_grad
    assert torch.equal(found(torch.ones(300)), linear(torch.ones(300)))


def test_tensors_over_one_storage_share_it_afterwards() -> None:
    whole = torch.arange(100_000)
    parts = opened({"a": whole[:60_000], "b": whole[50_000:]})
    parts["a"][55_000] = -1
    assert parts["b"][5_000] == -1
    assert whole[55_000] == 55_000
    assert torch.equal(parts["b"][10_000:], whole[60_000:])


def test_of_a_storage_only_what_is_shown_is_taken_along() -> None:
    whole = torch.zeros(64 * MIB, dtype=torch.uint8)
    with contextlib.closing(Cargo({"head": whole[:100], "tail": whole[-100:]}, inherited=False)) as cargo:
        assert os.fstat(cargo.descriptors[0]).st_blocks * 512 < MIB


def test_an_array_that_nobody_may_write_to_stays_so() -> None:
    array = np.arange(100_000)
    array.flags.writeable = False
    found = opened({"locked": array, "open": np.arange(100_000)})
    assert not found["locked"].flags.writeable
    assert found["open"].flags.writeable


def test_a_lambda_and_a_closure_travel_by_value() -> None:
    offset = 40
    with sent({"collate_fn": lambda batch: batch + offset}) as supervisor:
        assert results(supervisor, lambda parts: parts["collate_fn"](2)) == [42]


def test_a_class_of_main_travels_by_value(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import os\nfrom millpond._torch.cargo import Cargo, open_cargo\n"
        "from millpond._workers.messages import encode\nfrom millpond._workers.supervisor import Supervisor\n"
        "class Squares:\n    def __getitem__(self, index):\n        return index * index\n"
        "def handler(ticket):\n    class Handler:\n        def attach(self, descriptors, index):\n"
        "            self.parts = open_cargo(ticket, descriptors)\n        def __call__(self, index, progress):\n"
        "            return self.parts['dataset'][index]\n    return Handler()\n"
        "cargo = Cargo({'dataset': Squares()}, inherited=False)\n"
        "handler = encode(handler(cargo.ticket))\n"
        "with Supervisor(handler, num_workers=1, descriptors=cargo.descriptors) as supervisor:\n"
        "    supervisor.submit(0, 7)\n    print(supervisor.wait(60)[0].result)\n"
    )
    ran = run_python(["train.py"], directory=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "49\n"), ran.stderr


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="reads /proc")
def test_an_array_is_there_once_for_all_workers() -> None:
    parts = {"array": np.ones(8 * MIB), "barrier": SPAWN.Barrier(2)}

    def read(parts: Parts) -> tuple[int, float]:
        total = parts["array"].sum()
        parts["barrier"].wait(60)
        return os.getpid(), total

    with sent(parts, 2) as supervisor:
        found = results(supervisor, read, read)
        shares = [_proportional_bytes(pid) for pid, _ in found]
    assert [total for _, total in found] == [8 * MIB] * 2
    assert len({pid for pid, _ in found}) == 2
    assert max(shares) < 40 * MIB  # of 64, had each its own


def _proportional_bytes(pid: int) -> int:
    """Of the mappings of the cargo."""
    found, is_ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name = line.split()[0]
        if not name.endswith(":"):
            is_ours = "memfd:millpond-cargo" in line
        elif name == "Pss:" and is_ours:
            found += int(line.split()[1]) * 1024
    return found


def test_a_worker_writes_to_its_own_copy() -> None:
    array = np.zeros(100_000)

    def write(parts: Parts) -> float:
        parts["array"][:] += 1
        return float(parts["array"][0])

    with sent({"array": array}) as supervisor:
        assert results(supervisor, write, write) == [1, 2]
        os.kill(supervisor.statistics().workers[0].pid or 0, signal.SIGKILL)
        assert results(supervisor, write) == [1]  # its successor begins with what was sent
    assert not array.any()


def test_what_multiprocessing_shares_is_shared_with_workers_and_their_successors() -> None:
    parts = {
        "count": SPAWN.Value("i", 5),
        "raw": SPAWN.RawArray("d", 8),
        "queue": SPAWN.SimpleQueue(),
        "event": SPAWN.Event(),
    }

    def change(parts: Parts) -> None:
        with parts["count"].get_lock():
            parts["count"].value += 1
        parts["raw"][parts["count"].value] = 0.5
        parts["event"].set()
        parts["queue"].put(parts["count"].value)

    with sent(parts) as supervisor:
        results(supervisor, change)
        assert parts["queue"].get() == 6
        os.kill(supervisor.statistics().workers[0].pid or 0, signal.SIGKILL)
        results(supervisor, change)
        assert parts["queue"].get() == 7
    assert (parts["count"].value, list(parts["raw"][5:8]), parts["event"].is_set()) == (7, [0, 0.5, 0.5], True)
    parts["queue"].close()


def test_what_a_worker_put_into_a_queue_comes_also_when_it_ends_at_once() -> None:
    parts = {"queue": SPAWN.Queue()}

    def fill(parts: Parts) -> None:
        for number in range(4):
            parts["queue"].put(bytes([number]) * 10_000)

    for _ in range(5):
        with sent(parts) as supervisor:
            results(supervisor, fill)
        assert [parts["queue"].get(timeout=60)[0] for _ in range(4)] == [0, 1, 2, 3]
    parts["queue"].close()


def test_a_shared_tensor_that_one_worker_writes_to_is_seen_by_all() -> None:
    shared = torch.zeros(100_000).share_memory_()

    def count(parts: Parts) -> float:
        parts["shared"][7] += 1
        return float(parts["shared"][7])

    with sent({"shared": shared}) as supervisor:
        assert results(supervisor, count, count) == [1, 2]
        os.kill(supervisor.statistics().workers[0].pid or 0, signal.SIGKILL)
        assert results(supervisor, count) == [3]
    assert shared[7] == 3


def test_a_file_that_torch_maps_is_mapped_again(tmp_path: Path) -> None:
    mapped = torch.from_file(str(tmp_path / "data"), shared=True, size=100_000)
    opened({"mapped": mapped})["mapped"][7] = 5
    assert mapped[7] == 5


def test_a_socket_is_the_same_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, sent({"socket": theirs}) as supervisor:
        assert results(supervisor, lambda parts: parts["socket"].send(b"hello")) == [5]
        assert ours.recv(100) == b"hello"


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="reads /proc")
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_mapped_file_is_mapped_again_and_not_copied(tmp_path: Path, mode: Any) -> None:
    np.arange(4 * MIB, dtype=np.int32).reshape(4, -1).tofile(tmp_path / "data")
    mapped = np.memmap(tmp_path / "data", np.int32, mode, shape=(4, MIB))
    parts = {"all": mapped, "part": mapped[1:3], "plain": np.asarray(mapped)[3], "copied": mapped[:, :10]}
    with contextlib.closing(Cargo(parts, inherited=False)) as cargo:
        assert os.fstat(cargo.descriptors[0]).st_size < 4 * MIB
    found = opened(parts)
    assert all(np.array_equal(parts[name], found[name]) for name in parts)
    assert [found[name].flags.writeable for name in ("all", "part", "plain")] == [mode == "r+"] * 3
    assert np.shares_memory(found["part"], found["all"])
    assert isinstance(found["part"], np.memmap)
    assert type(found["plain"]) is np.ndarray


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="reads /proc")
def test_a_mapped_file_that_was_replaced_is_sent_as_it_was(tmp_path: Path) -> None:
    np.zeros(MIB, np.uint8).tofile(tmp_path / "data")
    mapped = np.memmap(tmp_path / "data", np.uint8, "r")
    np.ones(MIB, np.uint8).tofile(tmp_path / "other")
    (tmp_path / "other").rename(tmp_path / "data")
    assert not opened({"array": mapped})["array"].any()


def test_workers_may_talk_to_managers_of_the_training_process() -> None:
    key = bytes(multiprocessing.current_process().authkey)
    with sent({}) as supervisor:
        assert results(supervisor, lambda parts: bytes(multiprocessing.current_process().authkey)) == [key]


def test_a_worker_that_opens_named_shared_memory_has_no_tracker_that_would_remove_it() -> None:
    memory = shared_memory.SharedMemory(create=True, size=4096)

    def write(parts: Parts) -> tuple[int, int | None]:
        parts["memory"].buf[0] += 1
        return int(parts["memory"].buf[0]), resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]

    try:
        for count in (1, 2):
            with sent({"memory": memory}) as supervisor:
                assert results(supervisor, write) == [(count, None)]
    finally:
        memory.close()
        memory.unlink()


def test_an_open_file_is_refused_with_the_way_to_it_and_what_helps(tmp_path: Path) -> None:
    with open(tmp_path / "index", "w+") as file:
        message = refusal(dataset=Bag(shards=[1, Bag(files={"index": file})]))
    assert message.startswith(
        "dataset.shards[1].files['index'] (of type _io.TextIOWrapper) cannot be sent to DataLoader"
    )
    assert "cannot pickle '_io.TextIOWrapper' object" in message
    assert "__getitem__ or in worker_init_fn" in message
    assert 'multiprocessing_context="fork"' in message


def test_what_a_function_holds_is_named() -> None:
    lock = threading.Lock()
    assert refusal(dataset=1, collate_fn=lambda batch: lock).startswith("collate_fn -> lock (of type _thread.lock)")


def test_what_is_raised_by_a_method_of_the_user_s_is_told_and_kept() -> None:
    class Spiteful:
        def __reduce__(self) -> str:
            raise ValueError("not me")

    with pytest.raises(TypeError, match=r"dataset\[1\] .*Spiteful\) cannot be sent .*not me") as caught:
        Cargo({"dataset": [0, Spiteful()]}, inherited=False)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_primitive_of_the_fork_context_is_refused_and_says_which_to_use() -> None:
    count = multiprocessing.get_context("fork").Value("i", 0)
    if not hasattr(count.get_lock(), "_is_fork_ctx"):
        pytest.skip("this version of Python sends locks of the fork context without a word")
    message = refusal(dataset=Bag(count=count))
    assert message.startswith("dataset.count (of type multiprocessing.sharedctypes.Synchronized)")
    assert 'multiprocessing.get_context("forkserver")' in message


def test_too_many_shared_things_are_refused_and_nothing_stays_open() -> None:
    before = len(os.listdir("/dev/fd"))
    pairs = [socket.socketpair() for _ in range(130)]
    message = refusal(dataset=pairs)
    for pair in pairs:
        for sock in pair:
            sock.close()
    assert "more than 240 files, sockets or tensors" in message
    assert len(os.listdir("/dev/fd")) == before


def test_forked_workers_have_everything_without_a_pickle() -> None:
    parts = {"dataset": threading.Lock(), "collate_fn": iter([1])}
    with contextlib.closing(Cargo(parts, inherited=True)) as cargo:
        assert cargo.descriptors == []
        with forked(lambda: b"same" if open_cargo(cargo.ticket, ()) is parts else b"other") as result:
            assert result() == b"same"
    with pytest.raises(KeyError):
        open_cargo(cargo.ticket, ())
