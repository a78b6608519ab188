"""Probes that find something, hang, crash, or fail."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

from millpond._doctor.findings import Finding, Looking, fine


def find(text: str) -> Iterator[Finding | Looking]:
    print("what libraries print is not taken for a finding", flush=True)
    yield fine("first", text)


def hang() -> Iterator[Finding | Looking]:
    yield fine("first", "found")
    yield Looking("reading a dead disk")
    while True:
        signal.pause()


def crash() -> Iterator[Finding | Looking]:
    yield fine("first", "found")
    yield Looking("decoding nonsense")
    os.kill(os.getpid(), signal.SIGSEGV)


def fail() -> Iterator[Finding | Looking]:
    raise ZeroDivisionError("of a URL with its s3cret")
    yield


def start_and_exit() -> Iterator[Finding | Looking]:
    yield fine("started", str(subprocess.Popen(["sleep", "600"]).pid))
    raise SystemExit(3)
