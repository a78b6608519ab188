"""What tests of benches say of their drawings, which are drawn in this process: matplotlib is loaded once."""

from __future__ import annotations

import gc
import runpy
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

_BENCH = Path(__file__).resolve().parent.parent / "bench"


def drawn(measured: Path) -> Path:
    """Draw the JSON of a bench beside it, and say where."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(_BENCH))
        patch.setattr(sys, "argv", ["plot.py", str(measured), "--out", str(measured.parent)])
        runpy.run_path(str(_BENCH / "plot.py"), run_name="__main__")
    sys.modules["matplotlib.font_manager"]._get_font.cache_clear()  # it keeps files of fonts open
    gc.collect()
    return max(measured.parent.glob("*.svg"), key=lambda path: path.stat().st_mtime)


def texts(drawing: Path) -> str:
    """All that is written in an SVG."""
    root: Any = ElementTree.parse(drawing).getroot()
    return "".join(root.itertext())
