"""The datasource that Ray Data plans with, in the process of whoever reads."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from millpond._datasets.lerobot import LeRobotDataset
from millpond._ray.options import ReadOptions
from millpond._ray.read_run import ReadRun
from millpond._ray.runs import Run, cut_runs


class LeRobotDatasource(Datasource):  # type: ignore[misc] # Ray is not typed for us
    """Cuts a dataset into runs of samples, one for each read task.

    The dataset travels once, as an object of Ray's; tasks name it. It may hold credentials: nothing here shows it.

    Args:
        dataset: Of which the metadata has been read.
        options: How tasks read it.
    """

    def __init__(self, dataset: LeRobotDataset, options: ReadOptions) -> None:
        super().__init__()
        self._dataset = dataset
        self._options = options
        self._reference: Any = None

    def __repr__(self) -> str:
        return f"LeRobotDatasource({self._dataset!r})"

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_reference": None}  # whoever gets a copy puts the dataset where it is

    def get_name(self) -> str:
        """The name of its tasks."""
        return "LeRobot"

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all rows, without text."""
        return len(self._dataset) * self._row_bytes()

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """A task for each of about `parallelism` runs; Ray asks anew each time that the dataset is read."""
        epoch = getattr(data_context, "_execution_idx", 0)
        runs = cut_runs(len(self._dataset), parallelism, self._cuts())
        if self._options.shuffle:
            order = np.random.default_rng((self._options.seed, epoch)).permutation(len(runs))
            runs = [runs[position] for position in order]
        read = partial(
            ReadRun,
            self._shared_dataset(),
            options=self._options,
            epoch=epoch,
            row_limit=per_task_row_limit,
            most_bytes=getattr(data_context, "target_max_block_size", None),
        )
        return [ReadTask(read(run=run), self._metadata(run, per_task_row_limit)) for run in runs]

    def _metadata(self, run: Run, row_limit: int | None) -> BlockMetadata:
        rows = len(run) if row_limit is None else min(row_limit, len(run))
        return BlockMetadata(
            num_rows=None if self._options.on_error == "skip" else rows,
            size_bytes=rows * self._row_bytes(),
            input_files=None,
            exec_stats=None,
        )

    def _shared_dataset(self) -> Any:
        if self._reference is None:
            self._reference = ray.put(self._dataset)
        return self._reference

    def _row_bytes(self) -> int:
        return sum(field.sample_bytes for field in self._dataset.fields)

    def _cuts(self) -> NDArray[np.int64]:
        """Where episodes begin, and with them, as LeRobot writes them, a GOP: to know of others takes their files."""
        return np.concatenate(([0], np.cumsum(self._dataset.episode_lengths))).astype(np.int64)
