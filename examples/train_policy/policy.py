"""A small policy, and the loss of a batch of which every rank has a part. Nothing in here knows of millpond."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed import all_reduce, get_world_size

STATE, ACTION = "observation.state", "action"


class Scale(nn.Module):  # type: ignore[misc]
    """What maps a column to mean 0 and deviation 1, by the dataset's own statistics.

    Args:
        mean: Of each of the column's numbers.
        deviation: Of each; a number that never changes has none, and is left as it is.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor([each or 1.0 for each in deviation]))

    def forward(self, values: Tensor) -> Tensor:
        """The column, scaled; of the same shape."""
        return (values - self.mean) / self.deviation


class Policy(nn.Module):  # type: ignore[misc]
    """Pictures and state to an action; called with a batch, it says how far each row is from the action that was taken.

    Args:
        cameras: Names of the pictures, uint8 (B, 3, H, W) each.
        state: Scale of the state, (B, S).
        action: Scale of the action, (B, A).
    """

    def __init__(self, cameras: Sequence[str], state: Scale, action: Scale) -> None:
        super().__init__()
        self.cameras, self.state, self.action = tuple(cameras), state, action
        self.look = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        known = 16 * 2 * 2 * len(self.cameras) + len(state.mean)
        self.act = nn.Sequential(nn.Linear(known, 64), nn.ReLU(), nn.Linear(64, len(action.mean)))

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean squared errors of the scaled actions, float32 (B,)."""
        seen = [self.look(batch[camera].float() / 255) for camera in self.cameras]
        acted = self.act(torch.cat([*seen, self.state(batch[STATE])], dim=1))
        return (acted - self.action(batch[ACTION])).square().mean(dim=1)


def make_policy(dataset: Path, cameras: Sequence[str], seed: int) -> Policy:
    """A policy that has learned nothing yet: the same for the same seed."""
    told = json.loads((dataset / "meta" / "stats.json").read_text(encoding="utf-8"))
    state, action = (Scale(told[column]["mean"], told[column]["std"]) for column in (STATE, ACTION))
    torch.manual_seed(seed)
    return Policy(cameras, state, action)


def make_optimizer(policy: nn.Module) -> torch.optim.Optimizer:
    """For both examples, so that they learn the same."""
    return torch.optim.SGD(policy.parameters(), lr=0.05, momentum=0.9)


def global_loss(errors: Tensor, is_valid: Tensor) -> tuple[Tensor, float, int]:
    """The mean over the valid rows of all ranks, each of which calls this once per step.

    Args:
        errors: Of this rank's rows, (B,).
        is_valid: bool (B,); rows that are padding count for nothing.

    Returns:
        What this rank calls `backward()` on: DDP averages gradients over ranks, so that they become those of the mean,
        however many ranks there are. The mean, and how many rows it is of.
    """
    total = (errors * is_valid).sum()
    told = torch.stack([total.detach().double(), is_valid.sum().double()])
    all_reduce(told)
    rows = max(1, int(told[1]))
    return total * get_world_size() / rows, float(told[0]) / rows, int(told[1])
