"""Mixes: several datasets as one, each row under its own identity, under the names that were asked for."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_sets import FOUR_FRAMES, NAMES, numbers_shown, open_clips, rows_of, write_manifest
from fakes import FakeDataset, identity_of
from millpond import Loader, Member, VideoOptions, mix
from millpond._datasets.base import WantedRange
from millpond._datasets.share import Share
from millpond._synth import read_pattern
from millpond._synth.writer import TASKS
from store_server import StoreServer
from streamed import Batches, SmallSteps, asked_for, assert_same, loader_of, quarantined, streamed, taken
from synthesized import FRONT, WRIST, MakeDataset, open_dataset

TOTALS = (130, 70, 45)
EVERY_ROW = [(member, sample) for member, total in enumerate(TOTALS) for sample in range(total)]
NUMBERS = {name: name for name in ("observation.state", "episode_index", "frame_index", "task")}
"""What is taken of both members beside one camera."""
OTHER: dict[str, Any] = {"episodes": 3, "frames": 9}
"""A dataset of 27 samples, to be mixed with the usual one."""


def make_loader(dataset: Any, **changes: Any) -> Loader:
    options: dict[str, Any] = {"batch_size": 8, "num_workers": 0, "memory": "300MiB", "output": "numpy"} | changes
    return Loader(dataset, **options)


def fakes(**changes: Any) -> list[FakeDataset]:
    return [FakeDataset(total, episode_frames=25, **changes) for total in TOTALS]


def checked(loader: Loader, cameras: tuple[str, ...] = ("front", "wrist"), step: int | None = None) -> list[Any]:
    """(member, its own sample) of each row of an epoch, once every picture (of a step) has said the same."""
    found: list[tuple[int, int]] = []
    for batch in loader:
        rows = list(zip(batch["dataset_index"].tolist(), batch["index"].tolist(), strict=True))
        assert batch["task"] == [f"task {sample % 3}" for _, sample in rows]
        for number, camera in enumerate(cameras):
            shown = batch[camera] if step is None else batch[camera][:, step]
            assert [identity_of(picture) for picture in shown] == [(sample, number) for _, sample in rows]
        found += rows
    return found


@pytest.mark.parametrize("layout", ["direct", "gathered"])
@pytest.mark.parametrize("offsets", [None, (-3, 0, 2)])
def test_every_sample_comes_once_also_where_a_task_crosses_a_border(
    monkeypatch: pytest.MonkeyPatch, layout: str, offsets: tuple[int, ...] | None
) -> None:
    SmallSteps(monkeypatch)(None, segment=64, layout=layout)
    mixed = mix(fakes(offsets=offsets))
    as_one = Share(mixed, 0, len(mixed))  # of a mix itself the loader knows the members, and lets no task cross
    with make_loader(as_one, shuffle=True) as loader:
        rows = checked(loader, step=None if offsets is None else 1)
        assert loader.memory_plan().layout == layout
        assert sorted(rows) == EVERY_ROW


def test_without_shuffling_members_come_one_after_the_other() -> None:
    with make_loader(mix(fakes())) as loader:
        assert checked(loader) == EVERY_ROW
        assert checked(loader) == EVERY_ROW


def test_members_are_told_apart_in_groups_and_cuts() -> None:
    mixed = mix(fakes())
    assert len(mixed) == sum(TOTALS)
    assert np.unique(mixed.groups, return_counts=True)[1].tolist() == [25] * 5 + [5] + [25, 25, 20] + [25, 20]
    assert set(mixed.cuts().tolist()) == {*range(0, 245, 10), 245}


def test_costs_across_a_border_are_those_of_both_sides() -> None:
    mixed = mix(fakes())
    starts, stops = np.asarray([0, 125, 125, 131]), np.asarray([130, 205, 130, 132])
    assert mixed.cut_costs(starts, stops).tolist() == [260, 2 * (10 + 70 + 5), 20, 4]
    one = mix([Member(member, keys={"front": "front"}) for member in fakes()])
    assert one.cut_costs(starts, stops).tolist() == [130, 10 + 70 + 5, 10, 2]
    assert mixed.unique_frames(starts, stops).tolist() == [130, 80, 5, 1]


def test_a_sample_is_described_by_its_member() -> None:
    mixed = mix(fakes())
    assert mixed.describe(131) == {"dataset": 1, "sample": 1, "episode_index": 0, "frame_index": 1}
    with pytest.raises(IndexError, match="sample 245 of 245"):
        mixed.describe(245)


def test_what_readers_learn_goes_to_the_members_that_they_read() -> None:
    members = fakes()
    with make_loader(mix(members)) as loader:
        checked(loader)
    assert [sum(count for _, count in as_told(member)) for member in members] == [2 * total for total in TOTALS]


def as_told(member: FakeDataset) -> list[tuple[str, int]]:
    """What its readers learned: (part, frames)."""
    return cast(list[tuple[str, int]], member.learned)


@pytest.mark.parametrize("as_one", [False, True])
def test_bad_samples_are_written_down_by_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_one: bool) -> None:
    SmallSteps(monkeypatch)(None, segment=64)
    members = fakes()
    members[1].bad = frozenset({7})
    mixed = mix(members)
    options = {"on_error": "skip", "quarantine": tmp_path / "bad.jsonl"}
    with make_loader(Share(mixed, 0, len(mixed)) if as_one else mixed, shuffle=True, **options) as loader:
        assert sorted(checked(loader)) == [row for row in EVERY_ROW if row != (1, 7)]
    (line,) = quarantined(tmp_path / "bad.jsonl")
    assert (line["sample"], line["dataset"], line["frame_index"]) == (7, 1, 7)


def test_a_mix_resumes_where_it_was_saved() -> None:
    with make_loader(mix(fakes()), shuffle=True) as loader:
        whole = checked(loader)
        loader.set_epoch(0)
        for _ in islice(loader, 3):
            state = loader.state_dict()
    with make_loader(mix(fakes()), shuffle=True) as loader:
        loader.load_state_dict(state)
        assert checked(loader) == whole[24:]


def test_another_mix_is_another_dataset() -> None:
    a, b, c = fakes()
    same = {"front": "front", "wrist": "wrist", "index": "index", "state": "state"}
    mixes = [
        mix([a, b]),
        mix([a, b, c]),
        mix([(a, 1), (b, 1)]),
        mix([(a, 2), (b, 1)]),
        mix([(a, 1), (b, 1)], epoch_samples=9),
    ]
    mixes.append(mix([a, Member(b, keys=same)]))
    assert len({mixed.fingerprint for mixed in mixes}) == len(mixes)
    assert mix([(a, 2), (b, 2)]).fingerprint == mixes[2].fingerprint


def test_shares_stand_for_members() -> None:
    mixed = mix(fakes())
    shares = mixed.with_members([Share(member, 5, 35) for member in mixed.members])
    with make_loader(shares) as loader:
        assert checked(loader) == [(member, sample) for member in range(3) for sample in range(5, 35)]
    with pytest.raises(ValueError, match="2 datasets cannot stand for the 3 members"):
        mixed.with_members(mixed.members[:2])


def test_a_share_may_be_empty() -> None:
    mixed = mix(fakes())
    shares = mixed.with_members([Share(member, 0, 15 * number) for number, member in enumerate(mixed.members)])
    assert shares.cuts().tolist() == [0, 10, 15, 25, 35, 45]
    assert shares.groups.tolist() == [0] * 15 + [1] * 25 + [2] * 5
    assert shares.describe(15)["dataset"] == 2


def test_a_transform_sees_the_text_of_its_member_and_its_number() -> None:
    def negated(sample: dict[str, Any]) -> dict[str, Any]:
        return {"pair": np.stack([sample["dataset_index"], -sample["index"]]), "task": sample["task"]}

    found: list[tuple[list[int], str]] = []
    with make_loader(mix(fakes()), transform=negated) as loader:
        for batch in loader:
            found += zip(batch["pair"].tolist(), batch["task"], strict=True)
    assert found == [([member, -sample], f"task {sample % 3}") for member, sample in EVERY_ROW]


# ---- names


def test_two_datasets_are_mixed_under_other_names_and_only_cameras_that_are_taken_are_decoded(
    synth: MakeDataset,
) -> None:
    front = Member(open_dataset(synth()), keys={FRONT: "image"} | NUMBERS)
    wrist = Member(open_dataset(synth(**OTHER)), keys={WRIST: "image"} | NUMBERS)
    mixed = mix([front, wrist])
    with make_loader(mixed, shuffle=True, num_workers=2) as loader:
        rows = [row for batch in loader for row in rows_shown(batch)]
        decoded = loader.statistics().counters["frames_decoded"]
    assert {field.name for field in mixed.fields} == {"image", *NUMBERS, "dataset_index"} - {"task"}
    assert sorted(rows) == [
        (number, facts["episode_index"], facts["frame_index"])
        for number, member in enumerate(mixed.members)
        for facts in map(member.describe, range(len(member)))
    ]
    assert decoded == len(rows)


def rows_shown(batch: dict[str, Any]) -> list[tuple[int, int, int]]:
    """(member, episode, frame) of each row, which its picture says, too: of member 0 the first camera is taken, of 1
    the second."""
    numbers = (batch[name].tolist() for name in ("dataset_index", "episode_index", "frame_index"))
    rows = list(zip(*numbers, strict=True))
    for row, (member, episode, frame) in enumerate(rows):
        assert read_pattern(np.moveaxis(batch["image"][row], 0, -1)) == (episode, member, frame)
        assert batch["task"][row] == TASKS[episode % 3]
    return rows


def test_pictures_of_two_sizes_are_mixed_at_one(synth: MakeDataset) -> None:
    small, large = synth(), synth(**OTHER, size=(64, 80), cameras=1)
    keys = {FRONT: FRONT} | NUMBERS
    with pytest.raises(ValueError, match=r"96, 128, 3\) .* in member 0 and uint8 \(64, 80, 3\) .* image_size="):
        mix([Member(open_dataset(small), keys=keys), Member(open_dataset(large), keys=keys)])
    sized = [Member(open_dataset(root, image_size=(72, 72)), keys=keys) for root in (small, large)]
    with make_loader(mix(sized)) as loader:
        for batch in loader:
            for row, place in enumerate(
                zip(batch["episode_index"].tolist(), batch["frame_index"].tolist(), strict=True)
            ):
                episode, _, frame = read_pattern(np.moveaxis(batch[FRONT][row], 0, -1))
                assert (episode, frame) == place


def test_to_mix_datasets_opens_no_files_that_are_opened_lazily(synth: MakeDataset) -> None:
    lazy = [open_dataset(root, lazy=True) for root in (synth(), synth(**OTHER))]
    mixed = mix([Member(dataset, keys={FRONT: "image"} | NUMBERS) for dataset in lazy])
    shares = mixed.with_members([Share(dataset.opened_for(0, 6)[0], 0, 6) for dataset in lazy])
    with make_loader(shares, num_workers=0) as loader:
        assert sum(len(batch["task"]) for batch in loader) == 12
    assert not any(dataset.is_surveyed for dataset in lazy)


# ---- members in stores


def test_members_in_stores_and_on_this_machine_give_what_they_give_on_this_machine(
    synth: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    SmallSteps(monkeypatch)()
    roots = [synth(**OTHER), synth(), synth(**OTHER)]
    keys = [{camera: "image"} | NUMBERS for camera in (FRONT, FRONT, WRIST)]

    def epoch(datasets: list[Any]) -> tuple[Batches, dict[str, int]]:
        with loader_of(mix(list(map(Member, datasets, [None] * 3, keys)))) as loader:  # type: ignore[arg-type]
            return taken(loader), loader.statistics().counters

    expected, _ = epoch([open_dataset(root) for root in roots])
    with streamed(roots[0]) as (first, of_first), streamed(roots[2]) as (last, of_last):
        before = [videos_asked_for(server) for server in (of_first, of_last)]
        found, counters = epoch([first, open_dataset(roots[1]), last])
        fetched = [
            videos_asked_for(server) - earlier for server, earlier in zip((of_first, of_last), before, strict=True)
        ]
    assert_same(found, expected)
    assert [set(one) for one in fetched] == [{FRONT}, {WRIST}]
    assert sum(one.total() for one in fetched) == counters["ranges_planned"]  # none was left to a reader


def videos_asked_for(server: StoreServer) -> Counter[str]:
    """Camera to the number of requests for its videos."""
    return Counter({camera: asked_for(server, f"{camera}/chunk-000/file-000.mp4")[0] for camera in (FRONT, WRIST)})


class ToldSource:
    """Stands for a store; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def wanted(self, parts: list[str], samples: NDArray[np.int64]) -> list[WantedRange]:
        return [WantedRange(part, 3, int(samples[0]), int(samples[-1]) + 1) for part in parts]

    def forget(self, wanted: WantedRange) -> None:
        self.asked.append(wanted)

    def interrupt(self) -> None:
        self.asked.append("interrupt")

    def counters(self) -> dict[str, int]:
        return {"requests": 2}


