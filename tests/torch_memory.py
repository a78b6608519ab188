"""Where a tensor's memory lies, for tests of the drop-in DataLoader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def lies_in_arena(tensor: Any) -> bool:
    """Whether all of a tensor's memory belongs to the file of slots; skips the test where nobody can tell."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux tells what lies where")
    start = tensor.untyped_storage().data_ptr()
    stop = start + tensor.untyped_storage().nbytes()
    for line in maps.read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= start < last:
            return stop <= last and "memfd:millpond-results" in line
    return False
