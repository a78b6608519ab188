"""Tries after the first, by tenacity. Imported only when one has failed."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from millpond._sources.failures import Kind, TryFailed

_T = TypeVar("_T")

FIRST_WAIT_SECONDS = 0.1
_FACTOR = 3.0
_LONGEST_WAIT_SECONDS = 4.0
"""One dropped connection costs a tenth of a second, and a store that was away for five seconds is found again soon.
Half to one and a half times that, so that those who failed together do not come back together."""


async def retry(first: TryFailed, again: Callable[[], Awaitable[_T]], max_tries: int) -> _T:
    """Try again after a first failure; the last failure comes out.

    Args:
        first: How the first try failed.
        again: Makes one more.
        max_tries: The first included.
    """
    failure: TryFailed | None = first

    async def attempt() -> _T:
        nonlocal failure
        if failure is not None:
            known, failure = failure, None
            raise known
        return await again()

    tries = AsyncRetrying(
        stop=stop_after_attempt(max_tries), wait=_wait_seconds, retry=retry_if_exception(_passes), reraise=True
    )
    return await tries(attempt)


def retry_in_thread(first: TryFailed, again: Callable[[], _T], may_go_on: Callable[[TryFailed], bool]) -> _T:
    """Try again after a first failure, and wait in the caller's thread; the last failure comes out.

    Args:
        first: How the first try failed.
        again: Makes one more.
        may_go_on: Whether there is another one after such a failure.
    """
    failure: TryFailed | None = first

    def attempt() -> _T:
        nonlocal failure
        if failure is not None:
            known, failure = failure, None
            raise known
        return again()

    def goes_on(error: BaseException) -> bool:
        return isinstance(error, TryFailed) and may_go_on(error)

    tries = Retrying(wait=_wait_seconds, retry=retry_if_exception(goes_on), sleep=time.sleep, reraise=True)
    return tries(attempt)


def _passes(error: BaseException) -> bool:
    return isinstance(error, TryFailed) and error.kind is Kind.AGAIN


def _wait_seconds(state: RetryCallState) -> float:
    seconds = min(FIRST_WAIT_SECONDS * _FACTOR ** (state.attempt_number - 1), _LONGEST_WAIT_SECONDS)
    return seconds * random.uniform(0.5, 1.5)
