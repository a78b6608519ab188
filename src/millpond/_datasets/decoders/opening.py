"""From a path or URL to an open decoder."""

from __future__ import annotations

import errno
import importlib.util
import os
import reprlib
import stat
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

from millpond._datasets.decoders.handles import Handle
from millpond._datasets.decoders.pyav_decoder import PyAVDecoder
from millpond._datasets.decoders.stream_decoder import StreamDecoder
from millpond._datasets.media_by_url import is_url
from millpond._datasets.url_stores import UrlStores
from millpond._media.index import load_sample_table
from millpond._media.media_path import MediaPath
from millpond._media.options import checked_size, require_interpolation
from millpond._media.sidecars import SidecarStore
from millpond._media.video_file import LocalBytes
from millpond._plan.sample_table import SampleTable
from millpond._urls import path_of_file_url, scheme_of
from millpond._values import FileIdentity
from millpond.errors import CorruptMedia, DataError, ObjectMissing, UnsupportedFormat

DecoderBackend = Literal["auto", "pyav", "torchcodec"]
_BACKENDS = get_args(DecoderBackend)


class Entry(NamedTuple):
    """What the cache keeps of a video.

    Attributes:
        decoder: Of its frames.
        file_handle: What the decoder reads through.
    """

    decoder: StreamDecoder
    file_handle: Handle


@dataclass(frozen=True, slots=True)
class DecoderKey:
    """Everything that changes the pictures of a decoder.

    Attributes:
        source: An absolute path, or a URL.
        backend: "pyav" or "torchcodec".
        image_size: (height, width) that pictures are resized to; None keeps theirs.
        interpolation: For that.
        stream_index: Of the stream in the file; None takes the first video stream that is no cover picture.
    """

    source: str
    backend: Literal["pyav", "torchcodec"]
    image_size: tuple[int, int] | None = None
    interpolation: str = "bilinear"
    stream_index: int | None = None

    @classmethod
    def of(
        cls,
        path: str | os.PathLike[str],
        backend: DecoderBackend,
        image_size: tuple[int, int] | None,
        interpolation: str,
        stream_index: int | None,
    ) -> DecoderKey:
        """Check what a user gave, and resolve it.

        Raises:
            TypeError, ValueError: It is not what is asked for.
            UnsupportedFormat: torchcodec is asked for and not installed.
        """
        require_interpolation(interpolation)
        by = resolved(backend)
        size = checked_size(image_size)
        if by == "torchcodec" and size is not None and interpolation != "bilinear":
            raise ValueError(f"torchcodec resizes bilinearly, not by {interpolation!r}; take backend 'pyav'")
        if stream_index is not None and (type(stream_index) is not int or stream_index < 0):
            raise ValueError(f"stream_index must be the number of a stream or None, not {stream_index!r}")
        how = "bilinear" if size is None else interpolation  # then nothing is resized
        return cls(_source(path), by, size, how, stream_index)


def _source(path: str | os.PathLike[str]) -> str:
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(name, str):
        raise TypeError(f"a video is named by a path or a URL, not by {_described(name)}")
    scheme = scheme_of(name)
    if scheme == "file":
        name = path_of_file_url(name)
    if not name:
        raise ValueError("a video is named by a path or a URL, not by an empty text")
    return name if scheme not in (None, "file") else _absolute(name)


def _absolute(name: str) -> str:
    try:
        absolute = os.path.abspath(name)
    except FileNotFoundError:  # of the working directory
        raise ObjectMissing(f"no file at {name!r}: the working directory is gone", path=name) from None
    if os.pardir not in name.split(os.sep):
        return absolute
    folder = os.path.realpath(os.path.dirname(name))  # what lies above a link is not what its name says
    return absolute if folder == os.path.realpath(os.path.dirname(absolute)) else f"{folder}/{os.path.basename(name)}"


def _described(thing: Any) -> str:
    """What is no path, without its contents, and what to do instead."""
    instead = "write them to a file, or use millpond.load_video({}, num_frames=...)"
    if isinstance(thing, bytes | bytearray | memoryview):
        return f"{type(thing).__name__} ({memoryview(thing).nbytes:,} of them); {instead.format('data')}"
    if hasattr(thing, "read"):
        return f"an open file ({type(thing).__name__}); give its path, {instead.format('file').replace('them', 'it')}"
    return f"{type(thing).__name__} {reprlib.repr(thing)}"


