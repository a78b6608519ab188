"""A contender in a process of its own, which does as each line of JSON says and answers with one.

Processes keep contenders from sharing an interpreter, a heap or a cache, and let each run in its own environment. One
works while the others wait on standard input.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent


class Contender:
    """Start `bench/<script>` with a Python of choice; it has imported what it needs when this returns."""

    def __init__(
        self,
        script: str,
        *arguments: str,
        python: str = sys.executable,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = script
        command = [python, str(FOLDER / script), *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.facts = self.answer()

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.tell(do, **arguments)
        return self.answer()

    def tell(self, do: str, **arguments: Any) -> None:
        """Have it begin; `answer` waits for the end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait until what it was told is done.

        Raises:
            RuntimeError: Its process ended.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # a library may print, too
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{self.name} ended with exit code {self._process.wait()}; its error is above")

    def close(self) -> None:
        """End it in good order: at the end of its input it closes what it made."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()
