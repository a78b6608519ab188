"""Where sample tables come from: headers without media, scans, sidecars; and what is refused."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

import media_zoo as zoo
from millpond._media.demux import PacketRulesDoNotFit, required_pts
from millpond._media.index import build_sample_table, kept_table, learn_crcs, load_sample_table
from millpond._media.sidecars import Sidecar, SidecarStore, version_of
from millpond._media.sparse_file import SparseFile, top_level_boxes
from millpond._plan.sample_table import SampleTable
from millpond.errors import CorruptMedia, ObjectMissing

MP4_CLIPS = [c.name for c in zoo.CLIPS if c.backend == "packets" and c.suffix in (".mp4", ".mov")]
SCANNED_CLIPS = [c.name for c in zoo.CLIPS if c.backend == "packets" and c.suffix in (".mkv", ".webm", ".avi")]


def _same(a: SampleTable, b: SampleTable) -> bool:
    names = [f.name for f in dataclasses.fields(SampleTable)]
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def _demuxed(path: Path) -> list[tuple[int | None, int | None, bytes]]:
    with av.open(str(path)) as container:
        return [(p.pts, p.dts, bytes(p)) for p in container.demux(video=0) if p.size]


@pytest.mark.parametrize("name", MP4_CLIPS + SCANNED_CLIPS)
def test_every_row_is_the_packet_that_a_real_demux_gives(name: str) -> None:
    table, data = zoo.clip_table(name), zoo.clip_path(name).read_bytes()
    packets = _demuxed(zoo.clip_path(name))
    assert table.pts.tolist() == [pts for pts, _, _ in packets]
    ends = (table.offset + table.size).tolist()
    assert [data[a:b] for a, b in zip(table.offset.tolist(), ends, strict=True)] == [p for _, _, p in packets]


@pytest.mark.parametrize("name", MP4_CLIPS)
def test_the_header_alone_tells_what_the_whole_file_tells(name: str) -> None:
    with av.open(str(zoo.clip_path(name))) as container:
        context = container.streams.video[0].codec_context
        stream = zoo.clip_table(name).stream
        assert (stream.codec_name, stream.extradata) == (context.codec.name, context.extradata or b"")
        assert (stream.width, stream.height, stream.colorspace) == (context.width, context.height, context.colorspace)
        # a probe of the media fills in what the header leaves open; the decoder will read that from the media too
        assert stream.color_range in (context.color_range, 0)
        assert stream.color_trc == context.color_trc


@pytest.mark.parametrize("name", ["h264_open_gop", "hevc_cra", "av1_gop_2", "vp9_mp4", "h264_fragmented", "h264_co64"])
def test_no_byte_of_media_is_looked_at(name: str, tmp_path: Path) -> None:
    data = bytearray(zoo.clip_path(name).read_bytes())
    with open(zoo.clip_path(name), "rb") as file:
        for box in top_level_boxes(file.fileno(), len(data)):
            if box.kind == b"mdat":
                data[box.payload : box.stop] = os.urandom(box.stop - box.payload)
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(data)
    table = dataclasses.replace(build_sample_table(garbage), identity=zoo.clip_table(name).identity)
    assert _same(table, zoo.clip_table(name))


def test_a_file_that_is_cut_off_while_its_boxes_are_listed(tmp_path: Path) -> None:
    data = zoo.clip_path("h264_b_frames").read_bytes()
    with open(tmp_path / "cut.mp4", "w+b") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        listed = top_level_boxes(file.fileno(), len(data) + (1 << 20))
        assert listed[0].start == 0
        file.truncate(3)
        assert top_level_boxes(file.fileno(), len(data)) == []


def test_a_sparse_file_reads_zeros_for_media_and_the_rest_as_it_is() -> None:
    path = zoo.clip_path("h264_fragmented")
    with open(path, "rb") as file:
        sparse = SparseFile(file.fileno(), path.stat().st_size)
        parts = list(iter(lambda: sparse.read(777), b""))
        media = [(b.payload, b.stop) for b in sparse.boxes if b.kind == b"mdat"]
    seen, real = b"".join(parts), path.read_bytes()
    assert len(media) > 1
    assert len(seen) == len(real)
    assert all(not any(seen[a:b]) for a, b in media)
    outside = [k for k in range(len(real)) if not any(a <= k < b for a, b in media)]
    assert all(seen[k] == real[k] for k in outside)
    assert sparse.real_bytes_read == len(outside)


@pytest.mark.parametrize("clip", zoo.CLIPS, ids=lambda c: c.name)
def test_the_backend_and_the_gops_are_what_the_encoder_made(clip: zoo.Clip) -> None:
    table = zoo.clip_table(clip.name)
    assert table.backend == clip.backend
    assert table.num_frames == clip.frames
    assert table.num_gops > 1
    assert bool(table.is_open_gop.any()) == clip.is_open_gop


def test_offsets_of_64_bits_are_read() -> None:
    assert b"co64" in zoo.clip_path("h264_co64").read_bytes()
    assert b"stco" not in zoo.clip_path("h264_co64").read_bytes()
    assert _same(
        dataclasses.replace(zoo.clip_table("h264_co64"), identity=zoo.clip_table("h264_b_frames").identity),
        zoo.clip_table("h264_b_frames"),
    )


@pytest.mark.parametrize("shift_frames", [5, 15, 26])
@pytest.mark.parametrize("name", ["h264_b_frames", "h264_open_gop", "hevc_cra"])
def test_frames_that_an_edit_list_cuts_off_are_discarded_but_fed(name: str, shift_frames: int, tmp_path: Path) -> None:
    path = zoo.remux(zoo.clip_path(name), tmp_path / "cut.mp4", shift_frames=shift_frames)
    table, expected = build_sample_table(path), zoo.reference(path)
    assert table.is_discard.any()
    assert table.num_frames == len(expected) < zoo.FRAMES
    got, report = zoo.read(path, table)
    assert not report.failures
    assert all(np.array_equal(got[j], expected[j]) for j in range(len(expected)))


def test_packets_beyond_4_gib_are_read(tmp_path: Path) -> None:
    data, gap = zoo.clip_path("h264_b_frames").read_bytes(), 5 << 30
    head = int.from_bytes(data[:4], "big")
    path = tmp_path / "large.mp4"
    with open(path, "wb") as file:  # the box in between is a hole, which takes no room on the disk
        file.write(data[:head] + (1).to_bytes(4, "big") + b"free" + gap.to_bytes(8, "big"))
        file.seek(head + gap)
        file.write(zoo.with_co64(data, gap)[head:])
    table = build_sample_table(path)
    assert table.offset.min() > 1 << 32
    got, report = zoo.read(path, table, [0, 30])
    assert not report.failures
    assert np.array_equal(got[1], zoo.clip_reference("h264_b_frames")[30])


def test_uneven_times_are_kept() -> None:
    seconds = zoo.clip_table("h264_vfr").frame_seconds
    assert np.diff(seconds).min() < 0.05 < 0.1 < np.diff(seconds).max()
    expected = np.array([zoo.vfr(k) / zoo.FPS for k in range(zoo.FRAMES)])
    np.testing.assert_allclose(seconds - seconds[0], expected, atol=1e-9)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
@pytest.mark.parametrize("name", ["h264_faststart", "h264_fragmented", "h264_b_frames", "h264_mkv", "vp9_hidden"])
def test_a_file_that_was_cut_short_is_corrupt(name: str, share: float, tmp_path: Path) -> None:
    data = zoo.clip_path(name).read_bytes()
    path = tmp_path / f"short{zoo.BY_NAME[name].suffix}"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CorruptMedia, match=r"cut short|does not open"):
        build_sample_table(path)


def test_frames_that_avi_cannot_put_in_order_are_refused(tmp_path: Path) -> None:
    """AVI keeps no presentation times: what a demuxer makes up would show frames of H.264 with B-frames as others."""
    path = zoo.make(zoo.Clip("reordered", "libx264", zoo.B_FRAMES, suffix=".avi"), tmp_path)
    with pytest.raises(CorruptMedia, match=r"do not ascend; write it as MP4 or MKV"):
        build_sample_table(path)


def test_damage_between_the_blocks_of_an_mkv_is_found_by_the_scan(tmp_path: Path) -> None:
    table, data = zoo.clip_table("h264_mkv"), bytearray(zoo.clip_path("h264_mkv").read_bytes())
    data[int(table.offset[20]) - 40 : int(table.offset[20]) + 40] = bytes(80)
    path = tmp_path / "hole.mkv"
    path.write_bytes(data)
    with pytest.raises(CorruptMedia, match="no Matroska element"):
        build_sample_table(path)


@pytest.mark.parametrize("content", [b"", b"not a video at all", bytes(5000), b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"])
def test_what_is_no_video_is_corrupt(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "junk.mp4"
    path.write_bytes(content)
    with pytest.raises(CorruptMedia, match=r"junk\.mp4"):
        build_sample_table(path)


def test_a_missing_file_is_missing_and_names_the_camera(tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match=r"nowhere\.mp4") as caught:
        load_sample_table(tmp_path / "nowhere.mp4", SidecarStore(tmp_path), camera="front")
    assert caught.value.camera == "front"


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    with av.open(str(zoo.clip_path("h264_b_frames"))) as inp, av.open(str(path), "w") as out:
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        copy = out.add_stream_from_template(inp.streams.video[0])
        for packet in cover.encode(av.VideoFrame(32, 32, "yuvj420p")):
            out.mux(packet)
        for packet in inp.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    assert build_sample_table(path).stream.codec_name == "h264"


def test_the_second_load_comes_from_the_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, path = SidecarStore(tmp_path), zoo.clip_path("hevc_cra")
    first = load_sample_table(path, store)
    monkeypatch.setattr("millpond._media.index.build_sample_table", None)
    assert _same(first, load_sample_table(path, store))


@pytest.mark.parametrize("kind", ["new_extradata", "param_change"])
def test_packets_that_bring_other_parameters_are_not_cut_out(kind: str) -> None:
    packet: Any = SimpleNamespace(pts=1, size=1, iter_sidedata=lambda: [SimpleNamespace(data_type=kind)])
    with pytest.raises(PacketRulesDoNotFit, match="parameters change"):
        required_pts(packet)


def test_a_file_that_changed_gets_a_new_table(tmp_path: Path) -> None:
    store, path = SidecarStore(tmp_path / "cache"), tmp_path / "video.mp4"
    path.write_bytes(zoo.clip_path("h264_b_frames").read_bytes())
    load_sample_table(path, store)
    path.write_bytes(zoo.clip_path("av1_gop_2").read_bytes())
    assert load_sample_table(path, store).stream.codec_name == "libdav1d"
    assert len(list(store.folder.glob("*/*"))) == 1


def test_the_table_of_a_file_that_is_replaced_while_it_is_made_does_not_take_the_place_of_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = SidecarStore(tmp_path / "cache"), tmp_path / "video.mp4"
    path.write_bytes(zoo.clip_path("h264_b_frames").read_bytes())

    def build_slowly(*args: Any) -> SampleTable:
        monkeypatch.setattr("millpond._media.index.build_sample_table", build_sample_table)
        table = build_sample_table(*args)
        path.write_bytes(zoo.clip_path("av1_gop_2").read_bytes())
        load_sample_table(path, store)
        return table

    monkeypatch.setattr("millpond._media.index.build_sample_table", build_slowly)
    assert load_sample_table(path, store).stream.codec_name == "h264"
    assert kept_table(version_of(path), store) is not None


def test_a_table_of_another_ffmpeg_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, path = SidecarStore(tmp_path), zoo.clip_path("h264_b_frames")
    load_sample_table(path, store)
    monkeypatch.setattr("millpond._media.index._libraries", lambda: "other")
    learn_crcs(version_of(path), store, np.array([0]), np.array([1], np.uint32))
    assert not load_sample_table(path, store).crc_known.any()


def test_learned_crcs_are_kept(tmp_path: Path) -> None:
    store, path = SidecarStore(tmp_path), zoo.clip_path("h264_b_frames")
    learn_crcs(version_of(path), store, np.array([3]), np.array([7], np.uint32))
    assert not load_sample_table(path, store).crc_known.any()
    learn_crcs(version_of(path), store, np.array([3]), np.array([7], np.uint32))
    table = load_sample_table(path, store)
    assert table.crc[table.crc_known].tolist() == [7]


def _learn(path: Path, store: SidecarStore, row: int) -> None:
    learn_crcs(version_of(path), store, np.array([row]), np.array([row], np.uint32))


def test_what_two_processes_learn_at_once_is_kept_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millpond._media.sidecars._LOCK_SECONDS", 60.0)
    store, path = SidecarStore(tmp_path), zoo.clip_path("h264_b_frames")
    load_sample_table(path, store)
    other = Thread(target=_learn, args=(path, SidecarStore(tmp_path), 4))

    def load_just_before_the_other(*args: Any) -> Sidecar | None:
        monkeypatch.setattr(store, "load", SidecarStore(tmp_path).load)
        kept = store.load(*args)
        other.start()
        other.join(0.2)  # it would be done by now, and what it learned be written over
        return kept

    monkeypatch.setattr(store, "load", load_just_before_the_other)
    _learn(path, store, 3)
    other.join()
    assert np.flatnonzero(load_sample_table(path, store).crc_known).tolist() == [3, 4]


def test_who_makes_a_table_anew_does_not_undo_what_others_learned_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = SidecarStore(tmp_path), zoo.clip_path("h264_b_frames")

    def build_slowly(*args: Any) -> SampleTable:
        monkeypatch.setattr("millpond._media.index.build_sample_table", build_sample_table)
        load_sample_table(path, store)
        _learn(path, store, 3)
        return build_sample_table(*args)

    monkeypatch.setattr("millpond._media.index.build_sample_table", build_slowly)
    load_sample_table(path, store)
    assert np.flatnonzero(load_sample_table(path, store).crc_known).tolist() == [3]


def test_whoever_holds_what_is_kept_of_a_file_and_was_stopped_keeps_nobody_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millpond._media.sidecars._LOCK_SECONDS", 0.02)
    store, path = SidecarStore(tmp_path), zoo.clip_path("h264_b_frames")
    with store.alone(version_of(path)):
        load_sample_table(path, store)
        _learn(path, store, 3)
    assert np.flatnonzero(load_sample_table(path, store).crc_known).tolist() == [3]


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    table = load_sample_table(zoo.clip_path("h264_b_frames"), SidecarStore(tmp_path / "file"))
    assert table.num_frames == zoo.FRAMES
    assert "MILLPOND_CACHE_DIR" in caplog.text
