"""Codec contexts that are kept: the pixels of fresh ones, whatever was decoded before; few, and of one thread."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import media_zoo as zoo
from millpond._media import contexts
from millpond._media.frames import decode_frames
from millpond._media.index import build_sample_table
from millpond._media.sidecars import file_identity
from millpond._media.video_file import VideoFile
from millpond._values import StreamParameters

PACKET_CLIPS = [clip.name for clip in zoo.CLIPS if clip.backend == "packets"]
STREAM = StreamParameters("h264", b"", (1, 25), 640, 480, "yuv420p")


@pytest.fixture(autouse=True)
def kept() -> Iterator[dict[Any, Any]]:
    """The contexts that this thread keeps: none at first, and none that a test leaves behind."""
    contexts._kept.contexts.clear()
    yield contexts._kept.contexts
    contexts._kept.contexts.clear()


def _lend(stream: StreamParameters = STREAM, *, starts_clean: bool = True) -> Any:
    with contexts.lend_context(stream, starts_clean=starts_clean, fresh=False) as lent:
        return lent


def _decode_damaged(path: Path, folder: Path, chance: random.Random) -> None:
    """Decode a copy of a clip, parameters and all, with one packet overwritten."""
    table, data = build_sample_table(path), bytearray(path.read_bytes())
    row = chance.randrange(table.num_rows)
    at = int(table.offset[row]) + chance.randrange(int(table.size[row]))
    data[at : at + 20] = bytes(chance.randrange(1, 256) for _ in range(20))[: len(data) - at]
    damaged = folder / f"damaged{path.suffix}"
    damaged.write_bytes(data)
    zoo.read(damaged, dataclasses.replace(table, identity=file_identity(damaged)))


@pytest.mark.parametrize("name", PACKET_CLIPS)
def test_a_kept_context_gives_the_pixels_of_a_fresh_one(name: str, tmp_path: Path) -> None:
    chance, reference = random.Random(name), zoo.clip_reference(name)
    with VideoFile(zoo.clip_path(name), zoo.clip_table(name)) as file:
        for turn in range(12):
            frames = sorted(chance.sample(range(zoo.FRAMES), chance.choice([1, 1, 2, 5])))
            got: dict[int, NDArray[np.uint8]] = {}
            report = decode_frames(
                file,
                np.array(frames),
                lambda j, picture, got=got: got.__setitem__(j, picture.copy()),  # type: ignore[misc]
            )
            assert not report.failures
            assert all(np.array_equal(got[j], reference[frame]) for j, frame in enumerate(frames))
            if turn % 4 == 3:
                _decode_damaged(zoo.clip_path(name), tmp_path, chance)


def test_the_next_run_of_the_same_stream_gets_the_same_context(kept: dict[Any, Any]) -> None:
    path, table = zoo.clip_path("av1_gop_16"), zoo.clip_table("av1_gop_16")
    zoo.read(path, table, [20])
    (first,) = kept.values()
    zoo.read(path, table, [3])
    assert [context is first for context in kept.values()] == [True]


@pytest.mark.parametrize(
    "change",
    [{"codec_name": "av1"}, {"extradata": b"\0"}, {"width": 320}, {"colorspace": 1}, {"color_range": 2}],
    ids=lambda change: next(iter(change)),
)
def test_no_other_stream_gets_it(change: dict[str, Any]) -> None:
    first = _lend().context
    assert _lend().context is first
    assert _lend(dataclasses.replace(STREAM, **change)).context is not first
    assert _lend(starts_clean=False).context is not first


def test_a_context_is_not_kept_after_an_error_or_when_it_is_spoilt(kept: dict[Any, Any]) -> None:
    with pytest.raises(KeyError):
        with contexts.lend_context(STREAM, starts_clean=True, fresh=False):
            raise KeyError
    with contexts.lend_context(STREAM, starts_clean=True, fresh=False) as lent:
        lent.is_spoilt = True
    assert not kept


def test_frames_that_did_not_come_cost_a_context(kept: dict[Any, Any]) -> None:
    path, table = zoo.clip_path("h264_b_frames"), zoo.clip_table("h264_b_frames")
    stream = dataclasses.replace(table.stream, width=64)
    with VideoFile(path, dataclasses.replace(table, stream=stream)) as file:
        assert decode_frames(file, np.arange(14, 16), lambda _j, _p: None).failures
    assert not kept


def test_what_a_flush_does_not_undo_spoils_a_context(tmp_path: Path, kept: dict[Any, Any]) -> None:
    repeated = {**zoo.B_FRAMES, "x264-params": "scenecut=0:repeat-headers=1"}
    path = zoo.make(zoo.Clip("repeated", "libx264", repeated, frames=30), tmp_path)
    zoo.read(path, build_sample_table(path), [13])
    assert not kept, "parameter sets"
    path, table = zoo.clip_path("h264_b_frames"), zoo.clip_table("h264_b_frames")
    zoo.read(path, table, [0])
    assert not kept, "the build of x264, in the first packet"
    zoo.read(path, table, [13])
    assert len(kept) == 1


def test_a_context_that_was_fed_before_never_fails_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    path, table = zoo.clip_path("h264_b_frames"), zoo.clip_table("h264_b_frames")
    zoo.read(path, table, [13])
    (context,) = contexts._kept.contexts.values()
    context.decode(None)  # it would say that it has come to its end
    got, report = zoo.read(path, table, [13])
    assert not report.failures
    assert np.array_equal(got[0], zoo.clip_reference("h264_b_frames")[13])


def test_few_are_kept_and_those_used_last(kept: dict[Any, Any]) -> None:
    streams = [dataclasses.replace(STREAM, extradata=bytes([0, k])) for k in range(contexts.MAX_KEPT + 3)]
    lent = [_lend(stream).context for stream in streams]
    assert list(kept.values()) == lent[-contexts.MAX_KEPT :]
    assert _lend(streams[-2]).context is lent[-2]
    assert list(kept.values())[-1] is lent[-2]


@pytest.mark.parametrize(("width", "height", "number"), [(1280, 720, 2), (1920, 1080, 1), (3840, 2160, 0)])
def test_pictures_of_the_contexts_kept_have_a_bound(width: int, height: int, number: int, kept: dict[Any, Any]) -> None:
    for k in range(4):
        _lend(dataclasses.replace(STREAM, width=width, height=height, extradata=bytes([0, k])))
    assert len(kept) == number


def test_a_run_within_a_run_has_a_context_of_its_own() -> None:
    path, table = zoo.clip_path("av1_gop_16"), zoo.clip_table("av1_gop_16")
    got: list[NDArray[np.uint8]] = []

    def write(_: int, picture: NDArray[np.uint8]) -> None:
        got.append(picture.copy())
        got.extend(zoo.read(path, table, [40])[0].values())

    with VideoFile(path, table) as file:
        for _ in range(2):
            assert not decode_frames(file, np.array([5, 6]), write).failures
    reference = zoo.clip_reference("av1_gop_16")
    assert all(np.array_equal(a, reference[k]) for a, k in zip(got, [5, 40, 6, 40] * 2, strict=True))


def test_threads_share_no_context() -> None:
    path, table = zoo.clip_path("h264_b_frames"), zoo.clip_table("h264_b_frames")
    reference = zoo.clip_reference("h264_b_frames")
    mine = _lend(table.stream).context

    def is_right(k: int) -> bool:
        right = np.array_equal(zoo.read(path, table, [k])[0][0], reference[k])
        return right and mine not in contexts._kept.contexts.values()

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(is_right, range(0, zoo.FRAMES, 3)))
