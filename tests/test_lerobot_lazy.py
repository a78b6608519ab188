"""A lazy dataset looks at files when they are needed, and each share of it at its own files alone."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millpond._datasets.base import PartlyOpened
from millpond._datasets.columns import ColumnStore
from millpond._datasets.dataset_files import LocalFiles
from millpond._datasets.lerobot import LeRobotDataset
from millpond._datasets.surveyed import Survey
from millpond.errors import CorruptMedia
from streamed import MANY, epoch_of, rows_of, streamed
from synthesized import EPISODES_PATH, FRONT, WRIST, MakeDataset, edit_table, open_dataset

SIX: dict[str, Any] = {"episodes": 6, "frames": (10, 21, 13, 8, 17, 9), "episodes_per_file": 3, "b_frames": 2}
"""Two files of each kind; GOPs of 6, which go on from one episode to the next."""

STARTS = (0, 10, 31, 44, 52, 69, 78)
WINDOWS = {FRONT: [-0.1, 0.0, 0.1], "action": [0.0, 0.2]}


def open_lazily(root: Path, **options: Any) -> LeRobotDataset:
    return open_dataset(root, lazy=True, **options)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of videos and parquets that are surveyed."""
    names: list[str] = []

    def note(kind: type, method: str, place_of: Callable[[Any], str]) -> None:
        former = getattr(kind, method)

        def noted(self: Any, of: Any, *rest: Any) -> Any:
            names.append(Path(place_of(of)).name)
            return former(self, of, *rest)

        monkeypatch.setattr(kind, method, noted)

    note(LocalFiles, "load_table", str)
    note(ColumnStore, "load", lambda version: version.name)
    return names


def equal(one: Any, other: Any) -> bool:
    return bool(np.array_equal(np.asarray(one), np.asarray(other)))


def assert_serves(share: LeRobotDataset, first: int, whole: LeRobotDataset, samples: Sequence[int]) -> None:
    """All that the whole gives of some samples, bit for bit."""
    for sample in samples:
        mine, expected = share[sample - first], whole[sample]
        assert mine.keys() == expected.keys()
        assert not [name for name in expected if not equal(mine[name], expected[name])], f"sample {sample}"


def delete(root: Path, camera: str, file: int) -> None:
    (root / f"videos/{camera}/chunk-000/file-{file:03d}.mp4").unlink()


def test_a_lazy_dataset_looks_at_no_file_until_it_is_needed(synth: MakeDataset, looked_at: list[str]) -> None:
    with open_lazily(synth(**SIX)) as dataset:
        assert (len(dataset), dataset.num_episodes, dataset.fps) == (78, 6, 30)
        assert (len(dataset.groups), dataset.fields[0].shape, dataset.parts) == (78, (96, 128, 3), (FRONT, WRIST))
        assert dataset.episode_lengths.tolist() == list(SIX["frames"])
        assert (dataset.describe(12)["frame_index"], len(dataset.fingerprint)) == (2, 64)
        dataset.close()
        assert (looked_at, dataset.is_surveyed) == ([], False)
        dataset.cuts()
        assert (len(looked_at), dataset.is_surveyed) == (6, True)


@pytest.mark.parametrize(
    "need",
    [
        lambda dataset: dataset.problems,
        lambda dataset: dataset.lost,
        lambda dataset: dataset.check(),
        lambda dataset: dataset.video_facts,
        lambda dataset: dataset.reader(),
        lambda dataset: dataset[0],
        lambda dataset: dataset.decorate({}, np.arange(2)),
        lambda dataset: dataset.cut_costs(np.asarray([0]), np.asarray([9])),
    ],
)
def test_what_needs_the_files_has_them_looked_at(need: Callable[[LeRobotDataset], object], synth: MakeDataset) -> None:
    with open_lazily(synth(**SIX)) as dataset:
        need(dataset)
        assert dataset.is_surveyed


