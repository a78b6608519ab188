"""Where the frames of each episode lie in one kind of file, as far as that could be made out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from millpond.errors import DataError

NOWHERE = -1


@dataclass(frozen=True)
class Places:
    """Rows of a parquet, or frames of an MP4, for E episodes. Most episodes are one run, and cost two numbers.

    Attributes:
        file_of: int64, (E,), position in the list of files; NOWHERE if nothing of the episode can be read.
        first: int64, (E,), the row or frame of the episode's first sample; the others follow.
        scattered: Episodes that are no run: int64, (length,), each sample's row or frame, NOWHERE where it has none.
        problems: What is wrong with an episode, where anything is.
    """

    file_of: NDArray[np.int64]
    first: NDArray[np.int64]
    scattered: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    problems: dict[int, DataError] = field(default_factory=dict)

    @classmethod
    def nowhere(cls, num_episodes: int) -> Places:
        """Nothing found yet."""
        return cls(np.full(num_episodes, NOWHERE, np.int64), np.zeros(num_episodes, np.int64))

    def put(self, episodes: NDArray[np.int64], file: int, first: NDArray[np.int64]) -> None:
        """Episodes that are runs."""
        self.file_of[episodes] = file
        self.first[episodes] = first

    def scatter(self, episode: int, file: int, places: NDArray[np.int64], problem: DataError | None) -> None:
        """An episode that is no run; NOWHERE needs a problem."""
        self.file_of[episode] = file
        self.scattered[episode] = places
        if problem is not None:
            self.problems[episode] = problem

    def fail(self, episode: int, problem: DataError) -> None:
        """Nothing of this episode can be read."""
        self.file_of[episode] = NOWHERE
        self.scattered.pop(episode, None)
        self.problems[episode] = problem

    def at(self, episodes: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Look up rows or frames.

        Args:
            episodes: int64, (L,).
            positions: int64, (L, ...), frames within the episode.

        Returns:
            int64, (L, ...), NOWHERE where there is none.
        """
        wide = (-1, *[1] * (positions.ndim - 1))
        found = self.first[episodes].reshape(wide) + positions
        if self.scattered or self.problems:
            found[self.file_of[episodes] == NOWHERE] = NOWHERE
            for episode in self.scattered.keys() & set(episodes.tolist()):
                own = episodes == episode
                found[own] = self.scattered[episode][positions[own]]
        return found


@dataclass(frozen=True, slots=True)
class Runs:
    """Samples of some episodes one after the other, for checks over all of them at once.

    Attributes:
        bounds: int64, (n + 1,), where each episode starts in the arrays.
        episode: int64, (total,), 0 to n - 1.
        position: int64, (total,), frame within the episode.
    """

    bounds: NDArray[np.int64]
    episode: NDArray[np.int64]
    position: NDArray[np.int64]

    @classmethod
    def of(cls, lengths: NDArray[np.int64]) -> Runs:
        """Lay out episodes of these lengths, none of them 0."""
        bounds = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        episode = np.repeat(np.arange(len(lengths)), lengths)
        return cls(bounds, episode, np.arange(bounds[-1]) - bounds[episode])

    def samples_of(self, episodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64, (m,): where the samples of some of the episodes are in the arrays."""
        runs = Runs.of(np.diff(self.bounds)[episodes])
        return self.bounds[episodes][runs.episode] + runs.position

    def all(self, is_good: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool, (n,): every sample of the episode is good."""
        return np.asarray(np.logical_and.reduceat(is_good, self.bounds[:-1]))
