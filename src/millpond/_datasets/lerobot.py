"""LeRobot v3.0 datasets, on a local disk or in an object store."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.base import ByteSource
from millpond._datasets.camera_costs import CameraCosts
from millpond._datasets.decode_costs import DecodeCosts
from millpond._datasets.decoders.cache import VideoDecoderCache, default_cache, require_cache
from millpond._datasets.delivered import Delivered
from millpond._datasets.layout import Feature, read_layout
from millpond._datasets.learned_crcs import LearnedCrcs
from millpond._datasets.lerobot_reader import LeRobotReader, ReaderArguments
from millpond._datasets.opening import open_files
from millpond._datasets.samples import SampleReaders, checked_sample
from millpond._datasets.selection import checked_size, selected_positions
from millpond._datasets.sources import CameraSource
from millpond._datasets.survey import missing_totals, require_files, select_episodes
from millpond._datasets.surveyed import FileProgress, Survey, Surveyed, SurveyOnce
from millpond._datasets.video_survey import VideoFacts
from millpond._media.index import learn_crcs
from millpond._media.pictures import interpolation_flag
from millpond._media.sidecars import FileVersion
from millpond._once import computed_once, without_computed
from millpond._values import Field
from millpond.errors import DataError, MillpondError, retold

if TYPE_CHECKING:
    from millpond._datasets.remote_files import RemoteFiles

TABLE_PART = "table"
"""The one part of a dataset without cameras."""


class LeRobotDataset:
    """A LeRobot v3.0 dataset: many episodes per file, cameras as MP4 or as images in parquet.

    For the `Loader`, which decodes each frame once per epoch; and map-style: `dataset[i]` is what a row of a batch of
    the loader is, from any thread, and any DataLoader takes the dataset as it is. Each process opens files of its own;
    `close` closes them, as letting go of the dataset does.

    Opening it reads the metadata, the sample table of each MP4 and the numbers of each parquet, or the sidecars that
    an earlier run kept, and compares them. Only what makes the whole dataset unreadable raises here; what is wrong
    with single episodes is in `problems`, and fails just the samples concerned when they are read.

    With `lazy=True` opening it reads the metadata alone. The files are looked at, all of them and once, when something
    first needs it (`cuts`, `problems`, `dataset[i]`, a `Loader` without ranks, ...); each rank of a `Loader` looks at
    those of its own share (`opened_for`). Pictures then are of the size that the metadata says, so that all ranks
    agree: files of another size are among the `problems`, and `image_size` is the remedy. A copy in another process,
    such as a DataLoader's worker, looks at the files itself if this one has not when it is made.

    Args:
        root: The folder that holds meta/, data/ and videos/: a path, or a URL: s3://, gs://, az://, https://, hf://, or
            any scheme that fsspec knows. Of a dataset behind a URL bytes are fetched by ranges, as they are needed.
        episodes: Episode numbers to take; samples are numbered 0 to N - 1 through them in ascending order.
        cameras: Camera features to take; None takes all.
        delta_timestamps: Feature to times in seconds relative to the sample. The feature then has a first axis of so
            many steps, steps outside of the episode show its first or last frame, and `<feature>_is_pad` says which.
        tolerance_s: The greatest distance between a time asked for and a frame's, in seconds.
        image_size: (height, width) that pictures are resized to; None keeps theirs, and then all must be alike.
        interpolation: "bilinear", "area" or "bicubic".
        cache_dir: Where sidecars go; "beside" takes the folder .millpond in the dataset; None takes MILLPOND_CACHE_DIR.
            Where it is given and the dataset is behind a URL, ranges of videos that were fetched are kept there, too,
            so that the next epoch, or another process, need not fetch them.
        cache_bytes: Most bytes of such ranges, a number or "10GiB"; those not used for longest go first.
        storage_options: How the store is reached: by fsspec's names (`key`, `secret`, `endpoint_url`, `anon`, ...) or
            obstore's. None: as the environment says. They are kept in memory alone.
        token: A bearer token for https://, Hugging Face's for hf://.
        fetch_timeout: Seconds that one range may take, all tries included.
        progress: Called with (files done, files) while files are looked at.
        lazy: Look at the files when they are needed; see above.
        decoder_cache: Where `dataset[i]` has its videos open; None takes the one of the process, which all datasets of
            it share. They are decoded by the packet decoder whatever the backend of the cache is.

    Raises:
        ObjectMissing: No dataset there.
        UnsupportedFormat: Not v3.0, or features that millpond does not read.
        CorruptMedia: The metadata does not parse.
        FetchError, FetchTimeout: The store refuses, or does not answer.
        ValueError: Unknown episodes, cameras or features, or times between frames; unknown storage options.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        episodes: Sequence[int] | None = None,
        cameras: Sequence[str] | None = None,
        delta_timestamps: Mapping[str, Sequence[float]] | None = None,
        tolerance_s: float = 1e-4,
        image_size: tuple[int, int] | None = None,
        interpolation: str = "bilinear",
        cache_dir: str | Path | None = None,
        cache_bytes: int | str = "10GiB",
        storage_options: Mapping[str, Any] | None = None,
        token: str | None = None,
        fetch_timeout: float = 60.0,
        progress: FileProgress | None = None,
        decoder_cache: VideoDecoderCache | None = None,
        lazy: bool = False,
    ) -> None:
        self._files, self._store = open_files(
            root,
            cache_dir=cache_dir,
            cache_bytes=cache_bytes,
            storage_options=storage_options,
            token=token,
            fetch_timeout=fetch_timeout,
        )
        interpolation_flag(interpolation)
        require_cache(decoder_cache, "decoder_cache")
        self._interpolation = interpolation
        size = checked_size(image_size)
        whole = read_layout(self._files, self._store)
        selected = selected_positions(whole, episodes)
        self._layout = select_episodes(whole, selected)
        self._delivered = Delivered.asked_for(whole, cameras, delta_timestamps, tolerance_s, size, by_metadata=lazy)
        require_files(self._files, self._layout)
        self._survey = SurveyOnce(
            Survey(
                files=self._files,
                store=self._store,
                around=whole,
                selected=selected,
                known=whole.episode_index if episodes is None else None,
                cameras=self._delivered.cameras,
                tolerance_s=tolerance_s,
                image_size=self._delivered.image_size,
                picture_sizes=self._delivered.promised_sizes,
                remarks=tuple(missing_totals(whole)),
                progress=progress,
            )
        )
        if not lazy:
            self._survey.result()
        self._learned = LearnedCrcs()
        self._pid = os.getpid()
        self._decoder_cache = decoder_cache
        self._samples: SampleReaders | None = None

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name != "byte_source"}  # a copy makes its own
        return kept | {"_samples": None}

    def __enter__(self) -> LeRobotDataset:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __repr__(self) -> str:
        return (
            f"LeRobotDataset({self.root!r}: {len(self)} samples in {self.num_episodes} episodes, "
            f"{len(self._delivered.cameras)} cameras, {self.fps:g} fps)"
        )

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Decode one sample: what a row of a batch of the `Loader` is.

        Returns:
            Field to tensor, or numpy array where torch is not installed, and `task` and columns of text as str. They
            are the caller's own. Pictures are uint8, (3, H, W) or with a window (T, 3, H, W), channels-last in memory.

        Raises:
            IndexError: There is no such sample.
            DataError: It cannot be read. It has `sample`, `episode`, `frame` (of the episode) and, where one is to
                blame, `camera`.
        """
        return self._read([index])[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[dict[str, Any]]:
        """Decode several samples, each frame once whatever their order; torch's DataLoader asks so for a batch.

        Raises as for one, for the first that is bad.
        """
        is_changed = type(self).__getitem__ is not LeRobotDataset.__getitem__
        if is_changed and type(self).__getitems__ is LeRobotDataset.__getitems__:
            return [self[index] for index in indices]  # a subclass gives other samples
        return self._read(indices)

    def _read(self, indices: Sequence[SupportsIndex]) -> list[dict[str, Any]]:
        samples = np.asarray([checked_sample(index, len(self)) for index in indices], np.int64)
        if not len(samples):
            return []
        read = self._readers().read(samples, self.byte_source)
        if self._pid == os.getpid():  # what a worker of a DataLoader learns lasts as long as the file is open there
            for learned in read.learned:
                self.learn(learned)
        if read.failures:
            position = min(read.failures)
            raise self._told(read.failures[position], int(samples[position]))
        texts: dict[str, Any] = {}
        self.decorate(texts, samples)
        for position, sample in enumerate(read.samples):
            sample.update((name, values[position]) for name, values in texts.items())
        return read.samples

    def _readers(self) -> SampleReaders:
        """Those of this process: a forked child must not share what its parent holds open."""
        readers = self._samples
        if readers is None or readers.pid != os.getpid():
            cache = default_cache() if self._decoder_cache is None else self._decoder_cache
            readers = self._samples = SampleReaders(self._reader_arguments(), cache, self.fields)
        return readers

    def _told(self, error: MillpondError, sample: int) -> MillpondError:
        """An error of one sample, which may be kept as that of its whole episode, as it is raised."""
        facts = self.describe(sample)
        episode, frame = facts["episode_index"], facts["frame_index"]
        return retold(
            error, f"sample {sample} (frame {frame} of episode {episode})", sample=sample, episode=episode, frame=frame
        )

    @property
    def root(self) -> str:
        """The absolute path of the folder, or its URL without secrets."""
        return self._files.root

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self._layout.fps

    @property
    def num_episodes(self) -> int:
        """Episodes taken."""
        return len(self._layout.lengths)

    @property
    def episode_index(self) -> NDArray[np.int64]:
        """int64, (E,): the numbers of the episodes taken, ascending."""
        return self._layout.episode_index

    @property
    def episode_lengths(self) -> NDArray[np.int64]:
        """int64, (E,): frames of each."""
        return self._layout.lengths

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera features taken."""
        return tuple(camera.name for camera in self._delivered.cameras)

    @property
    def video_facts(self) -> dict[str, VideoFacts]:
        """Codec, GOPs, bytes, ... of each camera."""
        return {name: seen.facts for name, seen in self._surveyed.seen.items()}

    @property
    def problems(self) -> dict[int, DataError]:
        """Episode number to what is wrong with it (the first thing, where there are several).

        An episode that has rows but no place in the metadata is listed too; no sample is of it.
        """
        found: dict[int, DataError] = {}
        for error in self._surveyed.episode_errors():
            found.setdefault(int(error.episode), error)
        return found

    @property
    def lost(self) -> list[DataError]:
        """Problems of episodes that have no sample, as of rows without metadata; none where `episodes` were chosen."""
        return list(self._surveyed.lost)

    def check(self) -> list[DataError]:
        """Everything found wrong when the dataset was opened, remarks that concern no single episode included."""
        return [*self._surveyed.episode_errors(), *self._surveyed.remarks]

    @property
    def is_surveyed(self) -> bool:
        """Whether the files have been looked at; with `lazy=True` that is when something first needs it."""
        return self._survey.is_made

    @property
    def _surveyed(self) -> Surveyed:
        return self._survey.result()

    def opened_for(self, start: int, stop: int) -> tuple[LeRobotDataset, int]:
        """A dataset of the episodes that the samples start to stop are of, which looks at no files but theirs.

        It numbers its samples from 0, and shares settings, store and connections with this one; its `problems`, `lost`
        and `check` are of its own files.

        Returns:
            It, and the number in this dataset of its sample 0. Of a dataset whose files have been looked at, or where
            all episodes are asked for, that is this one, and 0.

        Raises:
            ValueError: There are no such samples.
        """
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"samples {start} to {stop} of a dataset of {len(self)}")
        survey = self._survey.pending
        first = int(np.searchsorted(self._bounds, min(start, len(self) - 1), side="right")) - 1
        last = max(int(np.searchsorted(self._bounds, stop)), first + 1)
        if survey is None or last - first == self.num_episodes:
            self._survey.result()
            return self, 0
        return self._share(survey.narrowed(first, last)), int(self._bounds[first])

    def _share(self, survey: Survey) -> LeRobotDataset:
        share = object.__new__(type(self))
        vars(share).update(without_computed(self))
        share._layout = select_episodes(survey.around, survey.selected)
        share._survey = SurveyOnce(survey)
        share._learned = LearnedCrcs()
        share._samples = None
        share._survey.result()
        return share

    @computed_once
    def fields(self) -> tuple[Field, ...]:
        """Every array of a sample; cameras first, stored (..., H, W, C)."""
        return self._delivered.fields(self._survey)

    @property
    def parts(self) -> tuple[str, ...]:
        """The cameras; the first also reads the numbers."""
        return self.cameras or (TABLE_PART,)

    @property
    def part_fields(self) -> dict[str, tuple[str, ...]]:
        """The fields that each part fills."""
        others = tuple(field.name for field in self.fields if not field.frames)
        own = {camera: (camera,) for camera in self.cameras}
        return {part: own.get(part, ()) + (others if part == self.parts[0] else ()) for part in self.parts}

    @computed_once
    def groups(self) -> NDArray[np.int64]:
        """int64, (N,): the episode number of each sample."""
        return np.repeat(self._layout.episode_index, self._layout.lengths)

    @computed_once
    def _bounds(self) -> NDArray[np.int64]:
        return np.concatenate(([0], np.cumsum(self._layout.lengths))).astype(np.int64)

    @computed_once
    def _costs(self) -> CameraCosts:
        costs, frame_bytes = {}, {}
        for name, seen in self._surveyed.seen.items():
            costs[name] = DecodeCosts(self._bounds, self._delivered.offsets_of(name), seen.gop, seen.preroll)
            frame_bytes[name] = seen.facts.size_bytes / max(seen.facts.num_frames, 1)
        return CameraCosts(len(self), costs, frame_bytes)

    def cuts(self) -> NDArray[np.int64]:
        """int64, (S + 1,): samples before which no camera has a GOP that goes on, 0 and N included."""
        return self._costs.cuts()

    def cut_costs(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64, (n,): frames that must be decoded, over all cameras, to serve the samples of each [start, stop).

        What comes before in the first GOP, and what windows reach for beyond the samples, is included.
        """
        return self._costs.decoded(np.asarray(starts, np.int64), np.asarray(stops, np.int64))

    def unique_frames(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64, (n,): the most frames of any one camera that the samples of each [start, stop) show."""
        return self._costs.unique(np.asarray(starts, np.int64), np.asarray(stops, np.int64))

    @property
    def reader_modules(self) -> tuple[str, ...]:
        """What a worker imports before it is forked; not pyarrow, which starts a thread when it is imported."""
        return ("millpond._datasets.lerobot_reader",)

    def reader(self) -> LeRobotReader:
        """A fresh reader."""
        return LeRobotReader(self._reader_arguments())

    def _reader_arguments(self) -> ReaderArguments:
        return ReaderArguments(
            self._bounds,
            self._layout.episode_index,
            {camera.name: self._camera_source(camera) for camera in self._delivered.cameras},
            self._delivered.numbers_in(self._surveyed.table),
            self.parts[0],
            self._store,
        )

    def _camera_source(self, camera: Feature) -> CameraSource:
        in_parquet = camera.dtype == "image"
        placement = self._layout.data if in_parquet else self._layout.videos[camera.name]
        seen = self._surveyed.seen[camera.name]
        return CameraSource(
            name=camera.name,
            in_parquet=in_parquet,
            offsets=self._delivered.offsets_of(camera.name),
            files=self._files,
            paths=placement.paths,
            identities=tuple(seen.identities),
            places=seen.places,
            picture_size=self._delivered.picture_size(camera, self._survey),
            is_resized=self._delivered.image_size is not None,
            interpolation=self._interpolation,
        )

    @computed_once
    def byte_source(self) -> ByteSource | None:
        """Fetches ahead what tasks will read; None for a local folder."""
        if not self._files.is_remote:
            return None
        from millpond._datasets.lerobot_bytes import LeRobotBytes  # and with it what talks to stores

        files = cast("RemoteFiles", self._files)
        cameras = {camera.name: self._camera_source(camera) for camera in self._delivered.cameras}
        return LeRobotBytes(
            files, self._store, self._bounds, self._layout.episode_index, cameras, self._costs.read_bytes
        )

    def describe(self, sample: int) -> dict[str, Any]:
        """What a sample is, for errors and for the quarantine file."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        position = int(np.searchsorted(self._bounds, sample, side="right")) - 1
        return {
            "episode_index": int(self._layout.episode_index[position]),
            "frame_index": int(sample - self._bounds[position]),
            "sample": int(sample),
        }

    def decorate(self, batch: dict[str, Any], samples: NDArray[np.int64]) -> None:
        """Add `task` and the columns of text, each a list of n strings."""
        batch.update(self._surveyed.texts_of(samples, self._layout.tasks))

    @computed_once
    def fingerprint(self) -> str:
        """A digest of the samples and their numbers, by the metadata alone: of no paths, and of no cuts."""
        facts = [self.fps, sorted(self._delivered.offsets.items()), [(f.name, f.shape, f.dtype) for f in self.fields]]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for array in (self._layout.episode_index, self._layout.lengths):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def learn(self, learned: object) -> None:
        """Take CRC-32s of packets that a reader read for the first time."""
        self._learned.add(learned)
        if self._learned.is_full:
            self.keep_learned()

    def close(self) -> None:
        """Write what was learned, close files, and end connections. Idempotent; the dataset can be used again."""
        self.keep_learned()
        readers = self._samples
        if readers is not None and readers.pid == os.getpid():
            readers.close()
        self._files.close()

    def keep_learned(self) -> bool:
        """Write the CRC-32s that were learned to the sidecars; whether there were any."""
        were_any = False
        for camera, file, rows, crcs in self._learned.take():
            were_any = True
            identity = self._surveyed.seen[camera].identities[file]
            if identity is not None:
                learn_crcs(FileVersion(self._layout.videos[camera].paths[file], identity), self._store, rows, crcs)
        return were_any
