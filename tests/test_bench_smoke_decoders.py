"""The benches of decoders run, see the same pictures on every side, and say what their JSON promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench_drawings import drawn, texts
from test_bench_smoke import dataset, run, run_here  # noqa: F401 - a fixture

FEW = ("--files", "12", "--accesses", "48", "--first", "16", "--every", "4", "--max-size", "4", "--seeds", "0", "1")
FEWER = ("--unbounded-files", "8", "--unbounded-accesses", "48")
QUICK = ("--rounds", "1", "--seconds", "0.02", "--batch-size", "8", "--compared", "2")


@pytest.fixture(scope="module")
def torchcodec() -> None:
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec is not to be used here: {type(error).__name__}: {str(error).splitlines()[0]}")


def measured(report: dict[str, Any]) -> dict[str, Any]:
    """Runs of the first side, the bounded ones."""
    return next(iter(report["details"]["bounded"]["sides"].values()))


def test_decoder_cache_draws_a_trajectory_and_removes_its_files(dataset: Path, tmp_path: Path) -> None:  # noqa: F811
    sides = ("--sides", "millpond-without-torch", "--unbounded-sides", "millpond-without-torch:none")
    written = tmp_path / "out.json"
    printed: dict[str, Any] = json.loads(
        run_here("decoder_cache.py", dataset, *FEW, *FEWER, *sides, "--json", written, cache_dir=tmp_path)
    )
    assert measured(printed)["results"].keys() >= {"most_rise", "growth_mb", "mb_per_million_accesses_second_half"}
    clips = printed["details"]["clips"]
    assert (clips["files"], clips["clips"][0]["num_frames"]) == (12, 96)
    for one in measured(printed)["runs"]:
        assert one["looks"]["accesses"] == list(range(0, 49, 4))
        assert min(one["looks"]["rss_bytes"]) >= min(one["looks"]["uss_bytes"]) > 0
        assert (one["looks"]["cached"][0], one["most_cached"]) == (0, 4)
    assert {claim["name"]: claim["is_met"] for claim in printed["claims"]}["millpond-without-torch:4: descriptors"]
    unbounded = printed["details"]["unbounded"]["sides"]
    assert unbounded["millpond-without-torch:none"]["results"]["most_cached"] == 8
    assert str(dataset) not in written.read_text()
    assert "open descriptors" in texts(drawn(written))


def test_decoder_cache_makes_clips_of_its_own_without_a_dataset(tmp_path: Path) -> None:
    own = ("--seeds", "0", "--synth-frames", "12", "--synth-size", "96", "128", "--sides", "millpond-without-torch")
    printed = json.loads(run_here("decoder_cache.py", *FEW, *own, "--unbounded-sides", cache_dir=tmp_path))
    assert [clip["num_frames"] for clip in printed["details"]["clips"]["clips"]] == [12] * 4
    assert "unbounded" not in printed["details"]


@pytest.mark.usefixtures("torchcodec")
def test_decoder_cache_sees_what_torchcodec_sees(dataset: Path, tmp_path: Path) -> None:  # noqa: F811
    sides = ("--sides", "millpond", "torchcodec:2", "--unbounded-sides")
    printed = json.loads(run_here("decoder_cache.py", dataset, *FEW, *sides, "--seeds", "0", cache_dir=tmp_path))
    assert printed["details"]["bounded"]["same_pictures"]
    assert printed["details"]["bounded"]["sides"]["torchcodec:2"]["results"]["most_cached"] == 2


@pytest.mark.usefixtures("torchcodec")
def test_random_access_compares_pictures_and_rates(dataset: Path, tmp_path: Path) -> None:  # noqa: F811
    written = tmp_path / "out.json"
    printed = json.loads(run("random_access.py", dataset, *QUICK, "--json", written, cache_dir=tmp_path))
    found = printed["details"]["datasets"]["tiny"]
    assert (found["samples"], found["cameras"], found["gop_frames"], found["samples_compared"]) == (96, 2, 8.0, 2)
    assert found["random"]["over"].keys() >= {"decode_video_frames", "get_frame_at", "LeRobotDataset", "PyAV"}
    assert "tiny: decode_video_frames over torchcodec" in {claim["name"] for claim in printed["claims"]}
    for span in ("episode", "file"):
        batches = found["batches"][span]
        decoded = batches["frames_decoded_per_frame"]
        assert decoded["torchcodec, one by one"] >= decoded["torchcodec, one by one, sorted"] >= 1.0
        assert all(side["frames_per_second"] > 0 for side in batches["sides"].values())
    assert "tiny: batches of 8 frames of one episode" in texts(drawn(written))
