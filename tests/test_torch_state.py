"""state_dict and load_state_dict: the rest of an epoch is what it would have been, and so is the next one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the DataLoader needs torch")

from torch.utils.data import (  # noqa: E402
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from millpond.torch import DataLoader  # noqa: E402
from torch_datasets import MarkedStream, Numbered, Stream, TellingStream, all_identities, flat, identities, refuse  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # with 3 workers
SIZE = 40


def generator(seed: int = 3) -> Any:
    return torch.Generator().manual_seed(seed)


class Countdown:
    """A sampler of its own kind, which can tell where it is."""

    def __init__(self) -> None:
        self._left = SIZE
        self.draws = 0

    def __iter__(self) -> Iterator[int]:
        while self._left:
            self._left -= 1
            self.draws += 1
            yield self._left
        self._left = SIZE

    def __len__(self) -> int:
        return SIZE

    def state_dict(self) -> dict[str, int]:
        return {"left": self._left}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._left = state["left"]


class Eager:
    """A sampler that draws its order when it is asked for an iterator, from torch's generator."""

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(SIZE).tolist())

    def __len__(self) -> int:
        return SIZE


class TailedStream(Stream):
    """Of which the second worker has but one sample."""

    def numbers(self) -> range:
        return super().numbers()[: 1 if super().numbers().start else None]


class Hops:
    """A batch sampler of its own kind, without a length, or a state."""

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(SIZE, generator=generator(9)).tolist()
        for start in range(0, SIZE, 3):
            yield order[start : start + 3]


Options = Callable[[], dict[str, Any]]
MAPS: dict[str, Options] = {
    "sequential": lambda: {"batch_size": 3},
    "drop_last": lambda: {"batch_size": 3, "drop_last": True},
    "shuffled": lambda: {"batch_size": 3, "shuffle": True},
    "generator": lambda: {"batch_size": 3, "shuffle": True, "generator": generator()},
    "random": lambda: {"batch_size": 3, "sampler": RandomSampler(range(SIZE), generator=generator())},
    "replacement": lambda: {"batch_size": 3, "sampler": RandomSampler(range(SIZE), True, 50, generator())},
    "replacement, torch's": lambda: {"batch_size": 3, "sampler": RandomSampler(range(SIZE), True, 50)},
    "weighted": lambda: {"batch_size": 3, "sampler": WeightedRandomSampler([1.0] * SIZE, SIZE, generator=generator())},
    "weighted, torch's": lambda: {"batch_size": 3, "sampler": WeightedRandomSampler([1.0] * SIZE, SIZE)},
    "subset": lambda: {"batch_size": 3, "sampler": SubsetRandomSampler(range(SIZE))},
    "distributed": lambda: {"batch_size": 3, "sampler": DistributedSampler(range(SIZE), 2, 1)},
    "eager": lambda: {"batch_size": 3, "sampler": Eager()},
    "own": lambda: {"batch_size": 3, "sampler": Countdown()},
    "own batches": lambda: {"batch_sampler": Hops()},
    "batch sampler": lambda: {"batch_sampler": BatchSampler(RandomSampler(range(SIZE)), 3, False)},
    "batches of own": lambda: {"batch_sampler": BatchSampler(Countdown(), 3, True)},
    "samples": lambda: {"batch_size": None, "shuffle": True},
}
GIVEN = ("sequential", "generator", "random", "replacement", "weighted", "distributed", "own", "own batches")


def found(batch: Any) -> list[int]:
    return identities(batch if batch.ndim == 2 else batch[None])


def taken(batches: Any, count: int) -> list[list[int]]:
    return [found(next(batches)) for _ in range(count)]


def resumed(state: dict[str, Any], num_workers: int, options: Options, **added: Any) -> Any:
    torch.manual_seed(99)  # the state, and not this, says how it goes on
    loader = DataLoader(Numbered(SIZE), num_workers=num_workers, **options(), **added)
    loader.load_state_dict(json.loads(json.dumps(state)))
    return loader


