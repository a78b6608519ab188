"""The report is one complete page that shows what it is given, and nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from millpond._observe.memory import Memory, MemoryPoint
from millpond._observe.report import Line, Report, memory_growth, render_report, write_report

FULL = Report(
    title="an <epoch>",
    subtitle="of </script> & more",
    headlines={"samples/s": "612"},
    throughput=Line([1, 2], [600.0, 612.0]),
    ceiling_samples_per_second=660.0,
    memory={"training process": Line([1, 2], [2**20, 2**21])},
    budget_bytes=2**31,
    pond=Line([1, 2], [1, 2]),
    pond_slots=32,
    books={"planned": 2994, "delivered": 2994},
    memory_plan="arena  1 MiB </pre>",
    environment={"python": "3.11"},
)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def charts_of(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script id="charts" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found
    charts: list[dict[str, Any]] = json.loads(found[1])
    return charts


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(FULL)


def test_page_fetches_nothing_and_closes_every_element(page: str) -> None:
    parsed = Page(page)
    assert (parsed.links, parsed.open) == ([], [])
    assert len(page) > 1_000_000, "plotly.js is not inlined"


def test_page_escapes_what_it_is_given(page: str) -> None:
    assert "<h1>an &lt;epoch&gt;</h1>" in page
    assert "of &lt;/script&gt; &amp; more" in page
    assert "&lt;/pre&gt;" in page


def test_page_follows_light_and_dark_and_reads_on_a_phone(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page


def test_charts_carry_values_in_the_units_they_name(page: str) -> None:
    throughput, memory, pond = charts_of(page)
    assert throughput["lines"][0]["y"] == [600.0, 612.0]
    assert throughput["limits"] == [{"name": "ceiling", "y": 660.0}]
    assert (memory["lines"][0]["y"], memory["limits"][0]["y"]) == ([1.0, 2.0], 2048.0)
    assert pond["limits"][0]["y"] == 32.0


def test_only_throughput_is_explained_below_its_chart(page: str) -> None:
    explained = re.findall(r'<figure id="(\w+)"><h2>[^<]*</h2><div></div><figcaption>([^<]*)</figcaption>', page)
    assert [name for name, _ in explained] == ["throughput"]
    assert "the pond then empties faster than frames can be decoded" in explained[0][1]


def test_headline_values_do_not_wrap(page: str) -> None:
    assert re.search(r"\.headlines dd \{[^}]*white-space: nowrap", page)


def test_books_and_environment_are_tables(page: str) -> None:
    assert "<th scope=row>planned</th><td>2,994</td>" in page
    assert "<th scope=row>python</th><td>3.11</td>" in page


def test_what_is_left_empty_is_left_out(tmp_path: Path) -> None:
    write_report(Report("bare"), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    body = page.partition("<main>")[2].partition("</main>")[0]
    assert charts_of(page) == []
    assert "<section>" not in body
    assert "<figure" not in body


def test_memory_growth_is_stacked_by_process_and_starts_at_zero() -> None:
    points = [MemoryPoint(0.0, Memory(100), Memory(0)), MemoryPoint(1.0, Memory(90), Memory(50))]
    growth = memory_growth(points)
    assert growth["training process"].values == [0, 0]
    assert growth["workers"].values == [0, 50]
    assert memory_growth([]) == {}
