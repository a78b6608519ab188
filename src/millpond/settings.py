"""Every MILLPOND_* environment variable, in one place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _platform_cache_dir() -> Path:
    return Path(platformdirs.user_cache_dir("millpond", appauthor=False))


class Settings(BaseSettings):
    """What the environment says; read anew at each construction, and never written."""

    model_config = SettingsConfigDict(env_prefix="MILLPOND_", env_ignore_empty=True, frozen=True)

    cache_dir: Path = Field(
        default_factory=_platform_cache_dir,
        description="MILLPOND_CACHE_DIR: the folder for sidecars (sample tables, converted table columns).",
    )

    posix_shared_memory: bool = Field(
        default=False,
        description="MILLPOND_POSIX_SHARED_MEMORY: the arena as POSIX shared memory, also where there is a memfd.",
    )

    decode_timeout: float = Field(
        default=0.0,
        ge=0.0,
        description="MILLPOND_DECODE_TIMEOUT: seconds that a decode may take; 0: no limit, and no process for it.",
    )


_DECODE_TIMEOUT = "MILLPOND_DECODE_TIMEOUT"
_read_timeout: tuple[object, float] = (None, 0.0)


def decode_timeout_seconds() -> float:
    """What MILLPOND_DECODE_TIMEOUT says at this moment; 0 where it says nothing.

    Asked before every decode, so nothing is read as long as the variable stays what it was.

    Raises:
        ValueError: It is no number of seconds.
    """
    global _read_timeout
    raw = _environment.get(_DECODE_TIMEOUT_KEY)
    if raw is None:
        return 0.0
    if raw != _read_timeout[0]:
        _read_timeout = (raw, Settings().decode_timeout)
    return _read_timeout[1]


# os.environ encodes the name and decodes the value each time, 0.7 us; what it stands on (POSIX: bytes) does not.
_environment: dict[Any, Any] = getattr(os.environ, "_data", os.environ)  # type: ignore[arg-type]
_DECODE_TIMEOUT_KEY: Any = os.fsencode(_DECODE_TIMEOUT) if _environment is not os.environ else _DECODE_TIMEOUT
