"""`dataset[i]` of a LeRobot dataset is what the loader delivers for that sample, and leaves nothing behind."""

from __future__ import annotations

import copy
import gc
import json
import os
import pickle
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import millpond
from map_style import assert_same_sample, loader_rows
from millpond import LeRobotDataset, VideoDecoderCache
from millpond._datasets import cached_videos, camera_reader, frame_batch
from millpond._datasets.decoders.cache import default_cache
from millpond._media.frames import decode_frames
from millpond._synth import read_pattern
from programs import forked
from streamed import asked_for, streamed
from synthesized import (
    DATA_PATH,
    FRONT,
    FRONT_PATH,
    LENGTHS,
    WRIST,
    MakeDataset,
    edit_table,
    open_dataset,
    zero_the_middle,
)

TOTAL = sum(LENGTHS)
WINDOWS = {FRONT: [-0.1, 0.0, 1 / 30], "action": [0.0, 1 / 30]}


def shown(sample: dict[str, Any], camera: str = FRONT) -> tuple[int, int, int]:
    """The (episode, camera, frame) that a picture says."""
    return read_pattern(np.moveaxis(np.asarray(sample[camera]), 0, -1))


def numbers_of(samples: list[dict[str, Any]]) -> list[int]:
    return [int(sample["index"]) for sample in samples]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ({}, {}),
        ({"gop": 12, "b_frames": 2}, {"delta_timestamps": WINDOWS}),
        ({"codec": "av1", "gop": 2, "episodes_per_file": 2}, {"image_size": (80, 100), "interpolation": "area"}),
        ({"extra_columns": True, "episodes_per_file": 2, "files_per_chunk": 2}, {"episodes": [1, 4]}),
        ({"cameras": 3, "image_features": 2, "episodes_per_file": 2}, {"delta_timestamps": {FRONT: [-1 / 30, 0.0]}}),
        ({"audio": True}, {"cameras": [WRIST]}),
        ({"extra_columns": True}, {"cameras": []}),
    ],
    ids=["plain", "windows", "resized", "text and selected", "images", "one camera", "no camera"],
)
def test_every_sample_is_the_loaders(
    synth: MakeDataset, tmp_path: Path, recipe: dict[str, Any], options: dict[str, Any]
) -> None:
    with open_dataset(synth(**recipe), **options) as dataset:
        rows = loader_rows(dataset, tmp_path)
        samples = list(dataset)  # type: ignore[call-overload]  # a sequence without __iter__
        assert len(samples) == len(rows) == len(dataset)
        for number, sample in enumerate(samples):
            assert_same_sample(sample, rows[number])


@pytest.mark.parametrize(
    "name", ["lerobot_v3_av1", "lerobot_v3_h264_gop30", "lerobot_v3_h264_gop250", "lerobot_v3_multifile"]
)
def test_samples_of_real_footage_are_the_loaders(shared_dir: Path, tmp_path: Path, name: str) -> None:
    root = shared_dir / "data" / name
    episodes = sorted({0, LeRobotDataset(root).num_episodes - 1})
    with LeRobotDataset(root, episodes=episodes, image_size=(120, 160)) as dataset:
        rows = loader_rows(dataset, tmp_path)
        chosen = np.random.default_rng(0).permutation(len(dataset))[:12].tolist()
        for number, sample in zip(chosen, dataset.__getitems__(chosen), strict=True):
            assert_same_sample(sample, rows[number])
            assert_same_sample(dataset[number], rows[number])


# ---- what is asked for


@pytest.fixture
def dataset(synth: MakeDataset) -> Any:
    with open_dataset(synth()) as dataset:
        yield dataset


def test_indices_are_those_of_a_list(dataset: LeRobotDataset) -> None:
    assert len(dataset) == TOTAL
    for index in (TOTAL - 1, -1, np.int64(-1), np.asarray(TOTAL - 1), np.uint16(TOTAL - 1)):
        assert int(dataset[index]["index"]) == TOTAL - 1
    for index in (TOTAL, -TOTAL - 1):
        with pytest.raises(IndexError, match=f"sample {index} of {TOTAL}"):
            dataset[index]
    for wrong in (True, np.bool_(True), 1.0, np.float32(1), "1", None, slice(2), [1], np.asarray([1, 2])):
        with pytest.raises(TypeError, match="by an integer"):
            dataset[wrong]  # type: ignore[index]


