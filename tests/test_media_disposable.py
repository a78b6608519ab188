"""Packets that no frame wanted refers to: they are read and checked, not decoded, and no pixel is another for it."""

from __future__ import annotations

import dataclasses
import functools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import media_zoo as zoo
from millpond._media import nal_units, packet_run
from millpond._media.frames import decode_frames
from millpond._media.index import build_sample_table
from millpond._media.nal_units import Nature, PacketReading
from millpond._media.pictures import PictureMaker
from millpond._media.sidecars import file_identity
from millpond._media.video_file import VideoFile
from millpond._plan.sample_table import SampleTable
from millpond._values import no_progress


def _x264(name: str, parameters: str, suffix: str = ".mp4", **options: str) -> zoo.Clip:
    return zoo.Clip(name, "libx264", {"preset": "fast", "g": "24", "x264-params": parameters, **options}, suffix=suffix)


CLIPS = {
    clip.name: clip
    for clip in (
        _x264("references", "bframes=0:ref=3:scenecut=0"),
        _x264("pyramid", "bframes=7:b-pyramid=normal:b-adapt=0:scenecut=0"),
        _x264("strict_pyramid", "bframes=5:b-pyramid=strict:scenecut=0"),
        _x264("slices", "bframes=3:slices=4:b-pyramid=normal"),
        _x264("open_pyramid", "open-gop=1:bframes=5:b-adapt=0:b-pyramid=normal:scenecut=0:keyint=12"),
        _x264("repeated_headers", "bframes=3:repeat-headers=1:aud=1"),
        _x264("start_codes", "bframes=3:repeat-headers=1:annexb=1", ".mkv"),
        _x264("constant_rate", "bframes=3:nal-hrd=cbr:vbv-maxrate=500:vbv-bufsize=200:filler=1", b="500k"),
        _x264("weighted", "bframes=4:weightb=1:weightp=2:ref=6:direct=temporal"),
        _x264("counted", "bframes=3:cabac=0:scenecut=0"),
        _x264("interlaced", "bframes=3", flags="+ilme+ildct"),
        _x264("scaling_lists", "bframes=3:cqm=jvt"),
    )
}


@functools.cache
def _path(name: str) -> Path:
    return zoo.make(CLIPS[name], zoo.folder()) if name in CLIPS else zoo.clip_path(name)


@functools.cache
def _reference(name: str) -> list[Any]:
    return zoo.reference(_path(name))


def _natures(path: Path, table: SampleTable) -> list[Nature]:
    data, reading = memoryview(path.read_bytes()), PacketReading(table.stream)
    return [reading.nature(data[o : o + n]) for o, n in zip(table.offset.tolist(), table.size.tolist(), strict=True)]


@pytest.mark.parametrize("name", [*CLIPS, *(c.name for c in zoo.CLIPS if c.encoder == "libx264" and c.suffix != ".ts")])
def test_any_set_of_frames_has_the_pixels_of_a_whole_decode(name: str) -> None:
    chance, reference = random.Random(name), _reference(name)
    table = build_sample_table(_path(name))
    for _ in range(25):
        frames = sorted(chance.sample(range(table.num_frames), chance.choice([1, 1, 1, 2, 4, 9])))
        got, report = zoo.read(_path(name), table, frames)
        assert not report.failures
        assert all(np.array_equal(got[j], reference[frame]) for j, frame in enumerate(frames))


@pytest.mark.parametrize("name", [name for name in CLIPS if name not in ("interlaced", "references")])
def test_disposable_packets_are_fed_only_for_their_own_frame(name: str) -> None:
    table = build_sample_table(_path(name))
    disposable = {row for row, nature in enumerate(_natures(_path(name), table)) if nature.is_disposable}
    assert disposable, "the clip tests nothing"
    for frame in range(0, table.num_frames, 7):
        row = int(table.frame_rows[frame])
        gop = int(np.searchsorted(table.gop_starts, frame, side="right")) - 1
        rows = set(table.feed_rows(gop, gop + 1, last_row=row).tolist())
        _, report = zoo.read(_path(name), table, [frame])
        fed = rows - disposable | {row}
        assert report.packets_fed == report.frames_decoded == len(fed)
        learned = {row for row in fed if not table.crc_known[row]}
        assert set(report.rows.tolist()) == learned, "nobody knows whether the others are whole"