@pytest.mark.parametrize("stop", [0, 1, 5])
@pytest.mark.parametrize("options", MAPS.values(), ids=MAPS.keys())
def test_the_rest_of_an_epoch_is_the_same_without_workers(options: Options, stop: int) -> None:
    torch.manual_seed(1)
    batches = iter(loader := DataLoader(Numbered(SIZE), **options()))
    taken(batches, stop)
    state = loader.state_dict()
    rest = [found(batch) for batch in batches]
    assert [found(batch) for batch in resumed(state, 0, options)] == rest


@pytest.mark.parametrize("options", MAPS.values(), ids=MAPS.keys())
def test_the_rest_of_an_epoch_is_the_same_with_any_number_of_workers(options: Options) -> None:
    torch.manual_seed(1)
    with DataLoader(Numbered(SIZE), num_workers=2, **options()) as loader:
        batches = iter(loader)
        taken(batches, 4)
        state = loader.state_dict()
        rest = [found(batch) for batch in batches]
    with resumed(state, 1, options) as loader:
        assert [found(batch) for batch in loader] == rest


@pytest.mark.parametrize("stop", [0, 7, 14])
@pytest.mark.parametrize("options", [MAPS[name] for name in GIVEN], ids=GIVEN)
def test_the_next_epoch_is_the_same_too_where_its_order_is_given(options: Options, stop: int) -> None:
    batches = iter(loader := DataLoader(Numbered(SIZE), **options()))
    stop = min(stop, len(loader) if options is not MAPS["own batches"] else 14)
    taken(batches, stop)
    state = loader.state_dict()
    rest = [found(batch) for batch in batches]
    expected = [rest, [found(batch) for batch in loader], [found(batch) for batch in loader]]
    other = resumed(state, 0, options)
    assert [[found(batch) for batch in other] for _ in range(3)] == expected


def test_the_random_numbers_of_a_program_go_on_beside_a_resumed_epoch() -> None:
    batches = iter(loader := DataLoader(Numbered(SIZE), 3, shuffle=True))
    taken(batches, 2)
    other = resumed(loader.state_dict(), 0, MAPS["shuffled"])
    expected = torch.rand(3, generator=generator(99))
    next(iter(other))
    assert torch.equal(torch.rand(3), expected)


def test_a_state_before_the_first_epoch_and_one_between_epochs_begin_an_epoch() -> None:
    loader = DataLoader(Numbered(SIZE), **MAPS["generator"]())
    states = [loader.state_dict()]
    epochs = [all_identities(loader)]
    states.append(loader.state_dict())
    epochs.append(all_identities(loader))
    for state, epoch in zip(states, epochs, strict=True):
        assert all_identities(resumed(state, 0, MAPS["generator"])) == epoch


def test_a_resumed_loader_can_be_saved_again_before_and_after_it_went_on() -> None:
    batches = iter(loader := DataLoader(Numbered(SIZE), 3, shuffle=True))
    taken(batches, 3)
    other = resumed(loader.state_dict(), 0, MAPS["shuffled"])
    third = resumed(other.state_dict(), 0, MAPS["shuffled"])
    others = iter(other)
    assert taken(others, 2) == taken(batches, 2)
    fourth = resumed(other.state_dict(), 0, MAPS["shuffled"])
    rest = [found(batch) for batch in batches]
    assert [found(batch) for batch in fourth] == rest
    assert [found(batch) for batch in third][2:] == rest


def test_an_epoch_out_of_order_is_resumed_without_loss_and_without_repeats() -> None:
    with DataLoader(Numbered(SIZE), 2, num_workers=2, in_order=False) as loader:
        batches = iter(loader)
        before = taken(batches, 7)
        state = loader.state_dict()
    with resumed(state, 2, lambda: {"batch_size": 2, "in_order": False}) as loader:
        after = [found(batch) for batch in loader]
    assert sorted([number for numbers in before + after for number in numbers]) == list(range(SIZE))