def test_several_come_in_the_order_asked_for_and_each_frame_is_decoded_once(
    dataset: LeRobotDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        report = decode_frames(*args, **kwargs)
        decoded.append(report.frames_decoded)
        return report

    monkeypatch.setattr(camera_reader, "decode_frames", counted)
    wanted = [40, -1, 3, 40, 0, 4, 39]
    samples = dataset.__getitems__(wanted)
    assert numbers_of(samples) == [40, TOTAL - 1, 3, 40, 0, 4, 39]
    assert [shown(sample)[2] for sample in samples] == [int(sample["frame_index"]) for sample in samples]
    whole = sum(decoded)
    decoded.clear()
    dataset.__getitems__(sorted(set(np.asarray(wanted) % TOTAL)))
    assert sum(decoded) == whole
    assert dataset.__getitems__([]) == []


def test_samples_are_the_callers_own(dataset: LeRobotDataset) -> None:
    first, again, other = dataset.__getitems__([7, 7, 8])
    for name in (FRONT, "action", "timestamp"):
        kept = copy.deepcopy(again[name])
        first[name][...] = 0
        assert np.array_equal(np.asarray(again[name]), np.asarray(kept))
        assert np.array_equal(np.asarray(dataset[7][name]), np.asarray(kept))
    assert shown(other) == (0, 0, 8)


def test_without_torch_samples_are_arrays(dataset: LeRobotDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_batch, "_has_torch", lambda: False)
    sample = dataset[3]
    kinds = {name: type(value) for name, value in sample.items()}
    assert kinds.pop("task") is str
    assert set(kinds.values()) == {np.ndarray}  # numbers, too: of no axis
    assert (sample[FRONT].shape, sample[FRONT].dtype, sample["index"].shape) == ((3, 96, 128), np.uint8, ())
    assert all(value.flags.writeable for value in sample.values() if isinstance(value, np.ndarray))
    assert shown(sample) == (0, 0, 3)


# ---- what is bad


def cut_short(root: Path) -> None:
    with open(root / FRONT_PATH, "r+b") as file:
        file.truncate((root / FRONT_PATH).stat().st_size * 2 // 3)


def remove_a_video(root: Path) -> None:
    (root / FRONT_PATH).unlink()


def spoil_the_table(root: Path) -> None:
    (root / DATA_PATH).write_bytes(b"PAR1 but not really")


def drop_a_row(root: Path) -> None:
    def change(columns: dict[str, list[Any]]) -> None:
        for values in columns.values():
            del values[5]

    edit_table(root / DATA_PATH, change)


def spoil_an_image(root: Path) -> None:
    def change(columns: dict[str, list[Any]]) -> None:
        columns[WRIST][4] = {**columns[WRIST][4], "bytes": b"no picture"}

    edit_table(root / DATA_PATH, change)


@pytest.mark.parametrize(
    ("damage", "recipe"),
    [
        (zero_the_middle, {}),
        (cut_short, {}),
        (remove_a_video, {"episodes_per_file": 2}),
        (spoil_the_table, {"episodes_per_file": 2}),
        (drop_a_row, {}),
        (spoil_an_image, {"image_features": 1}),
    ],
)
def test_the_same_samples_are_bad_for_the_same_reason(
    damaged: MakeDataset, tmp_path: Path, damage: Callable[[Path], None], recipe: dict[str, Any]
) -> None:
    root = damaged(**recipe)
    damage(root)
    with open_dataset(root, delta_timestamps={FRONT: [0.0, 1 / 30]}) as dataset:
        rows = loader_rows(dataset, tmp_path)
        lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
        expected = {line["sample"]: line for line in lines}
        assert 0 < len(expected) == TOTAL - len(rows)
        for number in range(TOTAL):
            if number in rows:
                assert_same_sample(dataset[number], rows[number])
                continue
            line = expected[number]
            if damage is zero_the_middle and (line["frame_index"] % 6 < 5) and not is_bad(dataset, number):
                assert shown(first_step(dataset[number])) == (line["episode_index"], 0, line["frame_index"])
                continue  # the loader had read all of the GOP; here it is read as far as it must be, and is good
            with pytest.raises(millpond.DataError) as caught:
                dataset[number]
            error = caught.value
            assert type(error).__name__ == line["error"]
            assert (error.sample, error.episode, error.frame) == (number, line["episode_index"], line["frame_index"])
            told = f"sample {number} (frame {error.frame} of episode {error.episode}): "
            assert str(error) == told + line["message"]
            assert not getattr(error, "__notes__", [])  # none piles up on an error that is kept


def test_a_bad_sample_is_the_first_of_those_asked_for(damaged: MakeDataset) -> None:
    root = damaged(episodes_per_file=2)
    (root / f"videos/{WRIST}/chunk-000/file-001.mp4").unlink()
    with open_dataset(root) as dataset:
        first = LENGTHS[0] + LENGTHS[1]
        with pytest.raises(millpond.ObjectMissing, match=f"sample {first + 2} ") as caught:
            dataset.__getitems__([0, first + 2, 1, first])
        assert (caught.value.camera, caught.value.episode, caught.value.frame) == (WRIST, 2, 2)
        assert numbers_of(dataset.__getitems__([0, 1])) == [0, 1]


def test_what_changes_after_it_was_read_is_never_delivered(damaged: MakeDataset) -> None:
    root = damaged()
    with open_dataset(root) as dataset:
        before = [dataset[number] for number in range(TOTAL)]
        flip_bits(root / FRONT_PATH)
        bad = 0
        for number in range(TOTAL):
            try:
                assert_same_sample(dataset[number], before[number])
            except millpond.CorruptMedia:
                bad += 1
    assert 0 < bad < TOTAL
    again = open_dataset(root)  # it is known to another dataset, too: what was learned was kept at the end
    assert sum(is_bad(again, number) for number in range(TOTAL)) == bad
    again.close()


def first_step(sample: dict[str, Any]) -> dict[str, Any]:
    return {FRONT: sample[FRONT][0]}


def flip_bits(video: Path) -> None:
    """As a disk would, without a trace in the file's times."""
    status, data = video.stat(), bytearray(video.read_bytes())
    start = data.index(b"mdat") + 4
    for at in np.random.default_rng(0).integers(start, len(data), 5).tolist():
        data[at] ^= 1
    video.write_bytes(data)
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))


