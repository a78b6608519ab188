"""What the fuzz of corrupted media found, each finding by itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import numpy as np
import pytest

import media_zoo as zoo
import millpond
from corrupt_clips import FORMATS, make
from corruption import corrupted
from corruption_headers import boxes
from millpond._media.container_backend import picture_crc
from millpond._media.index import build_sample_table
from millpond._media.sidecars import file_identity
from millpond._media.transport_stream import lost_places
from millpond._media.vp9 import shows_again_and_goes_on
from millpond._plan.sample_table import SampleTable
from millpond.errors import CorruptMedia


def damaged(name: str, folder: Path, at: int, new: bytes, *, keep_bytes: int | None = None) -> tuple[Path, SampleTable]:
    """A copy of a clip with other bytes somewhere, and the clip's table without CRCs, as if made before the damage."""
    data = bytearray(zoo.clip_path(name).read_bytes())
    data[at : at + len(new)] = new
    path = folder / f"damaged{zoo.BY_NAME[name].suffix}"
    path.write_bytes(data[:keep_bytes])
    table = zoo.clip_table(name)
    unknown = np.zeros(table.num_rows, np.bool_)
    return path, dataclasses.replace(table, identity=file_identity(path), crc_known=unknown)


def packet(name: str, row: int) -> tuple[int, bytes]:
    """Where a packet lies, and its bytes."""
    table = zoo.clip_table(name)
    start = int(table.offset[row])
    return start, zoo.clip_path(name).read_bytes()[start : start + int(table.size[row])]


def test_a_vp9_packet_that_says_to_show_an_older_frame_and_goes_on_is_damaged(tmp_path: Path) -> None:
    start, payload = packet("vp9_mp4", 20)
    path, table = damaged("vp9_mp4", tmp_path, start, bytes([payload[0] | 0x08]))
    got, report = zoo.read(path, table, [20])
    assert not got
    assert "shows an older frame again" in str(report.failures[0][1])


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"\x88", False),
        (b"\xb4\x80", False),  # profile 3 has a bit in between
        (b"\x88\x01\x02", True),
        (b"\x86\x00\x40\x92", False),
        (b"\xb8\x00\x40\x92", False),
        (b"\x86\x00\x40\x88\xc9\x00\x03\x01\x00\xc9", False),  # a superframe: hidden, then shown
        (b"\x8e\x00\x40\x88\xc1\x03\x01\xc1", True),
        (b"\xc9", False),
        (b"\x86\xc0\xff\xc0", False),  # an index that tells of more than there is
    ],
)
def test_frames_of_vp9_are_told_apart(payload: bytes, expected: bool) -> None:
    assert shows_again_and_goes_on(memoryview(payload)) is expected


@pytest.mark.parametrize("name", ["vp9_mp4", "av1_gop_16"])
def test_what_is_no_keyframe_after_all_is_not_decoded_from_the_gop_before(name: str, tmp_path: Path) -> None:
    table = zoo.clip_table(name)
    is_key = table.is_key.copy()
    is_key[8] = True
    got, report = zoo.read(zoo.clip_path(name), dataclasses.replace(table, is_key=is_key), [8, 9, 16])
    assert sorted(got) == [2]
    assert [positions.tolist() for positions, _ in report.failures] == [[0, 1]]


def test_a_container_knows_the_colours_of_its_frames_by_their_crc() -> None:
    frame = av.VideoFrame.from_ndarray(zoo.moving_picture(0), format="rgb24").reformat(format="yuv420p")
    seen = {picture_crc(frame)}
    for plane in frame.planes:
        changed = bytearray(bytes(plane))
        changed[plane.line_size + 3] ^= 1
        plane.update(bytes(changed))
        seen.add(picture_crc(frame))
        changed[plane.line_size - 1] ^= 1  # padding
        plane.update(bytes(changed))
        seen.add(picture_crc(frame))
    assert len(seen) == 4


