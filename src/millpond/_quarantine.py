"""The quarantine file: which samples were skipped, and why; one JSON object a line, appended as it happens.

A sample that hung or killed its worker has the `stack` of that worker, too.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from millpond.errors import MillpondError


class Quarantine:
    """Appends to a file that is made when the first sample is skipped.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, *, epoch: int, sample: int, description: dict[str, Any], error: Exception) -> None:
        """Write one sample down."""
        record = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "epoch": epoch,
            "sample": sample,
            **description,
            "error": type(error).__name__,
            "message": str(error),
        }
        stack = error.facts.get("stack") if isinstance(error, MillpondError) else None
        if stack:
            record["stack"] = stack
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:  # in one write: several ranks may share the file
                file.write((json.dumps(record, default=str) + "\n").encode())
        except OSError as failure:
            failure.add_note(f"raised while a skipped sample was written to the quarantine file {str(self.path)!r}")
            raise