def test_persistent_workers_are_resumed_in_the_middle() -> None:
    options = {"batch_size": 3, "persistent_workers": True, "generator": generator(), "shuffle": True}
    with DataLoader(Numbered(SIZE), num_workers=2, **options) as loader:
        all_identities(loader)
        batches = iter(loader)
        taken(batches, 4)
        state = loader.state_dict()
        rest = [found(batch) for batch in batches]
        following = all_identities(loader)
        loader.load_state_dict(state)
        assert [all_identities(loader), all_identities(loader)] == [rest, following]


@pytest.mark.parametrize("stop", [0, 4, 14])
def test_a_later_epoch_of_persistent_workers_is_resumed_by_a_loader_of_its_own(stop: int) -> None:
    options = MAPS["shuffled"]
    with DataLoader(Numbered(SIZE), num_workers=1, persistent_workers=True, **options()) as loader:
        all_identities(loader)
        states = [loader.state_dict()]
        batches = iter(loader)
        epoch = taken(batches, stop)
        states.append(loader.state_dict())
        epoch += [found(batch) for batch in batches]
    for state, expected in zip(states, (epoch, epoch[stop:]), strict=True):
        assert [found(batch) for batch in resumed(state, 0, options)] == expected


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_sampler_that_draws_at_once_is_resumed_with_another_number_of_workers(num_workers: int) -> None:
    with DataLoader(Numbered(SIZE), 3, sampler=Eager(), num_workers=num_workers) as loader:
        batches = iter(loader)
        taken(batches, 4)
        state = loader.state_dict()
        rest = [found(batch) for batch in batches]
    with resumed(state, 1 - num_workers, lambda: {"batch_size": 3, "sampler": Eager()}) as loader:
        assert [found(batch) for batch in loader] == rest


def test_random_numbers_drawn_before_the_first_batch_change_nothing() -> None:
    batches = iter(loader := DataLoader(Numbered(SIZE), 3, shuffle=True))
    torch.rand(5)
    taken(batches, 2)
    state = loader.state_dict()
    assert all_identities(resumed(state, 0, MAPS["shuffled"])) == all_identities(batches)


def test_a_sampler_that_can_tell_where_it_is_is_not_gone_through_again() -> None:
    batches = iter(loader := DataLoader(Numbered(SIZE), 3, sampler=Countdown()))
    taken(batches, 5)
    sampler = Countdown()
    other = resumed(loader.state_dict(), 0, lambda: {"batch_size": 3, "sampler": sampler})
    assert taken(iter(other), 1) == [[24, 23, 22]]
    assert sampler.draws == 3


def test_batches_made_ahead_do_not_count_as_taken() -> None:
    with DataLoader(Numbered(SIZE), 3, num_workers=2, prefetch_factor=6) as loader:
        batches = iter(loader)
        taken(batches, 2)
        assert loader.state_dict()["delivered"] == 2


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_that_raised_has_had_its_turn(num_workers: int) -> None:
    with DataLoader(Numbered(16, {5: refuse}), 4, num_workers=num_workers) as loader:
        batches = iter(loader)
        taken(batches, 1)
        with pytest.raises(ValueError, match="bad"):
            next(batches)
        taken(batches, 1)
        state = loader.state_dict()
        assert (state["delivered"], state["ahead"]) == (3, [])
        loader.load_state_dict(state)
        assert all_identities(loader) == [[12, 13, 14, 15]]


# ---- iterable datasets

STREAMS = {"none": Stream, "iterator": MarkedStream, "dataset": TellingStream}


@pytest.mark.parametrize(("num_workers", "stop"), [(0, 0), (0, 4), (0, 8), (1, 1), (1, 8), (3, 0), (3, 4), (3, 7)])
@pytest.mark.parametrize("kind", STREAMS.values(), ids=STREAMS.keys())
def test_an_iterable_dataset_goes_on_where_it_was(kind: Any, stop: int, num_workers: int) -> None:
    with DataLoader(kind(31), 4, num_workers=num_workers) as loader:
        batches = iter(loader)
        taken(batches, stop)
        state = json.loads(json.dumps(loader.state_dict()))
        rest = [found(batch) for batch in batches]
        following = all_identities(loader)
    with DataLoader(kind(31), 4, num_workers=num_workers) as loader:
        loader.load_state_dict(state)
        assert [all_identities(loader), all_identities(loader)] == [rest, following]


