"""The writer makes real LeRobot v3.0 datasets in which every frame says who it is."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from millpond._locks import lock_soon
from millpond._synth import CODECS, read_pattern, write_dataset
from millpond._synth.beside import written_beside
from synthesized import DATA_PATH, EPISODES_PATH, FRONT, FRONT_PATH, LENGTHS, WRIST, MakeDataset

EXPECTED = [(episode, 0, frame) for episode, length in enumerate(LENGTHS) for frame in range(length)]


def keyframes(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
    return [n for n, packet in enumerate(packets) if packet.is_keyframe]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("b_frames", [0, 2])
def test_every_frame_says_who_it_is_after_every_codec(synth: MakeDataset, codec: str, b_frames: int) -> None:
    path = synth(codec=codec, b_frames=b_frames, cameras=1) / FRONT_PATH
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert [read_pattern(frame.to_ndarray(format="rgb24").astype(np.uint8)) for frame in frames] == EXPECTED
    small = [frame.reformat(224, 224, "rgb24").to_ndarray().astype(np.uint8) for frame in frames]
    assert [read_pattern(picture) for picture in small] == EXPECTED


@pytest.mark.parametrize("codec", CODECS)
def test_keyframes_are_where_they_were_asked_for(synth: MakeDataset, codec: str) -> None:
    assert keyframes(synth(codec=codec, gop=6, cameras=1) / FRONT_PATH) == list(range(0, sum(LENGTHS), 6))


@pytest.mark.parametrize("codec", CODECS)
def test_every_episode_starts_with_a_keyframe_if_asked(synth: MakeDataset, codec: str) -> None:
    found = keyframes(synth(codec=codec, gop=1000, cameras=1, episode_keyframes=True) / FRONT_PATH)
    assert found == np.cumsum([0, *LENGTHS])[:-1].tolist()


def test_files_and_chunks_are_filled_in_turn(synth: MakeDataset) -> None:
    root = synth(episodes_per_file=2, files_per_chunk=2)
    found = sorted(str(path.relative_to(root)) for path in root.rglob("chunk-*/*") if "meta" not in path.parts)
    places = ["chunk-000/file-000", "chunk-000/file-001", "chunk-001/file-000"]
    videos = [f"videos/{camera}/{place}.mp4" for camera in (FRONT, WRIST) for place in places]
    assert found == [f"data/{place}.parquet" for place in places] + videos


def test_metadata_has_the_columns_of_lerobots_own_writer(synth: MakeDataset, shared_dir: Path) -> None:
    real = shared_dir / "data/lerobot_v3_av1"
    root = synth()
    for name in (EPISODES_PATH, DATA_PATH, "meta/tasks.parquet"):
        assert set(pq.read_schema(root / name).names) == set(pq.read_schema(real / name).names)
    ours, theirs = (json.loads((folder / "meta/info.json").read_text()) for folder in (root, real))
    assert ours.keys() == theirs.keys()
    assert ours["features"].keys() == theirs["features"].keys()


def test_rows_are_numbered_through_the_dataset(synth: MakeDataset) -> None:
    table = pq.read_table(synth() / DATA_PATH, partitioning=None)
    assert table["index"].to_pylist() == list(range(sum(LENGTHS)))
    numbers = zip(table["episode_index"].to_pylist(), table["frame_index"].to_pylist(), strict=True)
    assert [(episode, 0, frame) for episode, frame in numbers] == EXPECTED
    assert [row[:2] for row in table["observation.state"].to_pylist()] == [[e, f] for e, _, f in EXPECTED]


def test_audio_lasts_as_long_as_the_video(synth: MakeDataset) -> None:
    path = str(synth(audio=True, cameras=1) / FRONT_PATH)
    with av.open(path) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
        assert samples / container.streams.audio[0].rate == pytest.approx(sum(LENGTHS) / 30, abs=0.1)


def test_progress_counts_every_frame_of_every_camera(tmp_path: Path) -> None:
    seen: list[int] = []
    write_dataset(
        tmp_path / "out", episodes=2, frames=3, cameras=2, image_features=1, size=(64, 64), progress=seen.append
    )
    assert sum(seen) == 2 * 3 * 2


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        write_dataset(tmp_path, episodes=1, frames=1, size=(64, 64))


@pytest.mark.parametrize("image_features", [0, 1])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_what_goes_wrong_ends_the_writing_at_once_and_leaves_nothing(
    tmp_path: Path, kind: type[BaseException], image_features: int
) -> None:
    seen: list[int] = []

    def fail_at_third(frames: int) -> None:
        seen.append(frames)
        if len(seen) >= 3:
            raise kind

    with pytest.raises(kind):
        write_dataset(
            tmp_path / "out",
            episodes=3,
            frames=100_000,
            cameras=1,
            image_features=image_features,
            size=(64, 64),
            codec="h264",
            progress=fail_at_third,
        )
    assert len(seen) == 3
    assert list(tmp_path.iterdir()) == []


def test_the_target_is_there_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()  # an empty folder may be there, and stays the same one
    inode = (tmp_path / "out").stat().st_ino
    there: list[list[Path]] = []
    out = write_dataset(
        tmp_path / "out",
        episodes=1,
        frames=1,
        cameras=1,
        size=(64, 64),
        codec="h264",
        progress=lambda _: there.append(list((tmp_path / "out").iterdir())),
    )
    assert there == [[]]
    assert (sorted(p.name for p in out.iterdir()), out.stat().st_ino) == (["data", "meta", "videos"], inode)
    assert list(tmp_path.iterdir()) == [out]


def test_what_a_killed_process_left_does_not_block_the_next_try(tmp_path: Path) -> None:
    (tmp_path / "out.unfinished/videos").mkdir(parents=True)
    out = write_dataset(tmp_path / "out", episodes=1, frames=1, cameras=0, size=(64, 64))
    assert list(tmp_path.iterdir()) == [out]


def test_a_set_that_another_process_is_writing_is_left_to_it(tmp_path: Path) -> None:
    said: list[str] = []

    def write_it_too(_: int) -> None:
        with pytest.raises(FileExistsError) as caught:
            write_dataset(tmp_path / "out", episodes=1, frames=1, cameras=0, size=(64, 64))
        said.append(str(caught.value))

    out = write_dataset(tmp_path / "out", episodes=1, frames=1, cameras=1, size=(64, 64), progress=write_it_too)
    assert ["another process is writing" in text for text in said] == [True]
    assert (list(tmp_path.iterdir()), sorted(p.name for p in out.iterdir())) == ([out], ["data", "meta", "videos"])


def test_a_set_that_another_process_finishes_just_now_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = contextlib.ExitStack()
    (other.enter_context(written_beside(tmp_path / "out")) / "meta").mkdir()

    def lock_too_late(*args: Any) -> bool:
        other.close()
        return lock_soon(*args)

    monkeypatch.setattr("millpond._synth.beside.lock_soon", lock_too_late)
    with pytest.raises(FileExistsError, match="another process"), written_beside(tmp_path / "out"):
        pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "out", tmp_path / "out/meta"]


def test_an_unfinished_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.unfinished").mkdir()
    (tmp_path / "out.unfinished/thesis").touch()
    with pytest.raises(FileExistsError, match=r"out\.unfinished"):
        write_dataset(tmp_path / "out", episodes=1, frames=1, size=(64, 64))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"codec": "mjpeg"}, "mjpeg"),
        ({"episodes": 2, "frames": [3]}, "2 episodes"),
        ({"cameras": 1, "image_features": 2}, "image_features=2"),
        ({"gop": 0}, "gop=0"),
        ({"fps": 0}, "fps=0"),
        ({"episodes_per_file": 0}, "episodes_per_file=0"),
        ({"b_frames": 17}, "b_frames=17"),
        ({"cameras": 257}, "camera 256"),
        ({"size": (481, 641)}, "width 641, height 481: both must be even"),
        ({"size": (32, 80)}, "width 80, height 32: too small"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        write_dataset(tmp_path / "out", **{"episodes": 1, "frames": 1, "size": (64, 64), **options})
    assert list(tmp_path.iterdir()) == []
