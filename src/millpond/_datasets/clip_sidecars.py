"""What is remembered of each clip, sound and image file, so that nothing altered is delivered once it has been read.

A sidecar belongs to one version of a file. It keeps the sample table of a clip with the CRC-32s of its packets, and one
CRC-32 for the sound or the image of a file; so bytes that changed behind the file system's back are noticed. When a
file is replaced its sidecar is not found; then those of other versions tell whether it was read as another one since
the dataset was opened, because every read sets their time.

Workers write them: for the training process it would be a millisecond per clip between two epochs. Where several rows
are of one clip, several workers may write what they learned of it at once (`SidecarStore.alone`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from millpond._media.index import SIDECAR_KIND as TABLE_KIND
from millpond._media.index import learn_crcs
from millpond._media.sidecars import FileVersion, SidecarStore, version_of
from millpond.errors import CorruptMedia

_logger = logging.getLogger("millpond")


@dataclass(frozen=True)
class ClipSidecars:
    """The sidecars of media files, for one opening of a dataset; picklable.

    Attributes:
        folder: Where they are kept; None: nothing is remembered.
        opened_ns: When the dataset was opened, by the clock that sets the times of files in the folder: another one,
            of a server or merely a finer one, may be ahead of it.
    """

    folder: str | None
    opened_ns: int

    @classmethod
    def opened_now(cls, store: SidecarStore) -> ClipSidecars:
        """Those in a store, or none where that cannot be written, which is said once and not once per clip."""
        folder = store.folder / "clips"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                opened_ns = os.fstat(file.fileno()).st_mtime_ns
        except OSError as error:
            _logger.warning(
                "cannot keep anything of clips in %s (%s): their headers are read again each time, and a clip that is "
                "altered after it was read is not noticed; set MILLPOND_CACHE_DIR to a folder that can be written",
                folder,
                str(error),  # a handler may keep the record, and with an error all frames that it passed
            )
            return cls(None, 0)
        return cls(str(folder), opened_ns)

    @property
    def store(self) -> SidecarStore | None:
        """Where sidecars go."""
        return None if self.folder is None else SidecarStore(Path(self.folder))

    def require_same_clip(self, path: str) -> None:
        """Raise CorruptMedia if a clip was replaced after it was read by this dataset."""
        store = self.store
        if store is None:
            return
        try:
            version = version_of(path)
        except OSError:
            return  # it is gone, or may not be looked at: who reads it says so
        self._require_same(version, store, TABLE_KIND)

    def learn_packets(self, version: FileVersion, rows: NDArray[np.int64], crcs: NDArray[np.uint32]) -> None:
        """Keep the CRC-32s of packets of a clip that were read for the first time."""
        store = self.store
        if store is not None and len(rows):
            learn_crcs(version, store, rows, crcs)

    def check(self, version: FileVersion, kind: str, crc: Callable[[], int]) -> Callable[[], None]:
        """Compare a file with what was read of it before.

        Args:
            version: What it was before it was read this time.
            kind: What of it is read.
            crc: Gives the CRC-32 of that; not called where nothing is remembered.

        Returns:
            To be called when it was read well: remembers it, if it is new.

        Raises:
            CorruptMedia: It is not what was read before.
        """
        store = self.store
        if store is None:
            return _nothing
        self._require_same(version, store, kind)
        kept = store.load(version, kind)
        if kept is None:
            return lambda: _keep(store, version, kind, crc())
        found = crc()
        if found != kept.facts.get("crc"):
            raise CorruptMedia(
                f"{version.name!r} has other bytes than when it was first read, at the same size and time; fetch it "
                "again",
                path=version.name,
                expected_crc=kept.facts.get("crc"),
                found_crc=found,
            )
        return _nothing

    def _require_same(self, version: FileVersion, store: SidecarStore, kind: str) -> None:
        own = store.path_of(version, kind, ".npz")
        with contextlib.suppress(OSError):  # never read before, or replaced since
            os.utime(own)
            return
        for other in store.versions(version.name, kind):
            if other == own:
                continue  # another worker has just read this very version for the first time
            with contextlib.suppress(OSError):
                if other.stat().st_mtime_ns >= self.opened_ns:
                    raise CorruptMedia(
                        f"{version.name!r} changed since the dataset was opened; open it again", path=version.name
                    )


def _keep(store: SidecarStore, version: FileVersion, kind: str, crc: int) -> None:
    with contextlib.suppress(OSError):  # a full disk, or the file went away
        if version_of(version.name) == version:  # else these may be the bytes of another one
            store.save(version, kind, {}, {"crc": crc})


def _nothing() -> None:
    pass
