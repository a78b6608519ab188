"""Which packages of the peers can be used here."""

from __future__ import annotations

import importlib
import subprocess
import sys


def borrow_from(python: str) -> None:
    """Find what is not installed here in another environment of the same Python; what is installed here goes first."""
    if python:
        asked = [python, "-c", "import sys, sysconfig; print(*sys.version_info[:2], sysconfig.get_path('platlib'))"]
        major, minor, folder = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split(" ", 2)
        if (int(major), int(minor)) == sys.version_info[:2]:
            sys.path.append(folder.strip())


def why_not(module: str) -> str | None:
    """Why a module cannot be imported; None if it can: torchcodec may be installed, and FFmpeg's libraries may not."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None
