"""What tests train with Lightning. Importing it takes seconds: whoever collects tests does not import this module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.utilities.data import _update_dataloader

from millpond.torch import DataLoader
from torch_memory import lies_in_arena
from torch_parity import Items
from torch_parity_types import frame

rebuilt = _update_dataloader


class Model(lightning.LightningModule):  # type: ignore[misc]
    """Learns nothing much, and notes where its batches lie and which they were."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.loader = loader
        self.in_arena: list[bool] = []
        self.seen: list[int] = []

    def training_step(self, batch: Any, _: int) -> Any:
        self.in_arena.append(lies_in_arena(batch))
        self.seen += batch.flatten(1)[:, 0].tolist()
        return self.layer(batch.float().mean().reshape(1, 1)).sum()

    def validation_step(self, batch: Any, _: int) -> None:
        self.in_arena.append(lies_in_arena(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


class ModelWithLoader(Model):
    """Makes its loader in a hook, where Lightning notes the arguments."""

    def train_dataloader(self) -> Any:
        return DataLoader(Items(6, frame), 2, num_workers=1, memory="1GiB")


def trainer(folder: Path, **options: Any) -> Any:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return lightning.Trainer(
        max_epochs=2, accelerator="cpu", enable_model_summary=False, default_root_dir=folder, **quiet, **options
    )
