"""Every MILLPOND_* environment variable that a user sets, in one place.

Those that a sweep sets for its children are in `_sweep/variables.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def _platform_cache_dir() -> Path:
    try:
        return Path(platformdirs.user_cache_dir("millpond", appauthor=False))
    except RuntimeError:  # a container's user of a number that nobody knows
        raise ValueError("no folder for sidecars: this user has no home; set HOME, or MILLPOND_CACHE_DIR") from None


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


class StartMethodSettings(BaseSettings):
    """How the workers of `millpond.torch.DataLoader` are started; here an empty variable says something."""

    model_config = SettingsConfigDict(env_prefix="MILLPOND_", frozen=True)

    mp_context: str | None = Field(
        default=None,
        description="MILLPOND_MP_CONTEXT: zygote, or a start method of multiprocessing; empty: torch's own choice.",
    )


class DataLoaderSettings(BaseSettings):
    """What the environment says of `millpond.torch.DataLoader`, where the constructor says nothing (None).

    Read anew at each construction. "none" is no limit, as None is elsewhere.
    """

    model_config = SettingsConfigDict(env_prefix="MILLPOND_", env_ignore_empty=True, frozen=True)

    timeout: float = Field(
        default=300.0,
        ge=0.0,
        description="MILLPOND_TIMEOUT: seconds that a batch may take in a worker; 0: for ever, as torch has it.",
    )

    stall_timeout: float = Field(
        default=0.0,
        ge=0.0,
        description="MILLPOND_STALL_TIMEOUT: seconds that one sample may take in a worker; 0: no such limit.",
    )

    memory: str = Field(
        default="none",
        description='MILLPOND_MEMORY: for batches under way and held, such as "2GiB"; none: what they need.',
    )

    max_tasks_per_worker: int = Field(
        default=0,
        ge=0,
        description="MILLPOND_MAX_TASKS_PER_WORKER: batches after which a worker is followed by a new one; 0: never.",
    )

    max_worker_anon: str = Field(
        default="none",
        description='MILLPOND_MAX_WORKER_ANON: a worker\'s own memory past which it is followed by a new one: "4GiB".',
    )

    max_restarts: int = Field(
        default=100,
        ge=0,
        description="MILLPOND_MAX_RESTARTS: workers replaced that batches have not made up for, one each.",
    )

    on_error: Literal["raise", "skip"] = Field(
        default="raise",
        description='MILLPOND_ON_ERROR: "raise" as torch does, or "skip": leave bad samples out of their batches.',
    )

    quarantine: Path = Field(
        default=Path("millpond-quarantine.jsonl"),
        description="MILLPOND_QUARANTINE: the file that skipped samples are written to.",
    )

    held_batches: int = Field(
        default=4,
        ge=0,
        description="MILLPOND_HELD_BATCHES: batches that stay in shared memory while held; more are copied.",
    )

    transport: Literal["arena", "pickle"] = Field(
        default="arena",
        description="MILLPOND_TRANSPORT: batches by shared memory (arena), or through a socket (pickle).",
    )

    keep_heap: bool = Field(
        default=True,
        description="MILLPOND_KEEP_HEAP: workers keep the memory of former samples for the next ones (glibc).",
    )


class DecoderCacheSettings(BaseSettings):
    """What the environment says of `VideoDecoderCache`; here an empty variable says something."""

    model_config = SettingsConfigDict(env_prefix="MILLPOND_", frozen=True)

    video_decoder_cache_size: Annotated[int, Field(ge=1)] | None = Field(
        default=100,
        description="MILLPOND_VIDEO_DECODER_CACHE_SIZE: decoders kept open; none, unbounded, -1 or empty: no bound.",
    )

    @field_validator("video_decoder_cache_size", mode="before")
    @classmethod
    def _no_bound(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        text = value.strip().lower()
        if text in ("none", "unbounded", "-1", ""):
            return None
        if not text.lstrip("+-").isdecimal():  # pydantic takes "1.0" and "1_0" for numbers, too
            raise ValueError("no whole number")
        return text
