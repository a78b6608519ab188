"""The queue as its clients see it. A request that fails is sent again: every one of them may be."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypedDict

import httpx
import tenacity

from examples.queue_worker.agreed import Task

GIVE_UP_SECONDS = 30.0
"""A queue that restarts is back by then."""
_REQUEST_SECONDS = 15.0


class Job(TypedDict):
    """Tasks, and the lease on them."""

    lease: str
    tasks: list[Task]


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


class QueueClient:
    """One thread. Close it, or leave its block.

    Args:
        url: Of the queue.

    Attributes:
        url: As given.

    Raises, from every other method than `lease`:
        httpx.HTTPError: The queue cannot be reached for `GIVE_UP_SECONDS`, or refuses.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=_REQUEST_SECONDS)
        self._tries = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
            stop=tenacity.stop_after_delay(GIVE_UP_SECONDS),
            reraise=True,
        )

    def __enter__(self) -> QueueClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._http.close()

    def enqueue(self, tasks: Sequence[Task]) -> int:
        """Add tasks; those whose id is known are not added again. Returns how many were."""
        return int(self._ask("POST", "/tasks", json=list(tasks))["new"])

    def lease(self, max_tasks: int, seconds: float, *, wait_seconds: float = 0.0) -> Job | None:
        """Take tasks, for so long; None if there are none for as long as this waits.

        Raises:
            httpx.HTTPError: The queue could not be reached for as long as this waits.
        """
        lease = uuid.uuid4().hex
        asked = {"max_tasks": max_tasks, "seconds": seconds, "wait_seconds": wait_seconds}
        tries = self._tries.copy(stop=tenacity.stop_after_delay(wait_seconds))
        timeout = wait_seconds + _REQUEST_SECONDS
        tasks = tries(self._send, "PUT", f"/leases/{lease}", json=asked, timeout=timeout)["tasks"]
        return Job(lease=lease, tasks=tasks) if tasks else None

    def extend(self, lease: str, seconds: float) -> int:
        """Keep a lease for so long from now. Returns how many tasks it still holds: 0 means that others have them."""
        return int(self._ask("PATCH", f"/leases/{lease}", json={"seconds": seconds})["held"])

    def release(self, lease: str, *, counts: bool) -> int:
        """Give back what is not done; unless it counts, as if it had not been tried. Returns how many tasks."""
        return int(self._ask("DELETE", f"/leases/{lease}", params={"counts": int(counts)})["released"])

    def finish(self, lease: str, outcomes: Sequence[dict[str, Any]], seconds: float) -> int:
        """Hand in outcomes (id, worker, and a result or an error), and keep the rest of the lease for so long.

        Returns:
            How many tasks the lease still holds.
        """
        asked = {"lease": lease, "outcomes": list(outcomes), "seconds": seconds}
        return int(self._ask("POST", "/outcomes", json=asked)["held"])

    def replies(self, subject: str, after: int = 0, *, wait_seconds: float = 0.0) -> list[dict[str, Any]]:
        """Outcomes after the one whose number `done` is `after`; waits for the first, no longer than that."""
        asked = {"after": after, "wait_seconds": wait_seconds}
        found = self._ask("GET", f"/replies/{subject}", params=asked, timeout=wait_seconds + _REQUEST_SECONDS)
        return list(found["replies"])

    def statistics(self) -> dict[str, int]:
        """Counts: tasks, waiting, leased, results, errors; duplicates, expired, given_up."""
        return dict(self._ask("GET", "/stats"))

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        return self._tries(self._send, method, path, **options)

    def _send(self, method: str, path: str, **options: Any) -> Any:
        return self._http.request(method, path, **options).raise_for_status().json()
