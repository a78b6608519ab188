"""When a worker that works well is replaced all the same: what leaks below Python goes only with its process. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recycling:
    """When a worker is followed by a new one.

    Attributes:
        max_tasks: Tasks that a worker carries out; None: as many as there are.
        max_anon_bytes: Anonymous memory that it may have after a task (not the arena, not files; what it shares with
            the zygote included); None: any.
    """

    max_tasks: int | None = None
    max_anon_bytes: int | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether workers are recycled at all."""
        return self.max_tasks is not None or self.max_anon_bytes is not None

    def is_due(self, tasks: int, anon_bytes: int) -> bool:
        """Whether a worker that has carried out so many tasks and has so much anonymous memory has had its time."""
        return (self.max_tasks is not None and tasks >= self.max_tasks) or (
            self.max_anon_bytes is not None and anon_bytes >= self.max_anon_bytes
        )


NO_RECYCLING = Recycling()
