"""Ranges of objects that were fetched, kept on this machine's disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from millpond._values import ByteRange, FileIdentity

if TYPE_CHECKING:
    from typing_extensions import Buffer


class RangeCache:
    """A folder of ranges, bounded. (Step 5.)"""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = Path(folder), max_bytes

    def find(self, name: str, identity: FileIdentity, wanted: ByteRange) -> bytes | None:
        """What is kept."""
        return None

    def keep(self, name: str, identity: FileIdentity, wanted: ByteRange, data: Buffer) -> None:
        """Keep it."""