def test_what_is_asked_of_stores_is_asked_of_the_right_one() -> None:
    sources = [ToldSource(), None, ToldSource()]
    members = [FakeDataset(10, byte_source=cast(None, source)) for source in sources]
    source = mix(members).byte_source
    assert source is not None
    wanted = source.wanted(["wrist", "front"], np.arange(8, 23))
    assert [(one.part, one.start, one.stop) for one in wanted] == [
        ("0:wrist", 8, 10),
        ("0:front", 8, 10),
        ("2:wrist", 0, 3),
        ("2:front", 0, 3),
    ]
    source.forget(wanted[3])
    source.interrupt()
    assert [one.asked for one in sources if one] == [["interrupt"], [WantedRange("front", 3, 0, 3), "interrupt"]]
    assert source.counters() == {"requests": 4}


# ---- clips


def test_text_that_a_member_lacks_is_empty(clips: Path) -> None:
    rows = rows_of(NAMES[:4])
    with_caption = write_manifest(clips.parent / "with.jsonl", rows[:2])
    without = write_manifest(
        clips.parent / "without.jsonl", [{"clip": r["video"], "number": r["number"]} for r in rows[2:]]
    )
    other = open_clips(without, video=VideoOptions(num_frames=4, image_size=(64, 80), column="clip"))
    with make_loader(mix([open_clips(with_caption, video=FOUR_FRAMES), other]), batch_size=4) as loader:
        (batch,) = loader
    assert batch["caption"] == [rows[0]["caption"], rows[1]["caption"], "", ""]
    assert [numbers_shown(video) for video in batch["video"]] == [{number} for number in batch["number"].tolist()]


