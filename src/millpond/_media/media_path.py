"""Where media can be opened, and what errors call it: the path of a memfd tells nobody anything."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from millpond.errors import UnsupportedFormat

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
_USER = re.compile(r"://[^/]*@")
_LONGEST_LABEL = 300
"""Of a longer path or URL, messages show both ends."""


@dataclass(frozen=True, slots=True)
class MediaPath:
    """A local path, and what people know it by. `str` gives what messages say: 'clip.mp4', or 1,024 bytes of video.

    Attributes:
        path: What can be opened; a regular file, or the name of an open descriptor.
        label: The path or URL that the user gave, without secrets; or how many bytes of what.
        is_copy: `path` is gone after this read: nothing that is kept may be known by it.
        is_named: The label is a name, and is quoted.
    """

    path: str
    label: str
    is_copy: bool = False
    is_named: bool = True

    def __str__(self) -> str:
        return repr(shortened(self.label)) if self.is_named else self.label

    @classmethod
    def of(cls, path: str | os.PathLike[str] | MediaPath) -> MediaPath:
        """A path by its own name; a MediaPath is returned as it is."""
        return path if isinstance(path, MediaPath) else cls(os.fspath(path), os.fspath(path))


def name_of_bytes(size_bytes: int, kind: str) -> str:
    """What errors call bytes that have no name."""
    return f"{size_bytes:,} bytes of {kind}"


def scheme_of(source: str) -> str | None:
    """The scheme of a URL in lower case; None for a path."""
    match = _SCHEME.match(source)
    return match[1].lower() if match else None


def path_of_file_url(url: str) -> str:
    """The path that a file:// URL names.

    Raises:
        UnsupportedFormat: It names a file of another machine.
    """
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UnsupportedFormat(
            f"{redacted(url)!r} names a file of another machine: write file:///path for a local one"
        )
    return unquote(parts.path)


def redacted(url: str) -> str:
    """A URL without what may be secret: user, password, query and fragment."""
    address, mark, _ = url.partition("#")[0].partition("?")
    return _USER.sub("://", address) + ("?..." if mark else "")


def shortened(text: str) -> str:
    """The text, or both ends of a long one."""
    half = (_LONGEST_LABEL - 5) // 2
    return text if len(text) <= _LONGEST_LABEL else f"{text[:half]} ... {text[-half:]}"
