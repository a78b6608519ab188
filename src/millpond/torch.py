"""For programs that use torch: a drop-in `DataLoader`. The only public module that needs torch."""

from millpond._torch.dataloader import DataLoader
from millpond._torch.prepare import prepare
from millpond._torch.tally import DataLoaderStatistics

__all__ = ["DataLoader", "DataLoaderStatistics", "prepare"]