def test_a_sample_is_what_a_row_of_the_loader_is(clips: Path) -> None:
    keys = {"video": "frames", "number": "number", "caption": "task"}
    mixed = mix([Member(open_clips(clips, video=FOUR_FRAMES), keys=keys)] * 2)
    copy = pickle.loads(pickle.dumps(mixed))  # as a DataLoader takes it to its workers
    with make_loader(mixed, batch_size=14) as loader:
        first = next(iter(loader))
    for row in (0, 9, 10, 13):
        sample = copy[row]
        assert sample.keys() == first.keys() == {"frames", "number", "task", "dataset_index"}
        assert all(np.array_equal(sample[name], first[name][row]) for name in sample)
    assert copy[-1]["dataset_index"] == 1
    copy.close()


@pytest.mark.parametrize("padding", ["pad", "list"])
def test_lengths_that_vary_are_presented_over_the_whole_batch(clips: Path, padding: str) -> None:
    options = {"video": VideoOptions(fps=10, max_frames=13, image_size=(64, 80)), "padding": padding}
    halves = [write_manifest(clips.parent / f"{name}.jsonl", rows_of([name])) for name in ("short.mp4", "h264.mp4")]
    with make_loader(mix([open_clips(half, **options) for half in halves]), batch_size=2) as loader:
        (batch,) = loader
    lengths = batch["video_length"].tolist()
    shown = batch["video"]
    assert [len(video) for video in shown] == (lengths if padding == "list" else [max(lengths)] * 2)
    assert [numbers_shown(video[:length]) for video, length in zip(shown, lengths, strict=True)] == [{7}, {0}]


