"""Descriptors that travel between processes, and files without a name."""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Iterable, Sequence

# The kernel's limit of one message (SCM_MAX_FD).
MAX_DESCRIPTORS = 253
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def send_descriptors(sock: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    """Send `data`, which must not be empty, with copies of `descriptors`; the caller keeps and closes its own."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([data], ancillary)


def receive_descriptors(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receive up to `size` bytes and what descriptors came with them; the caller owns and closes them.

    Raises:
        OSError: Some descriptors were lost, because this process has no room for more (EMFILE); none is kept.
    """
    space = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    data, ancillary, flags, _ = sock.recvmsg(size, space, _CLOSE_ON_EXEC)
    received = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
    if flags & socket.MSG_CTRUNC:
        close_all(received)
        raise OSError("descriptors were lost on their way: raise the limit of open files (ulimit -n)")
    return data, list(received)


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors; those already closed are passed over."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def anonymous_file(name: str, size_bytes: int, *, use_memfd: bool = True) -> int:
    """A file without a name, zeroed: nothing is left behind however the processes end.

    Where there is no memfd (macOS) it is a temporary file that is unlinked at once.

    Returns:
        A descriptor that the caller closes.
    """
    if use_memfd and hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name)
    else:
        import tempfile  # and hashing, random numbers and archives with it: not into every worker

        with tempfile.TemporaryFile(prefix=f"{name}-") as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size_bytes)
    return descriptor
