"""Damage: what was detectable is never published, and what is whole is not lost with it."""

from __future__ import annotations

import dataclasses
import os
import random
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import media_zoo as zoo
from millpond._media import packet_run
from millpond._media.frames import DecodeReport, decode_frames
from millpond._media.holes import ZERO_RUN_BYTES, zero_runs, zeros_inside
from millpond._media.index import build_sample_table
from millpond._media.nal_units import Nature, PacketReading
from millpond._media.sidecars import file_identity
from millpond._media.video_file import VideoFile
from millpond._plan.sample_table import SampleTable
from millpond._values import ByteRange
from millpond.errors import CorruptMedia, ObjectMissing

CODECS = ["h264_b_frames", "h264_open_gop", "hevc_closed", "hevc_cra", "av1_gop_2", "av1_gop_16", "vp9_mp4"]


def _damaged(name: str, folder: Path, at: int, new: bytes) -> tuple[Path, SampleTable]:
    """A copy of a clip with other bytes somewhere, and the clip's table without CRCs, as if made before the damage."""
    data = bytearray(zoo.clip_path(name).read_bytes())
    data[at : at + len(new)] = new[: len(data) - at]
    path = folder / f"damaged{zoo.BY_NAME[name].suffix}"
    path.write_bytes(data)
    table = zoo.clip_table(name)
    unknown = np.zeros(table.num_rows, np.bool_)
    return path, dataclasses.replace(table, identity=file_identity(path), crc_known=unknown)


def _with_crcs(name: str, table: SampleTable) -> SampleTable:
    """The table that also knows the CRC-32s of the undamaged clip."""
    unknown = dataclasses.replace(zoo.clip_table(name), crc_known=np.zeros(table.num_rows, np.bool_))
    _, report = zoo.read(zoo.clip_path(name), unknown)
    return table.with_crcs(report.rows, report.crcs)


def _failed(report: DecodeReport) -> set[int]:
    return {int(j) for positions, _ in report.failures for j in positions}


def _wrong(name: str, got: dict[int, NDArray[np.uint8]], report: DecodeReport) -> list[int]:
    """Frames that were published with other pixels than the clip's, or not written at all."""
    expected, failed = zoo.clip_reference(name), _failed(report)
    return [
        j for j in range(len(expected)) if j not in failed and not (j in got and np.array_equal(got[j], expected[j]))
    ]


@pytest.mark.parametrize("name", CODECS)
def test_only_the_gops_that_a_hole_touches_are_lost(name: str, tmp_path: Path) -> None:
    table = zoo.clip_table(name)
    row = int(table.frame_rows[table.gop_starts[2]]) + 1
    path, unknown = _damaged(name, tmp_path, int(table.offset[row]) + 9, bytes(40))
    got, report = zoo.read(path, unknown)
    starts = table.gop_starts
    touched = {g for g in range(table.num_gops) if row in table.feed_rows(g, g + 1)}
    touched |= {g for g in range(table.num_gops) if row + 1 in table.feed_rows(g, g + 1) and table.size[row] < 49}
    assert _failed(report) <= {j for g in touched for j in range(int(starts[g]), int(starts[g + 1]))}
    assert _failed(report)
    assert not _wrong(name, got, report)


@pytest.mark.parametrize("hole_bytes", [64, 1000])
@pytest.mark.parametrize("name", [*CODECS, "h264_mkv", "h264_intra_refresh"])
def test_a_hole_anywhere_is_never_published_even_without_crcs(name: str, hole_bytes: int, tmp_path: Path) -> None:
    table, chance = zoo.clip_table(name), random.Random(hole_bytes)
    for _ in range(6):
        row = chance.randrange(table.num_rows)
        at = int(table.offset[row]) + chance.randrange(int(table.size[row]))
        path, unknown = _damaged(name, tmp_path, at, bytes(hole_bytes))
        got, report = zoo.read(path, unknown)
        assert _failed(report)
        assert not _wrong(name, got, report)


