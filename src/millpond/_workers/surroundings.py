"""What code sees of its process: working directory, environment, import path. Workers have the training process's."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

# One process of the pool must not start a thread per core. A numpy that the zygote preloaded has read them already.
ONE_THREAD = dict.fromkeys(
    (
        "OPENBLAS_NUM_THREADS",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    ),
    "1",
)

STREAMED_BYTES = 32 << 20
"""From this size on, memcpy in a zygote and its workers writes past the cache: it is another process that reads such a
copy, and not before it was all written. 59 MB into a slot took 6.2 ms of CPU, and 7.9 as numpy or a plain memcpy does
it (AMD Zen, glibc 2.36), since what is overwritten need not be read."""
_STREAMED = f"glibc.cpu.x86_non_temporal_threshold={STREAMED_BYTES:#x}"


def with_streamed_copies(environment: Mapping[str, str]) -> dict[str, str]:
    """For a process that is started with it; glibc looks only then. A choice of the user's own stays."""
    known = environment.get("GLIBC_TUNABLES", "")
    if _STREAMED.partition("=")[0] in known:
        return dict(environment)
    return {**environment, "GLIBC_TUNABLES": f"{known}:{_STREAMED}" if known else _STREAMED}


def streams_copies() -> bool:
    """Whether this process was started so, as far as its environment is still what it was."""
    return _STREAMED in os.environ.get("GLIBC_TUNABLES", "")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Of one process at one moment; `directory` is None where it has been removed."""

    directory: str | None
    environment: dict[str, str]
    sys_path: list[str]

    @classmethod
    def now(cls) -> Surroundings:
        """Of this process."""
        return cls(working_directory(), dict(os.environ), absolute_sys_path())

    def adopt(self) -> None:
        """Make them this process's, but for the number of threads."""
        wanted = {**self.environment, **ONE_THREAD}
        for name in os.environ.keys() - wanted.keys():
            del os.environ[name]
        for name, value in wanted.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        time.tzset()
        if self.directory is not None:
            os.chdir(self.directory)
        sys.path[:] = self.sys_path
        importlib.invalidate_caches()  # folders may have changed since this process, or its zygote, looked into them


def working_directory() -> str | None:
    """Of this process; None where it has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def absolute_sys_path() -> list[str]:
    """sys.path as it is now, for a process whose working directory may differ."""
    return [os.path.abspath(entry) if entry == "" or os.path.exists(entry) else entry for entry in sys.path]
