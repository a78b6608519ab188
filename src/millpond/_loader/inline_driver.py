"""Carries tasks out in the training process itself."""

from __future__ import annotations

from millpond._loader.driver import Driving, Setup
from millpond._loader.jobs import Piece
from millpond._loader.work import Work
from millpond._plan.epoch import EpochPlan
from millpond._plan.pond import ReadyBatch
from millpond._values import no_progress
from millpond.errors import InternalError


class InlineDriver(Driving):
    """Carries tasks out in the calling thread, one by one: for debugging, and for the smallest machines."""

    def __init__(self, work: Work, setup: Setup) -> None:
        super().__init__(setup, on_ready=no_progress)
        self._work = work

    def start(self, plan: EpochPlan) -> None:
        """See `Driver`."""
        self._open_pond(plan)

    def next_ready(self) -> ReadyBatch:
        """See `Driver`; nothing can interrupt a decode in the caller's own thread."""
        assert self._pond is not None
        while True:
            self._take_back()
            ready = self._take_ready()
            if ready is not None:
                return ready
            job = self._next_job()
            if job is not None:
                self._account(Piece(job, job.payload), self._work.carry_out(job.payload, no_progress))
                self._complete(job)
            elif self._held and self._prefetch is not None:
                self._prefetch.wait(self._held[0].segment, self._held[0].part)
            else:
                raise InternalError("no batch is ready, and no task can start: the plan needs more slots than it has")

    def release(self, slot: int) -> None:
        """See `Driver`."""
        self._returned.append(slot)

    def cancel(self) -> None:
        """See `Driver`."""
        self._close_pond()
        if self._prefetch is not None:
            self._prefetch.begin(None)

    def close(self) -> None:
        """See `Driver`."""
        self._close_pond()
        self.leases.close()
        if self._prefetch is not None:
            self._prefetch.close()
        self._work.close()
