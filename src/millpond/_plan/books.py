"""The books of an epoch: planned + padded = delivered + skipped + failed + dropped."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from millpond.errors import InternalError


@dataclass(slots=True)
class Books:
    """Counts samples of one epoch.

    Attributes:
        planned: Samples of the dataset.
        padded: Rows that repeat a sample so that ranks stay in step.
        delivered: Rows that the user got.
        skipped: Bad samples left out under `on_error="skip"`, written to the quarantine file.
        failed: Bad samples of the batch that stopped the epoch under `on_error="raise"`.
        dropped: Samples of a short last batch under `drop_last`.
    """

    planned: int
    padded: int = 0
    delivered: int = 0
    skipped: int = 0
    failed: int = 0
    dropped: int = 0

    @property
    def balance(self) -> int:
        """0 at the end of an epoch in which nothing was lost."""
        return self.planned + self.padded - self.delivered - self.skipped - self.failed - self.dropped

    def check(self) -> None:
        """InternalError unless the books balance."""
        if self.balance:
            raise InternalError(f"the books of this epoch do not balance: {self}", **asdict(self))

    def __str__(self) -> str:
        text = (
            f"{self.planned} planned + {self.padded} padded = {self.delivered} delivered + {self.skipped} skipped + "
            f"{self.failed} failed + {self.dropped} dropped"
        )
        return f"{text} + {self.balance} to come" if self.balance else text
