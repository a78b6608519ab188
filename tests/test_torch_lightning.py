"""Lightning's Trainer with DataLoaders of ours: as they are, and rebuilt from their attributes."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
if find_spec("lightning") is None:
    pytest.skip("lightning is not installed", allow_module_level=True)

from torch.utils.data import DistributedSampler, SequentialSampler  # noqa: E402

from millpond.torch import DataLoader  # noqa: E402
from torch_parity import Items, lists  # noqa: E402
from torch_parity_types import frame  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # on machines of one core
    # what Lightning finds to advise, and what it uses that is to go
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def trained() -> Any:
    """The module trained_by_lightning, imported by those who run these tests."""
    return import_module("trained_by_lightning")


@pytest.mark.parametrize("persistent", [False, True])
def test_two_epochs_of_the_trainer_have_their_batches_in_the_arena(
    trained: Any, tmp_path: Path, persistent: bool
) -> None:
    model = trained.Model()
    loader = DataLoader(Items(8, frame), 2, num_workers=2, persistent_workers=persistent)
    with loader, DataLoader(Items(4, frame), 2, num_workers=1) as validation:
        trained.trainer(tmp_path, num_sanity_val_steps=0).fit(model, loader, validation)
        assert loader.statistics().heap_copies == 0
    assert model.seen == [*range(8), *range(8)]
    assert model.in_arena == [True] * (2 * 4 + 2 * 2)


def test_a_loader_that_a_hook_makes_is_rebuilt_as_ours(trained: Any, tmp_path: Path) -> None:
    model = trained.ModelWithLoader()
    runner = trained.trainer(tmp_path, overfit_batches=2)
    runner.fit(model)
    assert type(runner.train_dataloader) is DataLoader
    assert model.seen == [0, 1, 2, 3] * 2
    assert model.in_arena == [True] * 4
    runner.train_dataloader.close()


@pytest.mark.filterwarnings("ignore:You requested to overfit but enabled")
def test_overfitting_takes_the_shuffling_out(trained: Any, tmp_path: Path) -> None:
    model, loader = trained.Model(), DataLoader(Items(8, frame), 2, shuffle=True, num_workers=1, held_batches=3)
    runner = trained.trainer(tmp_path, overfit_batches=2)
    runner.fit(model, loader)
    rebuilt = runner.train_dataloader
    assert (type(rebuilt), type(rebuilt.sampler), rebuilt.held_batches) == (DataLoader, SequentialSampler, 3)
    assert model.seen == [0, 1, 2, 3] * 2
    assert model.in_arena == [True] * 4


def test_every_argument_survives_a_distributed_sampler(trained: Any) -> None:
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
    again = trained.rebuilt(loader, DistributedSampler(loader.dataset, 2, 1, shuffle=False))
    assert (type(again), again.batch_size, again.drop_last) == (DataLoader, 2, True)
    expected = {**arguments, "multiprocessing_context": loader.multiprocessing_context}
    assert {name: getattr(again, name) for name in arguments} == expected
    assert again.quarantine == loader.quarantine
    assert sorted(lists(again)) == [[1, 3], [5, 7]]


def test_the_environments_word_survives_too(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_TIMEOUT", "11")
    monkeypatch.setenv("MILLPOND_MP_CONTEXT", "spawn")
    loader = DataLoader(Items(8), num_workers=1)
    monkeypatch.undo()
    again = trained.rebuilt(loader, SequentialSampler(loader.dataset))
    assert again.timeout == 11
    assert again.multiprocessing_context.get_start_method() == "spawn"
