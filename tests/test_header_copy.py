"""Tables from headers alone: the same as from the files, by few reads, and of headers that lie."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import random
import struct
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import media_zoo as zoo
from millpond._datasets.cut_short import frames_beyond_end, load_table, table_by_header
from millpond._media import header_copy
from millpond._media.demux import PacketRulesDoNotFit
from millpond._media.header_copy import BEGIN_BYTES, copy_header
from millpond._media.index import build_sample_table
from millpond._media.sidecars import SidecarStore
from millpond._media.sparse_file import Box, top_level_boxes
from millpond._plan.sample_table import SampleTable
from millpond._values import FileIdentity
from millpond.errors import CorruptMedia, DataError
from test_media_index import MP4_CLIPS, SCANNED_CLIPS

PAD_BYTES = 1 << 20
NAME = "s3://bucket/clip.mp4"
FRAGMENTS = zoo.Clip(
    "fragments", "libx264", zoo.B_FRAMES, muxer={"movflags": "frag_keyframe+empty_moov+default_base_moof"}
)
"""Whose offsets count from their own fragment, so that bytes can be put in between."""


class Reads:
    """Reads of an object: none beyond its end, none twice, and each is remembered."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.seen: list[tuple[int, int]] = []

    def __call__(self, start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(self.data), f"bytes {start} to {stop} of {len(self.data)}"
        self.seen.append((start, stop))
        return self.data[start:stop]

    def table(self) -> tuple[SampleTable, DataError | None]:
        """As of an object whose first bytes came with its size."""
        return table_by_header(self, FileIdentity(len(self.data), 0, '"tag"'), NAME, self.data[:BEGIN_BYTES])

    def num_bytes(self, kind: bytes | None = None) -> int:
        """Bytes read, or those of boxes of a kind, the first ones included."""
        of = [(b.payload, b.stop) for b in boxes_of(self.data) if b.kind == kind] if kind else [(0, len(self.data))]
        reads = [(0, min(BEGIN_BYTES, len(self.data))), *self.seen]
        return sum(max(0, min(stop, end) - max(start, begin)) for start, stop in reads for begin, end in of)


@functools.lru_cache(maxsize=8)
def boxes_of(data: bytes) -> list[Box]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return top_level_boxes(file.fileno(), len(data))


def box(kind: bytes, payload: bytes, *, length: int | None = None) -> bytes:
    return struct.pack(">I4s", len(payload) + 8 if length is None else length, kind) + payload


def raw(data: bytes, one: Box) -> bytes:
    return data[one.start : one.stop]


def of_file(data: bytes, folder: Path) -> SampleTable:
    """What the file itself gives, under the identity of the object."""
    path = folder / "clip.mp4"
    path.write_bytes(data)
    return dataclasses.replace(build_sample_table(path), identity=FileIdentity(len(data), 0, '"tag"'))


def assert_same(found: SampleTable, expected: SampleTable) -> None:
    for field in dataclasses.fields(SampleTable):
        assert np.array_equal(getattr(found, field.name), getattr(expected, field.name)), field.name


def moov_last(pad_bytes: int = PAD_BYTES) -> bytes:
    """ftyp, free, a long mdat, moov."""
    data = zoo.clip_path("h264_open_gop").read_bytes()
    shifted = zoo.with_co64(data, pad_bytes)
    ftyp, free, mdat, moov = (raw(shifted, one) for one in boxes_of(shifted))
    return ftyp + free + box(b"mdat", os.urandom(pad_bytes) + mdat[8:]) + moov


def moov_first(pad_bytes: int = PAD_BYTES, *, pad: bytes = b"", is_open: bool = False) -> bytes:
    """ftyp, moov, a long mdat; open, that has no length and goes to the end."""
    data = zoo.clip_path("h264_open_gop").read_bytes()
    pad = pad or os.urandom(pad_bytes)
    length = boxes_of(zoo.with_co64(data))[-1]
    shifted = zoo.with_co64(data, len(pad) + length.stop - length.start)
    ftyp, free, mdat, moov = (raw(shifted, one) for one in boxes_of(shifted))
    return ftyp + moov + free + box(b"mdat", pad + mdat[8:], length=0 if is_open else None)


@functools.cache
def fragments() -> bytes:
    """ftyp, moov, and for every GOP moof and a long mdat; mfra."""
    data = zoo.make(FRAGMENTS, zoo.folder()).read_bytes()
    parts = [(one.kind, raw(data, one)) for one in boxes_of(data)]
    return b"".join(box(kind, part[8:] + os.urandom(PAD_BYTES)) if kind == b"mdat" else part for kind, part in parts)


# ---- the same table


@pytest.mark.parametrize("name", MP4_CLIPS)
def test_the_table_is_that_of_the_file(name: str, tmp_path: Path) -> None:
    data = zoo.clip_path(name).read_bytes()
    table, error = Reads(data).table()
    assert error is None
    assert_same(table, of_file(data, tmp_path))


@pytest.mark.parametrize("name", ["h264_b_frames", "h264_open_gop", "hevc_cra"])
def test_edit_lists_are_in_the_header(name: str, tmp_path: Path) -> None:
    data = zoo.remux(zoo.clip_path(name), tmp_path / "cut.mp4", shift_frames=15).read_bytes()
    table, _ = Reads(data).table()
    assert table.is_discard.any()
    assert_same(table, of_file(data, tmp_path))


@pytest.mark.parametrize("name", [*MP4_CLIPS, "mpeg4_mp4"])
def test_nothing_of_the_media_is_copied_and_everything_else_is(name: str) -> None:
    data = zoo.clip_path(name).read_bytes()
    with tempfile.TemporaryFile() as copy:
        assert copy_header(Reads(data), len(data), copy.fileno()) is True
        copied = os.pread(copy.fileno(), 2 * len(data), 0)
    assert len(copied) == len(data)
    for one in boxes_of(data):
        if one.kind == b"mdat":
            assert copied[one.start : one.payload] == data[one.start : one.payload]
            assert not any(copied[one.payload : one.stop])
        else:
            assert raw(copied, one) == raw(data, one)


# ---- few reads


def test_a_moov_at_the_end_takes_one_read_beside_the_first() -> None:
    reads = Reads(moov_last())
    assert len(reads.table()[0].pts) == zoo.FRAMES
    assert reads.seen == [(boxes_of(reads.data)[-1].start, len(reads.data))]


def test_a_moov_at_the_end_takes_one_read_whatever_follows_it(tmp_path: Path) -> None:
    reads = Reads(moov_last() + box(b"udta", bytes(5000)) + box(b"free", bytes(9000)) + box(b"uuid", bytes(16)))
    assert_same(reads.table()[0], of_file(reads.data, tmp_path))
    assert len(reads.seen) == 1


def test_a_moov_in_front_takes_what_is_missing_of_it_and_looks_where_the_media_ends() -> None:
    reads = Reads(moov_first())
    assert len(reads.table()[0].pts) == zoo.FRAMES
    assert reads.num_bytes() <= BEGIN_BYTES
    assert reads.num_bytes(b"mdat") < BEGIN_BYTES


def test_a_long_moov_in_front_is_read_to_its_end_and_hardly_further() -> None:
    data = moov_first()
    ftyp, moov, *rest = (raw(data, one) for one in boxes_of(data))
    # a box of free space within the moov moves the media
    shifted = zoo.with_co64(ftyp + moov, 0)[len(ftyp) :]
    longer = box(b"moov", shifted[8:] + box(b"free", bytes(50_000)))
    reads = Reads(ftyp + longer + b"".join(rest))
    reads.table()
    assert reads.seen == [(BEGIN_BYTES, len(ftyp) + len(longer) + 64)]  # the heads of what follows it, too


def test_fragments_are_read_one_by_one_and_their_media_is_not(tmp_path: Path) -> None:
    reads = Reads(fragments())
    assert_same(reads.table()[0], of_file(reads.data, tmp_path))
    num_fragments = sum(one.kind == b"moof" for one in boxes_of(reads.data))
    assert num_fragments >= 4
    assert len(reads.seen) <= num_fragments + 1
    assert reads.num_bytes() <= BEGIN_BYTES * (num_fragments + 2)


def test_no_byte_is_read_twice() -> None:
    for data in (moov_last(), moov_first(), fragments()):
        reads = Reads(data)
        reads.table()
        ends = sorted([(0, BEGIN_BYTES), *reads.seen])
        assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(ends))


