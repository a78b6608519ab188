"""The bench of soaks runs, finds its leaks, and says what its JSON promises."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from test_bench_smoke import run


@pytest.mark.skipif(sys.platform != "linux", reason="a soak reads /proc, which only Linux has")
def test_soak_leaks_finds_each_leak_and_says_how_soon(tmp_path: Path) -> None:
    report = json.loads(run("soak_leaks.py", "--smoke", cache_dir=tmp_path))
    assert [claim["is_met"] for claim in report["claims"]] == [True, True]
    found = {row["side"]: row["median"] for row in report["results"] if row["quantity"] == "found after"}
    assert 0.0 < found["shared_memory"] < 2.0
    assert report["details"]["shared_memory"]["said"]["shared_bytes"].startswith("growing by")
