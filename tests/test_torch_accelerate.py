"""DataLoaders prepared for accelerate: shares of the batches as accelerate makes them, still made by millpond."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")

from accelerate.data_loader import DataLoaderShard  # noqa: E402
from accelerate.state import AcceleratorState, GradientState, PartialState  # noqa: E402
from accelerate.utils import DataLoaderConfiguration, set_seed  # noqa: E402

from millpond.torch import DataLoader, prepare  # noqa: E402
from torch_memory import lies_in_arena  # noqa: E402
from torch_parity import Items, Stream, lists  # noqa: E402
from torch_parity_types import frame  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines of one core


@pytest.fixture
def make_accelerator() -> Iterator[Any]:
    """Makes accelerators of a process among several that are not there: rank and number of them are just said."""

    def make(processes: int = 1, rank: int = 0, **settings: Any) -> Any:
        made = accelerate.Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**settings))
        made.state._shared_state.update(num_processes=processes, process_index=rank)
        PartialState._shared_state.update(num_processes=processes, process_index=rank)
        return made

    yield make
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def firsts(loader: Any) -> list[list[int]]:
    """The first number of each sample, batch by batch."""
    return [batch.flatten(1)[:, 0].tolist() for batch in loader]


def test_a_prepared_loader_is_accelerates_around_one_of_ours(make_accelerator: Any) -> None:
    prepared = prepare(make_accelerator(), DataLoader(Items(4), 2))
    assert type(prepared) is DataLoaderShard
    assert isinstance(prepared, DataLoader)
    assert lists(prepared) == lists(prepared) == [[0, 1], [2, 3]]


def test_its_batches_lie_in_the_arena(make_accelerator: Any) -> None:
    with DataLoader(Items(8, frame), 2, num_workers=2) as loader:
        prepared = prepare(make_accelerator(), loader)
    places = [(batch.flatten(1)[:, 0].tolist(), lies_in_arena(batch)) for batch in prepared]
    assert places == [([index, index + 1], True) for index in (0, 2, 4, 6)]
    assert prepared.statistics().heap_copies == 0
    prepared.close()


@pytest.mark.parametrize(
    "settings", [{}, {"split_batches": True}, {"even_batches": False}, {"use_seedable_sampler": True}]
)
@pytest.mark.parametrize("rank", [0, 1])
def test_the_share_of_a_process_is_that_of_torchs_loader(
    make_accelerator: Any, settings: dict[str, Any], rank: int
) -> None:
    accelerator = make_accelerator(2, rank, **settings, dispatch_batches=False)

    def two_epochs(prepared: Any) -> list[Any]:
        return lists(prepared) + lists(prepared)

    options: dict[str, Any] = {"batch_size": 4, "shuffle": True}
    set_seed(5)
    expected = two_epochs(accelerator.prepare(torch.utils.data.DataLoader(Items(22), **options)))
    set_seed(5)
    ours = two_epochs(prepare(accelerator, DataLoader(Items(22), **options, num_workers=1)))
    assert ours == expected
    assert 4 <= len(ours) <= 12


def test_both_shares_together_are_the_whole(make_accelerator: Any) -> None:
    shares = []
    for rank in (0, 1):
        shares += lists(prepare(make_accelerator(2, rank), DataLoader(Items(8), 2, num_workers=1)))
    assert sorted(sum(batch) for batch in shares) == [1, 5, 9, 13]


def test_a_stream_is_shared_where_each_process_reads_it(make_accelerator: Any) -> None:
    accelerator = make_accelerator(2, 1, dispatch_batches=False)
    prepared = prepare(accelerator, DataLoader(Stream(lambda _: range(8)), 2, num_workers=1))
    assert lists(prepared) == [[2, 3], [6, 7]]


def test_a_stream_of_one_process_is_taken_as_it_is(make_accelerator: Any) -> None:
    assert lists(prepare(make_accelerator(), DataLoader(Stream(lambda _: range(3)), 2))) == [[0, 1], [2]]


def test_own_batches_and_no_batches_are_kept(make_accelerator: Any) -> None:
    accelerator = make_accelerator()
    assert lists(prepare(accelerator, DataLoader(Items(4), batch_sampler=[[3, 1], [2]]))) == [[3, 1], [2]]
    assert lists(prepare(accelerator, DataLoader(Items(4), None, sampler=[3, 1]))) == [3, 1]


@pytest.mark.parametrize(
    ("settings", "processes", "dataset", "text"),
    [
        ({"dispatch_batches": True}, 1, Items(3), "dispatch_batches=True has the main process read for all"),
        ({}, 2, Stream(lambda _: range(3)), "an IterableDataset for 2 processes is read by the main process"),
    ],
)
def test_what_millpond_does_not_do_is_refused(
    make_accelerator: Any, settings: dict[str, Any], processes: int, dataset: Any, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        prepare(make_accelerator(processes, **settings), DataLoader(dataset))


def test_single_samples_cannot_be_shared(make_accelerator: Any) -> None:
    with pytest.raises(ValueError, match="2 processes share batches, and this loader makes none"):
        prepare(make_accelerator(2), DataLoader(Items(3), None))


def test_only_loaders_of_ours_are_prepared(make_accelerator: Any) -> None:
    with pytest.raises(TypeError, match=r"takes a DataLoader of millpond\.torch, not DataLoader"):
        prepare(make_accelerator(), torch.utils.data.DataLoader(Items(3)))


def test_a_prepared_loader_stays_as_it_is_when_prepared_with_the_rest(make_accelerator: Any) -> None:
    accelerator = make_accelerator()
    prepared = prepare(accelerator, DataLoader(Items(3)))
    assert accelerator.prepare(prepared, torch.nn.Linear(1, 1), device_placement=[False, False])[0] is prepared


def test_every_argument_of_ours_is_kept(make_accelerator: Any) -> None:
    given: dict[str, Any] = {
        "timeout": 7,
        "stall_timeout": 3,
        "memory": 1 << 30,
        "max_tasks_per_worker": 5,
        "on_error": "skip",
    }
    loader = DataLoader(Items(3), 2, num_workers=1, persistent_workers=True, max_restarts=4, held_batches=3, **given)
    prepared = prepare(make_accelerator(), loader)
    assert {name: getattr(prepared, name) for name in given} == given
    assert (prepared.max_restarts, prepared.held_batches, prepared.persistent_workers) == (4, 4, True)


def test_a_prepared_loader_goes_on_where_its_state_says(make_accelerator: Any) -> None:
    def prepared() -> Any:
        return prepare(make_accelerator(2, 1), DataLoader(Items(24), 2, num_workers=1))

    first = prepared()
    batches = iter(first)
    begun = [next(batches).tolist() for _ in range(2)]
    state = first.state_dict()
    batches.close()
    later = prepared()
    later.load_state_dict(state)
    assert begun + lists(later) == lists(prepared())


def test_accelerates_own_prepare_is_warned_of(make_accelerator: Any) -> None:
    with pytest.warns(UserWarning, match=r"prepare it with millpond\.torch\.prepare\(accelerator, loader\)"):
        prepared = make_accelerator().prepare(DataLoader(Items(3), num_workers=1))
    assert not isinstance(prepared, DataLoader)
    assert lists(prepared) == [[0], [1], [2]]
