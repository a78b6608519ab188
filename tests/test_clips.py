"""Clips through the loader: every row once, its frames and its sound those of an independent decode."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millpond
from clip_sets import (
    FOUR_FRAMES,
    NAMES,
    RATE,
    RECIPES,
    SOUND,
    frames_shown,
    make_loader,
    numbers_shown,
    open_clips,
    reference,
    rows_of,
    take,
    write_manifest,
)
from millpond import VideoOptions
from millpond._plan.frame_choice import choose_frames
from transforms import short_sound, with_letters

ALL = sorted(recipe.number for recipe in RECIPES.values())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_row_is_delivered_once_and_shuffled(clips: Path, num_workers: int) -> None:
    with make_loader(open_clips(clips, video=FOUR_FRAMES), shuffle=True, num_workers=num_workers) as loader:
        first, second = take(loader), take(loader)
        assert sorted(first) == sorted(second) == ALL != first != second
        assert str(loader.statistics().books) == (
            "10 planned + 0 padded = 10 delivered + 0 skipped + 0 failed + 0 dropped"
        )


@pytest.mark.parametrize("name", NAMES)
def test_frames_and_sound_are_those_of_an_independent_decode(clips: Path, name: str) -> None:
    manifest = write_manifest(clips.parent / f"{name}.jsonl", rows_of([name]))
    expected = reference(clips.parent / name)
    chosen = choose_frames(expected.seconds, num_frames=6)
    dataset = open_clips(manifest, video=VideoOptions(num_frames=6), audio=SOUND)
    with make_loader(dataset) as loader:
        (batch,) = loader
    assert all(
        np.array_equal(np.moveaxis(picture, 0, -1), expected.pictures[frame])
        for picture, frame in zip(batch["video"][0], chosen, strict=True)
    )
    np.testing.assert_allclose(batch["video_seconds"][0], expected.seconds[chosen], atol=1e-6)
    assert batch["audio_length"].tolist() == [len(expected.sound)]
    np.testing.assert_allclose(batch["audio"][0], expected.sound, atol=1e-6)
    assert batch["caption"] == [f"this is {name}"]


@pytest.mark.parametrize("name", ["h264.mp4", "late-sound.mp4", "early-sound.mp4", "mp3.ts"])
def test_sound_is_aligned_to_the_frames(clips: Path, name: str) -> None:
    """The tone swells four times a second, counted from time 0: its phase at a frame tells when that frame is shown."""
    recipe = RECIPES[name]
    sample = open_clips(clips, video=VideoOptions(fps=24), audio=SOUND)[NAMES.index(name)]
    heard = np.abs(sample["audio"])
    start = recipe.video_start_seconds
    silent = round((recipe.audio_start_seconds - start) * RATE) if recipe.audio_start_seconds > start else 0
    assert heard[: max(silent - 400, 0)].max(initial=0) < 0.02
    for second in sample["video_seconds"][4:-6]:
        at = round(second * RATE)
        loudness = heard[max(at - 200, 0) : at + 200].max()
        if at - 600 > silent:
            expected = 0.2 + 0.1 * np.sin(2 * np.pi * 4.0 * (start + second))
            assert abs(loudness - expected) < 0.05


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_format_of_manifest_gives_the_same_batches(clips: Path, suffix: str) -> None:
    rows = rows_of()
    manifest = clips.parent / f"same{suffix}"
    if suffix == ".csv":
        with open(manifest, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([rows[0].keys(), *(row.values() for row in rows)])
    else:
        pq.write_table(pa.Table.from_pylist(rows), manifest)
    datasets = [open_clips(path, video=FOUR_FRAMES, audio=SOUND) for path in (clips, manifest)]
    with make_loader(datasets[0], shuffle=True) as one, make_loader(datasets[1], shuffle=True) as other:
        for a, b in zip(one, other, strict=True):
            assert a.keys() == b.keys()
            assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_goes_on_where_it_was_left(clips: Path, num_workers: int) -> None:
    dataset = open_clips(clips, video=FOUR_FRAMES)
    options: dict[str, Any] = {"shuffle": True, "num_workers": num_workers, "batch_size": 2}
    with make_loader(dataset, **options) as loader:
        whole = take(loader)
        loader.set_epoch(0)
        iterator = iter(loader)
        begun = [number for _ in range(2) for number in next(iterator)["number"].tolist()]
        state = json.loads(json.dumps(loader.state_dict()))
    with make_loader(open_clips(clips, video=FOUR_FRAMES), **options) as loader:
        loader.load_state_dict(state)
        assert begun + take(loader) == whole


def test_the_fingerprint_is_the_same_elsewhere_and_another_for_other_rows_or_options(
    clips: Path, own_clips: Path
) -> None:
    here, there = open_clips(clips, video=FOUR_FRAMES), open_clips(own_clips, video=FOUR_FRAMES)
    assert here.fingerprint == there.fingerprint
    assert here.fingerprint != open_clips(clips, video=VideoOptions(num_frames=5, image_size=(64, 80))).fingerprint
    write_manifest(own_clips, rows_of()[1:])
    assert here.fingerprint != open_clips(own_clips, video=FOUR_FRAMES).fingerprint


def test_lengths_that_vary_are_padded_with_zeros_to_the_longest_of_the_batch(clips: Path) -> None:
    dataset = open_clips(clips, video=VideoOptions(fps=8, image_size=(64, 64)), audio=SOUND)
    with make_loader(dataset, shuffle=True) as loader:
        for _ in range(2):  # in the second epoch slots hold frames of the first
            for batch in loader:
                lengths = batch["video_length"]
                assert batch["video"].shape == (len(lengths), lengths.max(), 3, 64, 64)
                assert batch["video_seconds"].shape == (len(lengths), lengths.max())
                assert batch["audio"].shape == (len(lengths), batch["audio_length"].max())
                for row, length in enumerate(lengths):
                    assert numbers_shown(batch["video"][row, :length]) == {int(batch["number"][row])}
                    assert not batch["video"][row, length:].any()
                    assert not batch["video_seconds"][row, length:].any()
                    assert not batch["audio"][row, batch["audio_length"][row] :].any()


@pytest.mark.parametrize("output", ["numpy", "torch"])
def test_lengths_that_vary_come_as_lists_without_copies(clips: Path, output: str) -> None:
    if output == "torch":
        pytest.importorskip("torch", reason="torch is not installed")
    options: dict[str, Any] = {"video": VideoOptions(fps=8, image_size=(64, 64)), "audio": SOUND}
    padded, listed = open_clips(clips, **options), open_clips(clips, padding="list", **options)
    with make_loader(padded, output=output) as one, make_loader(listed, output=output) as other:
        for a, b in zip(one, other, strict=True):
            assert len(b["video"]) == len(b["audio"]) == len(a["number"])
            for row, length in enumerate(a["video_length"].tolist()):
                assert b["video"][row].shape == (length, 3, 64, 64)
                assert np.array_equal(b["video"][row], a["video"][row, :length])
                assert np.array_equal(b["audio"][row], a["audio"][row, : int(a["audio_length"][row])])
                if output == "numpy":
                    assert np.shares_memory(b["video"][row].base, b["video"][0].base)


def test_clips_may_be_shorter_than_what_is_asked_of_them(clips: Path) -> None:
    manifest = write_manifest(clips.parent / "short.jsonl", rows_of(["short.mp4"]))
    with make_loader(open_clips(manifest, video=VideoOptions(num_frames=7, image_size=(64, 64)))) as loader:
        (batch,) = loader
    assert frames_shown(batch["video"][0]) == [0, 0, 1, 1, 1, 2, 2]


def test_a_column_of_times_says_which_frames_are_taken(clips: Path) -> None:
    wanted = {"h264.mp4": [0.0, 0.5], "short.mp4": [0.1], "av1.mp4": [0.0, 0.25, 0.25, 0.6]}
    rows = [row | {"at": wanted[row["video"]]} for row in rows_of(list(wanted))]
    manifest = write_manifest(clips.parent / "times.jsonl", rows)
    with make_loader(open_clips(manifest, video=VideoOptions(times="at", image_size=(64, 64)))) as loader:
        (batch,) = loader
    assert batch["video_length"].tolist() == [2, 1, 4]
    assert batch["at"] == list(wanted.values())
    shown = [frames_shown(video[:length]) for video, length in zip(batch["video"], [2, 1, 4], strict=True)]
    assert shown == [[0, 12], [2], [0, 6, 6, 14]]


def test_a_column_of_times_of_one_length_is_an_array_as_well(clips: Path) -> None:
    rows = [row | {"at": [0.0, 0.25]} for row in rows_of(["h264.mp4", "av1.mp4"])]
    manifest = write_manifest(clips.parent / "pairs.jsonl", rows)
    with make_loader(open_clips(manifest, video=VideoOptions(times="at", image_size=(64, 64)))) as loader:
        (batch,) = loader
    assert batch["at"].tolist() == [[0.0, 0.25]] * 2
    assert [frames_shown(video) for video in batch["video"]] == [[0, 6], [0, 6]]


def test_a_rate_takes_as_many_frames_as_the_clip_lasts(clips: Path) -> None:
    dataset = open_clips(clips, video=VideoOptions(fps=12, max_frames=13, image_size=(64, 64)))
    assert dataset.fields[0].shape == (13, 64, 64, 3)
    with make_loader(dataset, batch_size=10) as loader:
        (batch,) = loader
    assert batch["video_length"].tolist() == [13, 13, 8, 10, 13, 12, 12, 2, 12, 13]
    assert frames_shown(batch["video"][2][:8]) == list(range(0, 16, 2))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_transform_sees_true_lengths_and_text(clips: Path, num_workers: int) -> None:
    dataset = open_clips(clips, video=VideoOptions(fps=8, image_size=(64, 80)), audio=SOUND)
    with make_loader(dataset, transform=short_sound, num_workers=num_workers) as loader:
        seen = {}
        for batch in loader:
            for number, letters, caption in zip(batch["number"], batch["letters"], batch["caption"], strict=True):
                assert letters == len(caption)
                seen[int(number)] = caption
    assert seen == {recipe.number: f"this is {name}" for name, recipe in RECIPES.items()}


@pytest.mark.parametrize("padding", ["pad", "list"])
def test_what_a_transform_gives_back_as_it_came_keeps_its_padding(clips: Path, padding: Any) -> None:
    def read(**options: Any) -> list[dict[str, Any]]:
        dataset = open_clips(clips, video=VideoOptions(fps=8, image_size=(64, 80)), audio=SOUND, padding=padding)
        with make_loader(dataset, **options) as loader:
            return [{name: copied(value) for name, value in batch.items()} for batch in loader]

    for plain, transformed in zip(read(), read(transform=with_letters, num_workers=2), strict=True):
        assert [int(count) for count in transformed.pop("letters")] == [len(caption) for caption in plain["caption"]]
        assert plain.keys() == transformed.keys()
        for name, value in plain.items():
            other = transformed[name]
            assert len(value) == len(other)
            assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(value, other, strict=True))


def copied(value: Any) -> Any:
    return [np.array(row) for row in value] if not isinstance(value[0], str) else value


def test_the_plan_takes_a_clip_for_decoded_once(clips: Path) -> None:
    with make_loader(open_clips(clips, video=FOUR_FRAMES)) as loader:
        assert loader.memory_plan().decodes_per_frame == 1.0


def test_a_sample_is_described_by_its_row_and_paths(clips: Path) -> None:
    dataset = open_clips(clips, video=FOUR_FRAMES, audio=SOUND)
    assert dataset.describe(3) == {"row": 3, "video": "vp9.webm", "audio": "vp9.webm"}
    assert dataset.columns == ("video", "number", "caption")
    assert "10 samples, video of 'video', audio of 'video'" in repr(dataset)


def test_a_reader_of_many_rows_is_small(clips: Path) -> None:
    rows = [{"video": f"clips/of/some/length/{n}.mp4", "n": n, "text": "x" * 50} for n in range(5000)]
    manifest = write_manifest(clips.parent / "many.jsonl", rows)
    dataset = open_clips(manifest, video=FOUR_FRAMES, audio=millpond.AudioOptions(sampling_rate=RATE, max_seconds=1))
    assert len(pickle.dumps(dataset.reader())) < 3000
    assert len(pickle.dumps(dataset)) < 5000


def test_workers_need_neither_pyarrow_nor_torch(clips: Path) -> None:
    def loaded(sample: dict[str, Any]) -> dict[str, Any]:
        import sys

        return {"heavy": np.asarray(bool({"pyarrow", "torch"} & set(sys.modules)))}

    with make_loader(open_clips(clips, video=FOUR_FRAMES), transform=loaded, num_workers=1) as loader:
        assert not any(batch["heavy"].any() for batch in loader)
