"""For accelerate: its loader, for this process's share of the batches, around a DataLoader of ours.

`accelerator.prepare` makes a torch DataLoader out of the sampler, dataset and arguments of any loader that it gets.
Here it does so with a stand-in; what it made of sampler and dataset is taken over into a DataLoader of ours.
"""

from __future__ import annotations

from typing import Any

import torch.utils.data
from torch.utils.data import BatchSampler, IterableDataset

from millpond._torch.dataloader import DataLoader

_KEPT = (
    "num_workers",
    "collate_fn",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "generator",
    "prefetch_factor",
    "persistent_workers",
    "pin_memory_device",
    "in_order",
    "memory",
    "max_tasks_per_worker",
    "max_worker_anon",
    "stall_timeout",
    "on_error",
    "max_restarts",
    "quarantine",
)
"""Arguments that the loader of a share has from the one it is made of."""


def prepare(accelerator: Any, loader: DataLoader[Any], *, device_placement: bool | None = None) -> Any:
    """Prepare a DataLoader of millpond's for an `accelerate.Accelerator`, as its own `prepare` does for torch's.

    What comes back may be given to `accelerator.prepare` together with model and optimizer, and stays as it is. It
    passes on what it does not know to the DataLoader inside: `close()`, `statistics()`, `state_dict()`.

    Args:
        accelerator: With the settings to go by: `split_batches`, `even_batches`, seedable samplers, devices.
        loader: Is not changed, and not needed any more.
        device_placement: Whether batches are put on the accelerator's device; None: as the accelerator has it.

    Returns:
        accelerate's `DataLoaderShard` around a DataLoader of millpond's that makes this process's batches, and keeps
        one batch more on its slot: accelerate looks one ahead.

    Raises:
        TypeError: The loader is not millpond's.
        ValueError: The accelerator is to hand batches out from its main process, or to use torchdata's loader; or
            several processes should share a loader of single samples (batch_size=None).
    """
    if not isinstance(loader, DataLoader):
        raise TypeError(f"prepare() takes a DataLoader of millpond.torch, not {type(loader).__qualname__}")
    _check(accelerator, loader)
    settings = accelerator.dataloader_config
    dispatch_batches, settings.dispatch_batches = settings.dispatch_batches, False
    try:
        prepared = accelerator.prepare_data_loader(_stand_in(loader), device_placement=device_placement)
    finally:
        settings.dispatch_batches = dispatch_batches
    prepared._is_accelerate_prepared = True
    prepared.base_dataloader = _share(loader, prepared.base_dataloader)
    prepared.dl_state_dict = prepared.base_dataloader.state_dict()
    return prepared


def _check(accelerator: Any, loader: DataLoader[Any]) -> None:
    settings, processes = accelerator.dataloader_config, accelerator.num_processes
    if settings.dispatch_batches:
        raise ValueError(
            "dispatch_batches=True has the main process read for all, which millpond's loaders do not do: set "
            "DataLoaderConfiguration(dispatch_batches=False), and each process reads its share"
        )
    if settings.dispatch_batches is None and isinstance(loader.dataset, IterableDataset) and processes > 1:
        raise ValueError(
            f"an IterableDataset for {processes} processes is read by the main process for all, unless you set "
            "DataLoaderConfiguration(dispatch_batches=False): then each process goes through all of it, in an order "
            "that must be the same, and keeps its share"
        )
    if getattr(settings, "use_stateful_dataloader", False):
        raise ValueError("use_stateful_dataloader=True is torchdata's loader; millpond's has its own state_dict()")
    if str(getattr(accelerator.distributed_type, "value", "")) == "XLA":
        raise ValueError("millpond's loaders cannot be prepared for XLA")
    if processes > 1 and _is_unbatched(loader):
        raise ValueError(f"{processes} processes share batches, and this loader makes none: give it a batch_size")


def _is_unbatched(loader: DataLoader[Any]) -> bool:
    is_iterable = isinstance(loader.dataset, IterableDataset)
    return loader.batch_sampler is None and not is_iterable and not isinstance(loader.sampler, BatchSampler)


def _stand_in(loader: DataLoader[Any]) -> Any:
    """A torch DataLoader with the same samplers, for accelerate to take apart."""
    given: dict[str, Any] = {"generator": loader.generator, "collate_fn": loader.collate_fn}
    if loader.batch_size is None and loader.batch_sampler is not None:
        return torch.utils.data.DataLoader(loader.dataset, batch_sampler=loader.batch_sampler, **given)
    given.update(batch_size=loader.batch_size, drop_last=loader.drop_last)
    if not isinstance(loader.dataset, IterableDataset):
        given["sampler"] = loader.sampler
    return torch.utils.data.DataLoader(loader.dataset, **given)


def _share(loader: DataLoader[Any], theirs: Any) -> DataLoader[Any]:
    """A loader of ours for what accelerate made of the stand-in."""
    kept = {name: getattr(loader, name) for name in _KEPT}
    kept["held_batches"] = loader.held_batches + 1
    if loader.num_workers > 0:
        kept["multiprocessing_context"] = loader.multiprocessing_context
    if isinstance(theirs.dataset, IterableDataset):
        return DataLoader(theirs.dataset, batch_size=theirs.batch_size, drop_last=theirs.drop_last, **kept)
    if theirs.batch_sampler is not None:
        return DataLoader(theirs.dataset, batch_sampler=theirs.batch_sampler, **kept)
    # accelerate forgets a sampler of single samples.
    sampler = loader.sampler if _is_unbatched(loader) else theirs.sampler
    return DataLoader(theirs.dataset, batch_size=None, sampler=sampler, **kept)