@pytest.mark.parametrize("name", ["interlaced", "h264_interlaced"])
def test_where_pictures_may_be_fields_everything_is_fed(name: str) -> None:
    assert not any(nature.is_disposable for nature in _natures(_path(name), build_sample_table(_path(name))))


@pytest.mark.parametrize("name", ["hevc_closed", "av1_gop_16", "vp9_mp4"])
def test_other_codecs_have_no_disposable_packets(name: str) -> None:
    assert not any(nature.is_disposable for nature in _natures(zoo.clip_path(name), zoo.clip_table(name)))


def test_packets_left_out_are_checked_nonetheless(tmp_path: Path) -> None:
    name = "pyramid"
    table = build_sample_table(_path(name))
    _, learned = zoo.read(_path(name), table)
    table = table.with_crcs(learned.rows, learned.crcs)
    row = next(row for row, nature in enumerate(_natures(_path(name), table)) if nature.is_disposable)
    data = bytearray(_path(name).read_bytes())
    data[int(table.offset[row]) + int(table.size[row]) - 2] ^= 1
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    damaged = dataclasses.replace(table, identity=file_identity(path))
    last = int(np.flatnonzero(table.frame_rows == row + 1)[0])
    _, report = zoo.read(path, damaged, [last])
    assert [error.facts["row"] for _, error in report.failures] == [row]


def _decoded_plainly(path: Path, table: SampleTable, frame: int) -> Any:
    """A frame of the first GOP, every packet before it decoded."""
    pictures: dict[int, Any] = {}
    with VideoFile(path, table) as file:
        run = packet_run.PacketRun(file, 0, 1, {int(table.frame_rows[frame]): 0}, known_crcs=None)
        maker = PictureMaker(table, None, "bilinear")
        run.decode(maker, pictures.__setitem__, no_progress, 0, plainly=True)
        return pictures[0].copy()


@pytest.mark.parametrize("name", ["references", "pyramid", "start_codes"])
def test_a_reference_that_says_that_it_is_none_makes_no_pixel_of_its_own(name: str, tmp_path: Path) -> None:
    """Where a decode of every packet complains, so does that of some; an error in either is as good as the other."""
    table, reference = build_sample_table(_path(name)), _reference(name)
    path = tmp_path / _path(name).name
    data, reading, natures = _path(name).read_bytes(), PacketReading(table.stream), _natures(_path(name), table)
    wrongly_told = 0
    for row in range(1, 24):
        start, size = int(table.offset[row]), int(table.size[row])
        payload = bytearray(data[start : start + size])
        for slice_start in nal_units._nal_starts(memoryview(payload), reading._length_bytes)[0]:
            payload[slice_start] &= 0x9F if payload[slice_start] & 31 == 1 else 0xFF
        path.write_bytes(data[:start] + payload + data[start + size :])
        damaged = dataclasses.replace(
            table, identity=file_identity(path), crc_known=np.zeros_like(table.crc_known, dtype=bool)
        )
        wrongly_told += _natures(path, damaged)[row].is_disposable and not natures[row].is_disposable
        for frame in range(24):
            got, report = zoo.read(path, damaged, [frame])
            if not report.failures and not np.array_equal(got[0], reference[frame]):
                assert np.array_equal(got[0], _decoded_plainly(path, damaged, frame))
    assert wrongly_told > 3, "the clip tests nothing"


