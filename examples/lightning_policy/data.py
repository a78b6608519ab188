"""A `LightningDataModule` whose batches come from a `millpond.Loader`, with nothing of Lightning's in between."""

from __future__ import annotations

import argparse
from typing import Any

import lightning.pytorch as lightning

import millpond
from examples.train_policy.train import make_loader, open_dataset, prepare


class PolicyData(lightning.LightningDataModule):  # type: ignore[misc]
    """The dataset, of which each process reads its share.

    Lightning saves the loader's state, too, but gives it back amid an epoch only: not after a checkpoint of its end.

    Args:
        arguments: The command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        self._arguments = arguments
        self._loader: millpond.Loader | None = None
        self._state: dict[str, Any] = {}

    def prepare_data(self) -> None:
        """Make the demo dataset, if it is that; in one process, before the others go on."""
        prepare(self._arguments)

    def setup(self, stage: str) -> None:
        """Open the dataset; in every process."""
        self.dataset = open_dataset(self._arguments)

    def train_dataloader(self) -> millpond.Loader:
        """The loader as it is: it knows its rank, because Lightning has set up torch.distributed by now."""
        self._loader = make_loader(self.dataset, self._arguments)
        if self._state:
            self._loader.load_state_dict(self._state)
            if self._state["batch"] == len(self._loader):  # an epoch's end: Lightning goes on with the next one
                self._loader.set_epoch(self._state["epoch"] + 1)
            self._state = {}
        return self._loader

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: where the loader stands, which is the same on every rank."""
        return {} if self._loader is None else self._loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of a checkpoint; there is no loader yet."""
        self._state = state

    def teardown(self, stage: str) -> None:
        """End its workers: Lightning closes no loaders."""
        if self._loader is not None:
            self._loader.close()
