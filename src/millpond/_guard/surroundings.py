"""What a function sees of its process: working directory, environment, import path. It goes along where it changed."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millpond._workers.child import ONE_THREAD
from millpond._workers.messages import decode, encode
from millpond._workers.zygote import absolute_sys_path


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Of one process at one moment."""

    directory: str | None
    environment: dict[str, str]
    sys_path: list[str]

    @classmethod
    def now(cls) -> Surroundings:
        """Of this process."""
        return cls(_directory(), dict(os.environ), absolute_sys_path())

    def adopt(self) -> None:
        """Make them this process's."""
        wanted = {**self.environment, **ONE_THREAD}
        for name in os.environ.keys() - wanted.keys():
            del os.environ[name]
        os.environ.update(wanted)
        time.tzset()
        if self.directory is not None:
            os.chdir(self.directory)
        sys.path[:] = self.sys_path
        importlib.invalidate_caches()


class SurroundingsWatch:
    """Tells what must go along with a call: nothing as long as nothing changed since the workers were started."""

    def __init__(self) -> None:
        self._encoded = b""
        self._look()

    def _look(self) -> None:
        self._directory, self._environment, self._sys_path = _directory(), dict(_environment), list(sys.path)

    def encoded(self) -> bytes:
        """To go with a call; empty if workers have the same from their start."""
        is_same = self._directory == _directory() and self._environment == _environment
        if not is_same or self._sys_path != sys.path:
            self._look()
            self._encoded = encode(Surroundings.now())
        # Once it changed, a worker may have been started before or after: each call says what is true for it.
        return self._encoded


class Adopter:
    """The worker's side."""

    def __init__(self) -> None:
        self._adopted = b""

    def adopt(self, encoded: bytes) -> None:
        """Take over what came with a call, if it is not what this process has already."""
        if encoded and encoded != self._adopted:
            surroundings: Surroundings = decode(encoded)
            surroundings.adopt()
            self._adopted = encoded


# os.environ decodes each name and value when it is compared; what it stands on need not be.
_environment: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)


def _directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None
