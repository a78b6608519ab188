"""The bench of Ray Data reads with a cluster and without one, and says what its JSON promises."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from test_bench_smoke import BENCH, dataset, run_here  # noqa: F401 - a fixture

SIDES = ["millpond.ray", "one loader"]
READ = {"samples_per_second", "cpu_ms_per_sample", "memory_growth_mib", "peak_memory_mib"}
SKIPPED = {"raises": 0, "good_samples_lost": 0, "damaged_samples_delivered": 0}


@pytest.mark.timeout(300)  # a cluster starts in seconds, and in a minute where others are at work
def test_ray_and_a_loader_give_every_sample_once_and_skip_only_what_is_damaged(
    dataset: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    pytest.importorskip("ray.data", reason="the bench of Ray Data needs Ray")
    written = tmp_path / "out.json"
    few = ("--cpus", "1", "--blocks", "1", "--rounds", "1", "--object-store", "100MiB", "--memory", "256MiB")
    run_here("ray_data.py", dataset, *few, "--json", written, "--sides", SIDES[1], cache_dir=tmp_path)
    printed: dict[str, Any] = json.loads(written.read_text(encoding="utf-8"))
    found = {(row["case"], row["side"], row["quantity"]): row["median"] for row in printed["results"]}
    assert {("tiny", side, quantity) for side in SIDES for quantity in READ} <= found.keys()
    assert [claim["is_met"] for claim in printed["claims"]] == [True, True]
    for side in SIDES:
        raised = {"raises": 1, "names_the_file": 1}
        for policy, wanted in (("by default", raised), ("told to skip", SKIPPED)):
            of_side = {
                row[2]: value for row, value in found.items() if row[:2] == (f"tiny, a damaged video, {policy}", side)
            }
            assert of_side == wanted


def test_a_hole_hurts_what_is_decoded_after_it_up_to_a_keyframe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    damage = importlib.import_module("_damage")
    packets = [damage.Packet(10 * at, 10 * at + 10, pts, pts in (0, 4)) for at, pts in enumerate([0, 2, 1, 3, 4, 5])]
    assert damage.hurt_frames(packets, 15, 16) == {1, 2, 3}
    assert damage.hurt_frames(packets, 39, 41) == {3, 4, 5}
    assert damage.hurt_frames(packets, 60, 70) == set()
