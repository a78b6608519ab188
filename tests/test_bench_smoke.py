"""The benches run on a dataset of the project's own, and say what their JSON promises."""

from __future__ import annotations

import io
import json
import logging
import os
import runpy
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from bench_drawings import drawn, texts
from millpond._synth import write_dataset

BENCH = Path(__file__).resolve().parent.parent / "bench"
QUANTITIES = {
    "samples_per_second",
    "cpu_ms_per_sample",
    "memory_growth_mib",
    "distinct_samples_over_planned",
    "mixing",
}
NOT_HERE = "lerobot"  # tests have it in a folder of its own, which a bench does not look at


def run(script: str, *arguments: str | Path, cache_dir: Path) -> str:
    command = [sys.executable, str(BENCH / script), *map(str, arguments)]
    environment = os.environ | {"MILLPOND_CACHE_DIR": str(cache_dir)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_here(script: str, *arguments: str | Path, cache_dir: Path) -> str:
    """The same in this process, which has imported torch: for benches that measure contenders of their own."""
    on_sigterm, logger = signal.getsignal(signal.SIGTERM), logging.getLogger("millpond")
    level = logger.level  # benches that kill workers say nothing of it
    try:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
            patch.syspath_prepend(str(BENCH))
            patch.setattr(sys, "argv", [str(BENCH / script), *map(str, arguments)])
            patch.setenv("MILLPOND_CACHE_DIR", str(cache_dir))
            runpy.run_path(str(BENCH / script), run_name="__main__")
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
        logger.setLevel(level)
    return printed.getvalue()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench") / "tiny"
    write_dataset(root, episodes=4, frames=24, cameras=2, size=(96, 128), codec="h264", gop=8)
    return root


@pytest.mark.parametrize(("script", "image_size"), [("epoch.py", None), ("windows.py", [224, 224])])
def test_bench_delivers_every_sample_and_every_figure(
    script: str, image_size: list[int] | None, dataset: Path, tmp_path: Path
) -> None:
    quick = ["--rounds", "1", "--ceiling-seconds", "0.05", "--seconds", "0", "--batch-size", "8", "--num-workers", "1"]
    peers = ["torch-pyav", NOT_HERE] if script == "epoch.py" else []
    written = tmp_path / "out.json"
    run_here(script, dataset, *quick, "--json", written, "--sides", *peers, cache_dir=tmp_path)
    printed: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    sides = {"millpond", *peers} - printed["absent"].keys()
    found = {(row["side"], row["quantity"]): row["median"] for row in printed["results"]}
    assert printed["settings"]["image_size"] == image_size
    assert found.keys() >= {(side, quantity) for side in sides for quantity in QUANTITIES}
    assert all(found[side, "distinct_samples_over_planned"] == 1 for side in sides)
    assert all(printed["details"]["tiny"]["looks"][side]["pictures"]["wrong"] == "" for side in sides)
    assert "No module named" in printed["absent"].get(NOT_HERE, "No module named")
    drawing = drawn(written)
    assert drawing.name == f"{script[:-3]}.svg"
    assert "millpond" in texts(drawing)