def is_bad(dataset: LeRobotDataset, number: int) -> bool:
    try:
        dataset[number]
    except millpond.DataError:
        return True
    return False


def test_a_file_that_was_replaced_is_not_taken_for_the_old_one(damaged: MakeDataset) -> None:
    root = damaged(gop=6)
    with open_dataset(root) as dataset:
        assert shown(dataset[12]) == (1, 0, 2)
        other = root / "other.mp4"
        other.write_bytes((root / FRONT_PATH).read_bytes()[::-1])
        other.replace(root / FRONT_PATH)
        with pytest.raises(millpond.DataError):
            dataset[12]


# ---- what is open


def test_videos_are_in_the_cache_of_the_process_until_the_dataset_is_closed(synth: MakeDataset) -> None:
    root = synth(episodes_per_file=1)
    before, kept = descriptors(), default_cache().size()
    first, second = open_dataset(root), open_dataset(root)
    for dataset in (first, second):
        for number in range(0, TOTAL, 8):
            dataset[number]
    assert default_cache().size() == kept + 2 * 2 * len(LENGTHS)
    first.close()
    first.close()
    assert default_cache().size() == kept + 2 * len(LENGTHS)
    assert shown(first[0]) == (0, 0, 0)  # it opens again what it needs
    first.close()
    second.close()
    assert (default_cache().size(), descriptors()) == (kept, before)


def test_a_cache_of_ones_own_bounds_what_is_open(synth: MakeDataset) -> None:
    cache = VideoDecoderCache(max_size=3)
    before, kept = descriptors(), default_cache().size()
    with open_dataset(synth(episodes_per_file=1), decoder_cache=cache) as dataset:
        for number in np.random.default_rng(0).permutation(TOTAL).tolist():
            assert shown(dataset[number])[2] == int(dataset[number]["frame_index"])
            assert cache.size() <= 3
            assert descriptors() <= before + 3 + len(LENGTHS)  # the tables of numbers are mapped
        assert cache.statistics().evictions > 0
        assert default_cache().size() == kept
    assert (cache.size(), descriptors()) == (0, before)


