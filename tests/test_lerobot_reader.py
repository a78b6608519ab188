"""Every picture and number that a reader gives is the one that was asked for."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from millpond._datasets import lerobot_reader
from millpond._datasets.base import Dataset, Reader
from millpond._synth import CODECS
from synthesized import (
    DATA_PATH,
    FRONT,
    LENGTHS,
    WRIST,
    MakeDataset,
    MemorySink,
    expected_identities,
    failures_of,
    identities,
    open_dataset,
    read_all,
)

LEFT = "observation.images.left"


def pyav_frames(path: Path, count: int) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), count)]
    return [frame.astype(np.uint8) for frame in frames]


def test_the_dataset_and_its_reader_are_what_the_loader_asks_for(synth: MakeDataset) -> None:
    dataset = open_dataset(synth())
    assert isinstance(dataset, Dataset)
    assert isinstance(dataset.reader(), Reader)
    filled = [name for part in dataset.parts for name in dataset.part_fields[part]]
    assert sorted(filled) == sorted(field.name for field in dataset.fields)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("b_frames", [0, 2])
def test_every_codec_gives_every_frame_under_its_own_name(synth: MakeDataset, codec: str, b_frames: int) -> None:
    dataset = open_dataset(synth(codec=codec, b_frames=b_frames))
    for number, camera in enumerate(dataset.cameras):
        assert identities(dataset, camera) == expected_identities(dataset, number)


@pytest.mark.parametrize("options", [{"episodes_per_file": 2, "files_per_chunk": 2}, {"audio": True}, {"gop": 1000}])
def test_every_layout_gives_every_frame_under_its_own_name(synth: MakeDataset, options: dict[str, int]) -> None:
    dataset = open_dataset(synth(**options))
    for number, camera in enumerate(dataset.cameras):
        assert identities(dataset, camera) == expected_identities(dataset, number)


def test_pictures_in_parquet_are_read_beside_video(synth: MakeDataset) -> None:
    dataset = open_dataset(synth(cameras=3, image_features=1, episodes_per_file=2))
    assert identities(dataset, WRIST) == expected_identities(dataset, 1)
    assert identities(dataset, LEFT) == expected_identities(dataset, 2)


def test_a_subset_is_renumbered_and_keeps_its_names(synth: MakeDataset) -> None:
    dataset = open_dataset(synth(episodes_per_file=2), episodes=[3, 1], cameras=[WRIST])
    assert len(dataset) == LENGTHS[1] + LENGTHS[3]
    assert dataset.groups.tolist() == [1] * LENGTHS[1] + [3] * LENGTHS[3]
    assert dataset.parts == (WRIST,)
    assert identities(dataset, WRIST) == expected_identities(dataset, 1)


@pytest.mark.parametrize("image_features", [0, 2])
def test_a_resize_keeps_the_names(synth: MakeDataset, image_features: int) -> None:
    dataset = open_dataset(synth(image_features=image_features), image_size=(224, 200), interpolation="area")
    assert dataset.fields[0].shape == (224, 200, 3)
    assert identities(dataset, WRIST) == expected_identities(dataset, 1)


def test_frames_are_those_of_pyavs_own_decode(synth: MakeDataset) -> None:
    root = synth(b_frames=2)
    dataset = open_dataset(root)
    expected = pyav_frames(root / f"videos/{FRONT}/chunk-000/file-000.mp4", len(dataset))
    shown = [sink.shown(FRONT, n) for sink, _ in read_all(dataset, FRONT) for n in range(len(sink.windows[FRONT]))]
    assert len(shown) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(shown, expected, strict=True))


@pytest.mark.parametrize("name", ["lerobot_v3_av1", "lerobot_v3_h264_gop30", "lerobot_v3_multifile"])
def test_real_frames_are_those_of_pyavs_own_decode(shared_dir: Path, tmp_path: Path, name: str) -> None:
    dataset = open_dataset(shared_dir / "data" / name, episodes=[0], cameras=[FRONT], cache_dir=tmp_path)
    assert dataset.check() == []
    path = shared_dir / "data" / name / f"videos/{FRONT}/chunk-000/file-000.mp4"
    expected = iter(pyav_frames(path, len(dataset)))
    for sink, report in read_all(dataset, FRONT):
        assert report.failures == []
        for position in range(len(sink.windows[FRONT])):
            assert np.array_equal(sink.shown(FRONT, position), next(expected))


def test_numbers_are_those_of_the_parquet(synth: MakeDataset) -> None:
    root = synth(extra_columns=True)
    dataset = open_dataset(root)
    table = pq.read_table(root / DATA_PATH, partitioning=None)
    read = [sink.values for sink, _ in read_all(dataset, FRONT)]
    numbers = [field for field in dataset.fields if not field.frames]
    assert {"next.done", "observation.pose", "observation.contact", "timestamp"} < {field.name for field in numbers}
    for field in numbers:
        values = np.concatenate([part[field.name] for part in read])
        assert (values.dtype, values.shape) == (np.dtype(field.dtype), (len(dataset), *field.shape))
        assert values.tolist() == table[field.name].to_pylist()


def test_a_number_of_shape_one_has_no_axis(synth: MakeDataset) -> None:
    shapes = {field.name: field.shape for field in open_dataset(synth()).fields}
    assert shapes["timestamp"] == shapes["episode_index"] == ()
    assert shapes["action"] == (14,)


def test_tasks_and_text_are_lists_of_strings(synth: MakeDataset) -> None:
    dataset = open_dataset(synth(extra_columns=True, episodes_per_file=2), episodes=[1, 4])
    batch: dict[str, object] = {}
    dataset.decorate(batch, np.asarray([LENGTHS[1], 0, LENGTHS[1] - 1]))
    assert batch["task"] == ["open the drawer", "open the drawer", "open the drawer"]
    assert batch["instruction"] == ["episode 4, stage 0", "episode 1, stage 0", "episode 1, stage 1"]


def test_without_cameras_the_numbers_are_a_part_of_their_own(synth: MakeDataset) -> None:
    dataset = open_dataset(synth(), cameras=[])
    assert dataset.parts == ("table",)
    ((sink, report),) = read_all(dataset, "table", segment=1000)
    assert report.failures == []
    assert sink.values["frame_index"].tolist() == [frame for length in LENGTHS for frame in range(length)]
    assert dataset.cuts().tolist() == list(range(len(dataset) + 1))


def test_samples_may_be_any_ascending_ones(synth: MakeDataset) -> None:
    dataset = open_dataset(synth(episodes_per_file=1))
    samples = np.asarray([0, 9, 10, 30, 31, 51, 52, 68])
    sink, reader = MemorySink(), dataset.reader()
    assert reader.read(FRONT, samples, sink, lambda: None).failures == []
    reader.close()
    assert sink.values["index"].tolist() == samples.tolist()
    assert set(sink.pictures[FRONT]) == set(range(len(samples)))


def test_a_reader_is_small_and_travels(synth: MakeDataset) -> None:
    dataset = open_dataset(synth())
    reader = dataset.reader()
    samples = np.arange(5)
    reader.read(FRONT, samples, MemorySink(), lambda: None)
    payload = pickle.dumps(reader)
    reader.close()
    sink, arrived = MemorySink(), pickle.loads(payload)
    assert len(payload) < 10_000
    assert arrived.read(FRONT, samples, sink, lambda: None).failures == []
    arrived.close()
    assert len(sink.pictures[FRONT]) == 5


def test_open_files_are_bounded_and_closed(synth: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(synth(episodes_per_file=1, cameras=3, image_features=1))
    monkeypatch.setattr(lerobot_reader, "MAX_OPEN_FILES", 2)
    before = len(os.listdir("/proc/self/fd"))
    reader = dataset.reader()
    for part in dataset.parts:
        for sample in range(0, len(dataset), 5):
            reader.read(part, np.asarray([sample]), MemorySink(), lambda: None)
            assert len(os.listdir("/proc/self/fd")) <= before + 8  # two of each camera, and two tables
    reader.close()
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_progress_is_made_with_every_frame(synth: MakeDataset) -> None:
    ticks: list[None] = []
    reader = open_dataset(synth()).reader()
    reader.read(WRIST, np.arange(12), MemorySink(), lambda: ticks.append(None))
    reader.close()
    assert len(ticks) >= 12


def test_crcs_are_learned_once_and_kept(damaged: MakeDataset) -> None:
    root = damaged()
    dataset = open_dataset(root)
    reports = [report for _, report in read_all(dataset, FRONT)]
    assert all(report.learned for report in reports)
    for report in reports:
        dataset.learn(report.learned)
    dataset.close()
    assert all(report.learned is None for _, report in read_all(open_dataset(root), FRONT))


def test_a_packet_that_changed_after_the_first_epoch_is_found(damaged: MakeDataset) -> None:
    root = damaged(codec="av1", gop=2)
    dataset = open_dataset(root)
    for _, report in read_all(dataset, FRONT):
        dataset.learn(report.learned)
    dataset.close()
    path = root / f"videos/{FRONT}/chunk-000/file-000.mp4"
    status, data = path.stat(), bytearray(path.read_bytes())
    data[data.index(b"mdat") + 4000] ^= 0x10
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    failed = failures_of(open_dataset(root), FRONT)
    assert len(failed) == 2  # one GOP
    assert all(FRONT in str(error) for error in failed.values())


def test_the_reader_needs_neither_pyarrow_nor_torch_nor_pydantic() -> None:
    code = (
        "import sys, millpond._datasets.lerobot_reader\n"
        "print(sorted({'pyarrow', 'torch', 'pandas', 'pydantic'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_sidecar_is_used_the_second_time(synth: MakeDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    root = synth()
    open_dataset(root)
    monkeypatch.setattr("millpond._media.index.build_sample_table", None)
    monkeypatch.setattr("millpond._datasets.columns.ColumnStore._make", None)
    assert open_dataset(root).check() == []


def test_opening_shows_its_progress(synth: MakeDataset) -> None:
    seen: list[tuple[int, int]] = []
    open_dataset(synth(episodes_per_file=2), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n + 1, 9) for n in range(9)]


def test_columns_go_to_a_temporary_folder_where_the_cache_cannot_be_written(
    synth: MakeDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    dataset = open_dataset(synth(), cache_dir=tmp_path / "file" / "cache")
    assert identities(dataset, FRONT) == expected_identities(dataset, 0)
    assert "MILLPOND_CACHE_DIR" in caplog.text
    caplog.clear()  # records of errors hold the frames that these passed, and those hold the dataset


def test_the_fingerprint_knows_samples_but_not_places(synth: MakeDataset, damaged: MakeDataset) -> None:
    here, there = open_dataset(synth()), open_dataset(damaged())
    assert here.fingerprint == there.fingerprint
    others = [
        open_dataset(synth(), **options).fingerprint
        for options in (
            {"episodes": [0, 1]},
            {"cameras": [FRONT]},
            {"delta_timestamps": {"action": [0.0]}},
            {"image_size": (64, 64)},
        )
    ]
    assert len({here.fingerprint, *others}) == 5


def test_every_sample_can_be_described(synth: MakeDataset) -> None:
    dataset = open_dataset(synth(), episodes=[2, 4])
    told = [dataset.describe(sample) for sample in range(len(dataset))]
    assert [(t["episode_index"], t["frame_index"]) for t in told] == [(e, f) for e in (2, 4) for f in range(LENGTHS[e])]
    assert all(b["sample"] == a["sample"] + 1 for a, b in pairwise(told))
    with pytest.raises(IndexError):
        dataset.describe(len(dataset))
