"""Lightning's Trainer with DataLoaders of ours: as they are, and rebuilt from their attributes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

from lightning.pytorch.utilities.data import _update_dataloader  # noqa: E402
from torch.utils.data import DistributedSampler, SequentialSampler  # noqa: E402

from millpond.torch import DataLoader  # noqa: E402
from torch_memory import lies_in_arena  # noqa: E402
from torch_parity import Items, lists  # noqa: E402
from torch_parity_types import frame  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # on machines of one core
    # what Lightning finds to advise, and what it uses that is to go
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]


class Model(lightning.LightningModule):  # type: ignore[misc, name-defined]
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


@pytest.mark.parametrize("persistent", [False, True])
def test_two_epochs_of_the_trainer_have_their_batches_in_the_arena(tmp_path: Path, persistent: bool) -> None:
    model = Model()
    loader = DataLoader(Items(8, frame), 2, num_workers=2, persistent_workers=persistent)
    with loader, DataLoader(Items(4, frame), 2, num_workers=1) as validation:
        trainer(tmp_path, num_sanity_val_steps=0).fit(model, loader, validation)
        assert loader.statistics().heap_copies == 0
    assert model.seen == [*range(8), *range(8)]
    assert model.in_arena == [True] * (2 * 4 + 2 * 2)


def test_a_loader_that_a_hook_makes_is_rebuilt_as_ours(tmp_path: Path) -> None:
    model = ModelWithLoader()
    runner = trainer(tmp_path, overfit_batches=2)
    runner.fit(model)
    assert type(runner.train_dataloader) is DataLoader
    assert model.seen == [0, 1, 2, 3] * 2
    assert model.in_arena == [True] * 4
    runner.train_dataloader.close()


@pytest.mark.filterwarnings("ignore:You requested to overfit but enabled")
def test_overfitting_takes_the_shuffling_out(tmp_path: Path) -> None:
    model, loader = Model(), DataLoader(Items(8, frame), 2, shuffle=True, num_workers=1, held_batches=3)
    runner = trainer(tmp_path, overfit_batches=2)
    runner.fit(model, loader)
    rebuilt = runner.train_dataloader
    assert (type(rebuilt), type(rebuilt.sampler), rebuilt.held_batches) == (DataLoader, SequentialSampler, 3)
    assert model.seen == [0, 1, 2, 3] * 2
    assert model.in_arena == [True] * 4


def test_every_argument_survives_a_distributed_sampler() -> None:
    arguments: dict[str, Any] = {
        "num_workers": 2,
        "timeout": 7.0,
        "prefetch_factor": 3,
        "persistent_workers": True,
        "in_order": False,
        "memory": 1 << 30,
        "max_tasks_per_worker": 5,
        "max_worker_anon": 1 << 31,
        "stall_timeout": 3.0,
        "on_error": "skip",
        "max_restarts": 4,
        "held_batches": 3,
        "multiprocessing_context": "forkserver",
    }
    loader = DataLoader(Items(8), 2, drop_last=True, **arguments)
    again = _update_dataloader(loader, DistributedSampler(loader.dataset, 2, 1, shuffle=False))
    assert (type(again), again.batch_size, again.drop_last) == (DataLoader, 2, True)
    expected = {**arguments, "multiprocessing_context": loader.multiprocessing_context}
    assert {name: getattr(again, name) for name in arguments} == expected
    assert again.quarantine == loader.quarantine
    assert sorted(lists(again)) == [[1, 3], [5, 7]]


def test_the_environments_word_survives_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_TIMEOUT", "11")
    monkeypatch.setenv("MILLPOND_MP_CONTEXT", "spawn")
    loader = DataLoader(Items(8), num_workers=1)
    monkeypatch.undo()
    again = _update_dataloader(loader, SequentialSampler(loader.dataset))
    assert again.timeout == 11
    assert again.multiprocessing_context.get_start_method() == "spawn"
