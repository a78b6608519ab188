"""How much private memory a process has."""

from __future__ import annotations

import re
from pathlib import Path

import psutil


def private_bytes() -> int:
    """RssAnon of this process: its heap and stacks. Batches are not in it: their memory is shared and reused.

    Where the kernel does not say (macOS), all of its resident memory.
    """
    try:
        found = re.search(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) << 10 if found else int(psutil.Process().memory_info().rss)
