"""What a loader worker does: download an image, decode it, or say what is wrong with it.

What can be named is a value, not an exception: the batch goes on with its other images, and the service learns which
task failed and why. What ends a worker (a crash, memory, a decoder that never returns) can name nothing; that is the
loader's.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

import millpond
from examples.queue_worker.agreed import IMAGE_PIXELS, Task

_PART_BYTES = 1 << 16


class ImageError(Exception):
    """An image that is not to be had, or is none. `kind` is one word, for whoever counts."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Loaded(NamedTuple):
    """What came of one task.

    Attributes:
        position: Of the task in its job.
        image: uint8, (3, IMAGE_PIXELS, IMAGE_PIXELS), RGB; None where there is an error.
        error: Kind and message; None where there is an image.
    """

    position: int
    image: NDArray[np.uint8] | None
    error: tuple[str, str] | None


class ImageBatch(TypedDict):
    """Several of them.

    Attributes:
        positions: int64, (N,), of the tasks that have an image.
        images: uint8, (N, 3, IMAGE_PIXELS, IMAGE_PIXELS).
        errors: Position, kind and message of each of the others.
    """

    positions: NDArray[np.int64]
    images: NDArray[np.uint8]
    errors: list[tuple[int, str, str]]


class TaskImages:
    """The images of a job: a map-style dataset. It needs no torch, so its workers need none."""

    def __init__(self, tasks: Sequence[Task], timeout_seconds: float, max_bytes: int) -> None:
        self._urls = [task["image_url"] for task in tasks]
        self._timeout_seconds, self._max_bytes = timeout_seconds, max_bytes

    def __len__(self) -> int:
        return len(self._urls)

    def __getitem__(self, position: int) -> Loaded:
        try:
            data = download(self._urls[position], self._timeout_seconds, self._max_bytes)
            return Loaded(position, decode(data), None)
        except ImageError as error:
            return Loaded(position, None, (error.kind, str(error)))


def collate(samples: Sequence[Loaded]) -> ImageBatch:
    """Images beside errors. Arrays: they travel to the service without being copied there."""
    good = [(sample.position, sample.image) for sample in samples if sample.image is not None]
    images = np.empty((len(good), 3, IMAGE_PIXELS, IMAGE_PIXELS), np.uint8)
    for row, (_, image) in zip(images, good, strict=True):
        row[...] = image
    return ImageBatch(
        positions=np.array([position for position, _ in good], np.int64),
        images=images,
        errors=[(sample.position, *sample.error) for sample in samples if sample.error is not None],
    )


def download(url: str, timeout_seconds: float, max_bytes: int) -> bytes:
    """Get a whole object by HTTP.

    A limit of the socket alone begins anew with every byte of a server that drips. (One that drips its headers is
    caught by the loader's limit.)

    Raises:
        ImageError: missing, refused, too_large, timeout or unreachable.
    """
    deadline = time.monotonic() + timeout_seconds
    try:
        with _open(url, timeout_seconds) as answer:
            return _read(answer, deadline, max_bytes)
    except TimeoutError:
        raise ImageError("timeout", f"it did not come within {timeout_seconds:g} s") from None
    except urllib.error.HTTPError as error:
        error.close()
        kind = "missing" if error.code in (404, 410) else "refused"
        raise ImageError(kind, f"the server answers {error.code}") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise ImageError("timeout", f"it did not come within {timeout_seconds:g} s") from None
        raise ImageError("unreachable", f"no answer: {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ImageError("unreachable", f"no whole answer: {error!r}") from None


def decode(data: bytes) -> NDArray[np.uint8]:
    """Make pixels of a file: uint8, (3, IMAGE_PIXELS, IMAGE_PIXELS), RGB.

    Raises:
        ImageError: corrupt.
    """
    try:
        return millpond.load_image(data, image_size=(IMAGE_PIXELS, IMAGE_PIXELS))
    except millpond.MillpondError as error:
        raise ImageError("corrupt", str(error)) from None


def _open(url: str, timeout_seconds: float) -> Any:
    if not url.startswith(("http://", "https://")):  # urlopen would read files, too: a task must not
        raise ImageError("refused", "only http and https URLs are fetched")
    return urllib.request.urlopen(url, timeout=timeout_seconds)


def _read(answer: Any, deadline: float, max_bytes: int) -> bytes:
    data = bytearray()
    while part := answer.read1(_PART_BYTES):
        data += part
        if len(data) > max_bytes:
            raise ImageError("too_large", f"it has more than {max_bytes} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    if answer.length:  # what read1 does not notice: the connection ended before the body did
        raise ImageError("unreachable", f"no whole answer: {answer.length} bytes are missing")
    return bytes(data)
