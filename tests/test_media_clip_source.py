"""A clip from a path or bytes is the same clip, and errors call it what the user did."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import media_zoo as zoo
from millpond._media import clip_source
from millpond._media.clip_source import Source, open_clip, read_media
from millpond._media.frames import decode_frames
from millpond._media.media_path import MediaPath
from millpond._media.sidecars import SidecarStore
from millpond._urls import shortened
from millpond.errors import CorruptMedia, DataError, ObjectMissing, UnsupportedFormat

NAME = "h264_b_frames"


def _frames(source: Source, wanted: tuple[int, ...] = (0, 13, 49)) -> list[NDArray[np.uint8]]:
    got: dict[int, NDArray[np.uint8]] = {}
    with open_clip(source) as clip:
        report = decode_frames(clip.file, np.array(wanted), lambda j, picture: got.__setitem__(j, picture.copy()))
        assert not report.failures
    return [got[j] for j in range(len(wanted))]


@pytest.fixture(params=[NAME, "h264_mkv", "h264_avi", "h264_ts", "mpeg4_mp4", "vp9_webm"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("kind", ["path", "text", "file url", "bytes", "bytearray", "memoryview", "pipe"])
def test_every_kind_of_source_gives_the_frames_of_a_container_decode(kind: str, name: str, tmp_path: Path) -> None:
    path = zoo.clip_path(name)
    data = path.read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sources: dict[str, Source] = {
        "path": path,
        "text": str(path),
        "file url": path.as_uri(),
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data)[:],
        "pipe": pipe,
    }
    writer = threading.Thread(target=pipe.write_bytes, args=(data,)) if kind == "pipe" else None
    if writer:
        writer.start()
    expected = zoo.clip_reference(name)
    assert all(np.array_equal(a, expected[k]) for a, k in zip(_frames(sources[kind]), (0, 13, 49), strict=True))
    if writer:
        writer.join()


def test_bytes_are_not_written_to_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "mkstemp", None)
    assert len(_frames(zoo.clip_path(NAME).read_bytes())) == 3


def test_without_a_memfd_a_temporary_file_is_used_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with open_clip(zoo.clip_path(NAME).read_bytes()) as clip:
        assert Path(clip.path.path).is_file()
        assert clip.table.num_frames == zoo.FRAMES
    assert not Path(clip.path.path).exists()


@pytest.mark.parametrize("has_memfd", [True, False])
def test_nothing_stays_open_after_an_error(has_memfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_memfd:
        monkeypatch.delattr(os, "memfd_create")
    open_before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    for _ in range(3):
        with pytest.raises(CorruptMedia, match=r"^8 bytes of video"):
            _frames(b"no video")
        with pytest.raises(ValueError, match="frames 99 to 99"):
            _frames(zoo.clip_path(NAME).read_bytes(), (99,))
    assert len(os.listdir("/proc/self/fd")) == len(open_before) if open_before else True


def test_a_store_keeps_the_table_of_a_file_but_not_of_bytes(tmp_path: Path) -> None:
    store = SidecarStore(tmp_path / "store")
    with open_clip(zoo.clip_path(NAME).read_bytes(), store=store):
        assert not store.folder.exists()
    with open_clip(zoo.clip_path(NAME), store=store) as first, open_clip(zoo.clip_path(NAME), store=store) as again:
        assert len(list(store.folder.glob("*/*"))) == 1
        assert np.array_equal(first.table.pts, again.table.pts)


@pytest.mark.parametrize(
    ("name", "error"), [("gone.mp4", ObjectMissing), (".", CorruptMedia), ("a\0b", DataError), ("x" * 300, DataError)]
)
def test_what_is_no_file_is_named_as_the_user_named_it(name: str, error: type[DataError], tmp_path: Path) -> None:
    with pytest.raises(error) as caught, open_clip(f"{tmp_path}/{name}"):
        pass
    assert str(caught.value.path) == f"{tmp_path}/{name}"
    assert repr(shortened(f"{tmp_path}/{name}")) in str(caught.value)


def test_a_file_with_a_colon_in_its_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("http:clip.mkv", "concat:a|b.mkv", "100%d.mkv"):
        (tmp_path / name).write_bytes(zoo.clip_path("h264_mkv").read_bytes())
        assert len(_frames(name)) == 3


def test_a_playlist_opens_none_of_the_files_that_it_names(tmp_path: Path) -> None:
    zoo_clip = zoo.clip_path("h264_ts")
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\n{zoo_clip}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{zoo_clip}'\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(CorruptMedia, match="does not open"):
            _frames(tmp_path / name)


def test_a_url_must_have_been_fetched() -> None:
    with pytest.raises(UnsupportedFormat, match=r"'https://h\.example/x' is a URL, and must be fetched"):
        read_media("https://ann:hunter2@h.example/x")


def test_a_file_url_of_another_machine_is_refused() -> None:
    with pytest.raises(UnsupportedFormat, match="another machine"):
        read_media("file://elsewhere/clip.mp4")


def test_a_device_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_source, "MAX_STREAM_BYTES", 3 << 20)
    with pytest.raises(DataError, match=r"'/dev/zero' is no regular file"), open_clip("/dev/zero"):
        pass


def test_a_media_path_says_what_messages_say() -> None:
    assert str(MediaPath.of("it's.mp4")) == '"it\'s.mp4"'
    assert len(str(MediaPath.of("x" * 5000))) < 310
    assert str(MediaPath("/proc/self/fd/3", "5 bytes of video", is_copy=True, is_named=False)) == "5 bytes of video"