# ---- weights


def test_quotas_add_up_and_are_as_near_to_the_weights_as_they_can_be() -> None:
    a, b, c = fakes()
    mixed = mix([(a, 5), (b, 3), Member(c, 2)])
    assert mixed.weights == pytest.approx((0.5, 0.3, 0.2))
    assert mixed.epoch_samples == len(mixed)
    assert [mixed.quotas(n) for n in (0, 3, 9, 10)] == [(0, 0, 0), (1, 1, 1), (4, 3, 2), (5, 3, 2)]
    assert mix([a, b, c]).quotas(245) == TOTALS


def test_shares_of_a_weighted_mix_have_its_weights_and_its_epoch() -> None:
    mixed = mix([(member, 1.0) for member in fakes()], epoch_samples=600)
    shares = mixed.with_members([Share(member, 0, 20) for member in mixed.members])
    assert (shares.weights, shares.epoch_samples, len(shares)) == (mixed.weights, 600, 60)


# ---- misuse


FEW = FakeDataset(20, cameras=("front",))
BOTH = FakeDataset(20)
NO_SAMPLES = FakeDataset(0)


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ([], {}, "at least one dataset"),
        ([BOTH, FEW], {}, "member 1 lacks 'wrist'.*Remedy.*keys="),
        ([FEW, BOTH], {}, "member 0 lacks 'wrist' of member 1"),
        (
            [FEW, FakeDataset(20, cameras=("front",), offsets=(0, 1))],
            {},
            r"'front' is uint8 \(4, 6, 3\).*\(2, 4, 6, 3\)",
        ),
        ([Member(BOTH, keys={"frnt": "front"})], {}, "keys= name 'frnt', which member 0 lacks; it has .*'task'"),
        ([Member(BOTH, keys={"front": "a", "wrist": "a"})], {}, "give the name 'a' twice"),
        ([Member(BOTH, keys={"task": "task"})], {}, "nothing that is an array"),
        ([Member(BOTH, keys={"front": "dataset_index"})], {}, "which the mix adds itself"),
        ([(BOTH, 1), (BOTH, 999)], {}, "member 0 would give none of 40 samples, by its weight of 0.001"),
        ([(BOTH, 1), (BOTH, -1)], {}, "weight of member 1 must be positive and finite, not -1"),
        ([(BOTH, 0), (BOTH, 1)], {}, "weight of member 0 must be positive.*leave out"),
        ([(BOTH, float("nan"))], {}, "positive and finite, not nan"),
        ([(BOTH, 1), BOTH], {}, r"members \[1\] have no weight.*or none"),
        ([BOTH, NO_SAMPLES], {}, r"members \[1\] have no samples"),
        ([(BOTH, 1, 2)], {}, "member 0 must be a dataset, \\(dataset, weight\\) or a Member"),
        ([BOTH], {"epoch_samples": 10}, "epoch_samples= is for a mix with weights"),
        ([(BOTH, 1)], {"epoch_samples": 0}, "epoch_samples must be at least 1"),
        ([BOTH, mix([FEW])], {}, "member 1 is a mix itself: give its members"),
    ],
)
def test_what_cannot_be_mixed_is_refused_with_a_remedy(members: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mix(members, **options)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["a/folder"], "not a path: give LeRobotDataset"),
        ([(BOTH, "1")], "weight of member 0 must be a number"),
        ([(BOTH, True)], "weight of member 0 must be a number"),
        (BOTH, "a list of datasets, not a FakeDataset"),
        ([Member(BOTH, keys={"front": None})], "keys= of member 0 must map"),  # type: ignore[dict-item]
        ([Member(BOTH, keys="front")], "keys= of member 0 must map"),  # type: ignore[arg-type]
    ],
)
def test_what_is_of_a_wrong_kind_is_a_type_error(members: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        mix(members)


def test_members_must_agree_in_padding(clips: Path) -> None:
    options = VideoOptions(fps=10, max_frames=13, image_size=(64, 80))
    halves = [open_clips(clips, video=options, padding=padding) for padding in ("pad", "list")]
    with pytest.raises(ValueError, match=r"differ in padding=: \['list', 'pad'\]"):
        mix(halves)
