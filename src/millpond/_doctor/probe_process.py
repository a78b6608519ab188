"""A probe's own process: looks, and tells what it finds, a line of JSON each, as it finds it."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from typing import Any

from millpond._doctor.findings import Finding, Looking, error


def main() -> None:
    """Read {"probe": "module:function", "arguments": {...}} from standard input, and run it."""
    tell = os.dup(1)
    os.dup2(2, 1)  # libraries print; what is told is told elsewhere
    given = json.loads(sys.stdin.read())
    for line in run(given["probe"], given["arguments"]):
        os.write(tell, json.dumps(line).encode() + b"\n")
    os.write(tell, b"{}\n")
    os.close(tell)


def run(probe: str, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a probe, a generator of findings, finds: as it travels."""
    module, _, function = probe.partition(":")
    yield asdict(Looking("importing what it takes"))
    try:
        findings: Iterator[Finding | Looking] = getattr(import_module(module), function)(**arguments)
        for each in findings:
            yield asdict(each)
    except Exception as failure:  # noqa: BLE001 - a library that does not load, or a bug of ours: the others go on
        found = f"looking at them failed: {told(failure)}"
        yield asdict(error(function.removeprefix("look_at_"), found, "mend what it names, or report this"))


def told(failure: Exception) -> str:
    """What is missing, or else the place alone: texts of errors that nobody foresaw may hold secrets of a URL."""
    if isinstance(failure, ImportError):
        return f"{type(failure).__name__}: {failure}"
    *_, place = traceback.extract_tb(failure.__traceback__)
    return f"{type(failure).__name__} in {os.path.basename(place.filename)}, line {place.lineno}"