def test_a_lazy_dataset_is_what_it_is_otherwise(synth: MakeDataset) -> None:
    root = synth(**SIX)
    with open_dataset(root) as eager, open_lazily(root) as lazy:
        assert (lazy.fields, lazy.fingerprint) == (eager.fields, eager.fingerprint)
        assert (eager.is_surveyed, lazy.is_surveyed) == (True, False)
        assert equal(lazy.cuts(), eager.cuts())
        assert (lazy.check(), lazy.lost) == (eager.check(), eager.lost)
        assert_serves(lazy, 0, eager, [0, 30, 77])


def test_threads_that_need_the_files_at_once_have_them_looked_at_once(
    synth: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    surveys: list[Survey] = []
    all_have_asked = threading.Event()
    make = Survey.make

    def make_late(self: Survey) -> Any:
        surveys.append(self)
        assert all_have_asked.wait(30)
        return make(self)

    monkeypatch.setattr(Survey, "make", make_late)
    with open_lazily(synth(**SIX)) as dataset, ThreadPoolExecutor(3) as pool:
        found = [pool.submit(dataset.cuts) for _ in range(3)]
        all_have_asked.set()
        assert all(equal(one.result(), found[0].result()) for one in found)
    assert len(surveys) == 1


def test_a_child_forked_amid_a_survey_makes_its_own(synth: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_lazily(synth(**SIX))
    make = Survey.make
    here: list[Survey] = []

    def make_in_a_child_too(self: Survey) -> Any:
        if not here:
            here.append(self)
            with monkeypatch.context() as forked:
                forked.setattr("millpond._datasets.surveyed.os.getpid", lambda: -1)
                dataset.cuts()
        return make(self)

    monkeypatch.setattr(Survey, "make", make_in_a_child_too)
    assert len(dataset.cuts())


def test_a_share_looks_at_just_its_own_files(synth: MakeDataset, looked_at: list[str]) -> None:
    dataset = open_lazily(synth(**SIX))
    share, first = dataset.opened_for(12, 30)
    assert isinstance(dataset, PartlyOpened)
    assert sorted(looked_at) == ["file-000.mp4", "file-000.mp4", "file-000.parquet"]
    assert (first, len(share), share.episode_index.tolist(), share.is_surveyed) == (10, 21, [1], True)
    looked_at.clear()
    share, first = dataset.opened_for(44, 53)
    assert {name.partition(".")[0] for name in looked_at} == {"file-001"}
    assert (first, share.episode_index.tolist(), dataset.is_surveyed) == (44, [3, 4], False)


@pytest.mark.parametrize(("start", "stop"), [(3, 10), (12, 30), (30, 45), (31, 44), (60, 78)])
def test_samples_of_a_share_are_those_of_the_whole(start: int, stop: int, synth: MakeDataset) -> None:
    """Also where their GOP began in an episode of a neighbour, and at the ends of windows."""
    root = synth(**SIX)
    with open_dataset(root, delta_timestamps=WINDOWS) as whole:
        share, first = open_lazily(root, delta_timestamps=WINDOWS).opened_for(start, stop)
        assert (share.fields, first in STARTS, first + len(share) in STARTS) == (whole.fields, True, True)
        assert_serves(share, first, whole, [start, (start + stop) // 2, stop - 1])
        starts, stops = np.arange(start, stop - 4), np.arange(start + 4, stop)
        assert equal(share.cut_costs(starts - first, stops - first), whole.cut_costs(starts, stops))
        cuts = whole.cuts()
        assert set(cuts[(cuts > first) & (cuts < first + len(share))] - first) == set(share.cuts()[1:-1])
        share.close()


def test_a_loader_serves_a_share(synth: MakeDataset) -> None:
    root = synth(**SIX)
    with open_dataset(root) as whole, open_lazily(root).opened_for(31, 52)[0] as share:
        mine = rows_of(epoch_of(share, num_workers=0))
        expected = rows_of(epoch_of(whole, num_workers=0))
        assert sorted(mine) == list(range(31, 52))
        assert all(equal(mine[sample][name], expected[sample][name]) for sample in mine for name in mine[sample])


def test_each_rank_of_a_loader_looks_at_files_of_its_own(synth: MakeDataset, looked_at: list[str]) -> None:
    """Of four files at the first two, or the last two, and at one more where the border may move to a cut."""
    found: list[int] = []
    for rank, other in enumerate(("file-003", "file-000")):
        looked_at.clear()
        with open_lazily(synth(**MANY)) as dataset:
            found += sorted(rows_of(epoch_of(dataset, rank=rank, world_size=2, num_workers=0)))
            assert (dataset.is_surveyed, [name for name in looked_at if name.startswith(other)]) == (False, [])
    assert found == list(range(144))


def test_pictures_in_parquet_come_by_shares(synth: MakeDataset) -> None:
    root = synth(**SIX, image_features=1, extra_columns=True)
    with open_dataset(root) as whole, open_lazily(root).opened_for(52, 60)[0] as share:
        assert_serves(share, 52, whole, [52, 68])


def test_a_share_of_chosen_episodes_numbers_them_through(synth: MakeDataset) -> None:
    chosen = {"episodes": [0, 2, 4, 5], "cameras": [WRIST]}
    with open_dataset(synth(**SIX), **chosen) as whole:
        share, first = open_lazily(synth(**SIX), **chosen).opened_for(11, 25)
        assert (first, share.episode_index.tolist()) == (10, [2, 4])
        assert_serves(share, first, whole, [11, 24, 39])


@pytest.mark.parametrize("images", [0, 1])
def test_shares_of_a_store_fetch_nothing_of_other_files(images: int, synth: MakeDataset) -> None:
    root = synth(**SIX, image_features=images)
    with open_dataset(root) as whole, streamed(root, lazy=True) as (dataset, server):
        assert not [path for method, path, _ in server.requests if method == "GET" and not path.startswith("/meta")]
        server.forget()
        share, first = dataset.opened_for(60, 70)
        assert_serves(share, first, whole, [60, 69, 77])
        assert {path.rpartition("/")[2].partition(".")[0] for path in server.counts.by_path} == {"file-001"}


def test_shares_agree_on_cuts_between_rows_that_are_fetched_together(
    synth: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a long group may be cut anywhere: here those of episodes 1 and 4, whoever knows of them."""
    root = synth(**SIX, image_features=1)
    monkeypatch.setattr("millpond._datasets.survey.MAX_GROUP_ROWS", 15)
    with streamed(root, cameras=[WRIST]) as (eager, _), streamed(root, cameras=[WRIST], lazy=True) as (lazy, _):
        assert eager.cuts().tolist() == [0, *range(10, 32), 44, *range(52, 70), 78]
        for start, stop in ((0, 31), (31, 52), (44, 78)):
            share, first = lazy.opened_for(start, stop)
            assert set(share.cuts() + first) == {cut for cut in eager.cuts() if first <= cut <= first + len(share)}


def test_problems_of_other_files_do_not_reach_a_share(damaged: MakeDataset) -> None:
    root = damaged(**SIX)
    delete(root, FRONT, 1)
    whole, lazy = open_dataset(root), open_lazily(root)
    shares = [lazy.opened_for(start, stop)[0] for start, stop in ((0, 40), (40, 50), (50, 78))]
    assert [sorted(share.problems) for share in shares] == [[], [3], [3, 4, 5]]
    assert set(whole.problems) == {3, 4, 5}
    assert_serves(shares[1], 31, whole, [31, 43])


def test_rows_of_unknown_episodes_are_missed_by_the_shares_of_their_file(damaged: MakeDataset) -> None:
    root = damaged(**SIX)
    edit_table(root / EPISODES_PATH, lambda columns: [values.pop(4) for values in columns.values()])
    whole, lazy = open_dataset(root), open_lazily(root)
    shares = [lazy.opened_for(start, start + 1)[0] for start in (0, 44)]
    assert [[error.episode for error in one.lost] for one in (whole, *shares)] == [[4], [], [4]]
    chosen, _ = open_lazily(root, episodes=[3, 5]).opened_for(0, 1)
    assert (chosen.lost, sorted(chosen.problems)) == ([], [4])


def test_rows_of_an_episode_of_another_share_are_not_lost(damaged: MakeDataset) -> None:
    """They are in a wrong file: which the share of that file tells of, but the episode has its samples."""
    root = damaged(**SIX)
    edit_table(root / EPISODES_PATH, lambda columns: columns["data/file_index"].__setitem__(2, 1))
    share, _ = open_lazily(root).opened_for(0, 5)
    assert (share.lost, sorted(share.problems)) == ([], [2])


def test_ranks_agree_on_the_size_that_the_metadata_says(damaged: MakeDataset, synth: MakeDataset) -> None:
    root = damaged(**SIX)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"][FRONT]["shape"] = [64, 80, 3]
    (root / "meta/info.json").write_text(json.dumps(info))
    share, _ = open_lazily(root).opened_for(0, 5)
    assert share.fields[0].shape == (64, 80, 3)
    with pytest.raises(CorruptMedia, match=r"pictures of 96 x 128, where meta/info\.json says 64 x 80; give"):
        share[0]
    resized, _ = open_lazily(root, image_size=(96, 128)).opened_for(0, 5)
    assert_serves(resized, 0, open_dataset(root), [3])
    info["features"][FRONT]["shape"] = []
    (root / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(CorruptMedia, match=r"does not say how large .* lazy=False"):
        open_lazily(root)


def test_all_samples_or_a_surveyed_dataset_need_no_share(synth: MakeDataset) -> None:
    lazy, eager = open_lazily(synth(**SIX)), open_dataset(synth(**SIX))
    assert eager.opened_for(40, 41) == (eager, 0)
    assert lazy.opened_for(9, 70) == (lazy, 0)
    assert lazy.is_surveyed


def test_a_share_of_nothing_can_be_asked_for_what_it_is(synth: MakeDataset) -> None:
    for start in (0, 31, 78):
        lazy = open_lazily(synth(**SIX))
        share, first = lazy.opened_for(start, start)
        assert share.fields == lazy.fields
        assert first <= start <= first + len(share)
    with pytest.raises(ValueError, match="samples 70 to 79 of a dataset of 78"):
        lazy.opened_for(70, 79)


def test_a_share_travels_without_the_whole(synth: MakeDataset) -> None:
    lazy = open_lazily(synth(**SIX), progress=lambda done, files: None)
    share, first = lazy.opened_for(44, 50)
    assert not pickle.loads(pickle.dumps(lazy)).is_surveyed
    copy = pickle.loads(pickle.dumps(share))
    assert (copy.is_surveyed, len(copy._layout.data.paths)) == (True, 1)
    assert_serves(copy, first, lazy, [44, 49])


def test_a_subclass_has_shares_of_its_kind(synth: MakeDataset) -> None:
    class Named(LeRobotDataset):
        name = "none"

    dataset = Named(synth(**SIX), cache_dir="beside", lazy=True)
    dataset.name = "mine"
    share, _ = dataset.opened_for(0, 3)
    assert isinstance(share, Named)
    assert (share.name, len(share.groups)) == ("mine", 10)


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_survey_that_was_interrupted_can_be_made_again(is_remote: bool, synth: MakeDataset) -> None:
    interrupts = [KeyboardInterrupt()]

    def interrupt(done: int, files: int) -> None:
        if interrupts:
            raise interrupts.pop()

    def check(dataset: LeRobotDataset) -> None:
        with pytest.raises(KeyboardInterrupt):
            dataset.check()
        assert (dataset.is_surveyed, dataset.check()) == (False, [])

    if not is_remote:
        check(open_lazily(synth(**SIX), progress=interrupt))
        return
    with streamed(synth(**SIX), lazy=True, progress=interrupt) as (dataset, _):
        check(dataset)
