"""Frames that are asked for one after the other: the decoder goes on, and gives what it gives from the keyframe."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import media_zoo as zoo
from millpond._media import ordered_run
from millpond._media.frames import DecodeReport, decode_frames
from millpond._media.index import build_sample_table
from millpond._media.video_file import VideoFile
from millpond.errors import DataError

KINDS = [clip.name for clip in zoo.CLIPS]


def opened(path: Path) -> VideoFile:
    file = VideoFile(path, build_sample_table(path))
    file.goes_on = True
    file.last_frame, file.calls_in_order = -1, 1  # as if it had been read up to its beginning
    return file


def taken(file: VideoFile, frames: list[int]) -> tuple[list[Any], DecodeReport]:
    pictures: dict[int, Any] = {}
    report = decode_frames(file, np.array(frames), lambda j, picture: pictures.__setitem__(j, picture.copy()))
    if report.failures:
        raise report.failures[0][1]
    return [pictures[j] for j in range(len(frames))], report


@pytest.fixture(autouse=True)
def no_place_is_kept() -> None:
    ordered_run._kept.places.clear()


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_in_order_each_packet_is_fed_once(name: str, step: int) -> None:
    reference = zoo.clip_reference(name)
    with opened(zoo.clip_path(name)) as file:
        fed = 0
        for frame in range(0, len(reference), step):
            (picture,), report = taken(file, [frame])
            assert np.array_equal(picture, reference[frame]), f"frame {frame}"
            fed += report.packets_fed
        if file.table.backend == "packets" and not file.preroll_gops:
            assert fed <= file.table.num_rows


@pytest.mark.parametrize("name", KINDS)
def test_in_order_and_elsewhere_by_turns(name: str) -> None:
    reference = zoo.clip_reference(name)
    count, rng = len(reference), np.random.default_rng(len(name))
    with opened(zoo.clip_path(name)) as one, opened(zoo.clip_path(name)) as other:
        at = {one: 0, other: 0}
        for _ in range(60):
            file = (one, other)[rng.integers(2)]
            go_on = rng.random() < 0.8
            first = at[file] + int(rng.integers(1, 4)) if go_on else int(rng.integers(count))
            frames = list(range(first % count, min(first % count + int(rng.integers(1, 4)), count)))
            pictures, _ = taken(file, frames)
            assert np.array_equal(pictures, [reference[frame] for frame in frames]), frames
            at[file] = frames[-1]


@pytest.mark.parametrize("name", ["h264_b_frames", "h264_open_gop", "hevc_cra", "av1_gop_16", "vp9_webm", "h264_mkv"])
def test_damage_costs_in_order_what_it_costs_alone(name: str, tmp_path: Path) -> None:
    """A frame that decodes from its keyframe decodes in order, and none is another's."""
    reference, path = zoo.clip_reference(name), tmp_path / zoo.clip_path(name).name
    table, data = zoo.clip_table(name), bytearray(zoo.clip_path(name).read_bytes())
    rng = np.random.default_rng(7)
    for row in rng.choice(np.arange(3, table.num_rows), 4, replace=False).tolist():
        begin, size = int(table.offset[row]), int(table.size[row])
        data[begin + size // 3 : begin + size] = rng.bytes(size - size // 3)
    path.write_bytes(data)
    with VideoFile(path, table) as alone, VideoFile(path, table) as in_order:
        alone.check_identity = in_order.check_identity = lambda: None  # type: ignore[method-assign]
        in_order.goes_on, in_order.last_frame, in_order.calls_in_order = True, -1, 1
        differing = 0
        for frame in range(len(reference)):
            found: list[Any] = []
            for file in (alone, in_order):
                try:
                    found.append(taken(file, [frame])[0][0])
                except DataError as error:
                    found.append(error)
            if isinstance(found[0], DataError):
                assert isinstance(found[1], DataError), f"frame {frame} does not decode alone"
            else:
                assert np.array_equal(found[0], found[1]), f"frame {frame}"
                differing += not np.array_equal(found[0], reference[frame])
        print(f"{differing} frames are altered without a sign, alone as in order")


def test_few_places_are_kept_and_none_of_a_video_that_is_gone() -> None:
    files = [opened(zoo.clip_path("h264_b_frames")) for _ in range(6)]
    for frame in range(3):
        for file in files:
            taken(file, [frame])
            assert len(ordered_run._kept.places) <= ordered_run.MAX_PLACES
    assert list(ordered_run._kept.places) == [id(file) for file in files[:4]], "those in use are not given up"
    last = files.pop()
    for file in files:
        file.close()
    del file
    files.clear()
    gc.collect()
    assert not ordered_run._kept.places
    taken(last, [3])
    assert list(ordered_run._kept.places) == [id(last)]
    last.close()


def test_a_place_that_is_not_used_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered_run, "MAX_PLACES", 1)
    with opened(zoo.clip_path("h264_b_frames")) as one, opened(zoo.clip_path("h264_b_frames")) as other:
        taken(one, [0])
        for turn in range(ordered_run._IDLE_CALLS + 10):
            taken(other, [turn % 40])
        assert list(ordered_run._kept.places) == [id(other)]


def test_large_pictures_and_many_frames_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(zoo.clip_path("h264_b_frames")) as file:
        taken(file, list(range(20)))
        assert not ordered_run._kept.places
        monkeypatch.setattr(ordered_run, "MAX_PIXELS", file.table.stream.width * file.table.stream.height - 1)
        taken(file, [20])
        assert not ordered_run._kept.places


def test_each_thread_has_its_own_place() -> None:
    reference = zoo.clip_reference("h264_b_frames")
    wrong: list[int] = []
    with opened(zoo.clip_path("h264_b_frames")) as file:
        taken(file, [0])  # open it

        def read() -> None:
            for frame in range(len(reference)):
                (picture,), _ = taken(file, [frame])
                if not np.array_equal(picture, reference[frame]):
                    wrong.append(frame)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert list(ordered_run._kept.places) == [id(file)]


def test_single_frames_of_many_videos_are_in_no_order() -> None:
    for _ in range(5):
        with opened(zoo.clip_path("h264_b_frames")) as file:
            file.last_frame, file.calls_in_order = None, 0
            for frame in (0, 1):
                taken(file, [frame])
                assert not ordered_run._kept.places
            taken(file, [2])
            assert list(ordered_run._kept.places) == [id(file)]
        del file
        assert not ordered_run._kept.places, "with the video goes its decoder"


def test_what_was_planned_is_all_that_is_read() -> None:
    with opened(zoo.clip_path("h264_b_frames")) as file:
        file.goes_on = False
        for frame in range(5):
            taken(file, [frame])
        assert not ordered_run._kept.places
