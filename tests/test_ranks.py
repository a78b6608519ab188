"""Many ranks: disjoint shares, together the epoch, in equally many batches; and an order that outlives its ranks."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeDataset, identity_of
from millpond import Loader
from millpond._loader.ranks import Ration, cores_of_a_rank, rank_and_world_size, ration_of
from millpond._plan.shards import Quotas, Sharding, num_steps, run_starts
from millpond._workers.cores import usable_cores
from millpond.errors import UsageError

Batch = dict[str, Any]


def rank_of(rank: int, world_size: int, dataset: FakeDataset | None = None, **changes: Any) -> Loader:
    options: dict[str, Any] = {"batch_size": 16, "shuffle": True, "num_workers": 0, "output": "numpy"}
    options |= {"memory": "300MiB", "held_batches": 40} | changes
    return Loader(dataset or FakeDataset(), rank=rank, world_size=world_size, **options)


def ids_of(batch: Batch) -> list[int]:
    """Samples by their pixels, of the rows that are valid."""
    return [identity_of(picture)[0] for picture, valid in zip(batch["front"], batch["is_valid"], strict=True) if valid]


def epochs_of(loaders: list[Loader]) -> list[list[list[int]]]:
    """Valid samples of each batch of an epoch, by rank."""
    return [[ids_of(batch) for batch in loader] for loader in loaders]


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_give_the_whole_epoch_once_in_equally_many_batches(world_size: int) -> None:
    with ExitStack() as stack:
        loaders = [stack.enter_context(rank_of(rank, world_size)) for rank in range(world_size)]
        for _ in range(2):
            epoch = epochs_of(loaders)
            given = [sample for rank in epoch for batch in rank for sample in batch]
            assert sorted(given) == list(range(400))
            assert (
                {len(rank) for rank in epoch} == {len(loader) for loader in loaders} == {-(-400 // (16 * world_size))}
            )
            sizes = [sum(map(len, rank)) for rank in epoch]
            assert max(sizes) - min(sizes) < 16


def test_every_batch_is_full_and_padding_repeats_rows_of_it() -> None:
    with rank_of(1, 3) as loader:
        batches = list(loader)
    assert all(len(batch["front"]) == len(batch["task"]) == len(batch["is_valid"]) == 16 for batch in batches)
    last = batches[-1]
    good = ids_of(last)
    assert 0 < len(good) < 16
    shown = [identity_of(picture)[0] for picture in last["front"]]
    assert set(shown) == set(good)
    assert last["index"].tolist() == shown
    assert last["task"] == [f"task {sample % 3}" for sample in shown]


def test_a_rank_that_skips_bad_samples_stays_in_step(tmp_path: Path) -> None:
    bad = frozenset(range(200, 240))  # more than a batch of rank 1, in a row
    with ExitStack() as stack:
        options = {"on_error": "skip", "quarantine": tmp_path / "bad.jsonl", "shuffle": False}
        loaders = [stack.enter_context(rank_of(rank, 2, FakeDataset(bad=bad), **options)) for rank in range(2)]
        batches = [list(loader) for loader in loaders]
        books = loaders[1].statistics().books
    assert [len(rank) for rank in batches] == [13, 13]
    given = [sample for rank in batches for batch in rank for sample in ids_of(batch)]
    assert sorted(given) == sorted(set(range(400)) - bad)
    nothing = batches[1][0]
    assert not nothing["is_valid"].any()
    assert not nothing["front"].any()
    assert books is not None
    assert (books.planned, books.padded, books.delivered, books.skipped) == (200, 48, 208, 40)
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 40


def test_placeholders_stay_zero_and_short_batches_are_filled_up(tmp_path: Path) -> None:
    options = {"on_error": "placeholder", "quarantine": tmp_path / "bad.jsonl", "shuffle": False}
    with rank_of(0, 3, FakeDataset(bad=frozenset({130})), **options) as loader:
        last = list(loader)[-1]
    assert last["is_valid"].tolist() == [True, True, False, True, True, True] + [False] * 10
    shown = [0 if not picture.any() else identity_of(picture)[0] for picture in last["front"]]
    assert shown == [128, 129, 0, 131, 132, 133] + 2 * [128, 129, 131, 132, 133]


def test_fewer_samples_than_a_global_batch_are_shared_out_and_filled_up() -> None:
    with ExitStack() as stack:
        loaders = [
            stack.enter_context(rank_of(rank, 4, FakeDataset(total=7, gop=3), shuffle=False)) for rank in range(4)
        ]
        assert epochs_of(loaders) == [[[0, 1]], [[2, 3]], [[4, 5]], [[6]]]


def test_drop_leaves_the_last_global_batch_out() -> None:
    with ExitStack() as stack:
        loaders = [stack.enter_context(rank_of(rank, 3, uneven="drop")) for rank in range(3)]
        epoch = epochs_of(loaders)
        books = [loader.statistics().books for loader in loaders]
    assert [[len(batch) for batch in rank] for rank in epoch] == [[16] * 8] * 3
    assert sum(book.dropped for book in books if book) == 400 - 3 * 8 * 16


def test_uneven_ranks_can_be_refused() -> None:
    with pytest.raises(ValueError, match="400 samples are no whole number of global batches of 48 rows"):
        rank_of(0, 3, uneven="error")
    with rank_of(0, 2, batch_size=20, uneven="error") as loader:
        assert len(loader) == 10


@given(st.lists(st.integers(1, 500), min_size=1, max_size=5), st.integers(1, 64), st.integers(1, 40), st.booleans())
def test_runs_are_equally_long_and_all_ranks_give_as_many_batches(
    sizes: list[int], num_shards: int, rows: int, drops: bool
) -> None:
    starts = [run_starts(sizes, num_shards, shard) for shard in range(num_shards + 1)]
    assert (starts[0], starts[-1]) == ([0] * len(sizes), sizes)
    runs = np.diff(np.asarray(starts), axis=0)
    assert (runs >= 0).all()
    of_shards = runs.sum(axis=1)
    assert of_shards.max() - of_shards.min() <= 1
    num_batches = num_steps(sum(sizes), num_shards, rows, drops=drops)
    assert of_shards.min() // rows == num_batches if drops else -(-of_shards.max() // rows) == num_batches


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 40))
def test_quotas_are_dealt_out_to_the_sample_and_evenly_over_the_epochs(
    of_members: list[int], num_shards: int, epoch: int
) -> None:
    shards = [Quotas(tuple(of_members), num_shards, shard) for shard in range(num_shards)]
    given = np.asarray([[np.ptp(one.places(m, epoch)) for m in range(len(of_members))] for one in shards])
    assert given.sum(axis=0).tolist() == of_members
    assert np.ptp(given.sum(axis=1)) <= 1
    for member, quota in enumerate(of_members):
        for one in shards:
            assert one.places(member, epoch)[1] == one.places(member, epoch + 1)[0]
            assert one.places(member, num_shards)[0] == quota


def test_a_gop_that_two_ranks_share_is_decoded_by_both() -> None:
    dataset = FakeDataset(total=100, gop=40)
    with rank_of(0, 2, dataset) as first, rank_of(1, 2, dataset) as second:
        assert sorted(sample for rank in epochs_of([first, second]) for batch in rank for sample in batch) == [
            *range(100)
        ]
        assert first._ration.dataset.cut_costs(np.asarray([0]), np.asarray([50]))[0] == 2 * 50
        assert second._ration.dataset.cut_costs(np.asarray([0]), np.asarray([50]))[0] == 2 * 60


# ---- the order does not depend on the number of ranks


def global_batches(world_size: int, *, first: int = 0, state: str | None = None, **changes: Any) -> Iterator[list[int]]:
    """Samples of each global step, in order: rank after rank."""
    with ExitStack() as stack:
        options: dict[str, Any] = {"canonical_shards": 8, "horizon_batches": 4, "batch_size": 32 // world_size}
        loaders = [stack.enter_context(rank_of(rank, world_size, **options | changes)) for rank in range(world_size)]
        for loader in loaders:
            if state is not None:
                loader.load_state_dict(json.loads(state))
            else:
                loader.set_epoch(first)
        for batches in zip(*loaders, strict=True):
            yield [sample for batch in batches for sample in ids_of(batch)]


@pytest.fixture(scope="module")
def on_eight() -> list[list[int]]:
    return list(global_batches(8, first=3))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_global_steps_have_the_same_samples_on_any_number_of_ranks(world_size: int, on_eight: list[list[int]]) -> None:
    assert list(global_batches(world_size, first=3)) == on_eight
    assert sorted(sample for step in on_eight for sample in step) == list(range(400))


def test_seed_and_epoch_decide_the_order_of_global_steps(on_eight: list[list[int]]) -> None:
    assert list(global_batches(8, first=4)) != on_eight
    assert list(global_batches(8, first=3, seed=1)) != on_eight
    assert list(global_batches(8, first=3, memory="600MiB")) == on_eight


def state_after(world_size: int, steps: int, **changes: Any) -> str:
    """Of every rank, which must agree."""
    states = set()
    for rank in range(world_size):
        options: dict[str, Any] = {
            "canonical_shards": 8,
            "horizon_batches": 4,
            "batch_size": 32 // world_size,
        } | changes
        with rank_of(rank, world_size, **options) as loader:
            loader.set_epoch(3)
            for _, _batch in zip(range(steps), loader, strict=False):
                pass
            states.add(json.dumps(loader.state_dict()))
    assert len(states) == 1
    return states.pop()


@pytest.mark.parametrize(("before", "after"), [(8, 2), (8, 4), (2, 8), (1, 8), (4, 1)])
def test_a_state_goes_on_with_another_number_of_ranks(before: int, after: int, on_eight: list[list[int]]) -> None:
    state = state_after(before, 5)
    assert len(state) < 700
    assert list(global_batches(after, state=state)) == on_eight[5:]


def test_a_state_of_several_ranks_goes_on_where_it_was_saved() -> None:
    state = state_after(2, 5, canonical_shards=None, horizon_batches=None)
    options: dict[str, Any] = {"canonical_shards": None, "horizon_batches": None}
    whole, rest = list(global_batches(2, first=3, **options)), list(global_batches(2, state=state, **options))
    assert rest == whole[5:]
    with rank_of(0, 4, batch_size=8) as loader, pytest.raises(ValueError, match="world_size was 2 and is 4"):
        loader.load_state_dict(json.loads(state))
    with (
        rank_of(0, 2, memory="500MiB") as loader,
        pytest.raises(ValueError, match=r"saved by another loader: memory was .* but with canonical_shards="),
    ):
        loader.load_state_dict(json.loads(state))


def test_another_global_batch_is_refused() -> None:
    state = json.loads(state_after(8, 1))
    with rank_of(0, 2, canonical_shards=8, horizon_batches=4, batch_size=8) as loader:
        with pytest.raises(ValueError, match="global_batch_size was 32 and is 16"):
            loader.load_state_dict(state)


def test_too_little_memory_for_the_fixed_horizon_is_refused_with_what_is_enough() -> None:
    options: dict[str, Any] = {"canonical_shards": 4, "horizon_batches": 400, "batch_size": 4000}
    wide = FakeDataset(total=60_000, gop=50, cameras=tuple(f"camera{number}" for number in range(8)))
    with pytest.raises(ValueError, match=r'horizon_batches=400.*the smallest that can is "(\d+MiB)"') as refused:
        rank_of(0, 1, wide, memory="200MiB", **options)
    enough = str(refused.value).split('smallest that can is "')[1].split('"')[0]
    rank_of(0, 1, wide, memory=enough, **options).close()


class OpenedInPart(FakeDataset):
    """Looked at by nobody yet; the whole is on the first rank, as if its run had been all there is."""

    is_surveyed = False

    def opened_for(self, start: int, stop: int) -> tuple[FakeDataset, int]:
        self.is_surveyed = start == 0
        return FakeDataset(), 0


def test_states_are_the_same_though_one_rank_has_looked_at_all_files() -> None:
    states = set()
    for rank in range(2):
        with rank_of(rank, 2, OpenedInPart()) as loader:
            states.add(json.dumps(loader.state_dict()))
    assert len(states) == 1
    with rank_of(0, 2) as loader:
        loader.load_state_dict(json.loads(states.pop()))  # which knows all cuts; they are not compared


# ---- who is which rank


def test_ranks_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert rank_and_world_size(None, None) is None
    assert cores_of_a_rank() == usable_cores()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="RANK='' and WORLD_SIZE='4'"):
        rank_and_world_size(None, None)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(ValueError, match="RANK='3' and WORLD_SIZE=''"):
        rank_and_world_size(None, None)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert rank_and_world_size(None, None) == (3, 4)
    assert rank_and_world_size(0, 1) == (0, 1)
    assert rank_and_world_size(None, 1) is None
    assert cores_of_a_rank() == 1
    with Loader(FakeDataset(), num_workers=0) as loader:
        assert (loader.rank, loader.world_size, len(loader._ration.dataset)) == (3, 4, 100)


def test_a_loader_that_was_made_before_its_rank_was_known_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    group = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, get_rank=lambda: 1, get_world_size=lambda: 2
    )
    with Loader(FakeDataset(), num_workers=0) as loader, rank_of(0, 1) as told:
        monkeypatch.setitem(sys.modules, "torch.distributed", group)
        with pytest.raises(UsageError, match=r"rank 0 of 1, and torch.distributed, .* says \(1, 2\)"):
            iter(loader)
        iter(told)
    with Loader(FakeDataset(), num_workers=0) as loader:
        assert (loader.rank, loader.world_size) == (1, 2)


@pytest.mark.parametrize("damage", [{"epoch": None}, {"batch": 2.5}, {"batch": "3"}, {"books": ...}])
def test_a_damaged_state_is_refused(damage: dict[str, Any]) -> None:
    with rank_of(0, 2) as loader:
        state = {name: value for name, value in (loader.state_dict() | damage).items() if value is not ...}
        with pytest.raises(ValueError, match="this state is damaged"):
            loader.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "give both, or neither"),
        ({"rank": 2, "world_size": 2}, "rank=2 is none of world_size=2 ranks"),
        ({"rank": -1, "world_size": 2}, "rank must be at least 0"),
        (
            {"rank": 0, "world_size": 3, "canonical_shards": 8},
            "cannot be shared out evenly to 3 ranks: take a number of ranks",
        ),
        ({"rank": 0, "world_size": 2, "canonical_shards": 8, "batch_size": 6}, "the nearest batch_size that can is 8"),
        ({"horizon_batches": 4}, "goes with canonical_shards="),
        ({"canonical_shards": 2, "mixing": 0.9}, "give horizon_batches="),
        ({"uneven": "keep"}, 'uneven must be "pad", "drop" or "error"'),
        ({"drop_last": True, "batch_size": 401}, "400 samples make no full batch of 401 rows"),
        ({"rank": 0, "world_size": 500}, "400 samples of .* cannot be shared out to 500 ranks"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Loader(FakeDataset(), num_workers=0, **options)


def test_a_rank_that_happens_to_be_alone_gives_what_ranks_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with Loader(FakeDataset(), batch_size=48, num_workers=0, held_batches=20) as loader:
        last = list(loader)[-1]
        assert last["is_valid"].tolist() == [True] * 16 + [False] * 32
        assert repr(loader).endswith("9 batches of 48 rows)")
    with Loader(FakeDataset(), batch_size=48, num_workers=0, held_batches=20, world_size=1) as loader:
        last = list(loader)[-1]
        assert len(last["index"]) == 16
        assert "is_valid" not in last
    with pytest.raises(ValueError, match="400 samples are no whole number of global batches of 48 rows"):
        Loader(FakeDataset(), batch_size=48, world_size=1, uneven="error")


def test_a_rank_reads_its_own_run_alone() -> None:
    ration: Ration = ration_of(FakeDataset(), Sharding(1, 4, 8, 4, drops=False))
    assert [shard.number for shard in ration.shards] == [2, 3]
    assert [shard.runs for shard in ration.shards] == [((0, 50),), ((50, 100),)]
    assert ration.dataset.describe(0)["sample"] == 100