def resolved(backend: DecoderBackend) -> Literal["pyav", "torchcodec"]:
    """The backend that a name stands for. "auto" is the packet decoder: the same pixels wherever it runs.

    Raises:
        ValueError: No such backend.
        UnsupportedFormat: It is not installed.
    """
    if backend not in _BACKENDS:
        hint = "; LeRobot's 'video_reader' is 'pyav' here" if str(backend) == "video_reader" else ""
        raise ValueError(f"backend {backend!r} is not one of {', '.join(map(repr, _BACKENDS))}{hint}")
    if backend == "torchcodec" and importlib.util.find_spec("torchcodec") is None:
        raise UnsupportedFormat(
            "backend 'torchcodec' needs torchcodec, which is not installed: pip install torchcodec, or take 'pyav'"
        )
    return "torchcodec" if backend == "torchcodec" else "pyav"


def open_decoder(key: DecoderKey, store: SidecarStore, urls: UrlStores) -> Entry:
    """Open a video. Where that fails nothing stays open.

    Args:
        key: What to open, and how.
        store: Where sample tables are looked for, and kept.
        urls: Reaches URLs.

    Raises:
        ObjectMissing: Nothing there.
        CorruptMedia: No video in it, or it is cut short.
        DataError: It cannot be read.
        UnsupportedFormat: A URL of no scheme that is known; torchcodec does not load, or cannot tell the frames apart.
    """
    handle, table = _open_url(key, store, urls) if is_url(key.source) else _open_local(key, store)
    try:
        if key.backend == "torchcodec":
            decoder: StreamDecoder = _torchcodec_decoder(table, handle, key)
        else:
            decoder = PyAVDecoder(table, handle, image_size=key.image_size, interpolation=key.interpolation)
    except BaseException:
        handle.close()
        raise
    return Entry(decoder, handle)


def _torchcodec_decoder(table: SampleTable, handle: Handle, key: DecoderKey) -> StreamDecoder:
    try:
        from millpond._datasets.decoders.torchcodec_decoder import TorchcodecDecoder  # and with it torch
    except (ImportError, RuntimeError, OSError) as error:  # it raises each of them where libraries are not found
        raise UnsupportedFormat(
            "backend 'torchcodec' is installed and does not load: it needs the torch that it was built for and the "
            f"shared libraries of FFmpeg 4 to 8; install those, or take 'pyav' ({type(error).__name__}: "
            f"{next(iter(str(error).strip().splitlines()), '')})"
        ) from error
    return TorchcodecDecoder(table, handle, image_size=key.image_size)


class _OpenFile(LocalBytes):
    """As `LocalBytes`, and the file can be opened once more when another lies there, or none."""

    def whole(self) -> MediaPath:
        """See `FileBytes`."""
        name = f"/proc/self/fd/{self._open()}"
        return replace(self._path, path=name) if os.path.exists(name) else self._path


def out_of_descriptors(error: BaseException) -> bool:
    """Whether this process, or the machine, has as many files open as it may."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def open_local(path: MediaPath) -> Handle:
    """Open a file of this machine.

    Raises:
        ObjectMissing: No file there.
        CorruptMedia: A folder.
        DataError: It cannot be read, or is no regular file.
    """
    try:
        status = os.stat(path.path)
        if stat.S_ISDIR(status.st_mode):
            raise CorruptMedia(f"{path} is a folder, not a file", path=path.label)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for someone to write to it
            raise DataError(f"{path} is no regular file, and frames of it cannot be had at random", path=path.label)
        contents = _OpenFile(path, FileIdentity(status.st_size, status.st_mtime_ns))
        try:
            contents.check_identity()
        except BaseException:
            contents.close()
            raise
    except (FileNotFoundError, NotADirectoryError):
        hint = "; ~ is not expanded: see os.path.expanduser" if f"{os.sep}~" in path.path else ""
        raise ObjectMissing(f"no file at {path}{hint}", path=path.label) from None
    except (OSError, ValueError) as error:
        if out_of_descriptors(error):
            raise  # no fault of the file: whoever skips what is bad must not skip it
        raise DataError(f"{path} cannot be read: {error}", path=path.label) from error
    return Handle(contents, path, FileIdentity(status.st_size, status.st_mtime_ns), is_local=True)


def _open_local(key: DecoderKey, store: SidecarStore) -> tuple[Handle, SampleTable]:
    path = MediaPath.of(key.source)
    handle = open_local(path)
    try:
        table = load_sample_table(path, store, stream_index=key.stream_index)
        handle.contents.check_identity()
        if table.identity != handle.identity:
            raise CorruptMedia(f"{path} was replaced while it was opened; open it again", path=path.label)
    except BaseException:
        handle.close()
        raise
    return handle, table


def _open_url(key: DecoderKey, store: SidecarStore, urls: UrlStores) -> tuple[Handle, SampleTable]:
    from millpond._datasets.decoders.remote_handle import open_url  # 40 ms that whoever reads local files is spared

    return open_url(key.source, urls, store, stream_index=key.stream_index)
