"""Media by URL are what the file is; a server's failings have names, and no secret of a URL is in them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from numpy.typing import NDArray

import media_zoo as zoo
import millpond
from media_server import MediaServer, serving
from millpond._datasets import media_by_url, url_stores
from millpond._datasets.media_by_url import NO_ACCESS, MediaByUrl, UrlAccess, at_hand
from millpond._media.clip_source import open_clip, read_media
from millpond._media.frames import decode_frames
from millpond._urls import redacted
from millpond.errors import CorruptMedia, DataError, FetchError, FetchTimeout, ObjectMissing, UnsupportedFormat
from programs import forked
from real_servers import BUCKET, put, s3_options
from sounds import tone, write_sound
from store_server import StoreServer, serving_store

NAME = "h264_b_frames"
SECRET = "sesame-hunter2"

pytestmark = pytest.mark.usefixtures("quick_tries")


def fetched(url: str, access: UrlAccess = NO_ACCESS) -> bytes:
    with at_hand(url, access) as local:
        return read_media(local)


def frames_of(source: str | Path, access: UrlAccess = NO_ACCESS) -> list[NDArray[np.uint8]]:
    wanted = (0, 13, 49)
    got: dict[int, NDArray[np.uint8]] = {}
    with at_hand(source, access) as local, open_clip(local) as clip:
        report = decode_frames(clip.file, np.array(wanted), lambda j, picture: got.__setitem__(j, picture.copy()))
        assert not report.failures
    return [got[j] for j in range(len(wanted))]


@pytest.fixture
def server() -> Iterator[MediaServer]:
    with serving({"/clip": zoo.clip_path(NAME).read_bytes()}) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreServer]:
    """A server that knows ranges and entity tags, and fails as it is told."""
    (tmp_path / "clip").write_bytes(zoo.clip_path(NAME).read_bytes())
    with serving_store(tmp_path) as running:
        yield running


def test_a_url_gives_the_frames_of_the_file(server: MediaServer) -> None:
    for url in (f"{server.url}/clip", f"{server.url}/chunked", f"{server.url}/to//clip"):
        assert all(map(np.array_equal, frames_of(url), frames_of(zoo.clip_path(NAME))))


def test_what_is_no_url_is_left_as_it_is(tmp_path: Path) -> None:
    for source in (tmp_path, str(tmp_path), tmp_path.as_uri(), b"bytes", "a:b"):
        with at_hand(source) as local:
            assert local is source


@pytest.mark.parametrize(("route", "error", "words"), [
    ("/nothing", ObjectMissing, "404 Not Found"),
    ("/status/410", ObjectMissing, "410 Gone"),
    ("/status/403", FetchError, "403 Forbidden"),
    ("/status/500", FetchError, "3 tries .* 500 Internal"),
    ("/short", FetchError, "10 of 1,000 bytes came before the connection closed"),
    ("/torn", FetchError, "closed before all bytes came"),
    ("/askew", FetchError, "another byte range than was asked for"),
    ("/to/ftp://127.0.0.1/clip", FetchError, "302 Found"),
    ("/to/file:///etc/passwd", FetchError, "302 Found"),
])  # fmt: skip
def test_what_a_server_does_wrong_has_a_name_and_no_secret(
    route: str, error: type[DataError], words: str, server: MediaServer
) -> None:
    url = f"{server.url.replace('//', f'//ann:{SECRET}@')}{route}?token={SECRET}#part"
    with pytest.raises(error, match=words) as caught:
        fetched(url)
    assert f"'{server.url}{route}?...'" in str(caught.value)
    assert caught.value.path == f"{server.url}{route}?..."
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.facts}"


@pytest.mark.parametrize("url", [
    "http://ann:hunter2@127.0.0.1:1/clip",
    "http://ann:hunter2@no such host/clip",
    "http://ann:hunter2@127.0.0.1:port/clip",
    "http://ann:hunter2@[::1/clip",
    "http://ann:hunter2@" + "x" * 70 + ".example/clip",
    "http://ann:hun/ter2@127.0.0.1:1/clip",
    "s3:///clip",
])  # fmt: skip
def test_a_url_that_leads_nowhere_is_a_data_error_without_its_password(url: str) -> None:
    with pytest.raises(DataError, match=r"could not be fetched|no object") as caught:
        fetched(url)
    assert "hun" not in f"{caught.value} {caught.value.facts}"


@pytest.mark.parametrize("route", ["/hang", "/stall", "/dribble"])
def test_a_server_that_goes_silent_is_given_up(
    route: str, server: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_by_url, "STALL_SECONDS", 0.05)
    with pytest.raises(FetchTimeout, match=rf"{route}.*limit 0.05 s.*nothing came") as caught:
        fetched(server.url + route)
    assert caught.value.limit_seconds == 0.05


def test_a_server_that_never_ends_is_given_up(server: MediaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_by_url, "TOTAL_SECONDS", 0.0)
    monkeypatch.setattr(media_by_url, "MAX_BYTES", 1 << 50)
    with pytest.raises(FetchTimeout, match=r"bytes came"):
        fetched(f"{server.url}/drip")


def test_an_object_that_is_too_large_is_not_fetched(server: MediaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_by_url, "MAX_BYTES", 1000)
    for route in ("/clip", "/chunked"):  # one says so before, of the other nobody knows
        with pytest.raises(DataError, match=r"more than the 1,000 ") as caught:
            fetched(server.url + route)
        assert caught.value.limit_bytes == 1000


def test_secrets_are_not_sent_to_where_a_redirect_leads(server: MediaServer) -> None:
    with serving({}) as other:
        url = server.url.replace("//", "//ann:p%40ss@")
        fetched(f"{url}/clip?sig={SECRET}")
        with pytest.raises(ObjectMissing):
            fetched(f"{url}/to/{other.url}/x?sig={SECRET}", UrlAccess({"headers": {"X-Key": SECRET}}))
        assert server.requests[0][1]["Authorization"] == "Basic YW5uOnBAc3M="
        assert server.requests[1][1]["X-Key"] == SECRET
        ((path, headers),) = other.requests
        assert "Authorization" not in headers
        assert SECRET not in f"{headers}"
        assert path == f"/x?sig={SECRET}"  # the server's own word


def test_secrets_stay_when_a_redirect_stays(server: MediaServer) -> None:
    fetched(f"{server.url.replace('//', '//ann:pass@')}/to//clip", UrlAccess({"headers": {"x-api-key": SECRET}}))
    for _, headers in server.requests:
        assert (headers["Authorization"][:5], headers["X-Api-Key"]) == ("Basic", SECRET)


def test_letters_and_blanks_in_a_url_are_quoted(server: MediaServer) -> None:
    server.objects["/a%20b/%C3%BC.mp4"] = b"letters"
    assert fetched(f"{server.url}/a b/ü.mp4?q=ü") == b"letters"


def test_progress_is_made_while_bytes_come(server: MediaServer) -> None:
    calls: list[None] = []
    with at_hand(f"{server.url}/clip", progress=lambda: calls.append(None)) as local:
        assert read_media(local) == server.objects["/clip"]
    assert calls


@pytest.mark.parametrize("fault", ["truncated", "reset amid", "reset", 503, 429])
def test_what_breaks_off_goes_on_where_it_broke(fault: str | int, store: StoreServer) -> None:
    store.script("/clip", fault, fault)
    assert fetched(f"{store.url}/clip") == zoo.clip_path(NAME).read_bytes()
    resumed = [headers.get("Range") for _, _, headers in store.requests]
    size = len(zoo.clip_path(NAME).read_bytes())
    if fault == "truncated":
        assert resumed == [None, f"bytes={size // 2}-", f"bytes={size // 2 + (size - size // 2) // 2}-"]
        assert store.requests[1][2]["If-Match"]
    elif fault != "reset amid":  # what is on its way when a reset comes may be lost
        assert resumed == [None] * 3


def test_what_changed_while_it_was_fetched_is_told(store: StoreServer, tmp_path: Path) -> None:
    old = (tmp_path / "clip").read_bytes()

    def change() -> None:
        (tmp_path / "clip").write_bytes(old[::-1] + b"x")

    store.script("/clip", "truncated")
    with (
        pytest.raises(CorruptMedia, match="changed while it was in use"),
        at_hand(f"{store.url}/clip", progress=change),
    ):
        pytest.fail("it was taken")


def test_a_range_that_comes_as_a_whole_is_not_taken(store: StoreServer) -> None:
    store.script("/clip", "truncated", "whole")
    with pytest.raises(FetchError, match="sends the whole object"):
        fetched(f"{store.url}/clip")


def test_http_is_read_in_the_thread_that_asks_and_so_in_a_forked_child(server: MediaServer) -> None:
    names: set[str] = set()
    note = lambda: names.update(thread.name for thread in threading.enumerate())  # noqa: E731
    with at_hand(f"{server.url}/clip", progress=note) as local:
        read_media(local)
    assert not [name for name in names if name.startswith("millpond-")]
    with forked(lambda: fetched(f"{server.url}/clip")[:10]) as result:
        assert result() == server.objects["/clip"][:10]


def test_a_fetch_that_is_interrupted_leaves_no_thread(server: MediaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_by_url, "MAX_BYTES", 1 << 50)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), at_hand(f"{server.url}/drip", progress=interrupt):
        pytest.fail("it never ends")
    left = [thread for thread in threading.enumerate() if thread.name.startswith("millpond-")]
    for thread in left:
        thread.join(10)
        assert not thread.is_alive()


def test_other_schemes_are_read_through_fsspec() -> None:
    files, root = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    files.pipe_file(f"{root}/clip.mp4", zoo.clip_path(NAME).read_bytes())
    assert all(map(np.array_equal, frames_of(f"memory:/{root}/clip.mp4"), frames_of(zoo.clip_path(NAME))))
    with pytest.raises(ObjectMissing, match=r"memory://.*/gone\.mp4"):
        fetched(f"memory:/{root}/gone.mp4")
    files.rm(root, recursive=True)


def test_a_scheme_that_nothing_reads_says_what_to_install() -> None:
    with pytest.raises(UnsupportedFormat, match=r"'pond://x/clip\.mp4' .* install"):
        fetched("pond://key:secret@x/clip.mp4")


@pytest.fixture
def picture(tmp_path: Path) -> bytes:
    from PIL import Image

    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "picture.png")
    return (tmp_path / "picture.png").read_bytes()


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_loaders_take_options_of_stores(timeout: float | None, s3: str, picture: bytes, tmp_path: Path) -> None:
    write_sound(tmp_path / "sound.wav", "pcm_s16le", tone())
    for key, data in (("clip", zoo.clip_path(NAME).read_bytes()), ("picture", picture),
                      ("sound", (tmp_path / "sound.wav").read_bytes())):  # fmt: skip
        put(s3, f"loaders/{key}", data)
    base, options = f"s3://{BUCKET}/loaders", s3_options(s3)
    video = millpond.load_video(f"{base}/clip", num_frames=2, storage_options=options, timeout=timeout)
    assert np.array_equal(video, millpond.load_video(zoo.clip_path(NAME), num_frames=2))
    image = millpond.load_image(f"{base}/picture", storage_options=options, timeout=timeout)
    assert np.array_equal(image, millpond.load_image(picture))
    sound = millpond.load_audio(f"{base}/sound", sampling_rate=8000, storage_options=options, timeout=timeout)
    assert np.array_equal(sound, millpond.load_audio(tmp_path / "sound.wav", sampling_rate=8000))
    assert millpond.decode_audio(f"{base}/sound", storage_options=options).samples.shape == tone().shape


def test_a_bucket_stays_open_until_it_is_closed_or_others_were_used_since(
    s3: str, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(url_stores, "_MAX_OPEN_STORES", 1)
    before = set(threading.enumerate())
    for key in ("a", "deep/b"):
        put(s3, f"open/{key}", picture)
    with MediaByUrl(UrlAccess(s3_options(s3))) as media:
        for key in ("a", "deep/b", "a"):
            with media.at_hand(f"s3://{BUCKET}/open/{key}") as local:
                assert read_media(local) == picture
        (begun,) = set(threading.enumerate()) - before
        with pytest.raises(ObjectMissing, match="'s3://nowhere/open/a'"), media.at_hand("s3://nowhere/open/a"):
            pytest.fail("it was taken")
        begun.join(10)
        assert not begun.is_alive()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(("url", "split"), [
    ("s3://b/a/c.mp4", ("s3://b", "a/c.mp4")),
    ("S3://b/c", ("S3://b", "c")),
    ("hf://datasets/org/name/a/c.mp4", ("hf://datasets/org/name/a", "c.mp4")),
    ("abfs://box@account.dfs.core.windows.net/c", ("abfs://box@account.dfs.core.windows.net", "c")),
    ("memory://c", ("memory://c", "")),
    ("https://h/a/c", ("https://h/a/c", "")),
    ("s3://b/c?versionId=x", ("s3://b/c?versionId=x", "")),
    ("ftp://ann:hun/ter2@h/c", ("ftp://ann:hun/ter2@h", "c")),
    ("s3://ann:hun/ter2@b/c", ("s3://ann:hun/ter2@b/c", "")),
    ("zip://x.mp4::https://h/x.zip", ("zip://x.mp4::https://h/x.zip", "")),
])  # fmt: skip
def test_a_url_is_taken_apart_so_that_its_key_holds_no_secret(url: str, split: tuple[str, str]) -> None:
    assert url_stores.split(url) == split


def test_a_token_is_sent(store: StoreServer) -> None:
    store.set(bearer=SECRET)
    assert fetched(f"{store.url}/clip", UrlAccess(token=SECRET))
    with pytest.raises(FetchError, match="401"):
        fetched(f"{store.url}/clip")
    assert SECRET not in repr(UrlAccess({"key": SECRET}, SECRET))


def test_options_of_the_client_of_obstore_hold(store: StoreServer) -> None:
    access = UrlAccess({"client_options": {"user_agent": "mill"}})
    assert fetched(f"{store.url}/clip", access) == zoo.clip_path(NAME).read_bytes()
    assert store.requests[0][2]["User-Agent"] == "mill"


def test_options_may_be_given_by_scheme(store: StoreServer) -> None:
    store.set(bearer=SECRET)
    headers = {"Authorization": f"Bearer {SECRET}"}
    access = UrlAccess({"http": {"headers": headers}, "s3": {"anon": True}})
    assert fetched(f"{store.url}/clip", access)
    assert access.options_for("s3://b/k") == {"anon": True}
    assert not access.options_for("gs://b/k")
    assert UrlAccess({"headers": headers}).options_for("http://h") == {"headers": headers}


def test_options_that_are_wrong_are_told_without_their_values() -> None:
    with pytest.raises(ValueError, match=r"storage_options for 's3://b': not known: 'kee'") as caught:
        fetched("s3://b/k", UrlAccess({"kee": SECRET}))
    assert SECRET not in str(caught.value)
    options: Any = [SECRET]
    with pytest.raises(TypeError, match="must be a mapping") as told:
        millpond.load_image("s3://b/k", storage_options=options)
    assert SECRET not in str(told.value)


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
