"""What a patched LeRobot gives: every sample its own frames, whatever backend is asked for, and its own errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.datasets import lerobot_dataset, video_utils
from lerobot.datasets.streaming_dataset import StreamingLeRobotDataset

import millpond
import millpond.lerobot
from lerobot_samples import CAMERAS, named, opened, shown, videos_open, windows
from synthesized import FRONT_PATH, MakeDataset


@pytest.mark.parametrize(
    ("backend", "recipe"),
    [("torchcodec", {"b_frames": 2}), ("pyav", {}), ("video_reader", {}), (None, {"codec": "av1", "gop": 2})],
)
def test_every_sample_shows_its_own_frame(synth: MakeDataset, backend: str | None, recipe: dict[str, Any]) -> None:
    dataset = opened(synth(**recipe), video_backend=backend)
    with millpond.lerobot.patch():
        for sample in dataset:
            for number, camera in enumerate(CAMERAS):
                assert shown(sample, camera) == named(sample, number)


def test_every_step_of_a_window_shows_its_own_frame(synth: MakeDataset) -> None:
    root = synth()
    single = opened(root)
    dataset = opened(root, delta_timestamps=windows(single.fps))
    with millpond.lerobot.patch():
        for index in range(len(dataset)):
            sample, (episode, _, frame) = dataset[index], named(single[index], 0)
            last = single.meta.episodes[episode]["length"] - 1
            steps = [max(frame - 3, 0), frame, min(frame + 1, last)]
            pictures = [{CAMERAS[0]: picture} for picture in sample[CAMERAS[0]]]
            assert [shown(picture, CAMERAS[0]) for picture in pictures] == [(episode, 0, step) for step in steps]


def test_frames_are_what_lerobot_promises(synth: MakeDataset) -> None:
    with millpond.lerobot.patch():
        frames = lerobot_dataset.decode_video_frames(synth() / FRONT_PATH, [0.1, 0.0, 0.1], 1e-4, "torchcodec")
    assert (frames.dtype, tuple(frames.shape)) == (torch.float32, (3, 3, 96, 128))
    assert 0 <= frames.min() < frames.max() <= 1
    assert torch.equal(frames[0], frames[2])
    assert not torch.equal(frames[0], frames[1])


def test_a_time_without_a_frame_is_lerobots_own_error(synth: MakeDataset) -> None:
    path = synth() / FRONT_PATH
    with (
        millpond.lerobot.patch(),
        pytest.raises(video_utils.FrameTimestampError, match=r"no frame within 0\.0001 s") as caught,
    ):
        lerobot_dataset.decode_video_frames(path, [0.0, 0.01], 1e-4)
    assert type(caught.value) is video_utils.FrameTimestampError
    assert str(path) in str(caught.value)
    assert isinstance(caught.value.__cause__, millpond.FrameTimestampError)


def test_a_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    with millpond.lerobot.patch(), pytest.raises(FileNotFoundError):
        video_utils.decode_video_frames(tmp_path / "none.mp4", [0.0], 1e-4)


def test_a_backend_that_there_is_not_is_lerobots_own_error(synth: MakeDataset) -> None:
    with millpond.lerobot.patch(), pytest.raises(ValueError, match="Unsupported video backend: other"):
        video_utils.decode_video_frames(synth() / FRONT_PATH, [0.0], 1e-4, "other")


def test_descriptors_are_as_many_as_the_cache_has_room_for(synth: MakeDataset) -> None:
    dataset = opened(synth(episodes_per_file=1))
    cache = millpond.VideoDecoderCache(max_size=3)
    seen = set()
    with millpond.lerobot.patch(cache):
        for index in torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist():
            sample = dataset[index]
            assert shown(sample, CAMERAS[0]) == named(sample, 0)
            seen.add(len(videos_open()))
    assert max(seen) == cache.size() == 3
    assert cache.statistics().evictions > 0
    cache.clear()
    assert videos_open() == []


def test_a_streaming_dataset_gives_every_sample_and_keeps_few_files_open(
    synth: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLPOND_VIDEO_DECODER_CACHE_SIZE", "1")
    root = synth()
    with millpond.lerobot.patch():
        dataset: Any = StreamingLeRobotDataset("local/dataset", root=root, buffer_size=8)
        seen = []
        for sample in dataset:
            seen.append(int(sample["index"]))
            assert len(videos_open()) <= 1
            for number, camera in enumerate(CAMERAS):
                assert shown(sample, camera) == named(sample, number)
        assert type(dataset.video_decoder_cache) is millpond.VideoDecoderCache
        dataset.video_decoder_cache.clear()
    assert sorted(seen) == list(range(len(opened(root))))


def test_lerobots_own_function_takes_a_decoder_cache_of_ours_without_a_patch(synth: MakeDataset) -> None:
    path, times = synth() / FRONT_PATH, [0.3, 0.1]
    cache = millpond.VideoDecoderCache(max_size=1)
    theirs = video_utils.decode_video_frames_torchcodec(path, times, 1e-4, decoder_cache=cache)
    assert torch.equal(theirs, millpond.decode_video_frames(path, times, 1e-4, return_uint8=False, cache=cache))
    cache.clear()
