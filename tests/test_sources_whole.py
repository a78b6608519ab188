"""Whole objects over HTTP: what servers may say wrong, word for word, and what becomes of it."""

from __future__ import annotations

import contextlib
import datetime
import gc
import http.server
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import millpond
from millpond._sources import retrying
from millpond._sources.http_parts import HttpParts, _modified_ns, _quoted
from millpond._sources.object_store import ObjectStore
from millpond._values import ByteRange
from millpond.errors import CorruptMedia, FetchError

ONE, TWO = b"1" * 1000, b"2" * 1000


class Script:
    """A server that gives one answer after another, byte for byte, a connection each, and keeps what it was asked."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = answers
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/o"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._socket.accept()
            with connection:
                asked = b""
                while not asked.endswith(b"\r\n\r\n") and (some := connection.recv(4096)):
                    asked += some
                    if asked.startswith(b"\x16"):  # of TLS
                        break
                if not asked:  # it was ended
                    return
                self.asked.append(asked.decode(errors="replace"))
                with contextlib.suppress(OSError):  # who asked may have gone
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass

    def end(self) -> None:
        """Whatever was not asked for is not given."""
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._socket.close()


@contextlib.contextmanager
def serving_script(*answers: bytes) -> Iterator[Script]:
    script = Script(answers)
    try:
        yield script
    finally:
        script.end()


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close", *headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def rest(body: bytes, start: int, total: int, *headers: str, stop: int | None = None) -> bytes:
    last = (total if stop is None else stop) - 1
    told = f"Content-Range: bytes {start}-{last}/{total}"
    return answer(body[start : last + 1], told, *headers, status="206 Partial Content", length=last + 1 - start)


def read(url: str, max_bytes: int | None = None, stall_seconds: float = 30.0) -> bytes:
    parts: list[bytes] = []
    with ObjectStore(url) as store:
        store.read_whole("", lambda part: parts.append(bytes(part)), max_bytes=max_bytes, stall_seconds=stall_seconds)
    return b"".join(parts)


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_WAIT_SECONDS", 1e-4)


TAG_1, TAG_2, WEAK = 'ETag: "1"', 'ETag: "2"', 'ETag: W/"1"'
MONDAY, TUESDAY = "Last-Modified: Mon, 02 Jan 2023 00:00:00 GMT", "Last-Modified: Tue, 03 Jan 2023 00:00:00 GMT"


@pytest.mark.parametrize("header", [TAG_1, MONDAY])
def test_what_broke_off_goes_on_if_both_say_that_it_is_the_same(header: str) -> None:
    with serving_script(answer(ONE[:400], header, length=1000), rest(ONE, 400, 1000, header)) as script:
        assert read(script.url) == ONE
        assert "Range: bytes=400-" in script.asked[1]
        assert ("If-Match" if header == TAG_1 else "If-Unmodified-Since: Mon, 02 Jan") in script.asked[1]


@pytest.mark.parametrize(
    ("before", "after"),
    [(TAG_1, TAG_2), (TAG_1, ""), (TAG_1, MONDAY), (MONDAY, TAG_1), (MONDAY, TUESDAY), (MONDAY, ""), (TAG_1, WEAK)],
)
def test_what_broke_off_is_never_put_together_with_what_may_be_another_version(before: str, after: str) -> None:
    first = answer(ONE[:400], before, length=1000)
    with serving_script(first, rest(TWO, 400, 1000, *filter(None, [after]))) as script:
        with pytest.raises(CorruptMedia, match="changed while it was in use"):
            read(script.url)


@pytest.mark.parametrize("header", [WEAK, ""])
def test_what_says_nothing_sure_of_its_version_does_not_go_on(header: str) -> None:
    with serving_script(answer(ONE[:400], *filter(None, [header]), length=1000)) as script:
        with pytest.raises(FetchError, match="400 of 1,000 bytes came before the connection closed"):
            read(script.url)


def test_a_server_that_sends_less_than_the_rest_is_asked_for_what_is_missing_then() -> None:
    capped = rest(ONE, 400, 1000, TAG_1, stop=700)
    with serving_script(answer(ONE[:400], TAG_1, length=1000), capped, rest(ONE, 700, 1000, TAG_1)) as script:
        assert read(script.url) == ONE


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (answer(b"5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: gzip, chunked"), "a transfer coding"),
        (answer(b"\x1f\x8bx", "Content-Encoding: gzip", length=3), r"compressed \(gzip\)"),
        (answer(b"hello", "Content-Length: 3", length=5), "two lengths"),
        (rest(ONE, 900, 1000), "another byte range than was asked for"),
        (answer(b"hello", status="206 Partial Content", length=5), "another byte range than was asked for"),
        (answer(b"", "Location: gopher://h/x", status="302 Found", length=0), "status 302"),
    ],
)
def test_an_answer_that_is_not_the_object_is_refused_by_what_is_wrong_with_it(said: bytes, words: str) -> None:
    with serving_script(said) as script, pytest.raises(FetchError, match=words):
        read(script.url)


def test_a_range_that_nobody_asked_for_is_taken_if_it_is_all_of_it() -> None:
    with serving_script(rest(ONE, 0, 1000)) as script:
        assert read(script.url) == ONE


def test_the_body_of_a_redirect_is_not_read() -> None:
    with serving_script(answer(b"hello", length=5)) as there:
        moved = answer(b"x" * 10, f"Location: {there.url}", status="302 Found", length=1 << 40)
        with serving_script(moved) as script:
            assert read(script.url, max_bytes=100) == b"hello"


@pytest.mark.parametrize("said", ["Mon, 02 Jan 99999999999 00:00:00 GMT", "99999999999999999999", "no date", ""])
def test_a_time_that_is_none_is_not_known(said: str) -> None:
    assert _modified_ns({"Last-Modified": said}) == 0
    with serving_script(answer(b"hello", f"Last-Modified: {said}", length=5)) as script:
        assert read(script.url) == b"hello"


@pytest.mark.parametrize("whole", [True, False])
def test_a_server_without_tls_and_one_with_a_certificate_of_its_own_are_refused_at_once(
    whole: bool, tmp_path: Path
) -> None:
    """By the standard library, which reads whole objects, and by obstore, which reads ranges."""

    def fetch(url: str) -> None:
        with ObjectStore(url) as store:
            if whole:
                store.read_whole("", bytes, max_bytes=None, stall_seconds=30.0)
            else:
                store.read("", ByteRange(0, 3))

    with serving_script(*[b"HTTP/1.1 400 Bad Request\r\n\r\n"] * 8) as script:
        with pytest.raises(FetchError, match=r"\(1 try\): no encrypted connection.* https"):
            fetch(script.url.replace("http:", "https:"))
    with serving_tls(tmp_path) as url, pytest.raises(FetchError, match=r"\(1 try\): the server's certificate"):
        fetch(url)


@contextlib.contextmanager
def serving_tls(folder: Path) -> Iterator[str]:
    """A server with a certificate that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encoded = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "both.pem").write_bytes(encoded + made.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who does not trust it goes away
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}/x"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_all_addresses_of_a_host_share_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that nobody answers at, before one where somebody does."""
    limits: list[float] = []
    connect = socket.socket.connect

    def connected(self: socket.socket, place: Any) -> None:
        limits.append(self.gettimeout() or 0.0)
        if place[1] == 9:
            raise TimeoutError
        connect(self, place)

    with serving_script(answer(b"hello", length=5)) as script:
        places = [("127.0.0.1", 9), ("127.0.0.1", 9), ("127.0.0.1", script.port)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
        monkeypatch.setattr(socket.socket, "connect", connected)
        parts = HttpParts(script.url, {}, 0, None, 30.0)
        assert parts.part() == b"hello"
        parts.close()
    assert [round(limit / 30.0, 1) for limit in limits[:3]] == [0.3, 0.5, 1.0]


@pytest.mark.parametrize(
    ("url", "quoted"),
    [
        ("http://пример.рф:8080/a", "http://xn--e1afmkfd.xn--p1ai:8080/a"),
        ("http://[::1]:80/a b", "http://[::1]:80/a%20b"),
        ("http://h/ä?q=ö", "http://h/%C3%A4?q=%C3%B6"),
    ],
)
def test_hosts_and_paths_of_all_letters_are_made_fit(url: str, quoted: str) -> None:
    assert _quoted(url) == quoted


def test_an_error_that_is_kept_keeps_no_connection() -> None:
    moved = answer(b"", "Location: http://[::1/y", status="302 Found", length=0)
    with serving_script(moved) as script, pytest.raises(FetchError, match="no valid address") as caught:
        read(script.url)
    one = caught.value
    assert (one.__cause__, one.__suppress_context__) == (None, True)
    opened = len(os.listdir("/proc/self/fd"))
    del caught, one
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == opened


def test_options_that_no_row_is_to_blame_for_end_an_epoch_that_skips(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(json.dumps({"image": f"http://127.0.0.1:9/{i}.png"}) + "\n" for i in range(4)))
    clips = millpond.ClipDataset(
        manifest, image=millpond.ImageOptions(image_size=(8, 8)), storage_options={"hedaers": {}}
    )
    with (
        millpond.Loader(clips, batch_size=2, num_workers=1, memory="300MiB", output="numpy", on_error="skip") as loader,
        pytest.raises(ValueError, match="not known: 'hedaers'; did you mean 'headers'"),
    ):
        list(loader)


def test_options_by_scheme_know_its_other_names() -> None:
    from millpond._datasets.media_by_url import UrlAccess

    by_scheme = {"s3": {"anon": True}, "gs": {"anon": True}, "az": {"anon": True}, "sftp": {"username": "u"}}
    access = UrlAccess(by_scheme)
    for url in ("s3://b/k", "s3a://b/k", "gcs://b/k", "abfs://c/k", "abfss://c/k"):
        assert access.options_for(url) == {"anon": True}
    assert access.options_for("sftp://h/x") == {"username": "u"}
    assert access.options_for("https://h/x") is None