def test_a_tail_too_long_to_hold_only_a_moov_is_walked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(header_copy, "_TAIL_BYTES", 100_000)
    data = moov_last()
    *front, moov = (raw(data, one) for one in boxes_of(data))
    reads = Reads(b"".join(front) + box(b"mdat", os.urandom(PAD_BYTES)) * 2 + moov)
    assert_same(reads.table()[0], of_file(reads.data, tmp_path))
    assert len(reads.seen) <= 3
    assert reads.num_bytes() < 20_000 + len(moov)


def test_small_boxes_take_few_reads() -> None:
    front, rest = box(b"ftyp", b"isom" + bytes(4) + b"isom"), box(b"free", b"") * 20_000
    reads = Reads(front + rest)
    with pytest.raises(DataError):
        reads.table()
    assert len(reads.seen) <= len(rest) / 4096 + 2


# ---- boxes whose length is odd


def test_a_box_of_length_0_reaches_to_the_end_whatever_its_bytes_look_like(tmp_path: Path) -> None:
    reads = Reads(moov_first(pad=box(b"uuid", bytes(92)) * 1000, is_open=True))
    assert_same(reads.table()[0], of_file(reads.data, tmp_path))
    assert not reads.seen


def test_a_moov_of_length_0_is_read_to_the_end(tmp_path: Path) -> None:
    data = moov_last()
    *front, moov = (raw(data, one) for one in boxes_of(data))
    reads = Reads(b"".join(front) + box(b"moov", moov[8:], length=0))
    assert_same(reads.table()[0], of_file(reads.data, tmp_path))
    assert len(reads.seen) == 1


