"""The report is one complete page that shows what it is given, and nothing else."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from millpond._observe.descriptors import Descriptors
from millpond._observe.epoch_report import (
    books_table,
    descriptors_chart,
    errors_table,
    memory_chart,
    pond_chart,
    throughput_chart,
)
from millpond._observe.memory import Memory, MemoryPoint
from millpond._observe.meter import BatchMeter
from millpond._observe.report import Chart, Limit, Line, Report, Table, Text, TimeLine, render_report, write_report
from millpond._quarantine import Quarantine
from millpond.errors import CorruptMedia

FULL = Report(
    title="an <epoch>",
    subtitle="of </script> & more",
    headlines={"samples/s": "612"},
    charts=(
        Chart(
            "Rate <here>",
            "samples/s",
            [Line("<b>rate", [1, 2], [600.0, None])],
            [Limit("ceiling", 660.0)],
            "Ends <so>.",
        ),
        Chart(
            "Peaks",
            "MiB",
            [Line("clean", [1, 2], [5, 6], labels=["one", "</script>"]), Line("others", [3], [7], colour="limit")],
            kind="bars",
            axis="chunk",
            at="in chunk %{x}",
        ),
    ),
    tables=(
        Table("Facts", [("planned", 2994), ("python", "3.11"), ("<empty>", None)]),
        Table("Jobs", [("a<b", 1 / 3, 12345, "gone\n</td>")], columns=("job", "mean", "n", "why"), caption="1 of <2>"),
        Table("Nothing", [], columns=("job",)),
    ),
    texts=(Text("Memory plan", "arena  1 MiB </pre>"), Text("Empty", "")),
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


def test_charts_carry_what_they_are_given(page: str) -> None:
    rate, peaks = charts_of(page)
    assert (rate["kind"], rate["axis"], rate["lines"][0]["y"]) == ("lines", "seconds", [600.0, None])
    assert rate["limits"] == [{"name": "ceiling", "y": 660.0}]
    assert (peaks["kind"], peaks["axis"], peaks["at"]) == ("bars", "chunk", "in chunk %{x}")
    assert [line["colour"] for line in peaks["lines"]] == ["first", "limit"]


def test_what_is_no_number_or_no_unicode_spoils_no_page(tmp_path: Path) -> None:
    line, limit = Line("x", [0, 1, 2], [math.nan, 1.0, math.inf]), Limit("none", math.nan)
    chart = Chart("\udcff", "u", [line], [limit], axis="<!--<script>")
    write_report(Report("\udcff", charts=[chart], tables=[Table("t", [("\udcff", math.nan)])]), tmp_path / "page.html")
    [drawn] = charts_of((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert (drawn["lines"][0]["y"], drawn["limits"], drawn["axis"]) == ([None, 1.0, None], [], "<!--<script>")
    assert "<!--<script" not in (tmp_path / "page.html").read_text(encoding="utf-8").partition("plotly.js")[0]


def test_lines_of_a_quarantine_file_that_are_not_whole_are_rows(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('[]\n{"sample": 1, "error": "E"}\n{"samp', encoding="utf-8")
    rows = errors_table(tmp_path / "q.jsonl").rows
    assert [(row[0], row[3]) for row in rows] == [("", "not a record"), ("1", "E"), ("", "not a record")]


def test_markup_in_names_and_labels_is_text_to_plotly_too(page: str) -> None:
    rate, peaks = charts_of(page)
    assert rate["lines"][0]["name"] == "&lt;b&gt;rate"
    assert peaks["lines"][0]["labels"] == ["one", "&lt;/script&gt;"]


def test_each_chart_has_its_place_and_a_caption_where_it_was_given_one(page: str) -> None:
    place = (
        r'<figure id="([\w-]+)" class=\w+><h2>([^<]*)</h2>.*?<div role=img aria-label="([^"]*)"></div>(.*?)</figure>'
    )
    rate, peaks = re.findall(place, page)
    assert rate == ("chart-0", "Rate &lt;here&gt;", "Rate &lt;here&gt;", "<figcaption>Ends &lt;so&gt;.</figcaption>")
    assert peaks == ("chart-1", "Peaks", "Peaks", "")


def test_two_charts_share_a_row_and_none_is_alone_in_half_of_one() -> None:
    chart, time_line = Chart("c", "", [Line("l", [0], [0])]), TimeLine("t", [], {})

    def widths(*charts: Chart | TimeLine) -> list[str]:
        return re.findall(r"<figure id=\S+ class=(\w+)", render_report(Report("r", charts=charts)))

    assert widths(chart, chart, time_line, chart) == ["left", "right", "rows", "alone"]
    assert widths(chart, time_line, chart, chart, chart) == ["alone", "rows", "left", "right", "alone"]


def test_a_legend_of_buttons_is_there_where_lines_are_to_be_told_apart(page: str) -> None:
    button = '<button type=button aria-pressed=true style="--own:var(--{})">{}</button>'
    assert f"<p class=legend>{button.format('first', 'clean')}{button.format('limit', 'others')}</p>" in page
    assert page.count("<p class=legend>") == 1


def test_a_small_table_has_names_and_values(page: str) -> None:
    assert "<th scope=row>planned</th><td class=number>2,994</td>" in page
    assert "<th scope=row>python</th><td>3.11</td>" in page
    assert "<th scope=row>&lt;empty&gt;</th><td class=number></td>" in page


def test_a_table_with_columns_has_headers_and_scrolls_in_its_own_box(page: str) -> None:
    box = '<div tabindex=0 role=region aria-label="Jobs"><table><thead><tr><th scope=col>job</th>'
    assert f"<section class=wide><h2>Jobs</h2>{box}" in page
    row = "<td class=number>0.333333</td><td class=number>12,345</td><td>gone\n&lt;/td&gt;</td>"
    assert f"<tr><th scope=row>a&lt;b</th>{row}</tr>" in page
    assert "</table></div><p>1 of &lt;2&gt;</p></section>" in page
    assert ".wide > div { overflow: auto;" in page


def test_what_is_left_empty_is_left_out(tmp_path: Path, page: str) -> None:
    write_report(Report("bare"), tmp_path / "report.html")
    bare = (tmp_path / "report.html").read_text(encoding="utf-8")
    body = bare.partition("<main>")[2].partition("</main>")[0]
    assert charts_of(bare) == []
    assert "<section" not in body
    assert "<figure" not in body
    assert "Nothing" not in page.partition("<script")[0]


def test_an_epochs_charts_are_in_the_units_they_name() -> None:
    seconds = iter([0.0, 2.0, 4.0])
    meter = BatchMeter(lambda: next(seconds))
    meter.note(8, 3)
    meter.note(8, 2)
    throughput, pond = throughput_chart(meter, 660.0), pond_chart(meter, 32)
    assert (throughput.lines[0].values, throughput.limits) == ([0.0, 8.0], [Limit("ceiling", 660.0)])
    assert (pond.lines[0].places, pond.lines[0].values, pond.limits[0].value) == ([2.0, 4.0], [3, 2], 32)
    assert throughput_chart(meter).limits == []


def test_memory_growth_is_stacked_by_process_and_starts_at_zero() -> None:
    mebi = 2**20
    points = [MemoryPoint(0.0, Memory(2 * mebi), Memory(0)), MemoryPoint(1.0, Memory(mebi), Memory(5 * mebi))]
    chart = memory_chart(points, 2**31)
    assert [(line.name, line.values) for line in chart.lines] == [("training process", [0, 0]), ("workers", [0, 5])]
    assert (chart.kind, chart.unit, chart.limits[0].value) == ("stack", "MiB", 2048)
    assert memory_chart([], 1).lines[0].values == []


def test_descriptors_are_stacked_by_kind() -> None:
    points = [MemoryPoint(at, Memory(), Memory(), Descriptors(pipes=2, memfds=int(at))) for at in (0.0, 1.0)]
    chart = descriptors_chart(points)
    assert {line.name: line.values for line in chart.lines}["shared memory"] == [0, 1]
    assert {line.name: line.values for line in chart.lines}["pipes"] == [2, 2]
    assert chart.kind == "stack"


def test_errors_name_sample_and_what_it_is_and_say_how_many_more_there_are(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "bad.jsonl")
    assert errors_table(quarantine.path).rows == []
    for sample in range(102):
        what = {"row": sample, "video": f"{sample}.mp4"}
        quarantine.add(epoch=1, sample=sample, description=what, error=CorruptMedia("a hole\nand more"))
    table = errors_table(quarantine.path)
    assert table.rows[7] == ("7", 1, "row 7, video 7.mp4", "CorruptMedia", "a hole")
    assert (len(table.rows), table.caption) == (100, "2 more rows: all 102 stand in bad.jsonl.")


def test_books_are_a_small_table() -> None:
    assert books_table({"planned": 2, "delivered": 1}).rows == [("planned", 2), ("delivered", 1)]
