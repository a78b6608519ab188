"""Ends running chunks from outside: asked with a signal first, told a second time to kill."""

from __future__ import annotations

import os
import signal

ASKED, KILLED = 1, 2
"""Levels; 0 before."""


class Cancel:
    """Watched by chunks while they run, as many as there are; any thread may raise it, signal handlers too.

    Whoever made it closes it when no chunk runs any more.
    """

    def __init__(self) -> None:
        self.level = 0
        self.number = int(signal.SIGTERM)
        # Nobody reads these pipes: one that was written to stays readable, for all who watch it.
        self._pipes = {ASKED: os.pipe(), KILLED: os.pipe()}

    def request(self, number: int) -> None:
        """Have every process of every chunk sent this signal; the first request counts."""
        if self.level < ASKED:
            self.number = number
            self._raise(ASKED)

    def kill(self) -> None:
        """Let there be no grace."""
        if self.level < KILLED:
            self._raise(KILLED)

    def next_descriptor(self, level: int) -> int | None:
        """Readable once it is raised beyond this level; None where it cannot be."""
        return self._pipes[level + 1][0] if level < KILLED else None

    def close(self) -> None:
        """Let go of its descriptors; idempotent."""
        pipes, self._pipes = self._pipes, {}
        for pipe in pipes.values():
            for descriptor in pipe:
                os.close(descriptor)

    def _raise(self, level: int) -> None:
        self.level = level
        for reached, pipe in self._pipes.items():
            if reached <= level:
                os.write(pipe[1], b"!")
