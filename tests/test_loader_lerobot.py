"""The loader over LeRobot datasets: identity read back from pixels, and pixels against an independent decode."""

from __future__ import annotations

import json
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

import millpond
from millpond._synth import read_pattern
from synthesized import FRONT, FRONT_PATH, LENGTHS, WRIST, MakeDataset, open_dataset, zero_the_middle

TOTAL = sum(LENGTHS)
CAMERAS = (FRONT, WRIST)


def make_loader(dataset: millpond.LeRobotDataset, **changes: Any) -> millpond.Loader:
    options: dict[str, Any] = {"batch_size": 8, "shuffle": True, "num_workers": 2, "memory": "300MiB"}
    return millpond.Loader(dataset, **(options | {"output": "numpy"} | changes))


def height_last(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3, H, W) as (H, W, 3)."""
    return np.moveaxis(picture, 0, -1)


def checked(batch: dict[str, Any], cameras: tuple[str, ...] = CAMERAS) -> list[tuple[int, int]]:
    """(episode, frame) of each row, once every camera's pixels have said the same."""
    rows = list(zip(batch["episode_index"].tolist(), batch["frame_index"].tolist(), strict=True))
    for number, camera in enumerate(cameras):
        for row, (episode, frame) in enumerate(rows):
            assert read_pattern(height_last(batch[camera][row])) == (episode, number, frame)
    return rows


def all_rows(loader: millpond.Loader) -> list[tuple[int, int]]:
    return [row for batch in loader for row in checked(batch)]


EVERY_ROW = [(episode, frame) for episode, length in enumerate(LENGTHS) for frame in range(length)]


@pytest.mark.parametrize(
    ("codec", "gop", "b_frames"),
    [("av1", 2, 0), ("h264", 6, 0), ("h264", 12, 2), ("hevc", 8, 2), ("vp9", 10, 0), ("h264", 250, 0)],
)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_frame_of_every_camera_comes_once_under_its_own_name(
    synth: MakeDataset, codec: str, gop: int, b_frames: int, num_workers: int
) -> None:
    dataset = open_dataset(synth(codec=codec, gop=gop, b_frames=b_frames))
    with make_loader(dataset, num_workers=num_workers) as loader:
        for _ in range(2):
            assert sorted(all_rows(loader)) == EVERY_ROW
        decoded = loader.statistics().counters["frames_decoded"]
    assert decoded == 2 * 2 * TOTAL  # two epochs, two cameras: each frame once


def test_several_files_and_chunks_and_pictures_in_parquet_mix(synth: MakeDataset) -> None:
    root = synth(episodes_per_file=2, files_per_chunk=2, image_features=1, cameras=1)
    dataset = open_dataset(root)
    with make_loader(dataset) as loader:
        rows = [row for batch in loader for row in checked(batch, dataset.cameras)]
    assert sorted(rows) == EVERY_ROW


def reference_pictures(path: Path) -> dict[int, NDArray[np.uint8]]:
    """Front to back through the container, as anyone would decode it, by position."""
    with av.open(str(path)) as container:
        frames = enumerate(container.decode(video=0))
        return {position: np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for position, frame in frames}


def pictures_from_keys(path: Path, runs: Iterable[range]) -> dict[int, NDArray[np.uint8]]:
    """Runs of frames by position, each from the key before it, where the container goes when it is told to seek."""
    found = {}
    with av.open(str(path)) as container:
        times = sorted(packet.pts for packet in container.demux(video=0) if packet.pts is not None)
        for run in runs:
            container.seek(times[run.start], stream=container.streams.video[0])
            for frame in container.decode(video=0):
                if (position := bisect_left(times, frame.pts or 0)) in run:
                    found[position] = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                if position >= run.stop - 1:
                    break
    return found


@pytest.mark.parametrize("name", ["lerobot_v3_av1", "lerobot_v3_h264_gop30", "lerobot_v3_h264_gop250"])
def test_an_epoch_of_real_footage_equals_the_reference_frame_by_frame(shared_dir: Path, name: str) -> None:
    root = shared_dir / "data" / name
    episodes = range(0, 30, 6)
    dataset = millpond.LeRobotDataset(root, cameras=[FRONT], episodes=episodes)
    table = pq.read_table(root / "data" / "chunk-000" / "file-000.parquet", columns=["episode_index"])
    numbers = table["episode_index"].to_pylist()  # one MP4 holds all episodes in order
    runs = [range(bisect_left(numbers, episode), bisect_right(numbers, episode)) for episode in episodes]
    pictures = pictures_from_keys(root / FRONT_PATH, runs)
    assert len(pictures) == sum(map(len, runs))
    with make_loader(dataset, batch_size=32, memory="1GiB") as loader:
        for batch in loader:
            for picture, sample in zip(batch[FRONT], batch["index"].tolist(), strict=True):
                assert np.array_equal(height_last(picture), pictures.pop(sample))  # each comes once
    assert not pictures


