"""What it costs to serve a run of samples, over all cameras: what the plan of a dataset's epochs is made of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from millpond._datasets.decode_costs import DecodeCosts, Ints


class CameraCosts:
    """The costs of all cameras of a dataset; N samples.

    Args:
        num_samples: N.
        cameras: The costs of each.
        frame_bytes: Of each, how many bytes a frame has in its file, on average.
    """

    def __init__(self, num_samples: int, cameras: Mapping[str, DecodeCosts], frame_bytes: Mapping[str, float]) -> None:
        self._num_samples = num_samples
        self._cameras = cameras
        self._frame_bytes = frame_bytes

    def cuts(self) -> Ints:
        """int64, (S + 1,): samples before which no camera has a GOP that goes on, 0 and N included."""
        free = np.ones(self._num_samples, np.bool_)
        for costs in self._cameras.values():
            free &= costs.starts_gop()
        free[0] = True
        return np.append(np.flatnonzero(free), self._num_samples).astype(np.int64)

    def decoded(self, starts: Ints, stops: Ints) -> Ints:
        """int64, (n,): frames to decode, over all cameras, to serve the samples of each [start, stop)."""
        total = np.zeros(len(starts), np.int64)
        for costs in self._cameras.values():
            total += costs.decoded(starts, stops)
        return total

    def unique(self, starts: Ints, stops: Ints) -> Ints:
        """int64, (n,): the most frames of any one camera that the samples of each [start, stop) show."""
        most = np.zeros(len(starts), np.int64)
        for costs in self._cameras.values():
            np.maximum(most, costs.unique(starts, stops), out=most)
        return most

    def read_bytes(self, starts: Ints, stops: Ints) -> Ints:
        """int64, (n,): about how many bytes of all cameras are read to serve the samples of each [start, stop)."""
        total = np.zeros(len(starts), np.float64)
        for name, costs in self._cameras.items():
            total += costs.decoded(starts, stops) * self._frame_bytes[name]
        return total.astype(np.int64)
