"""Probes: whatever may hang or crash is looked at in a process of its own, which is killed when its time is over.

A dead network file system, a host that swallows packets, a library that ends its process: what was found before is
told, and then what was being looked at.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from millpond._doctor.findings import Finding, Level, error
from millpond._workers.surroundings import absolute_sys_path

_BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from millpond._doctor.probe_process import main; main()"
)
_PR_SET_PDEATHSIG = 1
_END_SECONDS = 2.0
"""For a killed process to be gone; one that waits in the kernel for a dead disk may take for ever."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a probe has told by its end.

    Attributes:
        findings: So far.
        looking_at: What it was at.
        is_whole: Whether it came to its end.
    """

    findings: list[Finding]
    looking_at: str
    is_whole: bool


class Probe:
    """One, begun at once. Secrets go through a pipe, where nobody else sees them.

    Args:
        subject: What its own failures are told of.
        function: "module:function" of a generator of findings, which only its process imports.
        arguments: For it; values as JSON has them.
        timeout_seconds: From now on.
    """

    def __init__(self, subject: str, function: str, arguments: dict[str, Any], timeout_seconds: float) -> None:
        self._subject = subject
        self._limit_seconds = timeout_seconds
        self._deadline = time.monotonic() + timeout_seconds
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined] # as multiprocessing does
        self._process = subprocess.Popen(
            [sys.executable, *flags, "-P", "-c", _BOOTSTRAP, json.dumps(absolute_sys_path())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=self._ends_with_us(os.getpid()),
        )
        self._give(json.dumps({"probe": function, "arguments": arguments}).encode())

    @staticmethod
    def _ends_with_us(parent_pid: int) -> Callable[[], None] | None:
        """For the new process: the kernel kills it where this one ends by a signal, and can kill no probes."""
        if sys.platform != "linux":
            return None
        libc = ctypes.CDLL(None)

        def tie() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent_pid:  # it went before the line above
                os._exit(1)

        return tie

    def _give(self, given: bytes) -> None:
        """What fits into a pipe: it works while others are waited for."""
        stdin, self._process.stdin = self._process.stdin, None
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError), stdin:
            stdin.write(given)

    def findings(self) -> list[Finding]:
        """Wait for its end, or for its time to be over."""
        try:
            told, _ = self._process.communicate(timeout=max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            answer = _read(self.kill())
            last = _late(self._subject, answer, self._limit_seconds)
        else:
            self._kill_group()  # what it has started
            answer = _read(told)
            last = _crashed(self._subject, answer, self._process.returncode)
        return answer.findings if answer.is_whole else [*answer.findings, last]

    def kill(self) -> bytes:
        """End it and whatever it started; what it had told. Idempotent."""
        if self._process.poll() is None:
            self._kill_group()
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
            return self._process.communicate(timeout=_END_SECONDS)[0] or b""
        return b""

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


class Probes:
    """Those that run side by side; what still runs at the block's end is killed."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._begun: list[Probe | Finding] = []

    def begin(self, subject: str, function: str, **arguments: Any) -> None:
        """Begin one; arguments as for `Probe`."""
        try:
            self._begun.append(Probe(subject, function, arguments, self._timeout_seconds))
        except OSError as failure:
            found = f"no process can be started: {failure}"
            self._begun.append(error(subject, found, "see the lines of processes, open files and memory"))

    def findings(self) -> Iterator[Finding]:
        """Of each, in the order in which they were begun."""
        for probe in self._begun:
            yield from [probe] if isinstance(probe, Finding) else probe.findings()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        for probe in self._begun:
            if isinstance(probe, Probe):
                probe.kill()


def _read(told: bytes) -> _Answer:
    findings: list[Finding] = []
    looking_at, is_whole = "starting Python", False
    for line in _lines(told):
        if not line:
            is_whole = True
        elif "at" in line:
            looking_at = line["at"]
        else:
            findings.append(Finding(**{**line, "level": Level(line["level"])}))
    return _Answer(findings, looking_at, is_whole)


def _lines(told: bytes) -> Iterator[dict[str, Any]]:
    for line in told.splitlines():
        with contextlib.suppress(ValueError):  # it was killed amid the last
            yield json.loads(line)


def _late(subject: str, answer: _Answer, limit_seconds: float) -> Finding:
    return error(
        subject,
        f"{answer.looking_at} took more than {limit_seconds:g} s, and was given up",
        "if it is only slow, --timeout gives it longer; else a disk, a host or a library that it needs is stuck",
    )


def _crashed(subject: str, answer: _Answer, code: int) -> Finding:
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return error(
        subject,
        f"{answer.looking_at} ended its process ({how})",
        "a library is broken or does not go with this machine: pip install --force-reinstall what it was about",
    )