def test_several_real_files_of_a_camera_are_each_their_own_time_line(shared_dir: Path) -> None:
    root = shared_dir / "data" / "lerobot_v3_multifile"
    dataset = millpond.LeRobotDataset(root)
    files = sorted((root / "videos" / FRONT).rglob("*.mp4"))
    pictures = [picture for path in files for picture in reference_pictures(path).values()]
    with make_loader(dataset, memory="1GiB") as loader:
        for batch in loader:
            for picture, sample in zip(batch[FRONT], batch["index"].tolist(), strict=True):
                assert np.array_equal(height_last(picture), pictures[sample])
        assert loader.statistics().samples == len(pictures) == 480


@pytest.mark.parametrize(("layout", "memory"), [("direct", "300MiB"), ("gathered", "166MiB")])
def test_windows_of_both_layouts_show_the_same(synth: MakeDataset, layout: str, memory: str) -> None:
    steps = list(range(-20, 10))
    deltas = {FRONT: [step / 30 for step in steps], "action": [0.0, 1 / 30]}
    dataset = open_dataset(synth(gop=2), delta_timestamps=deltas)
    with make_loader(dataset, batch_size=4, memory=memory, num_workers=1) as loader:
        assert loader.memory_plan().layout == layout
        rows = [row for batch in loader for row in checked_windows(batch, steps)]
    assert sorted(rows) == EVERY_ROW


def checked_windows(batch: dict[str, Any], steps: list[int]) -> list[tuple[int, int]]:
    rows = list(zip(batch["episode_index"].tolist(), batch["frame_index"].tolist(), strict=True))
    for row, (episode, frame) in enumerate(rows):
        wanted = [frame + step for step in steps]
        last = LENGTHS[episode] - 1
        shown = [read_pattern(height_last(picture))[2] for picture in batch[FRONT][row]]
        assert shown == [min(max(step, 0), last) for step in wanted]
        assert batch[f"{FRONT}_is_pad"][row].tolist() == [not 0 <= step <= last for step in wanted]
        assert batch["action_is_pad"][row].tolist() == [False, frame + 1 > last]
        assert read_pattern(height_last(batch[WRIST][row])) == (episode, 1, frame)
    return rows


def test_a_resize_happens_on_the_way(synth: MakeDataset) -> None:
    dataset = open_dataset(synth(), image_size=(80, 100))
    with make_loader(dataset) as loader:
        batch = next(iter(loader))
        assert batch[FRONT].shape == (8, 3, 80, 100)
        checked(batch)


def test_a_transform_runs_on_real_samples_in_the_workers(synth: MakeDataset) -> None:
    def crop(sample: dict[str, Any]) -> dict[str, Any]:
        return {"mean": sample[FRONT].mean(axis=(1, 2), dtype=np.float32), "episode_index": sample["episode_index"]}

    with make_loader(open_dataset(synth()), transform=crop) as loader:
        shapes = {name: value.shape for name, value in next(iter(loader)).items()}
    assert shapes == {"mean": (8, 3), "episode_index": (8,)}


def test_tensors_are_ready_to_train_on(synth: MakeDataset) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    with make_loader(open_dataset(synth()), output="torch") as loader:
        batch = next(iter(loader))
        assert batch[FRONT].dtype == torch.uint8
        assert batch[FRONT].is_contiguous(memory_format=torch.channels_last)
        assert batch["action"].dtype == torch.float32
        assert isinstance(batch["task"], list)
        assert (batch[FRONT].float() / 255).mean() > 0


# ---- bad input: what is good is all delivered, what is bad is named


def delivered_and_quarantined(
    root: Path, quarantine: Path, **changes: Any
) -> tuple[list[tuple[int, int]], list[dict[str, Any]], millpond.Books]:
    with make_loader(open_dataset(root), on_error="skip", quarantine=quarantine, **changes) as loader:
        rows = all_rows(loader)
        books = loader.statistics().books
    assert books is not None
    assert books.balance == 0
    return rows, [json.loads(line) for line in quarantine.read_text().splitlines()], books


