"""What is found out about one camera of MP4s when a dataset is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.frame_match import Claims, gops_of, unclaimed_frames
from millpond._datasets.places import NOWHERE, Places, Runs
from millpond._plan.sample_table import SampleTable
from millpond._values import FileIdentity
from millpond.errors import CorruptMedia, DataError, retold


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What `inspect` shows of one camera, over the files that opened.

    Attributes:
        codecs: Names of FFmpeg's decoders.
        backends: "packets" or "container".
        num_files: MP4s that opened.
        size_bytes: Of those.
        num_frames: They show.
        picture_size: (height, width) in the file.
        gop_frames: Frames of every GOP, int64 (G,).
    """

    codecs: tuple[str, ...]
    backends: tuple[str, ...]
    num_files: int
    size_bytes: int
    num_frames: int
    picture_size: tuple[int, int]
    gop_frames: NDArray[np.int64] = field(repr=False)


@dataclass
class VideoSurvey:
    """One camera of MP4s; E selected episodes, N samples.

    Attributes:
        places: Frames of each episode.
        identities: Of each file, None where it did not open.
        gop: int32, (N,), a number for each GOP, unique over the files; below 0 where a sample has no frame.
        preroll: int32, (N,), frames from the keyframe to the sample's, both included; 0 where it has none.
        facts: For people.
        remarks: What is odd, but fails no sample.
    """

    places: Places
    identities: list[FileIdentity | None]
    gop: NDArray[np.int32]
    preroll: NDArray[np.int32]
    facts: VideoFacts
    remarks: list[DataError]


class VideoWork:
    """What is gathered about one camera while its files are opened.

    Args:
        camera: The feature.
        claims: Of the metadata about the selected episodes.
        all_claims: About all episodes.
        samples: The selected ones.
        picture_size: (height, width) that info.json says, where files must have that; None asks them to be alike.
    """

    def __init__(
        self,
        camera: str,
        claims: Claims,
        all_claims: Claims,
        samples: Runs,
        picture_size: tuple[int, int] | None = None,
    ) -> None:
        self.camera = camera
        self.claims = claims
        self.all_claims = all_claims
        self.places = Places.nowhere(len(claims.layout.lengths))
        self._samples = samples
        self._picture_size = picture_size
        count = len(samples.episode)
        self._gop = -2 - np.arange(count, dtype=np.int32)  # every one its own GOP
        self._preroll = np.zeros(count, np.int32)
        self._num_gops = 0
        self._tables: dict[int, tuple[Any, ...]] = {}
        self._identities: list[FileIdentity | None] = [None] * len(claims.placement.paths)
        self._remarks: list[DataError] = []

    def fail_file(self, episodes: NDArray[np.int64], error: DataError) -> None:
        """Nothing of a file can be read."""
        for episode in episodes.tolist():
            if episode not in self.places.problems:
                self._fail(episode, error)

    def cut(self, file: int, is_lost: NDArray[np.bool_], episodes: NDArray[np.int64], error: DataError) -> None:
        """Some frames of a file, bool (F,), are gone."""
        for episode in episodes.tolist():
            if self.places.file_of[episode] == NOWHERE:
                continue
            length = int(self.claims.layout.lengths[episode])
            frames = self.places.at(np.full(length, episode), np.arange(length))
            kept = np.where((frames == NOWHERE) | is_lost[frames], NOWHERE, frames)
            if (kept == NOWHERE).all():
                self._fail(episode, error)
            elif (kept != frames).any():
                self.places.scatter(episode, file, kept, self._told(episode, error))

    def _told(self, episode: int, error: DataError) -> DataError:
        number = int(self.claims.layout.episode_index[episode])
        return retold(error, f"episode {number} of camera {self.camera!r}", episode=number, camera=self.camera)

    def _fail(self, episode: int, error: DataError) -> None:
        self.places.fail(episode, self._told(episode, error))

    def note(self, file: int, table: SampleTable, episodes: NDArray[np.int64]) -> None:
        """Take from a table what is needed of it, so that the table itself can go."""
        samples = self._samples.samples_of(episodes)
        frames = self.places.at(self._samples.episode[samples], self._samples.position[samples])
        samples, frames = samples[frames != NOWHERE], frames[frames != NOWHERE]
        if len(samples):
            gop, preroll = gops_of(table, frames)
            self._gop[samples] = gop + self._num_gops
            self._preroll[samples] = preroll
        self._num_gops += table.num_gops
        self._identities[file] = table.identity
        gop_frames = np.diff(table.gop_starts)
        stream = table.stream.codec_name, table.backend, table.identity.size_bytes, table.num_frames
        self._tables[file] = (*stream, gop_frames, table.picture_size)
        remark = unclaimed_frames(self.all_claims, file, table)
        if remark is not None:
            self._remarks.append(remark)

    def result(self, required_size: tuple[int, int] | None) -> VideoSurvey:
        """All files are done; those whose pictures have another size fail."""
        files = sorted(self._tables)
        sizes = [self._tables[file][5] for file in files]
        if required_size is None and sizes:
            expected = self._picture_size or sizes[0]
            for file, size in zip(files, sizes, strict=True):
                if size != expected:
                    self._fail_size(file, size, expected)
        facts = VideoFacts(
            codecs=tuple(sorted({self._tables[file][0] for file in files})),
            backends=tuple(sorted({self._tables[file][1] for file in files})),
            num_files=len(files),
            size_bytes=sum(self._tables[file][2] for file in files),
            num_frames=sum(self._tables[file][3] for file in files),
            gop_frames=np.concatenate([np.zeros(0, np.int64), *(self._tables[file][4] for file in files)]),
            picture_size=sizes[0] if sizes else (0, 0),
        )
        return VideoSurvey(self.places, self._identities, self._gop, self._preroll, facts, self._remarks)

    def _fail_size(self, file: int, size: tuple[int, int], expected: tuple[int, int]) -> None:
        path = self.claims.placement.paths[file]
        others = "other files of" if self._picture_size is None else "where meta/info.json says"
        text = (
            f"'{path}' has pictures of {size[0]} x {size[1]}, {others} {expected[0]} x {expected[1]}; give "
            "image_size= to make all pictures one size"
        )
        error = CorruptMedia(text, path=path, picture_size=size, expected_size=expected)
        for episode in np.flatnonzero(self.claims.placement.file_of == file).tolist():
            self._fail(episode, error)