def test_a_reference_under_another_count_is_told_by_the_order_of_frames(tmp_path: Path) -> None:
    """Where a decode of every packet lacks frames, which it takes for late, and so complains."""
    name = "counted"
    table, reference = build_sample_table(_path(name)), _reference(name)
    natures, data, path = _natures(_path(name), table), _path(name).read_bytes(), tmp_path / "damaged.mp4"
    frame, num_errors = 21, 0
    for row in (row for row in range(1, 24) if not natures[row].is_disposable):
        for bit in range(18, 23):  # of its header, at which the count begins or is
            damaged_data = bytearray(data)
            damaged_data[int(table.offset[row]) + 4 + bit // 8] ^= 0x80 >> bit % 8
            path.write_bytes(damaged_data)
            damaged = dataclasses.replace(table, identity=file_identity(path))
            got, report = zoo.read(path, damaged, [frame])
            num_errors += len(report.failures)
            if not report.failures and not np.array_equal(got[0], reference[frame]):
                _decoded_plainly(path, damaged, frame)  # it does not complain, either
    assert num_errors > 10, "the clip tests nothing"


def test_where_a_packet_goes_on_with_a_picture_everything_is_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "pyramid"
    table = build_sample_table(_path(name))

    class Split(PacketReading):
        """The fifth packet that is not disposable begins within a picture, it says."""

        def __init__(self, stream: Any) -> None:
            super().__init__(stream)
            self._kept = 0

        def nature(self, payload: memoryview, *, must_be_fed: bool = False) -> Nature:
            nature = super().nature(payload)
            self._kept += not nature.is_disposable
            return nature._replace(goes_on=self._kept == 5)

    monkeypatch.setattr(packet_run, "PacketReading", Split)
    got, report = zoo.read(_path(name), table, [23])
    assert not report.failures
    assert np.array_equal(got[0], _reference(name)[23])
    assert report.frames_decoded >= 24 - 8


def test_a_packet_that_begins_within_a_picture_is_told() -> None:
    table = build_sample_table(_path("slices"))
    payload = _path("slices").read_bytes()[int(table.offset[3]) :][: int(table.size[3])]
    reading = PacketReading(table.stream)
    start = 4 + int.from_bytes(payload[:4], "big")
    assert [reading.nature(memoryview(part)).goes_on for part in (payload, payload[start:])] == [False, True]


def test_a_slice_that_must_be_fed_is_looked_at_only_behind_one_that_was_left_out() -> None:
    table, data = build_sample_table(_path("pyramid")), memoryview(_path("pyramid").read_bytes())
    packets = [data[o : o + n] for o, n in zip(table.offset.tolist(), table.size.tolist(), strict=True)]
    row = next(row for row, nature in enumerate(_natures(_path("pyramid"), table)) if nature.is_disposable)
    reading = PacketReading(table.stream)
    assert reading.nature(packets[0], must_be_fed=True).is_refresh
    assert reading.nature(packets[row], must_be_fed=True) == Nature()
    assert reading.nature(packets[row]).is_disposable
    assert reading.nature(packets[1], must_be_fed=True).contradicts, "its number is not the next one"


def test_a_packet_whose_nal_units_do_not_make_it_up_is_not_disposable() -> None:
    table = build_sample_table(_path("pyramid"))
    rows = [row for row, nature in enumerate(_natures(_path("pyramid"), table)) if nature.is_disposable]
    start, size = int(table.offset[rows[0]]), int(table.size[rows[0]])
    payload = _path("pyramid").read_bytes()[start : start + size]
    reading = PacketReading(table.stream)
    assert reading.nature(memoryview(payload)).is_disposable
    for other in (payload[:-1], payload + b"\0", payload[:4] + bytes([payload[4] | 0x20]) + payload[5:]):
        assert not reading.nature(memoryview(other)).is_disposable


def test_what_cannot_be_read_of_a_parameter_set_allows_fields() -> None:
    table = build_sample_table(_path("pyramid"))
    start = 8
    sps = table.stream.extradata[start : start + int.from_bytes(table.stream.extradata[6:8], "big")]
    assert nal_units._number_bits(sps) >= 4
    assert not any(nal_units._number_bits(sps[:length]) for length in range(6))
    for extradata in (b"", b"\x01", table.stream.extradata[:5], table.stream.extradata[:10], b"\0\0\1\x68\1\2"):
        stream = dataclasses.replace(table.stream, extradata=extradata)
        assert not PacketReading(stream)._number_bits


def test_frames_decoded_later_than_those_wanted_are_not_decoded() -> None:
    name = "pyramid"
    table = build_sample_table(_path(name))
    frame = int(np.flatnonzero(table.frame_rows == 1)[0])
    assert frame > 4, "no frame that is shown late and decoded early: the clip tests nothing"
    with VideoFile(_path(name), table) as file:
        assert decode_frames(file, np.array([frame]), lambda _j, _p: None).packets_fed == 2
