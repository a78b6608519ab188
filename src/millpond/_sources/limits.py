"""How long a fetch may take, how often it is tried, and what counts as one request."""

from __future__ import annotations

from dataclasses import dataclass

_LONGEST_SECONDS = 3.2e7


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What bounds the fetches of one store.

    Attributes:
        timeout_seconds: Of one fetch, all of its tries together; of one `read_ranges`, all of its requests.
        max_tries: Of one fetch, the first included.
        max_gap_bytes: Between two ranges: up to this much is fetched along, so that both cost one request. At 50 ms
            to the first byte and 5 MiB/s a request saved is worth 256 KiB of one connection, but others wait for it.
        max_request_bytes: A larger range is split into requests that run at the same time.
        hedge_seconds: A request that takes longer may get a second one beside it. A floor: see
            `millpond._sources.hedging`.
    """

    timeout_seconds: float = 60.0
    max_tries: int = 8
    max_gap_bytes: int = 64 << 10
    max_request_bytes: int = 8 << 20
    hedge_seconds: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.timeout_seconds < _LONGEST_SECONDS:
            raise ValueError(
                f"a timeout must be more than 0 seconds, and less than a year, not {self.timeout_seconds:g}"
            )
        if self.max_tries < 1:
            raise ValueError(f"max_tries must be at least 1, not {self.max_tries}")
        if self.max_gap_bytes < 0 or self.max_request_bytes < 1:
            raise ValueError("max_gap_bytes must be at least 0, and max_request_bytes at least 1")

    @property
    def stall_seconds(self) -> float:
        """A try that brings no byte for so long is cut off: a quarter of the time, so that others have a chance."""
        return self.timeout_seconds / 4


FETCH_LIMITS = FetchLimits()
