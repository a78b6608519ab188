"""What the stages of a loader do, and for how long: noted as it happens, for statistics, reports and traces."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from itertools import islice

from millpond._loader.flows import Flows
from millpond._loader.stage_times import LimitingStage, StageTimes, WaitTimes
from millpond._observe.spans import Span, SpanSink
from millpond._plan.books import Books
from millpond._plan.pond import ReadyBatch

logger = logging.getLogger("millpond")

KEPT_SPANS = 4096
KEPT_WAITS = 1024
RECENT_NS = 10 * 10**9
"""What "now" means in statistics."""

_MARK_NS = RECENT_NS // 100


class Timeline:
    """Takes notes for one loader. `begin_work` and `work` are the driver's, `wait` and what is about epochs the
    consumer's, `note` any thread's; what is noted may be read in any thread.

    Args:
        num_workers: That work at a time.
        fetches_ahead: Whether bytes come from a store before tasks are given out.
        sink: Also takes every span; None: nobody does.

    Attributes:
        flows: From fetches to deliveries, where a sink wants to know.
        epoch: The number of the one that runs, or ran last.
        work_epoch: The number of the one that work is noted of.
    """

    def __init__(self, num_workers: int, *, fetches_ahead: bool, sink: SpanSink | None = None) -> None:
        self._num_workers = num_workers
        self._fetches_ahead = fetches_ahead
        self._pid = os.getpid()
        self.flows = None if sink is None else Flows()
        self.epoch = self.work_epoch = 0
        self._sink = sink
        self._sink_lock = threading.Lock()
        self._is_closed = False
        self._spans: deque[Span] = deque(maxlen=KEPT_SPANS)
        self._waits: deque[int] = deque(maxlen=KEPT_WAITS)
        self._num_waits = 0
        self._waits_since_ns: int | None = None  # the consumer, now
        self._fetch_ns = self._decode_ns = self._gather_ns = self._wait_ns = self._samples = 0
        self._marks = deque([self.times()])
        self._epoch_began = (self.times(), 0)  # and the number of waits
        self._delivered_ns: int | None = None  # when the last batch was, of the epoch that runs

    def note(self, span: Span) -> None:
        """What neither a worker nor the consumer did."""
        self._spans.append(span)
        if self._sink is not None:
            with self._sink_lock:
                self._sink.write(span)
            if self._is_closed:
                self.close()

    def work(self, span: Span, read_ns: int) -> None:
        """What a worker did; of which it read bytes for `read_ns`."""
        took = span.ended_ns - span.began_ns
        self._fetch_ns += read_ns
        if span.stage == "decode":
            self._decode_ns += took - read_ns
        else:
            self._gather_ns += took
        self.note(span)

    def begin_work(self, epoch: int) -> None:
        """No work of the epoch before is noted any more; the driver may come to that after `begin_epoch`."""
        self.work_epoch = epoch
        if self.flows is not None:
            self.flows.clear()

    def begin_epoch(self, epoch: int) -> None:
        """One begins; the time since the last one is none of the recent times."""
        self.epoch = epoch
        self._delivered_ns = self._waits_since_ns = None
        pause = self.times().since(self._marks[-1])
        self._marks = deque(mark.plus(pause) for mark in self._marks)
        self._epoch_began = (self.times(), self._num_waits)
        self._mark()

    def begin_wait(self) -> None:
        """The consumer waits for a batch; `wait` follows."""
        self._waits_since_ns = time.monotonic_ns()

    def wait(self, ready: ReadyBatch | None, open_slots: int) -> None:
        """The consumer has waited until now; for a batch, or None: in vain."""
        began_ns, self._waits_since_ns = self._waits_since_ns, None
        assert began_ns is not None
        now = time.monotonic_ns()
        self._wait_ns += now - began_ns
        facts: dict[str, int | str] = {"epoch": self.epoch, "open_slots": open_slots}
        if self._delivered_ns is not None:
            self.note(Span("consumer", 0, self._delivered_ns, began_ns, "training", {"epoch": self.epoch}))
        if ready is None:
            self.note(Span("consumer", 0, began_ns, now, "wait", facts))
            return
        facts |= {"batch": ready.batch, "samples": len(ready.samples)}
        flows_in = () if self.flows is None else self.flows.delivered(ready.batch)
        self.note(Span("consumer", 0, began_ns, now, "wait", facts, flows_in))
        self._waits.append(now - began_ns)
        self._num_waits += 1

    def deliver(self, samples: int) -> None:
        """The consumer goes on with so many samples."""
        self._samples += samples
        self._delivered_ns = time.monotonic_ns()
        if self._delivered_ns - self._marks[-1].at_ns >= _MARK_NS:
            self._mark()

    def end_epoch(self, books: Books, whose: str = "") -> None:
        """It is over: one line says how it went, and of which rank it was."""
        self._mark()
        began, num_waits = self._epoch_began
        times, waits = self._marks[-1].since(began), self._quantiles(self._num_waits - num_waits)
        logger.info(
            "epoch %d%s: %d samples in %.1f s (%.0f/s), %d skipped; waited %.1f s for batches (p50 %.1f, p95 %.1f, "
            "p99 %.1f ms), limited by %s",
            self.epoch,
            whose,
            books.delivered - books.padded,
            times.seconds,
            times.samples_per_second,
            books.skipped,
            times.wait / 1e9,
            *(seconds * 1e3 for seconds in (waits.p50_seconds, waits.p95_seconds, waits.p99_seconds)),
            self.limiting_stage(times),
        )

    def _mark(self) -> None:
        now = self.times()
        self._marks.append(now)
        while len(self._marks) > 2 and self._marks[1].at_ns <= now.at_ns - RECENT_NS:
            self._marks.popleft()

    def times(self) -> StageTimes:
        """So far."""
        work, waits_since_ns = (self._fetch_ns, self._decode_ns, self._gather_ns), self._waits_since_ns
        now = time.monotonic_ns()
        wait_ns = self._wait_ns + (0 if waits_since_ns is None else now - waits_since_ns)
        return StageTimes(now, *work, wait_ns, self._samples)

    def recent(self, *, goes_on: bool) -> StageTimes:
        """The last seconds: up to now while an epoch goes on, else up to the last batch."""
        marks = self._marks.copy()
        return (self.times() if goes_on else marks[-1]).since(marks[0])

    def limiting_stage(self, times: StageTimes) -> LimitingStage | None:
        """What kept the loader from being faster in a stretch of time."""
        return times.limiting_stage(self._num_workers, fetches_ahead=self._fetches_ahead)

    def waits(self) -> WaitTimes:
        """Of the batches taken last."""
        return self._quantiles(KEPT_WAITS)

    def _quantiles(self, most: int) -> WaitTimes:
        return WaitTimes.of(list(islice(reversed(self._waits.copy()), most)))

    def spans(self) -> tuple[Span, ...]:
        """The last ones, in the order in which they ended."""
        return tuple(self._spans.copy())

    def close(self) -> None:
        """No more will come; idempotent.

        Also called amid `note`, in its own thread, by a signal's handler or the garbage collector, which must not wait
        for it: then `note` does it, when it is done.
        """
        self._is_closed = True
        if self._sink is not None and os.getpid() == self._pid and self._sink_lock.acquire(blocking=False):
            try:
                self._sink.close()
            finally:
                self._sink_lock.release()
