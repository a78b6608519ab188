"""Every MILLPOND_* environment variable, in one place."""

from __future__ import annotations

from pathlib import Path

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
