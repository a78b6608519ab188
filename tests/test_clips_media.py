"""What a row may name: sound alone, images, files of their own, URLs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import millpond
from clip_sets import (
    FOUR_FRAMES,
    NAMES,
    RATE,
    SOUND,
    make_loader,
    numbers_shown,
    open_clips,
    rows_of,
    write_manifest,
)
from media_server import serving
from millpond.errors import DataError
from real_servers import BUCKET, put, s3_options, s3_server
from store_server import serving_store

SOUND_OF_CLIPS = millpond.AudioOptions(sampling_rate=RATE, column="video")


def test_sound_alone_is_that_of_load_audio(clips: Path) -> None:
    dataset = open_clips(clips, audio=SOUND_OF_CLIPS)
    assert [field.name for field in dataset.fields] == ["audio", "audio_length", "number"]
    with make_loader(dataset, batch_size=10) as loader:
        (batch,) = loader
    for row, name in enumerate(NAMES):
        expected = millpond.load_audio(clips.parent / name, sampling_rate=RATE)
        assert np.array_equal(batch["audio"][row, : batch["audio_length"][row]], expected)


def test_sound_may_be_limited_or_keep_its_channels(clips: Path) -> None:
    options = millpond.AudioOptions(sampling_rate=RATE, max_seconds=0.25, column="video")
    dataset = open_clips(clips, audio=options)
    assert dataset.fields[0].shape == (4000,)
    with make_loader(dataset) as loader:
        assert next(iter(loader))["audio_length"].tolist() == [4000] * 4
    rows = write_manifest(clips.parent / "stereo.jsonl", rows_of(["stereo.mp4"]))
    stereo = open_clips(rows, audio=millpond.AudioOptions(sampling_rate=RATE, mono=False, column="video"))
    with make_loader(stereo) as loader:
        (batch,) = loader
    left, right = np.abs(batch["audio"][0, 2000:14000]).mean(axis=0)
    assert abs(left / right - 2) < 0.05


def write_pictures(folder: Path, count: int = 3, size: tuple[int, int] = (20, 30)) -> list[str]:
    names = []
    for number in range(count):
        picture = np.full((*size, 3), 40 * number, np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.png")
        names.append(f"{number}.png")
    return names


@pytest.mark.parametrize("size", [None, (16, 16)])
def test_images_come_beside_or_alone(tmp_path: Path, size: tuple[int, int] | None) -> None:
    names = write_pictures(tmp_path)
    manifest = write_manifest(tmp_path / "m.jsonl", [{"picture": name, "n": n} for n, name in enumerate(names)])
    dataset = open_clips(manifest, image=millpond.ImageOptions(image_size=size, column="picture"))
    with make_loader(dataset) as loader:
        (batch,) = loader
    assert batch["image"].shape == (3, 3, *(size or (20, 30)))
    assert [picture.mean() for picture in batch["image"]] == [0, 40, 80]


def test_one_row_may_have_all_media(own_clips: Path) -> None:
    (name,) = write_pictures(own_clips.parent, count=1)
    rows = [row | {"image": name} for row in rows_of(["h264.mp4", "av1.mp4"])]
    manifest = write_manifest(own_clips, rows)
    dataset = open_clips(manifest, video=FOUR_FRAMES, audio=SOUND, image=millpond.ImageOptions(image_size=(8, 8)))
    with make_loader(dataset, num_workers=1) as loader:
        (batch,) = loader
    assert list(batch) == ["video", "video_seconds", "audio", "audio_length", "image", "number", "caption"]
    assert batch["image"].shape == (2, 3, 8, 8)
    assert numbers_shown(batch["video"][1]) == {2}


def test_sound_of_a_file_of_its_own_begins_with_its_first_sample(own_clips: Path) -> None:
    shutil.copy(own_clips.parent / "flac.mkv", own_clips.parent / "sound.mkv")
    write_manifest(own_clips, [{"video": "early-sound.mp4", "audio": "sound.mkv"}])
    with make_loader(open_clips(own_clips, video=FOUR_FRAMES, audio=SOUND)) as loader:
        (batch,) = loader
    assert np.array_equal(batch["audio"][0], millpond.load_audio(own_clips.parent / "sound.mkv", sampling_rate=RATE))


def test_paths_may_be_absolute_or_file_urls(clips: Path, tmp_path: Path) -> None:
    path = clips.parent / "h264.mp4"
    manifest = write_manifest(tmp_path / "m.jsonl", [{"video": str(path)}, {"video": path.as_uri()}])
    with make_loader(open_clips(manifest, video=FOUR_FRAMES)) as loader:
        (batch,) = loader
    assert [numbers_shown(video) for video in batch["video"]] == [{0}, {0}]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_urls_are_fetched_at_each_read_and_leave_nothing(clips: Path, tmp_path: Path, num_workers: int) -> None:
    data = {f"/{name}": (clips.parent / name).read_bytes() for name in ("h264.mp4", "av1.mp4")}
    with serving(data) as server:
        names = ["h264.mp4", "av1.mp4", "nowhere.mp4"]
        manifest = write_manifest(tmp_path / "m.jsonl", [{"video": f"{server.url}/{name}"} for name in names])
        dataset = open_clips(manifest, video=FOUR_FRAMES, audio=SOUND)
        options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "q.jsonl", "num_workers": num_workers}
        server.requests.clear()  # of the survey
        with make_loader(dataset, **options) as loader:
            (batch,) = loader
        assert [request[0] for request in server.requests].count("/h264.mp4") == 1  # for frames and sound
    assert [numbers_shown(video) for video in batch["video"]] == [{0}, {2}]
    assert np.array_equal(
        batch["audio"][0][: batch["audio_length"][0]], open_clips(clips, audio=SOUND_OF_CLIPS)[0]["audio"]
    )
    assert "nowhere.mp4" in (tmp_path / "q.jsonl").read_text()
    assert list((tmp_path / "cache" / "clips").rglob("*.npz")) == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_and_surveys_have_access_to_stores(clips: Path, tmp_path: Path, num_workers: int) -> None:
    with serving_store(clips.parent, bearer="sesame") as server:
        manifest = write_manifest(tmp_path / "m.jsonl", [{"video": f"{server.url}/h264.mp4"}])
        for access in ({"token": "sesame"}, {"storage_options": {"headers": {"Authorization": "Bearer sesame"}}}):
            dataset = open_clips(manifest, video=FOUR_FRAMES, audio=SOUND, **access)
            assert "sesame" not in repr(dataset)
            with make_loader(dataset, num_workers=num_workers) as loader:
                (batch,) = loader
            assert [numbers_shown(video) for video in batch["video"]] == [{0}]
            assert numbers_shown(dataset[0]["video"]) == {0}
        with pytest.raises(DataError, match="401"):
            open_clips(manifest, video=FOUR_FRAMES, audio=SOUND)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_clips_may_lie_in_a_bucket(clips: Path, tmp_path: Path, num_workers: int) -> None:
    with s3_server() as endpoint:
        put(endpoint, "clips/h264.mp4", (clips.parent / "h264.mp4").read_bytes())
        manifest = write_manifest(tmp_path / "m.jsonl", [{"video": f"s3://{BUCKET}/clips/h264.mp4"}] * 3)
        dataset = open_clips(manifest, video=FOUR_FRAMES, storage_options={"s3": s3_options(endpoint)})
        with make_loader(dataset, num_workers=num_workers) as loader:
            for _ in range(2):
                (batch,) = loader
        assert [numbers_shown(video) for video in batch["video"]] == [{0}] * 3
        assert numbers_shown(dataset[0]["video"]) == {0}
        dataset.close()