@pytest.mark.parametrize("kind", STREAMS.values(), ids=STREAMS.keys())
def test_samples_of_an_iterable_dataset_go_on_where_they_were(kind: Any) -> None:
    with DataLoader(kind(13), None, num_workers=2) as loader:
        batches = iter(loader)
        taken(batches, 5)
        state = loader.state_dict()
        rest = [found(batch) for batch in batches]
    assert len(rest) == 8
    with DataLoader(kind(13), None, num_workers=2) as loader:
        loader.load_state_dict(state)
        assert [found(batch) for batch in loader] == rest


def test_the_state_of_a_stream_does_not_grow_with_what_was_delivered() -> None:
    with DataLoader(TailedStream(400), 2, num_workers=2) as loader:
        batches = iter(loader)
        assert len(taken(batches, 90)) == 90
        state = loader.state_dict()
    assert (state["delivered"], state["ahead"]) == (90, [])


def test_a_dataset_that_can_tell_where_it_is_is_not_gone_through_again() -> None:
    with DataLoader(MarkedStream(40), 4, num_workers=2) as loader:
        batches = iter(loader)
        taken(batches, 5)
        state = loader.state_dict()
    with DataLoader(MarkedStream(40, dict.fromkeys(range(16), refuse)), 4, num_workers=2) as loader:
        loader.load_state_dict(state)
        assert len(all_identities(loader)) == 5


# ---- states that do not fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 7}, "its version is 7, and the loader's 1"),
        ({"kind": "iterable"}, "its kind is 'iterable', and the loader's 'map'"),
        ({"length": 5}, "its length is 5, and the loader's 14"),
        ({"delivered": "many"}, "its delivered is damaged"),
        ({"delivered": None}, "its delivered is damaged"),
        ({"generators": 5}, "its generators is damaged"),
        ({"places": [3]}, "its places is damaged"),
        ({"sampler": {"left": 3}}, "sampler"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    loader = DataLoader(Numbered(SIZE), 3)
    with pytest.raises(ValueError, match=message):
        loader.load_state_dict({**loader.state_dict(), **change})
    assert flat(loader) == list(range(SIZE))


def test_a_state_of_torchdatas_loader_is_refused() -> None:
    with pytest.raises(ValueError, match="this is no state"):
        DataLoader(Numbered(SIZE), 3).load_state_dict({"_snapshot": {}, "_steps_since_snapshot": 0})


def test_an_iterable_dataset_wants_as_many_workers_as_it_had() -> None:
    loader = DataLoader(Stream(8), 3, num_workers=2)
    with pytest.raises(ValueError, match="this state is of 2 workers, and the loader has 3"):
        DataLoader(Stream(8), 3, num_workers=3).load_state_dict(loader.state_dict())


def test_a_sampler_without_state_refuses_the_state_of_another() -> None:
    batches = iter(loader := DataLoader(Numbered(SIZE), 3, sampler=Countdown()))
    taken(batches, 5)
    with pytest.raises(ValueError, match="sampler"):
        DataLoader(Numbered(SIZE), 3, sampler=SequentialSampler(range(SIZE))).load_state_dict(loader.state_dict())


@pytest.mark.parametrize("given", [None, 3])
@pytest.mark.parametrize("first_epochs", [0, 1])
def test_a_later_epoch_of_persistent_workers_goes_on_as_it_would_have(given: int | None, first_epochs: int) -> None:
    def make() -> Any:
        own = None if given is None else generator(given)
        return DataLoader(Numbered(SIZE), 4, shuffle=True, num_workers=1, persistent_workers=True, generator=own)

    with make() as loader, make() as other:
        flat(loader)
        state = loader.state_dict()
        expected = flat(loader)
        for _ in range(first_epochs):
            flat(other)
        other.load_state_dict(state)
        assert flat(other) == expected
