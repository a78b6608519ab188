"""Frames arrive whole however the stream is cut, and errors travel."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond._workers.messages import ERROR, RESULT, TASK, Frame, Inbox, decode_error, encode_error, pack
from millpond.errors import CorruptMedia, RemoteError
from worker_tasks import LoudError, Unpicklable

FRAMES = [
    (TASK, 1, b""),
    (TASK, 2, b"a"),
    (RESULT, 3, b"b" * 40_000),
    (ERROR, 2**31, b"c" * 17),
    (TASK, 5, b"d" * 100_000),
]


class FakeSocket:
    """Gives the pieces of a stream, one a call, as a socket may cut them."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def recv(self, size: int) -> bytes:
        piece = self._left or next(self._pieces, b"")
        self._left = piece[size:]
        return piece[:size]

    def recv_into(self, buffer: memoryview) -> int:
        piece = self.recv(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def read_all(pieces: Iterator[bytes]) -> list[Frame]:
    inbox = Inbox(FakeSocket(pieces))  # type: ignore[arg-type]
    frames: list[Frame] = []
    try:
        while True:
            frames += inbox.receive()
    except EOFError:
        return frames


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 70_000), min_size=1, max_size=30).filter(lambda cuts: sum(cuts) > 500))
def test_frames_come_whole_however_the_stream_is_cut(cuts: list[int]) -> None:
    stream = b"".join(b"".join(pack(*frame)) for frame in FRAMES)

    def pieces() -> Iterator[bytes]:
        at = 0
        while at < len(stream):
            size = cuts[at % len(cuts)]
            yield stream[at : at + size]
            at += size

    assert [tuple(frame) for frame in read_all(pieces())] == FRAMES


def test_a_stream_cut_in_a_frame_gives_the_frames_before() -> None:
    stream = b"".join(pack(TASK, 1, b"whole") + pack(TASK, 2, b"torn"))
    assert read_all(iter([stream[:-1]])) == [(TASK, 1, b"whole")]


def test_an_empty_socket_that_does_not_block_raises() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            Inbox(ours).receive()


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - whatever it is, the test gave it
        return caught


def test_an_exception_travels_as_itself_with_the_traceback_as_a_note() -> None:
    error = decode_error(encode_error(raised(CorruptMedia("cut", path="a.mp4"))))
    assert isinstance(error, CorruptMedia)
    assert error.path == "a.mp4"
    assert "in raised" in error.__notes__[-1]


@pytest.mark.parametrize("error", [LoudError(reason="noise"), Unpicklable("in full words"), SystemExit(0)])
def test_what_cannot_travel_comes_as_remote_error(error: BaseException) -> None:
    remote = decode_error(encode_error(raised(error)))
    assert isinstance(remote, RemoteError)
    assert remote.type_name == type(error).__name__
    assert remote.text == str(error)
    assert "in raised" in remote.traceback_text