@pytest.mark.parametrize("num_workers", [0, 2])
def test_zeroed_bytes_cost_their_gop_and_nothing_else(damaged: MakeDataset, tmp_path: Path, num_workers: int) -> None:
    root = damaged()
    zero_the_middle(root)
    rows, quarantined, books = delivered_and_quarantined(root, tmp_path / "q.jsonl", num_workers=num_workers)
    lost = sorted((line["episode_index"], line["frame_index"]) for line in quarantined)
    assert sorted(rows + lost) == EVERY_ROW
    assert 0 < books.skipped <= 12  # the zeros lie in one GOP of six frames, or over the border of two
    assert {line["error"] for line in quarantined} == {"CorruptMedia"}


@pytest.mark.parametrize("codec", ["h264", "vp9"])
def test_what_changes_after_a_clean_epoch_is_never_delivered(damaged: MakeDataset, tmp_path: Path, codec: str) -> None:
    root = damaged(codec=codec)
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "q.jsonl"}
    with make_loader(open_dataset(root), **options) as loader:
        clean = {row: batch[FRONT][at].copy() for batch in loader for at, row in enumerate(checked(batch))}
        flip_bits(root / FRONT_PATH, count=20)
        rows = [row for batch in loader for row in rows_as_before(batch, clean)]
        books = loader.statistics().books
    assert books is not None
    assert 0 < books.skipped < len(EVERY_ROW)
    assert len(rows) == len(EVERY_ROW) - books.skipped


def flip_bits(video: Path, count: int) -> None:
    """As a disk would, without a trace in the file's times."""
    status, data = video.stat(), bytearray(video.read_bytes())
    start = data.index(b"mdat") + 4
    for at in np.random.default_rng(0).integers(start, len(data), count).tolist():
        data[at] ^= 1
    video.write_bytes(data)
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))


def rows_as_before(batch: dict[str, Any], clean: dict[tuple[int, int], NDArray[np.uint8]]) -> list[tuple[int, int]]:
    rows = list(zip(batch["episode_index"].tolist(), batch["frame_index"].tolist(), strict=True))
    for at, row in enumerate(rows):
        assert np.array_equal(batch[FRONT][at], clean[row])
    return rows


def test_a_relative_path_stands_also_after_a_change_of_folder(
    synth: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = synth()
    monkeypatch.chdir(root.parent)
    dataset = open_dataset(Path(root.name))
    monkeypatch.chdir(tmp_path)
    with make_loader(dataset) as loader:
        assert sorted(all_rows(loader)) == EVERY_ROW


def test_a_missing_file_costs_its_episodes(damaged: MakeDataset, tmp_path: Path) -> None:
    root = damaged(episodes_per_file=2)
    (root / f"videos/{WRIST}/chunk-000/file-001.mp4").unlink()
    rows, quarantined, _ = delivered_and_quarantined(root, tmp_path / "q.jsonl")
    assert {episode for episode, _ in rows} == {0, 1, 4}
    assert {line["episode_index"] for line in quarantined} == {2, 3}
    assert all("file-001.mp4" in line["message"] for line in quarantined)


def test_raise_names_path_episode_and_camera(damaged: MakeDataset) -> None:
    root = damaged(episodes_per_file=2)
    (root / f"videos/{WRIST}/chunk-000/file-001.mp4").unlink()
    with make_loader(open_dataset(root), shuffle=False) as loader, pytest.raises(millpond.ObjectMissing) as caught:
        all_rows(loader)
    assert caught.value.camera == WRIST
    assert caught.value.episode == 2
    assert str(caught.value.path).endswith("file-001.mp4")


def test_a_parquet_that_does_not_parse_is_named(damaged: MakeDataset) -> None:
    root = damaged()
    (root / "data/chunk-000/file-000.parquet").write_bytes(b"PAR1 but not really")
    with make_loader(open_dataset(root)) as loader, pytest.raises(millpond.DataError, match=r"file-000\.parquet"):
        all_rows(loader)


def test_resume_in_the_middle_of_a_damaged_epoch_balances(damaged: MakeDataset, tmp_path: Path) -> None:
    root = damaged(episodes_per_file=2)
    (root / f"videos/{WRIST}/chunk-000/file-001.mp4").unlink()
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "q.jsonl"}
    with make_loader(open_dataset(root), **options) as loader:
        whole = all_rows(loader)
    with make_loader(open_dataset(root), **options) as loader:
        iterator = iter(loader)
        rows = checked(next(iterator)) + checked(next(iterator))
        state = json.loads(json.dumps(loader.state_dict()))
    with make_loader(open_dataset(root), **options, num_workers=1) as loader:
        loader.load_state_dict(state)
        assert rows + all_rows(loader) == whole
        books = loader.statistics().books
        assert books is not None
        assert books.balance == 0
        assert books.skipped == LENGTHS[2] + LENGTHS[3]
