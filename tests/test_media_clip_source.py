"""A clip from a path, a URL or bytes is the same clip; errors call it what the user did, and no secret comes along."""

from __future__ import annotations

import builtins
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import media_zoo as zoo
from media_server import MediaServer, serving
from millpond._media import clip_source
from millpond._media.clip_source import Source, local_media, open_clip, read_media
from millpond._media.fetch import FetchLimits, fetch
from millpond._media.frames import decode_frames
from millpond._media.media_path import MediaPath
from millpond._media.sidecars import SidecarStore
from millpond._urls import redacted, shortened
from millpond.errors import CorruptMedia, DataError, FetchTimeout, ObjectMissing, UnsupportedFormat

NAME = "h264_b_frames"


def _frames(source: Source, wanted: tuple[int, ...] = (0, 13, 49)) -> list[NDArray[np.uint8]]:
    got: dict[int, NDArray[np.uint8]] = {}
    with open_clip(source) as clip:
        report = decode_frames(clip.file, np.array(wanted), lambda j, picture: got.__setitem__(j, picture.copy()))
        assert not report.failures
    return [got[j] for j in range(len(wanted))]


@pytest.fixture
def server() -> Iterator[MediaServer]:
    with serving({"/clip": zoo.clip_path(NAME).read_bytes(), "/a b/ü.mp4": b"letters"}) as running:
        yield running


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


def test_a_url_gives_the_frames_of_the_file(server: MediaServer) -> None:
    for url in (f"{server.url}/clip", f"{server.url}/chunked", f"{server.url}/to//clip"):
        assert all(map(np.array_equal, _frames(url), _frames(zoo.clip_path(NAME))))


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


@pytest.mark.parametrize(("route", "error", "words"), [
    ("/nothing", ObjectMissing, "404 Not Found"),
    ("/status/410", ObjectMissing, "410 Gone"),
    ("/status/403", DataError, "403 Forbidden"),
    ("/status/500", DataError, "500 Internal"),
    ("/short", DataError, "10 of 1,000 bytes"),
    ("/to/ftp://127.0.0.1/clip", DataError, "302 Found"),
    ("/to/file:///etc/passwd", DataError, "302 Found"),
])  # fmt: skip
def test_what_a_server_does_wrong_has_a_name_and_no_secret(
    route: str, error: type[Exception], words: str, server: MediaServer
) -> None:
    url = f"{server.url.replace('//', '//ann:hunter2@')}{route}?token=sesame#part"
    with pytest.raises(error, match=words) as caught:
        read_media(url)
    assert f"'{server.url}{route}?...'" in str(caught.value)
    assert caught.value.path == f"{server.url}{route}?..."  # type: ignore[attr-defined]
    told = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.facts}"  # type: ignore[attr-defined]
    assert "hunter2" not in told
    assert "sesame" not in told


@pytest.mark.parametrize("url", [
    "http://ann:hunter2@127.0.0.1:1/clip",
    "http://ann:hunter2@no such host/clip",
    "http://ann:hunter2@127.0.0.1:port/clip",
    "http://ann:hunter2@[::1/clip",
    "http://ann:hunter2@" + "x" * 70 + ".example/clip",
])  # fmt: skip
def test_a_url_that_leads_nowhere_is_a_data_error_without_its_password(url: str) -> None:
    with pytest.raises(DataError, match=r"could not be fetched|no object") as caught:
        read_media(url)
    assert "hunter2" not in f"{caught.value} {caught.value.facts}"


@pytest.mark.parametrize("route", ["/hang", "/stall"])
def test_a_server_that_goes_silent_is_given_up(route: str, server: MediaServer) -> None:
    with pytest.raises(FetchTimeout, match=rf"{route}.*limit 0.05 s") as caught:
        fetch(server.url + route, lambda part: None, lambda: None, FetchLimits(stall_seconds=0.05))
    assert caught.value.limit_seconds == 0.05


def test_a_server_that_never_ends_is_given_up(server: MediaServer) -> None:
    with pytest.raises(FetchTimeout, match=r"bytes came"):
        fetch(f"{server.url}/drip", lambda part: None, lambda: None, FetchLimits(total_seconds=0.0, size_bytes=1 << 50))


