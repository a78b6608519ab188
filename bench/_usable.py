"""Which packages of the peers can be used here."""

from __future__ import annotations

import importlib


def why_not(module: str) -> str | None:
    """Why a module cannot be imported; None if it can: torchcodec may be installed, and FFmpeg's libraries may not."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return None
