"""The benches run on a dataset of the project's own, and say what their JSON promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from millpond._synth import write_dataset

BENCH = Path(__file__).resolve().parent.parent / "bench"
FIGURES = {
    "ceiling_samples_per_second",
    "millpond_samples_per_second",
    "over_ceiling",
    "training_cpu",
    "memory_growth_over_budget",
    "mixing",
}


def run(script: str, *arguments: str | Path, cache_dir: Path) -> str:
    command = [sys.executable, str(BENCH / script), *map(str, arguments)]
    environment = os.environ | {"MILLPOND_CACHE_DIR": str(cache_dir)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench") / "tiny"
    write_dataset(root, episodes=4, frames=24, cameras=2, size=(96, 128), codec="h264", gop=8)
    return root


@pytest.mark.parametrize(("script", "image_size"), [("epoch.py", None), ("windows.py", [224, 224])])
def test_bench_delivers_every_sample_and_every_figure(
    script: str, image_size: list[int] | None, dataset: Path, tmp_path: Path
) -> None:
    quick = ["--rounds", "1", "--ceiling-seconds", "0.05", "--batch-size", "8", "--num-workers", "1"]
    printed: dict[str, Any] = json.loads(
        run(script, dataset, *quick, "--out", tmp_path / "out.json", cache_dir=tmp_path)
    )
    measured = printed["datasets"]["tiny"]
    assert printed["settings"]["image_size"] == image_size
    assert measured["results"].keys() >= FIGURES
    assert all(value > 0 for name, value in measured["results"].items() if name != "others_cpu_most")
    assert measured["rounds"][0]["epochs"][0]["samples"] == 96
    run("plot.py", tmp_path / "out.json", tmp_path / "out.svg", cache_dir=tmp_path)
    assert "tiny" in "".join(ElementTree.parse(tmp_path / "out.svg").getroot().itertext())
