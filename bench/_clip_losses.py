"""What a contender makes of clips some of which are damaged, or never open: what came, what did not, how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from _clip_checks import TOLERANCE
from _process import FOLDER

_TO_OPEN = 4
"""A library may take several times the patience to be imported."""


@dataclass
class Outcome:
    """Of one epoch.

    Attributes:
        whole: Clips without damage that were there, numbers 0 and up.
        originals: Of the damaged ones, numbers `whole` and up: the numbers of what they are copies of.
        off_by: Of each clip that came, by its number, in its worst frame.
        crcs: Of its pixels.
        ending: "whole epoch", "hung ...", "died of ..." or what was raised.
    """

    whole: int
    originals: Sequence[int] = ()
    off_by: dict[int, float] = field(default_factory=dict)
    crcs: dict[int, int] = field(default_factory=dict)
    ending: str = ""

    def add(self, came: dict[str, Any]) -> None:
        """What a contender told of a clip that came."""
        self.off_by[came["clip"]], self.crcs[came["clip"]] = came["off_by"], came["crc"]

    @property
    def lost(self) -> int:
        """Clips without damage that did not come, or came with other pictures."""
        return self.whole - sum(number < self.whole and off <= TOLERANCE for number, off in self.off_by.items())

    @property
    def altered(self) -> int:
        """Damaged clips that came as if they were whole, with other pixels than their originals."""
        pairs = enumerate(self.originals, start=self.whole)
        return sum(number in self.crcs and self.crcs[number] != self.crcs.get(other) for number, other in pairs)

    @property
    def most_off_by(self) -> float:
        """Of the damaged ones that came: how far the worst picture is off, of 255."""
        return max((off for number, off in self.off_by.items() if number >= self.whole), default=0.0)

    def as_dict(self) -> dict[str, Any]:
        names = ("lost", "altered", "most_off_by", "ending")
        return {"delivered": self.whole - self.lost, **{name: getattr(self, name) for name in names}}


def outcome(
    side: str,
    folder: Path,
    options: dict[str, Any],
    *,
    whole: int,
    originals: Sequence[int],
    patience_seconds: float,
    python: str,
) -> Outcome:
    """Run one epoch in a process of its own; one that tells nothing for so long hangs, and is killed with all below."""
    found = Outcome(whole, originals)
    asked = [
        {"do": "open", "side": side, "folder": str(folder), "options": options},
        {"do": "check", "reference": str(folder / "reference.npy"), "tell": True},
    ]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [python, str(FOLDER / "_peer_clips.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            process.stdin.write("".join(json.dumps(request) + "\n" for request in asked))
            process.stdin.flush()
            found.ending = _followed(process, found, patience_seconds) or _how_it_ended(process, said)
        finally:
            _end(process)
    return found


def _followed(process: subprocess.Popen[str], found: Outcome, patience_seconds: float) -> str:
    """How the epoch ended, as far as it told; "" if the process ended."""
    assert process.stdout is not None
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_pass_on, args=(process.stdout, told), daemon=True).start()
    limit = _TO_OPEN * patience_seconds
    while True:
        try:
            line = told.get(timeout=limit)
        except queue.Empty:
            return f"hung: nothing for {limit:g} s"
        if not line:
            return ""
        answer: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if "versions" in answer:
            limit = patience_seconds
        if "came" in answer:
            return "whole epoch"
        if "clip" in answer:
            found.add(answer)


def _pass_on(lines: IO[str], told: queue.SimpleQueue[str]) -> None:
    for line in lines:
        told.put(line)
    told.put("")


def _how_it_ended(process: subprocess.Popen[str], said: IO[str]) -> str:
    code = process.wait()
    if code < 0:
        return f"died of {signal.Signals(-code).name}"
    said.seek(0)
    lines = [line.strip() for line in said if line.strip() and not line.startswith(" ")]
    return f"raised {lines[-1][:120]}" if lines else f"ended with exit code {code}"


def _end(process: subprocess.Popen[str]) -> None:
    """With all that it started: they share its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
