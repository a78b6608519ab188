"""A hang in C that costs no CPU: other tests run on the same cores."""

from __future__ import annotations

import ctypes

_MUTEX_BYTES = 256
"""More than a pthread_mutex_t has anywhere."""


def hold_the_gil() -> None:
    """Wait in C for ever, with the GIL held: no signal handler and no other thread of this process runs meanwhile.

    Signals do not end the wait, unlike that of `sleep`, and faulthandler's handlers, which are C, do run.
    """
    c = ctypes.PyDLL(None)  # unlike CDLL, it keeps the GIL
    mutex = ctypes.create_string_buffer(_MUTEX_BYTES)
    c.pthread_mutex_init(mutex, None)
    c.pthread_mutex_lock(mutex)
    c.pthread_mutex_lock(mutex)
