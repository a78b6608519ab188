"""What of each sample a dataset delivers, and in which form: as its user asked for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from millpond._datasets.layout import Feature, Layout
from millpond._datasets.selection import promised_sizes, selected_cameras
from millpond._datasets.sources import TableSource
from millpond._datasets.survey import TableSurvey
from millpond._datasets.surveyed import SurveyOnce
from millpond._datasets.windows import PAD_SUFFIX, frame_offsets
from millpond._values import Field


@dataclass(frozen=True)
class Delivered:
    """The features taken.

    Attributes:
        cameras: Pictures.
        numbers: Arrays of numbers.
        offsets: Features with a window, and its steps in frames.
        image_size: (height, width) that pictures are resized to; None keeps theirs.
        promised_sizes: Camera to (height, width) that its pictures must have; {} where files decide.
    """

    cameras: tuple[Feature, ...]
    numbers: tuple[Feature, ...]
    offsets: Mapping[str, tuple[int, ...]]
    image_size: tuple[int, int] | None
    promised_sizes: Mapping[str, tuple[int, int]]

    @classmethod
    def asked_for(
        cls,
        layout: Layout,
        cameras: Sequence[str] | None,
        delta_timestamps: Mapping[str, Sequence[float]] | None,
        tolerance_s: float,
        image_size: tuple[int, int] | None,
        *,
        by_metadata: bool,
    ) -> Delivered:
        """Check what a user asks for; arguments as for `LeRobotDataset`.

        Args:
            by_metadata: Where pictures are not resized, it is the metadata that says how large they are.
        """
        taken = selected_cameras(layout, cameras)
        numbers = tuple(feature for feature in layout.features if feature.is_number)
        known = [feature.name for feature in (*taken, *numbers)]
        offsets = frame_offsets(delta_timestamps, known=known, fps=layout.fps, tolerance_s=tolerance_s)
        is_promised = by_metadata and image_size is None
        return cls(taken, numbers, offsets, image_size, promised_sizes(taken, layout.root) if is_promised else {})

    def fields(self, survey: SurveyOnce) -> tuple[Field, ...]:
        """Every array of a sample; cameras first, stored (..., H, W, C)."""
        pictures = [
            Field(camera.name, (*self._steps(camera.name), *self.picture_size(camera, survey), 3), "uint8", frames=True)
            for camera in self.cameras
        ]
        numbers = [Field(f.name, (*self._steps(f.name), *f.shape), f.dtype) for f in self.numbers]
        padding = [Field(name + PAD_SUFFIX, (len(offsets),), "bool") for name, offsets in self.offsets.items()]
        return (*pictures, *numbers, *padding)

    def _steps(self, name: str) -> tuple[int, ...]:
        return (len(self.offsets[name]),) if name in self.offsets else ()

    def picture_size(self, camera: Feature, survey: SurveyOnce) -> tuple[int, int]:
        """(height, width) as delivered; the survey is made only where that depends on files."""
        known = self.image_size or self.promised_sizes.get(camera.name)
        if known is not None:
            return known
        in_file = survey.result().seen[camera.name].facts.picture_size
        height, width = in_file if in_file != (0, 0) else camera.shape[:2]
        return height, width

    def offsets_of(self, name: str) -> NDArray[np.int64]:
        """int64, (T,): the window of a feature, of one step where none was asked for."""
        return np.asarray(self.offsets.get(name, (0,)), np.int64)

    def numbers_in(self, table: TableSurvey) -> TableSource:
        """Where a reader finds the numbers."""
        return TableSource(
            tuple(table.paths),
            table.places,
            tuple((f.name, f.shape, f.dtype) for f in self.numbers),
            {name: self.offsets_of(name) for name in self.offsets},
        )
