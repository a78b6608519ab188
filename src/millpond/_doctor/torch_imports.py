"""Whether torch and torchcodec can be imported: their libraries may be missing, or take minutes from a dead disk."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator

from millpond._doctor.findings import Finding, Looking, error, fine, warning

_SLOW_SECONDS = 15.0


def look_at_imports(modules: list[str]) -> Iterator[Finding | Looking]:
    """Import each; of torch this is an error where it fails, of others a warning."""
    for module in modules:
        yield Looking(f"importing {module}")
        began = time.monotonic()
        try:
            importlib.import_module(module)
        except Exception as failure:  # noqa: BLE001 - libraries that do not load raise whatever they like
            yield _failed(module, failure)
            continue
        seconds = time.monotonic() - began
        subject, found = f"import {module.partition('.')[0]}", f"took {seconds:.1f} s"
        remedy = "install it on a local disk: every process that starts waits so long"
        yield warning(subject, found, remedy) if seconds > _SLOW_SECONDS else fine(subject, found)


def _failed(module: str, failure: Exception) -> Finding:
    package = module.partition(".")[0]
    subject, found = f"import {package}", f"fails: {_first_line(failure)}"
    if isinstance(failure, MemoryError):
        return error(subject, found, "see the lines of memory and address space")
    if package == "torchcodec":
        return warning(
            subject,
            f"{found}; PyAV decodes instead",
            "install FFmpeg 4 to 8 with its shared libraries (conda install ffmpeg, or apt install ffmpeg), and a "
            "torchcodec that goes with this torch; or pip uninstall torchcodec, which millpond does not need",
        )
    return error(subject, found, f"pip install --force-reinstall {package}")


def _first_line(failure: Exception) -> str:
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0].strip() if lines else ''}"[:300]