@pytest.mark.parametrize("name", [*CODECS, "h264_mkv"])
def test_with_crcs_known_not_one_bit_is_altered(name: str, tmp_path: Path) -> None:
    table, chance = zoo.clip_table(name), random.Random(1)
    data = zoo.clip_path(name).read_bytes()
    for _ in range(6):
        row = chance.randrange(table.num_rows)
        at = int(table.offset[row]) + chance.randrange(int(table.size[row]))
        path, unknown = _damaged(name, tmp_path, at, bytes([data[at] ^ 1 << chance.randrange(8)]))
        got, report = zoo.read(path, _with_crcs(name, unknown))
        assert _failed(report)
        assert not _wrong(name, got, report)
        assert all("CRC-32" in str(error) for _, error in report.failures)


def test_known_crcs_that_the_table_lacks_can_be_given(tmp_path: Path) -> None:
    table = zoo.clip_table("h264_b_frames")
    path, unknown = _damaged("h264_b_frames", tmp_path, int(table.offset[2]) + 20, b"\xaa")
    known = _with_crcs("h264_b_frames", unknown)
    _, report = zoo.read(path, unknown, known_crcs=dict(enumerate(known.crc.tolist())))
    assert _failed(report) == set(range(12))
    assert not len(report.rows)


class _Said:
    """Says of every packet whether it refreshes everything."""

    def __init__(self, is_refresh: bool) -> None:
        self._is_refresh = is_refresh

    def nature(self, _: memoryview, *, must_be_fed: bool = False) -> Nature:
        return Nature(self._is_refresh)


def test_explode_finds_garbage_that_decodes_without_a_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, noticed = "hevc_closed", {True: 0, False: 0}
    table = zoo.clip_table(name)
    for is_strict in (True, False):
        monkeypatch.setattr(packet_run, "PacketReading", lambda _, is_strict=is_strict: _Said(is_strict))
        for row in range(1, 12):
            garbage = b"\xff" * (int(table.size[row]) - 12)
            path, unknown = _damaged(name, tmp_path, int(table.offset[row]) + 12, garbage)
            noticed[is_strict] += bool(zoo.read(path, unknown, list(range(12)))[1].failures)
    assert noticed[True] > noticed[False]


def test_garbage_never_leaves_its_gop(tmp_path: Path) -> None:
    name, table = "h264_b_frames", zoo.clip_table("h264_b_frames")
    for row in range(12):
        garbage = b"\x55" * (int(table.size[row]) - 12)
        path, unknown = _damaged(name, tmp_path, int(table.offset[row]) + 12, garbage)
        got, report = zoo.read(path, unknown)
        assert all(j < 12 for j in _failed(report) | set(_wrong(name, got, report)))


@pytest.mark.parametrize(("name", "is_strict"), [("h264_b_frames", True), ("h264_open_gop", False), ("hevc_cra", True)])
def test_explode_is_for_hevc_and_for_h264_that_starts_at_an_idr(name: str, is_strict: bool) -> None:
    table, data = zoo.clip_table(name), zoo.clip_path(name).read_bytes()
    first = int(table.feed_rows(1, 2)[0])
    start = int(table.offset[first])
    payload = memoryview(data)[start : start + int(table.size[first])]
    assert PacketReading(table.stream).nature(payload).is_refresh is is_strict


def test_the_crcs_of_a_failed_gop_are_not_learned(tmp_path: Path) -> None:
    table = zoo.clip_table("av1_gop_2")
    path, unknown = _damaged("av1_gop_2", tmp_path, int(table.offset[6]) + 9, bytes(33))
    _, report = zoo.read(path, unknown)
    assert 6 not in report.rows
    assert {0, 1, 10} <= set(report.rows.tolist())


def test_crcs_are_learned_once() -> None:
    name = "av1_gop_2"
    _, first = zoo.read(zoo.clip_path(name), zoo.clip_table(name))
    assert first.rows.tolist() == list(range(zoo.FRAMES))
    _, second = zoo.read(zoo.clip_path(name), zoo.clip_table(name).with_crcs(first.rows, first.crcs))
    assert not len(second.rows)


