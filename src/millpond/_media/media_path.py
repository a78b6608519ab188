"""Where media can be opened, and what errors call it: the path of a memfd tells nobody anything."""

from __future__ import annotations

import os
from dataclasses import dataclass

from millpond._urls import shortened


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
