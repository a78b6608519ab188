"""`python -m examples.lightning_policy.train --processes 2`: Lightning starts the other processes itself.

Run it again, after whatever ended it, and it goes on at its last checkpoint; on another number of processes, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from examples.lightning_policy.data import PolicyData
from examples.train_policy.policy import global_loss, make_optimizer, make_policy
from examples.train_policy.run_folder import LossCurve, replacing
from examples.train_policy.train import be_deterministic, parser


class PolicyTraining(lightning.LightningModule):  # type: ignore[misc]
    """Trains the policy, and writes the loss curve.

    Args:
        arguments: The command line.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        self._arguments = arguments
        self._curve = LossCurve(arguments.out / "loss.csv")

    def configure_model(self) -> None:
        """Make the policy, for the cameras of the dataset."""
        cameras = self.trainer.datamodule.dataset.cameras
        self.policy = make_policy(self._arguments.dataset, cameras, self._arguments.seed)

    def on_train_start(self) -> None:
        """Take back what the curve knows and the checkpoint does not."""
        if self.trainer.is_global_zero:
            self._curve.rewind(self.trainer.global_step)

    def training_step(self, batch: Mapping[str, Any], batch_index: int) -> torch.Tensor:
        """A step, and its line in the curve."""
        to_minimize, loss, valid_rows = global_loss(self.policy(batch), batch["is_valid"])
        if self.trainer.is_global_zero:
            self._curve.add(self.trainer.global_step + 1, loss, valid_rows)
        return to_minimize

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return make_optimizer(self.policy)


class WholeFiles(TorchCheckpointIO):  # type: ignore[misc]
    """Renames checkpoints into place: Lightning moves them from the temporary folder, often on another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        """Put it in the place of the last one."""
        with replacing(Path(path)) as file:
            torch.save(checkpoint, file)


def make_trainer(arguments: argparse.Namespace) -> Any:
    """A trainer that counts steps, as the loader's epochs are its own affair (README.md)."""
    last = ModelCheckpoint(
        arguments.out,
        filename="last",  # replaced every time
        every_n_train_steps=arguments.checkpoint_every,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    return lightning.Trainer(
        accelerator="cpu",
        devices=arguments.processes,
        strategy="ddp",
        use_distributed_sampler=False,  # the loader gives each rank its share
        max_steps=arguments.steps,
        callbacks=[last],
        plugins=[WholeFiles()],
        default_root_dir=arguments.out,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def main(given: Sequence[str] | None = None) -> None:
    """Train."""
    command = parser()
    command.add_argument("--processes", type=int, default=2, help="on this machine")
    command.set_defaults(out=Path("lightning-run"))
    arguments = command.parse_args(given)
    be_deterministic()
    checkpoint = arguments.out / "last.ckpt"
    make_trainer(arguments).fit(
        PolicyTraining(arguments),
        datamodule=PolicyData(arguments),
        ckpt_path=checkpoint if checkpoint.exists() else None,
    )


if __name__ == "__main__":
    main()
