"""Headers that claim what a file cannot hold: refused before FFmpeg makes room for it; and no honest file is."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import media_zoo as zoo
import millpond
from millpond import CorruptMedia
from millpond._media import demux
from millpond._media.containers import MAX_FRAME_PIXELS
from millpond._media.media_path import MediaPath
from millpond._media.mp4_claims import MAX_HEADER_BYTES
from millpond._media.wholeness import require_whole_file
from sounds import tone, write_sound

MANY = 1 << 27
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf")


def box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", len(payload) + 8, kind) + payload


def with_boxes(data: bytes, changes: dict[bytes, Callable[[bytes], bytes]]) -> bytes:
    """The same file with other payloads of some kinds of boxes; where they make it longer, what follows moves."""
    out, at = b"", 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        payload = data[at + 8 : at + length]
        if kind in changes:
            payload = changes[kind](payload)
        elif kind in _PARENTS:
            payload = with_boxes(payload, changes)
        out += box(kind, payload)
        at += length
    return out


def _entries(form: str, *entries: tuple[int, ...]) -> bytes:
    return struct.pack(">II", 0, len(entries)) + b"".join(struct.pack(form, *entry) for entry in entries)


CLAIMS: dict[str, tuple[str, dict[bytes, Callable[[bytes], bytes]], str]] = {
    "samples of one size": ("h264_b_frames", {b"stsz": lambda _: struct.pack(">III", 0, 1, MANY)}, "samples"),
    "more sizes than the table has": ("h264_b_frames", {b"stsz": lambda _: struct.pack(">III", 0, 0, MANY)}, "samples"),
    "samples in chunks": (
        "h264_b_frames",
        {b"stsc": lambda _: _entries(">III", (1, 0xFFFF_FFFF, 1)), b"stco": lambda _: _entries(">I", *[(99,)] * 99)},
        "samples",
    ),
    "samples of a fragment": ("h264_fragmented", {b"trun": lambda _: struct.pack(">IIi", 1, MANY, 9)}, "samples"),
    "edits": (
        "h264_b_frames",
        {b"elst": lambda _: _entries(">IiI", *[(1000, 0, 1 << 16)] * 20_000)},
        "edits of 50 samples|claims more than [0-9,]+ pictures",
    ),
    "a compressed header": (
        "h264_b_frames",
        {b"moov": lambda _: box(b"cmov", box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", MANY) + b"x"))},
        "compressed header",
    ),
    "boxes in boxes": ("h264_b_frames", {b"moov": lambda moov: moov + _nested(3000)}, ""),
}


def _nested(depth: int) -> bytes:
    """Boxes that each hold the next, 8 bytes shorter."""
    return b"".join(struct.pack(">I4s", 8 * (depth - k), b"trak") for k in range(depth))


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_that_cannot_be_true_is_refused_or_ignored(claim: str) -> None:
    name, changes, words = CLAIMS[claim]
    data = with_boxes(zoo.clip_path(name).read_bytes(), changes)
    if not words:
        assert len(millpond.load_video(data, num_frames=2)) == 2
        return
    with pytest.raises(CorruptMedia, match=words):
        millpond.load_video(data, num_frames=2)


def test_a_header_larger_than_any_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "moov.mp4"
    with open(path, "wb") as file:  # a hole, which takes no room on the disk
        file.write(zoo.clip_path("h264_b_frames").read_bytes()[:32])
        file.write(struct.pack(">I4s", MAX_HEADER_BYTES + 9, b"moov"))
        file.truncate(MAX_HEADER_BYTES + 50)
    for load in (
        lambda: millpond.load_video(path, num_frames=1),
        lambda: millpond.load_audio(path, sampling_rate=8000),
    ):
        with pytest.raises(CorruptMedia, match="a header of"):
            load()


@pytest.mark.parametrize(("codec", "suffix"), [
    ("adpcm_ima_qt", ".mov"), ("pcm_s16be", ".mov"), ("pcm_u8", ".mov"), ("aac", ".mp4"), ("flac", ".mp4")
])  # fmt: skip
def test_sound_of_every_layout_is_read(codec: str, suffix: str, tmp_path: Path) -> None:
    path = write_sound(tmp_path / f"tone{suffix}", codec, tone(1, seconds=20))
    assert abs(len(millpond.load_audio(path, sampling_rate=8000)) - 160_000) <= 2048


@pytest.mark.parametrize("name", [clip.name for clip in zoo.CLIPS])
def test_every_honest_clip_is_taken_for_whole(name: str) -> None:
    require_whole_file(MediaPath.of(zoo.clip_path(name)))


def test_every_real_file_is_taken_for_whole(shared_dir: Path) -> None:
    for path in [*shared_dir.glob("media/*.*"), *shared_dir.glob("data/**/*.mp4")]:
        require_whole_file(MediaPath.of(path))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_pictures_larger_than_any_level_are_not_decoded(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"large{suffix}"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 9000, 4000, "yuvj420p"
        frame = av.VideoFrame(9000, 4000, "yuvj420p")
        frame.pts = 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            out.mux(packet)
    with pytest.raises(CorruptMedia, match="pictures"):
        millpond.load_video(path, num_frames=1)


@pytest.mark.parametrize("name", ["h264_b_frames", "h264_mkv", "h264_ts"])
def test_the_largest_picture_is_named_with_the_limit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demux, "MAX_FRAME_PIXELS", 100 * 76 - 1)
    with pytest.raises(CorruptMedia, match=r"100x76, more than the 7,599") as caught:
        millpond.load_video(zoo.clip_path(name), num_frames=1)
    assert (caught.value.width, caught.value.height) == (100, 76)
    assert MAX_FRAME_PIXELS == 8192 * 4352


def test_dimensions_that_only_the_header_claims_do_not_count() -> None:
    """What the stream itself says is what is decoded, and what room is made for."""
    data = with_boxes(
        zoo.clip_path("h264_b_frames").read_bytes(),
        {b"stsd": lambda old: old[:40] + b"\xff\xff\xff\xff" + old[44:], b"tkhd": lambda old: old[:-8] + b"\xff" * 8},
    )
    got = millpond.load_video(data, num_frames=1)[0].transpose(1, 2, 0)
    assert np.array_equal(got, zoo.clip_reference("h264_b_frames")[25])