@pytest.mark.parametrize("image_features", [0, 1])
def test_a_dataset_that_is_let_go_of_leaves_nothing_open(synth: MakeDataset, image_features: int) -> None:
    before, kept = descriptors(), default_cache().size()
    dataset = open_dataset(synth(image_features=image_features))
    dataset[5]
    gone = weakref.ref(dataset)
    del dataset
    assert gone() is None  # at once, since nothing goes round in a circle
    assert (default_cache().size(), descriptors()) == (kept, before)


def test_a_dataset_that_is_collected_amid_a_call_of_its_cache_harms_nobody(synth: MakeDataset) -> None:
    cache = VideoDecoderCache()
    keeper, other = open_dataset(synth(), decoder_cache=cache), open_dataset(synth(), decoder_cache=cache)
    keeper[0], other[0]
    held = [other]
    del other

    def is_chosen(key: object) -> bool:
        held.clear()  # as the garbage collector may at any time
        return False

    cache.drop(is_chosen)
    assert cache.size() == 2
    assert shown(keeper[1]) == (0, 0, 1)
    keeper.close()
    assert (cache.size(), cache.statistics().open) == (0, 0)


def test_a_copy_opens_files_of_its_own(dataset: LeRobotDataset) -> None:
    dataset[0]
    before = descriptors()
    for arrived in (pickle.loads(pickle.dumps(dataset)), copy.copy(dataset)):
        assert descriptors() == before
        assert_same_sample(arrived[30], dataset[30])
        arrived.close()
        assert_same_sample(dataset[30], dataset[30])


def test_a_cache_of_ones_own_travels_empty(synth: MakeDataset) -> None:
    with open_dataset(synth(), decoder_cache=VideoDecoderCache(max_size=7)) as dataset:
        dataset[0]
        size = len(pickle.dumps(dataset))
        dataset[30]
        assert len(pickle.dumps(dataset)) == size  # nothing that was learned goes with it
        arrived = pickle.loads(pickle.dumps(dataset))
        assert (arrived._decoder_cache.max_size, arrived._decoder_cache.size()) == (7, 0)
        assert shown(arrived[0]) == (0, 0, 0)
        assert arrived._decoder_cache.size() == 2
        arrived.close()


@pytest.mark.parametrize("image_features", [0, 1])
def test_a_forked_child_shares_nothing_with_its_parent(synth: MakeDataset, image_features: int) -> None:
    with open_dataset(synth(image_features=image_features)) as dataset:
        expected = [shown(dataset[number], WRIST) for number in range(TOTAL)]

        def read_all() -> bytes:
            videos = [target for target in open_targets() if target.endswith(".mp4")]
            found = [shown(dataset[number], WRIST) for number in range(TOTAL)]
            dataset.close()
            left = [target for target in open_targets() if target.endswith((".mp4", ".parquet"))]
            return json.dumps([videos, found, left]).encode()

        with forked(read_all) as theirs, forked(read_all) as others:
            mine = [shown(dataset[number], WRIST) for number in range(TOTAL)]
            answers = [json.loads(theirs()), json.loads(others())]
        assert mine == expected
        for videos, found, left in answers:
            assert videos == left == []
            assert [tuple(one) for one in found] == expected


def open_targets() -> list[str]:
    targets = []
    for name in os.listdir("/proc/self/fd"):
        try:
            targets.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # that of the listing
            continue
    return targets


