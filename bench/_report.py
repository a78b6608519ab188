"""Where the figures of a bench go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def publish(report: dict[str, Any], path: Path | None) -> None:
    """Print a report as JSON, and write it to a file where one is wanted."""
    text = json.dumps(report, indent=1)
    print(text)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")
