"""What changed around a guard since its workers were started goes along with its calls."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from millpond._workers.messages import decode, encode
from millpond._workers.surroundings import Surroundings, working_directory


class SurroundingsWatch:
    """Tells what must go along with a call: nothing as long as nothing changed since the workers were started."""

    def __init__(self) -> None:
        self._encoded = b""
        self._look()

    def _look(self) -> None:
        self._directory, self._environment, self._sys_path = working_directory(), dict(_environment), list(sys.path)

    def encoded(self) -> bytes:
        """To go with a call; empty if workers have the same from their start."""
        is_same = self._directory == working_directory() and self._environment == _environment
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