@pytest.mark.parametrize("when", ["check_identity", "open_video"])
def test_a_video_that_does_not_open_leaves_nothing_open(
    synth: MakeDataset, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    before = descriptors()

    def fail(*args: Any) -> None:
        raise millpond.CorruptMedia("it changed this moment")

    with open_dataset(synth(), cameras=[FRONT]) as dataset:
        with monkeypatch.context() as patch:
            if when == "check_identity":
                patch.setattr("millpond._media.video_file.require_identity", fail)
            else:
                patch.setattr(cached_videos, "open_video", fail)
            with pytest.raises(millpond.CorruptMedia, match="changed this moment") as caught:
                dataset[0]
            assert (caught.value.camera, caught.value.episode) == (FRONT, 0)
            del caught
        dataset._samples.close()  # type: ignore[union-attr]
        assert descriptors() == before
        assert shown(dataset[0]) == (0, 0, 0)


# ---- threads


@pytest.mark.parametrize("recipe", [{"episodes_per_file": 1}, {"image_features": 1, "episodes_per_file": 2}])
def test_threads_read_side_by_side(synth: MakeDataset, tmp_path: Path, recipe: dict[str, Any]) -> None:
    cache = VideoDecoderCache(max_size=3)  # evicts what other threads have in use
    with open_dataset(synth(**recipe), decoder_cache=cache) as dataset:
        rows = loader_rows(dataset, tmp_path)
        order = np.random.default_rng(1).permutation(np.repeat(np.arange(TOTAL), 3)).tolist()

        def is_right(number: int) -> bool:
            assert_same_sample(dataset[number], rows[number])
            return True

        with ThreadPoolExecutor(6) as threads:
            assert all(threads.map(is_right, order))
        assert cache.size() <= 3
    assert (cache.size(), cache.statistics().open) == (0, 0)


def test_a_thread_that_decodes_holds_up_no_other(dataset: LeRobotDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    amid = threading.Barrier(2, timeout=60)

    def meet(*args: Any, **kwargs: Any) -> Any:
        amid.wait()  # broken, if the other were kept from coming here
        return decode_frames(*args, **kwargs)

    monkeypatch.setattr(camera_reader, "decode_frames", meet)
    with ThreadPoolExecutor(2) as threads:
        assert [shown(sample)[2] for sample in threads.map(dataset.__getitem__, (3, 5))] == [3, 5]


def test_closing_amid_a_call_waits_for_nothing_and_leaves_nothing(
    synth: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, kept = descriptors(), default_cache().size()
    dataset = open_dataset(synth(), cameras=[FRONT])

    def close_amid(*args: Any, **kwargs: Any) -> Any:
        dataset.close()
        return decode_frames(*args, **kwargs)

    monkeypatch.setattr(camera_reader, "decode_frames", close_amid)
    assert shown(dataset[4]) == (0, 0, 4)
    assert (default_cache().size(), descriptors()) == (kept, before)


# ---- behind a URL


@pytest.mark.parametrize("recipe", [{"episodes_per_file": 2, "b_frames": 2}, {"image_features": 1}])
def test_samples_behind_a_url_are_those_of_the_folder(
    synth: MakeDataset, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    root = synth(**recipe)
    with open_dataset(root) as local, streamed(root, cache_dir=tmp_path / "cache") as (remote, _):
        wanted = np.random.default_rng(2).permutation(TOTAL)[:20].tolist()
        expected = local.__getitems__(wanted)
        for found in (remote.__getitems__(wanted), [remote[number] for number in wanted]):
            for mine, other in zip(found, expected, strict=True):
                assert_same_sample(mine, other)


def test_of_a_url_just_the_bytes_of_a_sample_are_fetched_all_at_once(synth: MakeDataset) -> None:
    with streamed(synth(episodes_per_file=2)) as (remote, server):
        remote[0]  # tables of numbers and footers are there
        server.requests.clear()
        remote.__getitems__([20, 21, 60])
        assert asked_for(server, ".mp4")[0] == 4  # two GOPs of two cameras


def test_threads_of_a_url_do_not_take_each_others_bytes(synth: MakeDataset, tmp_path: Path) -> None:
    root = synth(episodes_per_file=2)
    with open_dataset(root) as local, streamed(root) as (remote, server):
        order = np.random.default_rng(3).permutation(TOTAL)[:24].tolist()
        for number in order:
            remote[number]  # tables and footers are there
        server.requests.clear()
        expected = [local[number] for number in order]
        with ThreadPoolExecutor(4) as threads:
            for mine, other in zip(threads.map(remote.__getitem__, order), expected, strict=True):
                assert_same_sample(mine, other)
        in_threads = asked_for(server, ".mp4")
        server.requests.clear()
        for number in order:
            remote[number]
        assert asked_for(server, ".mp4") == in_threads  # what one has fetched is there until it was read


def test_a_remote_dataset_that_is_let_go_of_leaves_nothing_open(synth: MakeDataset) -> None:
    kept = default_cache().size()
    with streamed(synth()) as (remote, server):
        other = LeRobotDataset(server.url)
        other[3], remote[3]
        assert default_cache().size() == kept + 4
        del other
        gc.collect()
        assert default_cache().size() == kept + 2


@pytest.mark.parametrize("other", [5, VideoDecoderCache])
def test_what_is_no_cache_is_refused(synth: MakeDataset, other: Any) -> None:
    with pytest.raises(TypeError, match=r"^decoder_cache must be a millpond\.VideoDecoderCache or None, not"):
        open_dataset(synth(), decoder_cache=other)
