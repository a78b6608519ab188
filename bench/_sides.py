"""Who takes part in a comparison of epochs, each in a process of its own; who cannot is left out, and why."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from _process import Contender

OURS = "millpond"
PEERS = {
    "torch-torchcodec": ("_peer_torchcodec.py",),
    "torch-pyav": ("_peer_pyav.py",),
    "torch-decord2": ("_peer_decord.py",),
    "spdl": ("_peer_spdl.py",),
    "spdl-segments": ("_peer_spdl.py", "--segments"),
    "lerobot": ("_peer_lerobot.py",),
    "lerobot-streaming": ("_peer_lerobot.py", "--streaming"),
}


class SideFailed(Exception):
    """What a side raised, in a line; `text` is all of it."""

    def __init__(self, line: str, text: str = "") -> None:
        super().__init__(line)
        self.text = text or line


@dataclass(frozen=True)
class Side:
    """One that takes part.

    Attributes:
        name: As in `--sides`.
        contender: Its process.
    """

    name: str
    contender: Contender

    @property
    def pid(self) -> int:
        return self.contender.pid

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have it done.

        Raises:
            SideFailed: It raised something, or its process ended.
        """
        try:
            answer = self.contender.ask(do, **arguments)
        except (RuntimeError, BrokenPipeError) as error:
            raise SideFailed(str(error)) from error
        if "error" in answer:
            raise SideFailed(f"{do}: {answer['error']}", answer["text"])
        return answer


def started(chosen: Sequence[str], python: str, stack: ExitStack) -> tuple[dict[str, Side], dict[str, str]]:
    """Ours and the chosen peers, whose Python it is; and why peers are left out that cannot be imported there."""
    sides = {OURS: Side(OURS, stack.enter_context(Contender("_peer_millpond.py")))}
    absent = {}
    for name in chosen:
        script, *arguments = PEERS[name]
        contender = stack.enter_context(Contender(script, *arguments, python=python or sys.executable))
        if "absent" in contender.facts:
            absent[name] = contender.facts["absent"]
        else:
            sides[name] = Side(name, contender)
    return sides, absent