def test_a_length_of_64_bits_is_read(tmp_path: Path) -> None:
    data = zoo.clip_path("h264_open_gop").read_bytes()
    ftyp, _, mdat, moov = (raw(data, one) for one in boxes_of(data))
    long_mdat = struct.pack(">I4sQ", 1, b"mdat", len(mdat) + 8) + mdat[8:]  # takes the place of the box "free"
    reads = Reads(ftyp + long_mdat + moov)
    assert_same(reads.table()[0], of_file(reads.data, tmp_path))


LIES: dict[str, Callable[[bytes], bytes]] = {
    "a moov of 2^63 bytes": lambda data: (
        data[: boxes_of(data)[-1].start]
        + struct.pack(">I4sQ", 1, b"moov", 1 << 63)
        + data[boxes_of(data)[-1].payload :]
    ),
    "a moov of 4 GB": lambda data: _with_length(data, -1, (1 << 32) - 1),
    "a moov of 7 bytes": lambda data: _with_length(data, -1, 7),
    "a moov one byte too long": lambda data: _with_length(data, -1, len(raw(data, boxes_of(data)[-1])) + 1),
    "a first box of 4 GB": lambda data: _with_length(data, 0, (1 << 32) - 1),
    "a first box of 1.9 GB, which FFmpeg would keep": lambda data: _with_length(data, 0, 1_900_000_000),
    "a first box of 2 bytes": lambda data: _with_length(data, 0, 2),
    "an mdat that goes into the moov": lambda data: _with_length(data, 2, 1 << 20),
    "a moov without anything": lambda data: data[: boxes_of(data)[-1].start] + box(b"moov", b""),
    "a moov of zeros": lambda data: data[: boxes_of(data)[-1].start] + box(b"moov", bytes(1000)),
    "no moov": lambda data: data[: boxes_of(data)[-1].start],
    "only the first box": lambda data: raw(data, boxes_of(data)[0]),
    "half a head": lambda data: data[:4],
}


def _with_length(data: bytes, which: int, length: int) -> bytes:
    at = boxes_of(data)[which].start
    return data[:at] + struct.pack(">I", length) + data[at + 4 :]


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused(name: str) -> None:
    reads = Reads(LIES[name](moov_last()))
    with pytest.raises((CorruptMedia, PacketRulesDoNotFit)) as caught:
        reads.table()
    assert isinstance(caught.value, PacketRulesDoNotFit) or NAME in str(caught.value)
    assert len(reads.seen) <= 4


def test_no_more_than_a_header_can_have_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millpond._media.header_copy.MAX_HEADER_BYTES", 2000)
    monkeypatch.setattr("millpond._media.mp4_claims.MAX_HEADER_BYTES", 2000)
    ftyp = box(b"ftyp", b"isom" + bytes(4) + b"isom")
    reads = Reads(ftyp + box(b"moov", bytes(PAD_BYTES)) + box(b"mdat", b"x"))
    with pytest.raises(CorruptMedia, match="a header of 1,048,576 bytes"):
        reads.table()
    assert reads.num_bytes() < 3 * BEGIN_BYTES


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0\0\0\x08ft", bytes(5000), b"\xff" * 9000, random.Random(1).randbytes(9000), b"GIF89a" * 99]
)
def test_what_is_no_mp4_at_all_is_left_to_others(data: bytes) -> None:
    reads = Reads(data)
    with pytest.raises(PacketRulesDoNotFit, match="only an MP4 or MOV"):
        reads.table()
    assert not reads.seen


