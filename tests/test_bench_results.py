"""The common form of benches: medians, spreads, ratios of the same rounds, and what was left out."""

from __future__ import annotations

import io
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

_NAMES = runpy.run_path(str(Path(__file__).resolve().parent.parent / "bench" / "_results.py"), run_name="_results")


@pytest.fixture
def results() -> Any:
    made = _NAMES["Results"]("epoch", "How fast?", {"rounds": 3})
    made.add("tiny", "millpond", "samples_per_second", "samples/s", [100.0, 300.0, 200.0])
    made.add("tiny", "torch", "samples_per_second", "samples/s", [50.0, 100.0])
    made.absent["spdl"] = "not installed"
    return made


def test_a_row_has_its_median_spread_and_the_ratios_of_the_same_rounds(results: Any) -> None:
    results.compare("tiny", "samples_per_second", over="torch")
    row = results.row("tiny", "millpond", "samples_per_second").as_dict()
    assert (row["median"], row["least"], row["most"]) == (200.0, 100.0, 300.0)
    assert row["over"]["torch"] == {"median": 2.5, "least": 2.0, "most": 3.0, "values": [2.0, 3.0]}


def test_the_json_says_machine_versions_repeats_and_who_was_left_out(results: Any, tmp_path: Path) -> None:
    results.write_results(tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert written["environment"].keys() >= {"machine", "python", "millpond", "peers"}
    assert (written["bench"], written["repeats"], written["settings"]) == ("epoch", 3, {"rounds": 3})
    assert written["absent"] == {"spdl": "not installed"}


def test_the_command_has_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bench/epoch.py", "/data/set one", "--rounds", "3"])
    assert _NAMES["command_line"]() == "python bench/epoch.py 'set one' --rounds 3"


def test_the_table_names_every_side_and_what_is_not_met(results: Any) -> None:
    results.claim("no slower", 0.5, 1.0)
    text = io.StringIO()
    Console(file=text, width=200).print(*results.tables(), sep="\n")
    assert all(word in text.getvalue() for word in ("millpond", "torch", "spdl was left out", "NOT MET"))
