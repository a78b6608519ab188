"""For programs that use torch: a drop-in `DataLoader`. The only public module that needs torch."""

from millpond._torch.dataloader import DataLoader

__all__ = ["DataLoader"]