@pytest.mark.parametrize("name", [*SCANNED_CLIPS, "h264_ts", "mjpeg_avi", "mpeg4_avi"])
def test_other_containers_are_left_to_a_full_read(name: str) -> None:
    reads = Reads(zoo.clip_path(name).read_bytes())
    with pytest.raises(PacketRulesDoNotFit, match="only an MP4 or MOV"):
        reads.table()
    assert not reads.seen


def test_an_mp4_of_a_codec_whose_packets_do_not_tell_is_left_to_a_full_read() -> None:
    with pytest.raises(PacketRulesDoNotFit):
        Reads(zoo.clip_path("mpeg4_mp4").read_bytes()).table()


@pytest.mark.parametrize("length", [1 << 40, 1 << 62, (1 << 64) - 1], ids=["2^40", "2^62", "2^64 - 1"])
def test_media_that_claims_more_than_any_file_has_is_cut_short(length: int) -> None:
    data = zoo.clip_path("h264_faststart").read_bytes()
    ftyp, moov, _, mdat = (raw(data, one) for one in boxes_of(data))
    reads = Reads(ftyp + moov + struct.pack(">I4sQ", 1, b"mdat", length) + mdat[8:])  # as long as free and mdat were
    if length < 1 << 63:
        table, error = reads.table()
        assert error is not None
        assert (table.num_frames, int(frames_beyond_end(table).sum())) == (zoo.FRAMES, 0)
    else:
        with pytest.raises(CorruptMedia, match="is cut short"):
            reads.table()


# ---- cut short


@functools.cache
def _to_cut(name: str) -> bytes:
    made = {"first": moov_first, "last": moov_last}
    return made[name](5000) if name in made else zoo.clip_path(name).read_bytes()


def _outcome(make: Callable[[], tuple[SampleTable, DataError | None]]) -> tuple[object, ...]:
    try:
        table, error = make()
    except CorruptMedia as refused:
        return "refused", refused.facts.get("wanted_bytes")
    return table.pts.tolist(), table.offset.tolist(), None if error is None else error.facts["wanted_bytes"]


@pytest.mark.parametrize("share", [0.02, 0.06, 0.1, 0.2, 0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("name", ["first", "last", "h264_fragmented", "h264_mov", "hevc_cra", "h264_faststart"])
def test_an_object_cut_short_is_what_such_a_file_is(name: str, share: float, tmp_path: Path) -> None:
    data = _to_cut(name)[: int(share * len(_to_cut(name)))]
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    expected = _outcome(lambda: load_table(str(path), SidecarStore(tmp_path / "sidecars"), lambda: None))
    assert _outcome(Reads(data).table) == expected


def test_of_an_object_cut_short_in_its_media_the_frames_before_are_known() -> None:
    whole = moov_first()
    first_missing = boxes_of(whole)[-1].stop - 6000
    reads = Reads(whole[:first_missing])
    table, error = reads.table()
    assert isinstance(error, CorruptMedia)
    assert NAME in str(error)
    assert error.facts["wanted_bytes"] == len(whole)
    assert table.identity == FileIdentity(first_missing, 0, '"tag"')
    assert_same(dataclasses.replace(table, identity=FileIdentity(len(whole), 0, '"tag"')), Reads(whole).table()[0])
    lost = frames_beyond_end(table)
    assert 0 < lost.sum() < len(lost)
    rows = table.frame_rows[~lost]
    assert (table.offset[rows] + table.size[rows] <= first_missing).all()


def test_a_copy_made_longer_is_as_long_as_the_object_should_be() -> None:
    data = moov_first(5000)
    with tempfile.TemporaryFile() as copy:
        half = data[: len(data) // 2]
        assert copy_header(Reads(half), len(half), copy.fileno(), length_bytes=len(data)) is True
        assert os.fstat(copy.fileno()).st_size == len(data)


# ---- anything at all

FUZZED = ("first", "last", "h264_fragmented")


@settings(max_examples=150)
@given(
    name=st.sampled_from(FUZZED),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=4),
    share=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_whatever_a_header_says_is_a_table_or_refused(
    name: str, changes: Sequence[tuple[float, bytes]], share: float
) -> None:
    data = bytearray(_to_cut(name))
    header = [k for one in boxes_of(bytes(data)) if one.kind != b"mdat" for k in range(one.start, one.stop)]
    for place, change in changes:
        at = header[int(place * len(header))]
        data[at : at + len(change)] = change
    reads = Reads(bytes(data[: int(share * len(data))]))
    try:
        table, _ = reads.table()
    except (CorruptMedia, PacketRulesDoNotFit):
        pass
    else:
        assert table.num_frames <= 2 * len(data)
    assert len(reads.seen) <= 2 * (len(header) // 8 + 2)
