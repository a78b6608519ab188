"""What every read-only file object of known size has beside its `read`."""

from __future__ import annotations

import io


class ReadPosition:
    """A position in a file of `_size` bytes, of which `_position` is read next; PyAV and pyarrow ask for these."""

    _size: int
    _position: int = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position of the next read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position