def test_zeros_next_to_a_packet_are_not_taken_for_a_hole() -> None:
    assert zeros_inside(100, 200, [(0, 103)]) == 0
    assert zeros_inside(100, 200, [(0, 110)]) == 10
    assert zeros_inside(100, 104, [(0, 104)]) == 4
    assert zero_runs(b"x" + bytes(ZERO_RUN_BYTES) + b"x" + bytes(ZERO_RUN_BYTES - 1)) == [(1, 1 + ZERO_RUN_BYTES)]


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("libx264", {**zoo.X264, "qp": "0"}),
        ("libx264", {"preset": "ultrafast", "qp": "51"}),
        ("libx265", zoo.X265),
        ("libsvtav1", zoo.SVT),
        ("libvpx-vp9", {**zoo.VPX, "lossless": "1"}),
    ],
    ids=["lossless", "coarse", "hevc", "av1", "vp9"],
)
def test_clean_packets_of_still_and_flat_pictures_hold_no_run_of_zeros(
    encoder: str, options: dict[str, str], level: int, tmp_path: Path
) -> None:
    flat = np.full((zoo.HEIGHT, zoo.WIDTH, 3), level, np.uint8)
    path = zoo.make(zoo.Clip("flat", encoder, options, picture=lambda _: flat, frames=20), tmp_path)
    with av.open(str(path)) as container:
        assert not any(bytes(9) in bytes(packet) for packet in container.demux(video=0))


def test_a_file_that_changed_under_us_is_corrupt_and_says_so(tmp_path: Path) -> None:
    path, table = _damaged("h264_b_frames", tmp_path, 0, b"")
    os.utime(path, ns=(1, 1))
    got, report = zoo.read(path, table)
    assert not got
    assert len(_failed(report)) == zoo.FRAMES
    assert "changed after its sample table was made" in str(report.failures[0][1])


def test_a_missing_file_fails_every_frame(tmp_path: Path) -> None:
    _, report = zoo.read(tmp_path / "gone.mp4", zoo.clip_table("h264_b_frames"))
    assert [type(error) for _, error in report.failures] == [ObjectMissing]
    assert len(_failed(report)) == zoo.FRAMES


def test_a_range_beyond_the_end_is_corrupt() -> None:
    with VideoFile(zoo.clip_path("h264_b_frames"), zoo.clip_table("h264_b_frames")) as file:
        with pytest.raises(CorruptMedia, match="ends at byte"):
            file.read(ByteRange(0, 1 << 40))


def test_a_container_that_decodes_otherwise_than_before_is_corrupt(tmp_path: Path) -> None:
    table = zoo.clip_table("mpeg4_mp4")
    path = tmp_path / "other.mp4"
    path.write_bytes(zoo.clip_path("mpeg4_mp4").read_bytes())
    crc = table.crc.copy()
    crc[20] ^= 1
    other = dataclasses.replace(table, crc=crc, identity=file_identity(path))
    _, report = zoo.read(path, other)
    gop = int(np.searchsorted(table.gop_starts, 20, side="right")) - 1
    assert _failed(report) == set(range(int(table.gop_starts[gop]), int(table.gop_starts[gop + 1])))


def test_damage_in_a_transport_stream_costs_the_frames_up_to_the_next_key(tmp_path: Path) -> None:
    data, expected = zoo.clip_path("h264_ts").read_bytes(), zoo.clip_reference("h264_ts")
    seconds = zoo.clip_table("h264_ts").frame_seconds
    path = tmp_path / "damaged.ts"
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        at = int(share * len(data)) // 188 * 188
        path.write_bytes(data[:at] + data[at + 3 * 188 :])
        table = build_sample_table(path)
        got, report = zoo.read(path, table)
        shown = np.searchsorted(seconds, table.frame_seconds - 1e-6)
        assert not report.failures
        assert zoo.FRAMES - 26 <= table.num_frames < zoo.FRAMES
        assert all(np.array_equal(got[j], expected[k]) for j, k in enumerate(shown.tolist()))


def test_a_frame_of_another_size_than_its_stream_fails(tmp_path: Path) -> None:
    table = zoo.clip_table("h264_b_frames")
    stream = dataclasses.replace(table.stream, width=64)
    with VideoFile(zoo.clip_path("h264_b_frames"), dataclasses.replace(table, stream=stream)) as file:
        report = decode_frames(file, np.arange(3), lambda _j, _p: None)
    assert "a frame is 100x76" in str(report.failures[0][1])