def test_an_object_that_is_too_large_is_not_fetched(server: MediaServer) -> None:
    taken: list[bytes] = []
    for route in ("/clip", "/chunked"):  # one says so before, of the other nobody knows
        with pytest.raises(DataError, match=r"more than the 1,000 ") as caught:
            fetch(server.url + route, taken.append, lambda: None, FetchLimits(size_bytes=1000))
        assert caught.value.limit_bytes == 1000
    assert sum(map(len, taken)) <= 1000


def test_user_and_password_are_sent_but_not_to_where_a_redirect_leads(server: MediaServer) -> None:
    with serving({}) as other:
        read_media(f"{server.url.replace('//', '//ann:p%40ss@')}/clip")
        with pytest.raises(ObjectMissing):
            read_media(f"{server.url.replace('//', '//ann:p%40ss@')}/to/{other.url}/x")
        assert server.requests[0][1]["Authorization"] == "Basic YW5uOnBAc3M="
        assert "Authorization" not in other.requests[0][1]


def test_letters_and_blanks_in_a_url_are_quoted(server: MediaServer) -> None:
    server.objects["/a%20b/%C3%BC.mp4"] = b"letters"
    assert read_media(f"{server.url}/a b/ü.mp4?q=ü") == b"letters"


def test_progress_is_made_while_bytes_come(server: MediaServer) -> None:
    calls: list[None] = []
    with local_media(f"{server.url}/clip", progress=lambda: calls.append(None)) as path:
        assert Path(path.path).read_bytes() == server.objects["/clip"]
    assert calls


def test_other_schemes_are_read_through_fsspec() -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    with fsspec.open("memory://folder/clip.mp4", "wb") as file:
        file.write(zoo.clip_path(NAME).read_bytes())
    assert all(map(np.array_equal, _frames("memory://folder/clip.mp4"), _frames(zoo.clip_path(NAME))))
    with pytest.raises(ObjectMissing, match=r"memory://folder/gone\.mp4"):
        read_media("memory://folder/gone.mp4")
    fsspec.filesystem("memory").rm("/folder", recursive=True)


def test_a_scheme_that_nothing_reads_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedFormat, match=r"'pond://x/clip\.mp4' .* install"):
        read_media("pond://key:secret@x/clip.mp4")
    importing = builtins.__import__

    def without_fsspec(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "fsspec":
            raise ModuleNotFoundError("No module named 'fsspec'")
        return importing(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_fsspec)
    monkeypatch.delitem(sys.modules, "fsspec", raising=False)
    with pytest.raises(UnsupportedFormat, match=r"install fsspec and its package for s3"):
        read_media("s3://bucket/clip.mp4")


def test_a_file_url_of_another_machine_is_refused() -> None:
    with pytest.raises(UnsupportedFormat, match="another machine"):
        read_media("file://elsewhere/clip.mp4")


def test_a_device_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_source, "MAX_STREAM_BYTES", 3 << 20)
    with pytest.raises(DataError, match=r"'/dev/zero' is no regular file"), open_clip("/dev/zero"):
        pass


@pytest.mark.parametrize(("url", "shown"), [
    ("https://a.example/x.mp4?sig=1#f", "https://a.example/x.mp4?..."),
    ("https://u:p@a.example:8/x.mp4", "https://a.example:8/x.mp4"),
    ("https://u:p/w@a.example/x.mp4", "https://a.example/x.mp4"),
    ("https://a.example:8/x@y.mp4", "https://a.example:8/x@y.mp4"),
    ("simplecache::https://u:p@a.example/x.mp4", "simplecache::https://a.example/x.mp4"),
    ("zip://x.mp4::https://u:p@a.example/x.zip?sig=1", "zip://x.mp4::https://a.example/x.zip?..."),
])  # fmt: skip
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_a_media_path_says_what_messages_say() -> None:
    assert str(MediaPath.of("it's.mp4")) == '"it\'s.mp4"'
    assert len(str(MediaPath.of("x" * 5000))) < 310
    assert str(MediaPath("/proc/self/fd/3", "5 bytes of video", is_copy=True, is_named=False)) == "5 bytes of video"