def test_packets_that_end_beyond_the_file_are_an_error_and_not_short(tmp_path: Path) -> None:
    start, payload = packet("vp9_mp4", 49)
    path, table = damaged("vp9_mp4", tmp_path, 0, b"", keep_bytes=start + len(payload) // 2)
    _, report = zoo.read(path, table)
    assert 49 in report.failures[0][0]
    assert "ends at byte" in str(report.failures[0][1])


@pytest.mark.parametrize(
    ("name", "row"), [("av1_mp4", 6), ("av1_mp4", 9), ("vp9_mp4", 15), ("vp9_mp4", 13), ("h264_open_mp4", 18)]
)
def test_a_size_of_0_in_a_header_gives_no_frame_another_time(name: str, row: int, tmp_path: Path) -> None:
    """A packet of no bytes sends the file to its container, and all behind it is out of step."""
    data = make(FORMATS[name])
    entry = next(box for box in boxes(data) if box.kind == b"stsz").payload + 12 + 4 * row
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data[:entry] + bytes(4) + data[entry + 4 :])
    with pytest.raises(CorruptMedia):
        build_sample_table(path)


def test_a_container_gives_no_frame_of_a_gop_with_damage_in_it(tmp_path: Path) -> None:
    data, expected = bytearray(make(FORMATS["h264_ts"])), make(FORMATS["h264_ts"])
    whole, path = tmp_path / "whole.ts", tmp_path / "damaged.ts"
    whole.write_bytes(expected)
    table = build_sample_table(whole)
    at = data.index(b"\x47", len(data) * 11 // 24 // 188 * 188)  # in the second GOP of three
    del data[at : at + 188]
    path.write_bytes(data)
    left = build_sample_table(path).frame_seconds.tolist()
    gone = [j for j, seconds in enumerate(table.frame_seconds.tolist()) if seconds not in left]
    assert {*range(8, 16)} <= {*gone} <= {*range(6, 16)}  # two come out of the decoder when the damage is known already


def test_a_rate_that_no_sound_has_makes_no_gigabytes(tmp_path: Path) -> None:
    data = bytearray(make(FORMATS["wav"]))
    data[24:28] = (1).to_bytes(4, "little")
    path = tmp_path / "slow.wav"
    path.write_bytes(data)
    with pytest.raises(CorruptMedia, match="says that it has 1 samples a second"):
        millpond.load_audio(path, sampling_rate=16_000)


def test_a_hole_in_a_transport_stream_gives_no_frame_the_time_of_another(tmp_path: Path) -> None:
    """Of 16 packets, or as many more as their counter goes round: FFmpeg sees none of them missing."""
    data, path = make(FORMATS["h264_ts"]), tmp_path / "damaged.ts"
    path.write_bytes(data)
    whole = build_sample_table(path)
    expected = dict(zip(whole.frame_seconds.tolist(), zoo.read(path, whole)[0].values(), strict=True))
    compared = 0
    for first in range(6, 30):
        hole = slice(188 * first + 100, 188 * (first + 16) + 100)
        path.write_bytes(data[: hole.start] + bytes(hole.stop - hole.start) + data[hole.stop :])
        try:
            table = build_sample_table(path)
        except CorruptMedia:  # no GOP is whole
            continue
        got, _ = zoo.read(path, table)
        assert all(np.array_equal(got[j], expected[s]) for j, s in enumerate(table.frame_seconds.tolist()))
        compared += 1
    assert compared >= 12


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ()),
        (b"no packets at all" * 100, ()),
        (b"\x47" + bytes(187), ()),
        ((b"\x47" + bytes(187)) * 9, ()),
        (b"half a packet" + (b"\x47" + bytes(187)) * 9, ()),
        ((b"\x47" + bytes(187)) * 9 + b"garbage" * 40, (9 * 188,)),
        ((b"\x47" + bytes(187)) * 6 + bytes(300) + (b"\x47" + bytes(187)) * 6, (6 * 188,)),
        ((b"time\x47" + bytes(187)) * 6 + bytes(192) + (b"time\x47" + bytes(187)) * 6, (6 * 192,)),
    ],
    ids=["empty", "none", "one", "whole", "cut in front", "garbage behind", "hole", "disk"],
)
def test_places_where_a_transport_stream_lacks_packets(data: bytes, expected: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "x.ts").write_bytes(data)
    assert lost_places(str(tmp_path / "x.ts"), lambda: None) == expected


def test_a_stream_that_begins_in_the_middle_of_a_file_is_no_bug(tmp_path: Path) -> None:
    path = tmp_path / "damaged.ts"
    path.write_bytes(corrupted(make(FORMATS["h264_ts"]), "ts", 702_090).data)
    with pytest.raises(CorruptMedia):
        build_sample_table(path)
