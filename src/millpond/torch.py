"""For programs that use torch: a drop-in `DataLoader`. The only public module that needs torch."""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name != "torch":
        raise
    raise ModuleNotFoundError("millpond.torch needs torch: pip install 'millpond[torch]'", name="torch") from None

from millpond._torch.dataloader import DataLoader
from millpond._torch.prepare import prepare
from millpond._torch.tally import DataLoaderStatistics

__all__ = ["DataLoader", "DataLoaderStatistics", "prepare"]
