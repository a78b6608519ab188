"""Which bytes of which file hold which frames of which episode: an index that is made from headers alone."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.episode_spans import header_bytes, ranges_of_frames
from millpond._datasets.frame_times import frame_mappings
from millpond._datasets.index_columns import TableColumns
from millpond._datasets.places import NOWHERE
from millpond._plan.sample_table import SampleTable
from millpond._values import ByteRange
from millpond.errors import CorruptMedia, DataError


class EpisodeSpan(NamedTuple):
    """Where the bytes of one camera of an episode are.

    Attributes:
        file_id: For `file_lookup`.
        mdat_offset: The first byte of any packet that decoding the episode reads.
        mdat_length: From there to the end of the last one. Packets of other streams may lie between; see `byte_ranges`.
    """

    file_id: int
    mdat_offset: int
    mdat_length: int


class IndexedFile(NamedTuple):
    """One video file.

    Attributes:
        file_path: Relative to the root of a dataset, with slashes; of single files, the path, or a URL without secrets.
        file_size: Bytes.
        header_length: Bytes before the first packet of the video. Where the header comes first, a decoder that wants a
            container can open the file with these and the episode's; `byte_ranges` needs no header.
    """

    file_path: str
    file_size: int
    header_length: int


@dataclass(frozen=True, slots=True)
class IndexFile:
    """Where one file lies.

    Attributes:
        location: Number of the place that it lies below.
        key: Its name there, with slashes.
        place: Its path, or its URL without secrets.
    """

    location: int
    key: str
    place: str


@dataclass(frozen=True, slots=True)
class IndexBuild:
    """What building an index took.

    Attributes:
        num_files: Looked at.
        requests: Sent to stores, retries included; 0 for local files.
        bytes_fetched: By those.
        seconds: In all.
        sidecars: The folder where the sample tables are kept, for the next time.
    """

    num_files: int
    requests: int
    bytes_fetched: int
    seconds: float
    sidecars: str


@dataclass(frozen=True)
class IndexParts:
    """All that an index knows; E episodes, C cameras, F files.

    Attributes:
        root: The place of the dataset; "" for single files.
        video_keys: The cameras.
        episodes: int64, (E,), their numbers, ascending.
        files: All files, of all cameras.
        tables: Their sample tables.
        file_of: int64, (E, C), positions in `files`; NOWHERE where nothing can be decoded.
        first: int64, (E, C), the frame of the file that the episode begins with.
        lengths: int64, (E, C), frames.
        scattered: Where they do not follow one another: position of the episode, and of the camera, to int64 (length,).
        spans: int64, (E, C, 3): first byte, one past the last, and how many of them `byte_ranges` has.
        problems: Position of the episode, and of the camera, to why nothing can be decoded.
    """

    root: str
    video_keys: tuple[str, ...]
    episodes: NDArray[np.int64]
    files: tuple[IndexFile, ...]
    tables: TableColumns
    file_of: NDArray[np.int64]
    first: NDArray[np.int64]
    lengths: NDArray[np.int64]
    spans: NDArray[np.int64]
    scattered: Mapping[tuple[int, int], NDArray[np.int64]] = field(default_factory=dict)
    problems: Mapping[tuple[int, int], DataError] = field(default_factory=dict)


class EpisodeByteIndex:
    """Episode and camera to file, byte ranges and frames. Any thread; picklable.

    `EpisodeByteIndex.build` makes one of a dataset, or of single video files; `EpisodeByteIndex.load` reads one that
    `save` wrote. Give it to an `EpisodeByteCache`, or ask it: `byte_ranges` says what to fetch, `sample_table` and
    `frames` what to decode.

    An episode of which a camera cannot be decoded has an entry in `problems`; asking for that camera raises it.

    Args:
        parts: All that it knows.
        locations: The paths or URLs that files lie below, as the user gave them.
        storage_options, token: With which it was built. They stay in memory.
        built: What building it took.
    """

    def __init__(
        self,
        parts: IndexParts,
        locations: Sequence[str],
        storage_options: Mapping[str, Any] | None = None,
        token: str | None = None,
        built: IndexBuild | None = None,
    ) -> None:
        self._parts = parts
        self._locations = tuple(locations)
        self._storage_options = storage_options
        self._token = token
        self.built = built
        self._camera_of = {camera: c for c, camera in enumerate(parts.video_keys)}

    @classmethod
    def build(
        cls,
        root_or_url: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        cameras: Sequence[str] | None = None,
        episodes: Sequence[int] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Any = None,
        workers: int | None = None,
        fetch_timeout: float = 60.0,
        tolerance_s: float = 1e-4,
    ) -> EpisodeByteIndex:
        """Index a LeRobot v3.0 dataset, or video files.

        Of an MP4 or MOV only the header is read, wherever in the file that is; MKV, WebM and AVI are read as a whole,
        once, and the log says so. The sample tables are kept as sidecars, by the version of each file, so that building
        the index again is quick, and what changed meanwhile is read anew.

        Args:
            root_or_url: A path or URL: of a dataset, or of one video file; or several video files, each of which is an
                episode of the one camera "video".
            cameras: Cameras of the dataset to take; None takes all that are videos.
            episodes: Episodes to take; None takes all.
            storage_options, token: How the store is reached, as for `LeRobotDataset`.
            cache_dir: Where sidecars go, as for `LeRobotDataset`.
            progress: Called with (files done, files).
            workers: Files at a time; None: 8 of a local disk, 32 of a store.
            fetch_timeout: Seconds that one fetch may take, all tries included.
            tolerance_s: The greatest distance of a frame from its time by the metadata.

        Raises:
            ObjectMissing: Nothing there.
            UnsupportedFormat: Not v3.0, or nothing reads such URLs.
            DataError: The metadata does not parse, or nothing of any episode can be decoded.
            ValueError: Unknown episodes, cameras or options; a dataset without videos.
        """
        from millpond._datasets.index_build import build_index  # pyarrow starts a thread: only who builds waits for it

        return build_index(
            root_or_url,
            cameras=cameras,
            episodes=episodes,
            storage_options=storage_options,
            token=token,
            cache_dir=cache_dir,
            progress=progress,
            workers=workers,
            fetch_timeout=fetch_timeout,
            tolerance_s=tolerance_s,
        )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        storage_options: Mapping[str, Any] | None = None,
        token: str | None = None,
    ) -> EpisodeByteIndex:
        """Read what `save` wrote. Nothing else is looked at: a file that changed meanwhile is noticed when it is read.

        Args:
            path: Of the index.
            storage_options, token: How the store is reached; they are never saved.

        Raises:
            ObjectMissing: No file at `path`.
            CorruptMedia: It does not read.
            UnsupportedFormat: Another version of millpond, or of FFmpeg, wrote it: build it again.
        """
        from millpond._datasets.index_file import load_index

        parts, locations = load_index(Path(path))
        return cls(parts, locations, storage_options, token)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it all into one file: numpy arrays and JSON, no secrets. Passwords and queries of URLs are left out."""
        from millpond._datasets.index_file import save_index

        save_index(Path(path), self._parts)

    @property
    def root(self) -> str:
        """The absolute path of the dataset, or its URL without secrets; "" for single files."""
        return self._parts.root

    @property
    def video_keys(self) -> tuple[str, ...]:
        """The cameras."""
        return self._parts.video_keys

    @property
    def episodes(self) -> NDArray[np.int64]:
        """int64, (E,): the numbers of the episodes, ascending."""
        return self._parts.episodes

    @property
    def num_files(self) -> int:
        """Video files, of all cameras."""
        return len(self._parts.files)

    @property
    def problems(self) -> dict[int, DataError]:
        """Episode to what is wrong with it (the first thing, where there are several)."""
        found: dict[int, DataError] = {}
        for (e, _), problem in sorted(self._parts.problems.items()):
            found.setdefault(int(self.episodes[e]), problem)
        return found

    def __len__(self) -> int:
        return len(self.episodes)

    def __repr__(self) -> str:
        name = repr(self.root) if self.root else f"{self.num_files} files"
        cameras = f"{len(self.video_keys)} camera" + "s" * (len(self.video_keys) != 1)
        return f"EpisodeByteIndex({name}: {len(self)} episodes, {cameras}, {self.num_files} files)"

    def lookup(self, episode: int, camera: str) -> EpisodeSpan:
        """Where the bytes of one camera of an episode are.

        Raises:
            KeyError: The index has no such episode or camera.
            DataError: Nothing of it can be decoded.
        """
        e, c = self._at(episode, camera)
        start, stop, _ = self._parts.spans[e, c].tolist()
        return EpisodeSpan(int(self._parts.file_of[e, c]), start, stop - start)

    def file_lookup(self, file_id: int) -> IndexedFile:
        """What is known of a file; IndexError for one that is not there."""
        number = operator.index(file_id)
        if not 0 <= number < self.num_files:
            raise IndexError(f"file {number} of {self.num_files}")
        file, table = self._parts.files[number], self._parts.tables.table(number)
        name = file.key if self.root else file.place
        return IndexedFile(name, table.identity.size_bytes, header_bytes(table))

    def custom_frame_mappings(self, episode: int, camera: str) -> str:
        """All frames of the file that an episode is in, as JSON for torchcodec's `VideoDecoder`. Raises as `lookup`."""
        return frame_mappings(self.sample_table(episode, camera))

    def byte_ranges(self, episode: int, camera: str) -> tuple[ByteRange, ...]:
        """All bytes of the file that decoding the episode reads, in few ranges. Raises as `lookup`."""
        return ranges_of_frames(self.sample_table(episode, camera), self.frames(episode, camera))

    def num_bytes(self, episode: int, camera: str) -> int:
        """How many bytes these are. Raises as `lookup`."""
        return int(self._parts.spans[*self._at(episode, camera), 2])

    def sample_table(self, episode: int, camera: str) -> SampleTable:
        """The packets and frames of the whole file that an episode is in. Raises as `lookup`."""
        return self._parts.tables.table(int(self._parts.file_of[self._at(episode, camera)]))

    def frames(self, episode: int, camera: str) -> NDArray[np.int64]:
        """int64, (n,): which frames of its file an episode shows, ascending. Raises as `lookup`."""
        at = self._at(episode, camera)
        scattered = self._parts.scattered.get(at)
        if scattered is not None:
            return scattered
        first = int(self._parts.first[at])
        return np.arange(first, first + int(self._parts.lengths[at]), dtype=np.int64)

    def whereabouts(self, episode: int, camera: str) -> tuple[str, str, str]:
        """How its file is reached: below what, as the user gave it, and under which name; and what errors call it."""
        file = self._parts.files[int(self._parts.file_of[self._at(episode, camera)])]
        return self._locations[file.location], file.key, file.place

    def access(
        self, storage_options: Mapping[str, Any] | None, token: str | None
    ) -> tuple[Mapping[str, Any] | None, str | None]:
        """What is given; where nothing is, that with which the index was made."""
        if storage_options is None and token is None:
            return self._storage_options, self._token
        return storage_options, token

    def _at(self, episode: int, camera: str) -> tuple[int, int]:
        c = self._camera_of.get(camera)
        if c is None:
            raise KeyError(f"no camera {camera!r} in the index; it has {', '.join(self.video_keys)}")
        number = operator.index(episode)
        e = int(np.searchsorted(self.episodes, number))
        if e == len(self.episodes) or self.episodes[e] != number:
            raise KeyError(
                f"no episode {number} in the index, which has {len(self)}, {self.episodes[0]} to {self.episodes[-1]}"
            )
        if self._parts.file_of[e, c] == NOWHERE:
            problem = self._parts.problems.get((e, c))
            if problem is not None:
                raise problem.with_traceback(None)  # it is raised again and again
            raise CorruptMedia(f"episode {number} of camera {camera!r} has no place", episode=number)
        return e, c
