"""Many threads, one pool: the thread that waits drives the workers for all, so a call costs no switch of threads.

One of the threads that wait for an answer leads: it gives out everybody's calls, takes in everybody's answers, and
settles them. The others follow, asleep. A leader whose own answer is there passes the lead on to a follower, if there
is one; with nobody waiting nobody leads, and the pool rests.

A signal handler may raise at any moment in the main thread, leader or not. Nearly always it does so while the leader
waits for workers: then only its own call is given up, with the worker that runs it. Anywhere else the pool may be in
disorder: it is ended, and what it had not answered is given to a new one.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty

from millpond._guard.call_pool import CallPool, PendingCall, PoolOptions, Tally, is_in_order_after
from millpond._guard.patience import Patience
from millpond._workers.outcomes import Failed
from millpond._workers.undisturbed import acting_thread, undisturbed
from millpond.errors import ClosedError, UsageError

_HEALING_SECONDS = 1.0
"""How often one who waits looks whether the one who leads is still there."""
_PID_SECONDS = 0.002  # a worker may be ready a moment before the zygote's message with its pid is here


class Switchboard:
    """Gives calls of any thread to one pool of workers, which is made when it is first needed.

    Args:
        options: Of the pool.
    """

    def __init__(self, options: PoolOptions) -> None:
        self.pool: CallPool | None = None
        self.tally = Tally()
        self._options = options
        self._owner_pid = os.getpid()
        self._lock = threading.RLock()  # a finalizer may come here in the middle of it
        self._leader: object | None = None
        self._leading_thread = 0
        self._followers: list[PendingCall] = []
        self._queue: deque[PendingCall] = deque()
        self._has_abandoned = False
        self._closed_because: str | None = None
        self._patience = Patience()

    # ---- for any thread

    def check_usable(self) -> None:
        """Raises ClosedError after `close`, UsageError in a forked child."""
        if os.getpid() != self._owner_pid:
            raise UsageError(
                f"this guard belongs to process {self._owner_pid}, and a fork does not take its workers along to "
                f"{os.getpid()}; make a guard after the fork, or use millpond.with_timeout, which does",
                owner_pid=self._owner_pid,
            )
        if self._closed_because is not None:
            raise ClosedError(self._closed_because)

    def start(self) -> None:
        """Start the workers, and do not wait for them."""
        self._try_lead(self._look)

    def submit(self, call: PendingCall, *, begin: bool = False) -> None:
        """Have a call carried out. It begins when somebody waits for an answer, or at once with `begin`."""
        self._queue.append(call)
        if begin:
            self.check_usable()
            self.start()

    def wait_for(self, call: PendingCall) -> None:
        """Wait until a call is answered, and drive the workers meanwhile if nobody else does.

        Raises:
            ClosedError: After `close`.
            UsageError: In a forked child; or this thread drives them already, further up its stack.
            BaseException: A signal handler's; the call is given up.
        """
        self.check_usable()
        try:
            while call.answer is None:
                if not self._try_lead(self._drive, call):
                    self._follow(call)
        except BaseException:
            self.abandon([call])
            raise

    def abandon(self, calls: Iterable[PendingCall]) -> None:
        """Nobody waits for these calls any more: end what runs, drop what does not. Also amid a finalizer."""
        for call in calls:
            call.is_abandoned = True
        if os.getpid() != self._owner_pid:
            return
        self._has_abandoned = True
        if not self._try_lead(self._end_abandoned):
            self._wake()

    def close(self, because: str) -> None:
        """End the workers; calls of other threads end with ClosedError. Blocks, with a limit; idempotent."""
        if os.getpid() != self._owner_pid:
            return
        self._closed_because = self._closed_because or because
        waiter = PendingCall.of_nobody()
        while self.pool is not None or self._queue:
            if self._try_lead(self._end):
                continue
            if self._leading_thread == acting_thread():  # a signal handler's doing: this thread goes on to end it
                self._wake()
                return
            self._follow(waiter)

    # ---- leading and following

    def _try_lead(self, work: Callable[..., None], *arguments: object) -> bool:
        """Do what only one thread may do at a time; False if another thread is at it."""
        token = object()
        try:
            with self._lock:
                if self._leader is not None:
                    return False
                self._leader, self._leading_thread = token, threading.get_ident()
            work(*arguments)
        finally:
            # Not in a function of its own: a signal handler may raise on the way into it.
            try:
                self._leave(token)
            except BaseException:
                self._leave(token)
                raise
            if self._has_abandoned and work != self._end_abandoned:  # by a thread that found this one leading
                self._try_lead(self._end_abandoned)
        return True

    def _follow(self, call: PendingCall) -> None:
        """Sleep until the call is answered, or the lead is free."""
        try:
            with self._lock:
                if self._leading_thread == acting_thread():
                    self._heal()
                if self._leader is None:
                    return
                if self._leading_thread == acting_thread():
                    raise UsageError(
                        "a signal handler or a finalizer has called a guard for which its own thread was waiting: use "
                        "another guard there"
                    )
                self._followers.append(call)
            self._wake()  # the leader, which has a new call to give out
            if call.answer is None:
                with contextlib.suppress(Empty):
                    call.gate.get(timeout=_HEALING_SECONDS)
            self._heal()
        finally:
            try:
                self._leave(call)
            except BaseException:
                self._leave(call)
                raise

    def _heal(self) -> None:
        """Take the lead from one who is not there any more.

        A handler that raises twice at the worst moments may keep it from leaving: then nobody else would ever lead, and
        all would wait.
        """
        with self._lock:
            if self._leader is not None and not self._is_led():
                self._leader, self._leading_thread = None, 0

    def _is_led(self) -> bool:
        """Whether the one who leads is still at it; to be called with the lock."""
        frame = sys._current_frames().get(self._leading_thread)
        while frame is not None:
            if frame.f_code is Switchboard._try_lead.__code__ and frame.f_locals.get("token") is self._leader:
                return True
            frame = frame.f_back
        return False

    def _leave(self, who: object) -> None:
        """Neither lead nor follow any more, and see to it that somebody leads who waits. Idempotent."""
        with self._lock:
            if self._leader is who:
                self._leader, self._leading_thread = None, 0
            if self._followers:
                self._followers = [follower for follower in self._followers if follower is not who]
                heirs = [follower for follower in self._followers if follower.answer is None]
                if self._leader is None and heirs:
                    heirs[0].gate.put(None)

    def _wake(self) -> None:
        pool = self.pool
        if pool is not None:
            pool.supervisor.wake()

    # ---- the leader's work

    def _drive(self, call: PendingCall) -> None:
        began = time.monotonic()
        looks_until = self._patience.looks_until(began)
        while call.answer is None:
            if self._closed_because is not None:
                self._end()
                call.settle(Failed(0, ClosedError(self._closed_because)), pool_failed=True)
            elif time.monotonic() < looks_until and not self._followers:
                self._turn(0.0, call)
            else:
                self._turn(None, call)
        self._patience.note_answer(began, looks_until, time.monotonic())

    def _look(self) -> None:
        """Give out and take in what can be without waiting."""
        if self._closed_because is None:
            self._turn(0.0)

    def _turn(self, timeout_seconds: float | None, call: PendingCall | None = None) -> None:
        if self.pool is None:
            undisturbed(self._make_pool)
        pool = self.pool
        assert pool is not None
        try:
            pool.give_out(self._queue)
            if self._has_abandoned:
                self._withdraw_abandoned(pool)
            pool.take_answers(timeout_seconds)
            pool.give_out(self._queue)
        except BaseException as error:
            if error is pool.failure:
                self._give_up(pool, pool.failure)
            elif is_in_order_after(error):
                raise
            else:
                if call is not None:
                    call.is_abandoned = True  # else it would be begun again
                self._discard(pool)
                raise

    def _make_pool(self) -> None:
        self.pool = CallPool(self._options, self.tally)

    def _withdraw_abandoned(self, pool: CallPool) -> None:
        self._has_abandoned = False  # first: another thread may abandon one more
        try:
            for call in [call for call in self._queue if call.is_abandoned]:
                self._queue.remove(call)
            pool.withdraw_abandoned()
        except BaseException:
            self._has_abandoned = True
            raise

    def _end_abandoned(self) -> None:
        """Wait until no worker runs what nobody waits for; they die at once."""
        pool = self.pool
        if pool is None:
            self._has_abandoned = False
            return
        self._withdraw_abandoned(pool)
        while self.pool is pool and (running := pool.supervisor.running_withdrawn):
            is_known = all(worker.pid is not None for worker in running)
            self._turn(None if is_known else _PID_SECONDS)
            self._withdraw_abandoned(pool)

    def _discard(self, pool: CallPool) -> None:
        """End a pool that is in disorder; the next one gets what it had not answered."""
        self.pool = None
        for call in reversed(pool.unanswered):
            if call.answer is None and call not in self._queue:
                call.forget_pool()
                self._queue.appendleft(call)
        pool.end_now()

    def _give_up(self, pool: CallPool, error: Exception) -> None:
        """Workers do not even start, or millpond was shut down: everybody is told."""
        if isinstance(error, ClosedError):
            self._closed_because = self._closed_because or str(error)
        self.pool = None
        self._fail_all(pool, lambda: error)
        pool.end_now()

    def _end(self) -> None:
        pool = self.pool
        because = self._closed_because or "this guard is closed"
        self._fail_all(pool, lambda: ClosedError(because))
        try:
            if pool is not None:
                pool.close()
        finally:
            self.pool = None

    def _fail_all(self, pool: CallPool | None, make_error: Callable[[], Exception]) -> None:
        while self._queue:
            self._queue.popleft().settle(Failed(0, make_error()), pool_failed=True)
        for call in pool.unanswered if pool is not None else ():
            if call.answer is None:
                call.settle(Failed(0, make_error()), pool_failed=True)
