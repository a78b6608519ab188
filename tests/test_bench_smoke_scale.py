"""The simulation of many ranks runs whole, at a tiny size, and finds what must hold at any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench_drawings import drawn, texts
from test_bench_smoke import run_here

SMALL = "--episodes 60 --episode-frames 30 --gop 5 --ranks 4 --batch-size 4 --size 8 8 --episodes-per-file 5 --rounds 1"
FEW = "--sizes 300 600 --canonical-samples 900 --request-tasks 20 --frame-bytes 500"


def test_many_ranks_are_planned_for_and_share_everything_out_once(tmp_path: Path) -> None:
    run_here("scale.py", *SMALL.split(), *FEW.split(), "--json", tmp_path / "out.json", cache_dir=tmp_path)
    found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    met = {claim["name"]: claim["is_met"] for claim in found["claims"]}
    exact = ("samples that no rank", "ranks with another number", "global steps that differ", "samples of ranks differ")
    assert [name for name in met if name.startswith(exact) and met[name]] == [
        name for name in met if name.startswith(exact)
    ]
    assert sum(name.startswith(exact) for name in met) == 4
    assert found["details"]["canonical"]["steps"] > 1
    rows = {(row["case"], row["side"], row["quantity"]): row["median"] for row in found["results"]}
    assert (
        rows["of a store", "4 ranks", "requests_per_second"] > rows["of a store", "a rank", "requests_per_second"] > 0
    )
    assert rows["ranks of several sizes", "millpond, 600 samples", "us_per_draw"] > 0
    assert "a draw" in texts(drawn(tmp_path / "out.json"))
