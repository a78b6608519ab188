"""`torchrun --standalone --nproc-per-node 2 -m examples.train_policy.train`; `python -m` is one process of it.

Run it again, after whatever ended it, and it goes on at its last checkpoint; on another number of processes, too.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import millpond
from examples.train_policy.policy import Policy, global_loss, make_optimizer, make_policy
from examples.train_policy.run_folder import LossCurve, owning, replacing

_DEMO_DATA = Path("demo-data")  # where `millpond demo` makes the same one
_DEMO_SHAPE = ["--episodes", "20", "--frames", "100", "--cameras", "2", "--size", "320x240"]


class Training:
    """A policy and all else that a checkpoint keeps.

    Args:
        policy: Trained in place.
        loader: Its share of every global batch.
        checkpoint: The file; rank 0 writes it, for all: a loader's state is the same on every rank.
    """

    def __init__(self, policy: Policy, loader: millpond.Loader, checkpoint: Path) -> None:
        self._policy, self._loader, self._checkpoint = policy, loader, checkpoint
        self._optimizer = make_optimizer(policy)
        self.step = 0

    def resume(self) -> None:
        """Go on where the checkpoint was written; without one, begin."""
        if self._checkpoint.exists():
            state = torch.load(self._checkpoint, weights_only=True)
            self.step = state["step"]
            self._policy.load_state_dict(state["policy"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._loader.load_state_dict(state["loader"])
            torch.set_rng_state(state["rng"])  # this policy draws nothing after it was made; others do

    def save(self) -> None:
        """Write all of it down, between two steps."""
        state = {
            "step": self.step,
            "policy": self._policy.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "loader": self._loader.state_dict(),
            "rng": torch.get_rng_state(),
        }
        with replacing(self._checkpoint) as file:
            torch.save(state, file)

    def steps(self, last: int) -> Iterator[tuple[float, int]]:
        """Train up to a step; after each, its loss and its valid rows, of all ranks together."""
        model = DistributedDataParallel(self._policy)
        for batch in itertools.islice(_without_end(self._loader), max(0, last - self.step)):
            self._optimizer.zero_grad()
            to_minimize, loss, valid_rows = global_loss(model(batch), batch["is_valid"])
            to_minimize.backward()
            self._optimizer.step()
            self.step += 1
            yield loss, valid_rows


def _without_end(loader: millpond.Loader) -> Iterator[dict[str, Any]]:
    while True:
        yield from loader


def train(arguments: argparse.Namespace) -> None:
    """Train on this process's share, from the last checkpoint on."""
    is_first, dataset = distributed.get_rank() == 0, open_dataset(arguments)
    with owning(arguments.out) if is_first else nullcontext(), make_loader(dataset, arguments) as loader:
        policy = make_policy(arguments.dataset, dataset.cameras, arguments.seed)
        training = Training(policy, loader, arguments.out / "checkpoint.pt")
        training.resume()
        curve = LossCurve(arguments.out / "loss.csv")
        if is_first:
            curve.rewind(training.step)
        if is_first and training.step >= arguments.steps:
            print(f"step {training.step} of {arguments.steps}: there is nothing left to do")
        for loss, valid_rows in training.steps(arguments.steps):
            if is_first:
                curve.add(training.step, loss, valid_rows)
                if training.step % arguments.checkpoint_every == 0:
                    training.save()
                    print(f"step {training.step}: loss {loss:.4f}", flush=True)


def open_dataset(arguments: argparse.Namespace) -> millpond.LeRobotDataset:
    """The dataset; lazy, so that each rank looks at the files of its own share."""
    return millpond.LeRobotDataset(arguments.dataset, image_size=(arguments.image_size,) * 2, lazy=True)


def make_loader(dataset: millpond.LeRobotDataset, arguments: argparse.Namespace) -> millpond.Loader:
    """A loader of this rank's share: rank and number of ranks are torch.distributed's."""
    return millpond.Loader(
        dataset,
        batch_size=arguments.global_batch // distributed.get_world_size(),
        canonical_shards=arguments.shards,
        shuffle=True,
        seed=arguments.seed,
        num_workers=arguments.num_workers,
        memory=arguments.memory,
    )


def prepare(arguments: argparse.Namespace) -> None:
    """Make what all processes need and one of them makes."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.dataset == _DEMO_DATA and not _DEMO_DATA.exists():
        subprocess.run([sys.executable, "-m", "millpond", "synth", _DEMO_DATA, *_DEMO_SHAPE], check=True)


@contextmanager
def process_group() -> Iterator[None]:
    """Of torchrun; of this process alone where it was started without."""
    alone = {} if "RANK" in os.environ else {"store": distributed.HashStore(), "rank": 0, "world_size": 1}
    distributed.init_process_group("gloo", **alone)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def parser() -> argparse.ArgumentParser:
    """The command line, of both examples."""
    made = argparse.ArgumentParser()
    made.add_argument("--dataset", type=Path, default=_DEMO_DATA, help="made if it is not given, and not there")
    made.add_argument("--out", type=Path, default=Path("policy-run"), help="for the loss curve and the checkpoint")
    made.add_argument("--steps", type=int, default=200, help="global steps, in all")
    made.add_argument("--checkpoint-every", type=int, default=20, help="steps")
    made.add_argument(
        "--global-batch", type=int, default=32, help="rows of a step, of all processes together; a multiple of --shards"
    )
    made.add_argument("--shards", type=int, default=4, help="the number of processes must divide it")
    made.add_argument("--image-size", type=int, default=64, help="height and width, pixels")
    made.add_argument("--num-workers", type=int, default=1, help="of each process")
    made.add_argument("--memory", default="256MiB", help="of each process's loader")
    made.add_argument("--seed", type=int, default=0)
    return made


def be_deterministic() -> None:
    """The same numbers in every run: one thread adds in one order."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def main(given: Sequence[str] | None = None) -> None:
    """Train."""
    arguments = parser().parse_args(given)
    be_deterministic()
    with process_group():
        if distributed.get_rank() == 0:
            prepare(arguments)
        distributed.barrier()
        train(arguments)


if __name__ == "__main__":
    main()
