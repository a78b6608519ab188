"""Pinned memory, with an accelerator that is pretended: pinned by a thread of its own, in order, and nothing left."""

from __future__ import annotations

import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the DataLoader needs torch")

from millpond.torch import DataLoader  # noqa: E402
from torch_datasets import Numbered, all_identities, hang, identities, refuse  # noqa: E402
from torch_memory import lies_in_arena  # noqa: E402

IN_BATCHES = [list(range(start, start + 4)) for start in range(0, 40, 4)]


class Pinned:
    """Stands for `pin_memory` of torch.

    Attributes:
        threads: That pinned, in order.
        fails_at: Sample with which a batch begins that cannot be pinned.
    """

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.fails_at = -1

    def __call__(self, data: Any, device: str | None) -> Any:
        assert device == "cuda"
        self.threads.append(threading.current_thread().name)
        is_whole = isinstance(data, tuple)  # a `Batch`, with what was left out of it
        batch = data[0] if is_whole else data
        assert batch is None or torch.is_tensor(batch)
        if batch is not None and identities(batch[:1]) == [self.fails_at]:
            raise MemoryError("no pinned memory")
        pinned = None if batch is None else batch.clone()
        return type(data)(pinned, *data[1:]) if is_whole else pinned


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> Pinned:
    fake = Pinned()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: None)
    monkeypatch.setattr("millpond._torch.pinning.pin_memory", fake)
    monkeypatch.setattr("millpond._torch.inline_iter.pin_memory", fake)
    return fake


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_batches_are_pinned_and_come_in_order(num_workers: int, pinned: Pinned) -> None:
    with DataLoader(Numbered(40), 4, num_workers=num_workers, pin_memory=True) as loader:
        batches = list(loader)
        assert all_identities(batches) == IN_BATCHES
        assert len(pinned.threads) == 10
        assert not any(map(lies_in_arena, batches))
        assert loader.statistics().heap_copies == 0


def test_what_is_here_already_is_pinned_by_a_thread(pinned: Pinned) -> None:
    with DataLoader(Numbered(400), 4, num_workers=1, prefetch_factor=8, pin_memory=True) as loader:
        all_identities(loader)
        assert any(name.startswith("millpond-pin") for name in pinned.threads)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("millpond-pin")]


def test_slots_are_free_once_batches_are_pinned(pinned: Pinned) -> None:
    with DataLoader(Numbered(40), 4, num_workers=1, pin_memory=True) as loader:
        batches = list(loader)
        assert len(batches) == 10
        assert loader.statistics().held_batches == 0


def found(batches: Any) -> list[Any]:
    taken: list[Any] = []
    while True:
        try:
            taken.append(identities(next(batches)))
        except StopIteration:
            return taken
        except Exception as error:  # noqa: BLE001 - to be looked at
            taken.append(type(error))


def test_errors_of_samples_come_at_their_turn(pinned: Pinned) -> None:
    with DataLoader(Numbered(40, {9: refuse, 21: refuse}), 4, num_workers=2, pin_memory=True) as loader:
        expected = [ValueError if place in (2, 5) else batch for place, batch in enumerate(IN_BATCHES)]
        assert found(iter(loader)) == expected


def test_what_cannot_be_pinned_is_an_error_at_its_turn(pinned: Pinned) -> None:
    pinned.fails_at = 20
    with DataLoader(Numbered(40), 4, num_workers=2, pin_memory=True) as loader:
        expected = [MemoryError if place == 5 else batch for place, batch in enumerate(IN_BATCHES)]
        assert found(iter(loader)) == expected


def test_samples_are_left_out_of_pinned_batches(pinned: Pinned, tmp_path: Any) -> None:
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "bad", "pin_memory": True}
    with DataLoader(
        Numbered(16, {5: refuse, **dict.fromkeys(range(8, 12), refuse)}), 4, num_workers=1, **options
    ) as loader:
        assert all_identities(loader) == [[0, 1, 2, 3], [4, 6, 7], [12, 13, 14, 15]]
        assert loader.statistics().skipped == 5


@pytest.mark.parametrize("persistent_workers", [False, True])
def test_a_loop_that_is_broken_off_leaves_no_pinned_batch_for_the_next(
    persistent_workers: bool, pinned: Pinned
) -> None:
    options: dict[str, Any] = {"pin_memory": True, "persistent_workers": persistent_workers}
    with DataLoader(Numbered(40), 4, num_workers=1, **options) as loader:
        for _ in range(3):
            for place, _batch in enumerate(loader):
                if place == 3:
                    break
        assert all_identities(loader) == IN_BATCHES


def test_the_state_counts_what_was_taken_and_not_what_is_pinned_ahead(pinned: Pinned) -> None:
    with DataLoader(Numbered(40), 4, num_workers=1, prefetch_factor=8, pin_memory=True) as loader:
        batches = iter(loader)
        taken = [identities(next(batches)) for _ in range(4)]
        state = loader.state_dict()
    with DataLoader(Numbered(40), 4, num_workers=1, pin_memory=True) as loader:
        loader.load_state_dict(state)
        assert taken + all_identities(loader) == IN_BATCHES


def test_closing_while_a_batch_is_awaited_ends_the_thread(pinned: Pinned) -> None:
    with DataLoader(Numbered(8, {4: hang}), 4, num_workers=1, pin_memory=True) as loader:
        next(iter(loader))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("millpond-pin")]
