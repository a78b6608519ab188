"""MILLPOND_DECODE_TIMEOUT as it is asked for before every decode: read again only when it has changed."""

from __future__ import annotations

import os
from typing import Any

_NAME = "MILLPOND_DECODE_TIMEOUT"
# os.environ encodes the name and decodes the value each time, 0.7 us; what it stands on (POSIX: bytes) need not.
_environment: Any = getattr(os.environ, "_data", os.environ)
_key: Any = _NAME if _environment is os.environ else os.fsencode(_NAME)
_known: tuple[object, float] = (None, 0.0)


def default_timeout_seconds() -> float:
    """What the variable says at this moment; 0 where it says nothing.

    Raises:
        ValueError: It is no number of seconds.
    """
    global _known
    raw = _environment.get(_key)
    if raw is None:
        return 0.0
    if raw != _known[0]:
        from millpond.settings import Settings  # with pydantic: not where the variable is unset

        try:
            _known = (raw, Settings().decode_timeout)
        except ValueError:  # pydantic's, which does not say which variable it was
            raise ValueError(f"{_NAME} must be a number of seconds, or 0 for none, not {os.environ[_NAME]!r}") from None
    return _known[1]
