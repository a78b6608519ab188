"""What code sees of its process: working directory, environment, import path. Workers have the training process's."""

from __future__ import annotations

import importlib
import os
import sys
import time
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
