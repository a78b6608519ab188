"""Clips that are missing, broken or altered: a bad sample each, and nothing else is lost."""

from __future__ import annotations

import json
import logging
import os
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clip_sets import (
    FOUR_FRAMES,
    NAMES,
    RATE,
    RECIPES,
    SIZE,
    SOUND,
    make_loader,
    open_clips,
    reference,
    rows_of,
    take,
    write_manifest,
)
from millpond import AudioOptions, ImageOptions, VideoOptions, errors
from millpond._media.index import build_sample_table
from millpond._synth.clips import Recipe, write_clip
from millpond._synth.scene import Scene

GOOD = ["h264.mp4", "av1.mp4", "vp9.webm", "mp3.ts", "flac.mkv"]


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path, at: float = 0.5, count: int = 64) -> None:
    """Alter some bytes of a file, whose size and times stay: what a disk does, and no writer."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    data[start : start + count] = bytes(255 - byte for byte in data[start : start + count])
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def flip_picture(path: Path) -> None:
    """Alter some bytes of the first picture."""
    table = build_sample_table(path)
    flip(path, (int(table.offset[0]) + 10) / path.stat().st_size, 20)


def with_bad_rows(manifest: Path) -> tuple[dict[int, str], list[int]]:
    """Rewrite a manifest with bad rows among good ones: row to what its error says, and the numbers of the good."""
    folder = manifest.parent
    cut_in_half(folder / "b-frames.mp4")
    (folder / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    (folder / "empty.mp4").touch()
    (folder / "folder.mp4").mkdir()
    bad: list[tuple[Any, str]] = [
        ("b-frames.mp4", "b-frames.mp4"),
        ("noise.mp4", "noise.mp4"),
        ("empty.mp4", "empty.mp4"),
        ("folder.mp4", "is a folder"),
        ("nowhere.mp4", "no file at"),
        (None, "nothing stands in column 'video'"),
        ("", "nothing stands in column 'video'"),
        (7, "column 'video' holds 7, which is neither a path nor a URL"),
        ("h264.mp4/x.mp4", "no file at"),
        ("nul\0.mp4", "which is neither a path nor a URL"),
        ("gopher://host/x.mp4", "gopher"),
    ]
    rows, expected = [], {}
    for position, (value, match) in enumerate(bad):
        rows += rows_of([GOOD[position % len(GOOD)]])
        expected[len(rows)] = match
        rows.append({"video": value, "number": -1, "caption": None})
    write_manifest(manifest, rows)
    return expected, [row["number"] for row in rows if row["number"] >= 0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_rows_are_skipped_and_named(own_clips: Path, tmp_path: Path, num_workers: int) -> None:
    expected, good = with_bad_rows(own_clips)
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "q.jsonl", "num_workers": num_workers}
    with make_loader(open_clips(own_clips, video=FOUR_FRAMES), shuffle=True, **options) as loader:
        assert sorted(take(loader)) == sorted(good)
        books = loader.statistics().books
    assert books is not None
    assert (books.delivered, books.skipped, books.balance) == (11, 11, 0)
    lines = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert {line["row"] for line in lines} == set(expected)
    for line in lines:
        assert line["message"].startswith(f"row {line['row']}: ")
        assert expected[line["row"]] in line["message"]


def test_a_bad_row_stops_the_epoch_and_says_which_it_is(own_clips: Path) -> None:
    (own_clips.parent / "av1.mp4").unlink()
    with make_loader(open_clips(own_clips, video=FOUR_FRAMES), batch_size=1) as loader:
        with pytest.raises(errors.ObjectMissing, match=r"row 2: no file at '.*av1.mp4'") as caught:
            take(loader)
    assert caught.value.row == 2
    assert loader.statistics().samples == 2
    assert "'video': 'av1.mp4'" in caught.value.__notes__[-1]


def test_a_placeholder_is_black_and_has_no_length(own_clips: Path, tmp_path: Path) -> None:
    (own_clips.parent / "av1.mp4").unlink()
    dataset = open_clips(own_clips, video=VideoOptions(fps=8, image_size=(64, 64)), audio=SOUND)
    options: dict[str, Any] = {"on_error": "placeholder", "quarantine": tmp_path / "q.jsonl", "batch_size": 10}
    with make_loader(dataset, **options) as loader:
        (batch,) = loader
    assert batch["is_valid"].tolist() == [True, True, False, *[True] * 7]
    assert not batch["video"][2].any()
    assert (batch["video_length"][2], batch["audio_length"][2], batch["number"][2]) == (0, 0, 0)
    assert batch["caption"][2] == "this is av1.mp4"


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("name", ["h264.mp4", "av1.mp4", "vp9.webm"])
def test_a_clip_that_is_altered_after_it_was_read_is_never_delivered(
    own_clips: Path, tmp_path: Path, name: str, num_workers: int
) -> None:
    dataset = open_clips(own_clips, video=FOUR_FRAMES)
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "q.jsonl", "num_workers": num_workers}
    with make_loader(dataset, shuffle=True, **options) as loader:
        assert len(take(loader)) == 10
        flip_picture(own_clips.parent / name)
        assert sorted(take(loader)) == [r.number for n, r in RECIPES.items() if n != name]
    assert f"{name}' " in (tmp_path / "q.jsonl").read_text()


def test_sound_and_images_that_are_altered_after_they_were_read_are_never_delivered(
    own_clips: Path, tmp_path: Path
) -> None:
    folder = own_clips.parent
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / "x.bmp")
    write_clip(folder / "x.wav", Scene(*SIZE, seed=0), Recipe(1, codec=None, audio="pcm"))
    manifest = write_manifest(own_clips, [{"audio": "x.wav", "image": "x.bmp"}])
    sound = open_clips(manifest, audio=AudioOptions(sampling_rate=RATE, max_seconds=0.5))
    image = open_clips(manifest, image=ImageOptions(image_size=(8, 8)))
    for dataset, name in ((sound, "x.wav"), (image, "x.bmp")):
        dataset[0], dataset[0]
        flip(folder / name, 0.2)
        with pytest.raises(errors.CorruptMedia, match="has other bytes than when it was first read"):
            dataset[0]


def test_of_a_large_file_what_lies_behind_the_sound_wanted_may_change(
    own_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millpond._datasets.media_crc.SMALL_FILE_BYTES", 0)
    path = write_clip(own_clips.parent / "x.wav", Scene(*SIZE, seed=0), Recipe(1, codec=None, audio="pcm"))
    dataset = open_clips(
        write_manifest(own_clips, [{"audio": "x.wav"}]), audio=AudioOptions(sampling_rate=RATE, max_seconds=0.25)
    )
    first = dataset[0]
    flip(path, 0.9)
    assert np.array_equal(first["audio"], dataset[0]["audio"])
    flip(path, 0.1)
    with pytest.raises(errors.CorruptMedia, match="has other bytes than when it was first read"):
        dataset[0]


def test_workers_that_read_one_clip_for_the_first_time_together_do_not_take_it_for_altered(
    own_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, others = open_clips(own_clips, video=FOUR_FRAMES), open_clips(own_clips, video=FOUR_FRAMES)
    utime = os.utime

    def utime_just_too_early(path: Path) -> None:
        monkeypatch.setattr("os.utime", utime)
        with pytest.raises(FileNotFoundError):
            utime(path)
        others[0]  # reads the clip, and keeps what it found, before we look for other versions
        assert path.is_file()
        raise FileNotFoundError(path)

    monkeypatch.setattr("os.utime", utime_just_too_early)
    assert mine[0]["number"] == 0
    assert os.utime is utime


def once_after(monkeypatch: pytest.MonkeyPatch, name: str, then: Callable[[], object]) -> None:
    """Have something happen when a function of the decoder of clips has returned for the first time."""
    place = f"millpond._datasets.clip_decode.{name}"
    function = pkgutil.resolve_name(place)

    def followed(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(place, function)
        result = function(*args, **options)
        then()
        return result

    monkeypatch.setattr(place, followed)


@pytest.mark.parametrize("function", ["read_media", "decode_image"])
def test_the_checksum_of_an_image_that_is_replaced_while_it_is_read_is_not_kept_for_the_new_one(
    own_clips: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def put(shade: int) -> None:
        Image.new("L", (32, shade), shade).save(own_clips.parent / "x.bmp")

    put(10)
    manifest = write_manifest(own_clips, [{"image": "x.bmp"}])
    options: dict[str, Any] = {"image": ImageOptions(image_size=(8, 8))}
    dataset = open_clips(manifest, **options)
    once_after(monkeypatch, function, lambda: put(20))
    assert (dataset[0]["image"] == 10).all()
    assert (open_clips(manifest, **options)[0]["image"] == 20).all()


@pytest.mark.parametrize("frames", [9, 30])
def test_checksums_of_a_clip_that_is_replaced_while_it_is_read_are_not_kept_for_the_new_one(
    own_clips: Path, monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    path, other = own_clips.parent / "h264.mp4", own_clips.parent / "other.mp4"
    write_clip(other, Scene(*SIZE, seed=5), Recipe(0, frames=frames))

    def replace() -> None:
        other.rename(path)
        for kept in (own_clips.parent / "cache").rglob("*.npz"):
            os.utime(kept, (0, 0))  # read long before: the clock of files stands still for milliseconds
        open_clips(own_clips, video=VideoOptions(times=[0.0], image_size=(64, 80)))[0]  # and all but one are unknown

    dataset = open_clips(own_clips, video=FOUR_FRAMES)
    once_after(monkeypatch, "decode_chosen", replace)
    dataset[0]
    assert open_clips(own_clips, video=FOUR_FRAMES)[0]["number"] == 0


def test_frames_and_sound_are_never_those_of_two_files_of_one_name(
    own_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = own_clips.parent / "h264.mp4", own_clips.parent / "other.mp4"
    write_clip(other, Scene(*SIZE, seed=5), Recipe(5, frames=30))
    dataset = open_clips(own_clips, video=FOUR_FRAMES, audio=AudioOptions(sampling_rate=RATE, max_seconds=2.0))
    once_after(monkeypatch, "decode_chosen", lambda: other.rename(path))
    with pytest.raises(errors.CorruptMedia, match=r"h264.mp4' was replaced while it was read"):
        dataset[0]


def test_checksums_outlive_the_dataset(own_clips: Path) -> None:
    open_clips(own_clips, video=FOUR_FRAMES)[0]
    flip_picture(own_clips.parent / "h264.mp4")
    with pytest.raises(errors.CorruptMedia):
        open_clips(own_clips, video=FOUR_FRAMES)[0]


def test_a_clip_that_is_replaced_is_bad_until_the_dataset_is_opened_again(own_clips: Path) -> None:
    dataset = open_clips(own_clips, video=FOUR_FRAMES)
    dataset[0]
    write_clip(own_clips.parent / "h264.mp4", Scene(*SIZE, seed=5), Recipe(0, frames=9))
    for _ in range(2):
        with pytest.raises(errors.CorruptMedia, match=r"h264.mp4' changed since the dataset was opened; open it again"):
            dataset[0]
    assert open_clips(own_clips, video=FOUR_FRAMES)[0]["number"] == 0


def test_a_clip_that_was_replaced_before_the_dataset_was_opened_is_read(own_clips: Path) -> None:
    open_clips(own_clips, video=FOUR_FRAMES)[0]
    write_clip(own_clips.parent / "h264.mp4", Scene(*SIZE, seed=5), Recipe(0, frames=9))
    assert len(open_clips(own_clips, video=VideoOptions(fps=24, image_size=(64, 64)))[0]["video"]) == 9


def test_nothing_is_kept_where_nothing_can_be_written_and_that_is_said_once(
    own_clips: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (own_clips.parent / "cache").touch()
    with caplog.at_level(logging.WARNING):
        dataset = open_clips(own_clips, video=FOUR_FRAMES, audio=SOUND)
        with make_loader(dataset) as loader:
            assert len(take(loader) + take(loader)) == 20
    assert len([r for r in caplog.records if "cannot keep anything of clips" in r.message]) == 1


def test_what_is_kept_may_go_beside_the_manifest(own_clips: Path) -> None:
    open_clips(own_clips, video=FOUR_FRAMES, cache_dir="beside")[0]
    assert len(list((own_clips.parent / ".millpond" / "clips").rglob("*.npz"))) == 1
    assert not (own_clips.parent / "cache").exists()


@pytest.fixture
def mixed_sizes(own_clips: Path) -> Path:
    write_clip(own_clips.parent / "large.mp4", Scene(128, 160, seed=1), Recipe(1))
    return write_manifest(own_clips, [*rows_of(["h264.mp4"]), {"video": "large.mp4"}])


def test_clips_of_two_sizes_need_image_size(mixed_sizes: Path) -> None:
    match = (
        r"row 0, 'h264.mp4', has pictures of 96 x 128 \(height x width\), but row 1, 'large.mp4', has pictures of "
        r"128 x 160 \(height x width\); give image_size="
    )
    with pytest.raises(ValueError, match=match):
        open_clips(mixed_sizes, video=VideoOptions(num_frames=2))
    assert len(open_clips(mixed_sizes, video=FOUR_FRAMES)) == 2


def test_a_clip_that_fails_the_survey_is_a_bad_sample(own_clips: Path, tmp_path: Path) -> None:
    expected, good = with_bad_rows(own_clips)
    seen: list[tuple[int, int]] = []
    dataset = open_clips(own_clips, video=VideoOptions(fps=4), audio=SOUND, progress=lambda *of: seen.append(of))
    assert seen == [(done, 22) for done in range(1, 23)]
    assert set(dataset.problems) == set(expected)
    with make_loader(dataset, on_error="skip", quarantine=tmp_path / "q.jsonl") as loader:
        assert take(loader) == good


def test_what_a_survey_found_is_remembered_for_clips_that_did_not_change(
    own_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"video": VideoOptions(fps=4), "audio": SOUND}
    first = open_clips(own_clips, **options)
    with monkeypatch.context() as patch:
        patch.setattr("millpond._guard.guard.Guard", None)  # nobody looks
        assert open_clips(own_clips, **options).fields == first.fields
    write_clip(own_clips.parent / "short.mp4", Scene(*SIZE, seed=5), Recipe(7, frames=90))
    seen: list[tuple[int, int]] = []
    again = open_clips(own_clips, **options, progress=lambda *of: seen.append(of))
    assert seen == [(9, 10), (10, 10)]
    assert (first.fields[0].shape[0], again.fields[0].shape[0]) == (8, 15)


def test_no_clip_is_opened_where_the_options_say_everything(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millpond._guard.guard.Guard", None)
    rows = [{"video": "nowhere.mp4", "image": "nowhere.png", "at": [0.0, 0.5]}]
    manifest = write_manifest(clips.parent / "nowhere.jsonl", rows)
    sound = AudioOptions(sampling_rate=RATE, max_seconds=2)
    for how in ({"num_frames": 2}, {"fps": 2, "max_frames": 3}, {"times": [0.0, 1.0]}, {"times": "at"}):
        video = VideoOptions(image_size=(64, 64), **how)
        dataset = open_clips(manifest, video=video, audio=sound, image=ImageOptions(image_size=(8, 8)))
        with pytest.raises(errors.ObjectMissing, match="row 0: no file at"):
            dataset[0]


def test_a_set_of_clips_none_of_which_opens_is_an_error(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "m.jsonl", [{"video": "nowhere.mp4"}])
    with pytest.raises(errors.ObjectMissing, match=r"nowhere.mp4"):
        open_clips(manifest, video=VideoOptions(num_frames=2))


@pytest.mark.parametrize("at", [[5.0], [-1.0], "soon", ["a"], None, [[1.0]], []])
def test_times_that_make_no_sense_are_bad_samples(clips: Path, at: Any) -> None:
    rows = [{"video": "h264.mp4", "at": [0.0, 0.5]}, {"video": "h264.mp4", "at": at}]
    dataset = open_clips(write_manifest(clips.parent / "times.jsonl", rows), video=times_of("at"))
    assert dataset[0]["video"].shape[0] == 2
    with pytest.raises(errors.DataError, match="row 1: "):
        dataset[1]


def times_of(column: str) -> VideoOptions:
    return VideoOptions(times=column, image_size=(64, 64))


MISUSE: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: open_clips(path), "give video=, audio= or image="),
    (lambda path: open_clips(path, video=FOUR_FRAMES, padding="zeros"), "padding must be 'pad' or 'list'"),
    (lambda path: open_clips(path, video=FOUR_FRAMES, timeout=-1), "timeout must be a positive number of seconds"),
    (lambda path: open_clips(path, image=ImageOptions()), "no column 'image' for image=; it has 'video', 'number'"),
    (lambda path: open_clips(path, audio=SOUND), "no column 'audio' for audio="),
    (lambda path: open_clips(path, video=VideoOptions(num_frames=1, column="clip")), "no column 'clip' for video="),
    (lambda path: open_clips(path, video=times_of("when")), "no column 'when' of times; it has 'number', 'caption'"),
    (lambda path: open_clips(path, video=times_of("video")), "no column 'video' of times"),
    (lambda path: open_clips(path, video=times_of("number")), "'number' holds no lists of seconds"),
]


@pytest.mark.parametrize(("make", "match"), MISUSE)
def test_misuse_is_told_when_the_dataset_is_opened(clips: Path, make: Callable[[Path], object], match: str) -> None:
    with pytest.raises(ValueError, match=re.escape(match)):
        make(clips)


@pytest.mark.parametrize("name", ["video_seconds", "audio", "is_valid"])
def test_a_column_may_not_have_the_name_of_something_else_in_a_batch(clips: Path, name: str) -> None:
    manifest = write_manifest(clips.parent / "taken.jsonl", [{"clip": "h264.mp4", name: 1}])
    video = VideoOptions(num_frames=1, image_size=(64, 64), column="clip")
    with pytest.raises(ValueError, match=f"has a column '{name}', which is the name of something else"):
        open_clips(manifest, video=video, audio=AudioOptions(sampling_rate=RATE, column="clip", max_seconds=1))


def test_options_of_another_kind_are_a_type_error(clips: Path) -> None:
    with pytest.raises(TypeError, match=r"video must be millpond.VideoOptions\(...\) or None"):
        open_clips(clips, video=SOUND)
    with pytest.raises(TypeError, match="timeout is a number of seconds or None"):
        open_clips(clips, video=FOUR_FRAMES, timeout="5")


def test_a_clip_without_sound_is_bad_where_sound_is_wanted(own_clips: Path) -> None:
    write_clip(own_clips.parent / "mute.mp4", Scene(*SIZE, seed=1), Recipe(1, audio=None))
    manifest = write_manifest(own_clips, [*rows_of(["h264.mp4"]), {"video": "mute.mp4"}])
    dataset = open_clips(manifest, video=FOUR_FRAMES, audio=SOUND)
    assert len(dataset[0]["audio"]) == len(reference(own_clips.parent / "h264.mp4").sound)
    with pytest.raises(errors.CorruptMedia, match=r"row 1: '.*mute.mp4' has no audio stream"):
        dataset[1]
    assert len(open_clips(manifest, video=FOUR_FRAMES)[1]["video"]) == 4


@pytest.mark.parametrize("options", [{"num_frames": 2}, {"fps": 2}])
def test_a_file_that_the_system_does_not_read_costs_its_row(options: Any, clips: Path, tmp_path: Path) -> None:
    rows = [*rows_of(NAMES[:2]), {"video": "\ud800.mp4", "number": 98, "caption": ""}]
    if Path("/proc/self/mem").exists():  # reads of it end in EIO
        rows.append({"video": "/proc/self/mem", "number": 99, "caption": ""})
    manifest = clips.parent / "unreadable.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = open_clips(manifest, video=VideoOptions(image_size=(32, 32), **options))
    with make_loader(dataset, on_error="skip", quarantine=tmp_path / "q.jsonl") as loader:
        assert sum(len(batch["number"]) for batch in loader) == 2
    lines = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [*range(2, len(rows))]
