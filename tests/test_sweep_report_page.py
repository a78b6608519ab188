"""The page of a sweep says what was measured, what failed and how much memory chunks took, however many there are."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from millpond._observe.report import Cell, Line, Report, Table, render_report
from millpond._plan.chunks import JobState, JobVerdict
from millpond._sweep.ledger import Ledger
from millpond._sweep.ledger_records import ChunkRecord, ChunkState, JobRecord
from millpond._sweep.orders import ChunkOutcome, EndedBy, Look
from millpond._sweep.out_folder import OutFolder
from millpond._sweep.report_charts import jobs_over_time, memory_over_time, peak_of_each_chunk, slots_over_time
from millpond._sweep.report_page import sweep_report, write_report_page
from millpond._sweep.report_tables import chunks_table, failures_table, results_tables
from millpond._sweep.summary import summarize

MIB = 1 << 20


def chunk(
    number: int, began_at: float, seconds: float, mebibytes: Sequence[int] = (1, 2), reason: str = ""
) -> ChunkRecord:
    looks = tuple(Look(seconds * at / len(mebibytes), size * MIB) for at, size in enumerate(mebibytes))
    peak = max(mebibytes, default=0) * MIB
    log = f"chunk-{number:04d}.log"
    return ChunkRecord(
        number, ("a",), 1, ChunkState.ENDED, log, "", began_at, seconds, 0, "itself", reason, peak, peak, 0, 0, looks
    )  # fmt: skip


def job(name: str, state: JobState, error: str = "", number: int = 1) -> JobRecord:
    return JobRecord(name, 0, state, 1, number, -9, 0, 1.0, "", error)


def report(jobs: Sequence[JobRecord], chunks: Sequence[ChunkRecord], wall_seconds: float = 1.0) -> Report:
    return sweep_report("t", jobs, chunks, summarize({}), {}, wall_seconds=wall_seconds, budget_bytes=None)


def lines_of(*chunks: ChunkRecord) -> Sequence[Line]:
    chart = memory_over_time(chunks, None)
    assert chart
    return chart.lines


def columns_of(table: Table) -> dict[str, list[Cell]]:
    return {column: [row[at] for row in table.rows] for at, column in enumerate(table.columns)}


def test_a_sweeps_page_shows_results_failures_and_memory_and_escapes_all_of_it(tmp_path: Path) -> None:
    with OutFolder(tmp_path / "out<b>") as out:
        out.open(resume=False)
        with Ledger.create(out.ledger_path, {"command": '["[1]</table>"]'}, ["ok", "</td>bad"]) as ledger:
            ledger.begin(1, ["ok", "</td>bad"], attempt=1, log="chunk-0001.log", began_at=10.0)
            outcome = ChunkOutcome(1, -9, EndedBy.ITSELF, duration_seconds=2.0, looks=(Look(0.0, MIB),))
            verdicts = [JobVerdict("ok", JobState.DONE, 1), JobVerdict("</td>bad", JobState.FAILED, 1, "<i>killed")]
            ledger.end(outcome, verdicts, {"ok": {"reward<": 0.25}}, reason="<i>killed")
            write_report_page(out, ledger, summarize(ledger.metrics()), 2.0, budget_bytes=64 * MIB)
        page = out.report_path.read_text(encoding="utf-8")
    body = page.partition("<main>")[2].partition("</main>")[0]
    for shown in ("out<b>", "reward<", "</td>bad", "<i>killed", "[1]</table>"):
        assert (html.escape(shown) in body, shown in body) == (True, False)
    assert "<dd>1 of 2</dd>" in body
    assert '"limits":[{"name":"budget","y":64.0}]' in page


def test_headlines_leave_out_what_is_nought() -> None:
    done = [job("a", JobState.DONE), job("b", JobState.DONE)]
    assert report(done, [chunk(1, 0.0, 1.0)], 61.0).headlines == {
        "jobs done": "2 of 2", "chunks": "1", "peak memory of a chunk": "2 MiB", "wall time": "1 min 01 s",
    }  # fmt: skip
    mixed = report([job("a", JobState.FAILED), job("b", JobState.PENDING), job("c", JobState.RUNNING)], [], 7260.4)
    assert (mixed.headlines["failed"], mixed.headlines["left to do"]) == ("1", "2")
    assert mixed.headlines["wall time"] == "2 h 01 min"


def test_chunks_that_run_at_the_same_time_are_different_lines_with_gaps_between_chunks() -> None:
    first, second = lines_of(chunk(1, 100.0, 4.0), chunk(2, 101.0, 4.0, (5,)), chunk(3, 104.5, 2.0))
    assert list(first.places) == [0.0, 2.0, 4.0, 4.0, 4.5, 5.5, 6.5, 6.5]
    assert first.values == [1.0, 2.0, 2.0, None, 1.0, 2.0, 2.0, None]
    assert first.labels == ["chunk 1"] * 4 + ["chunk 3"] * 4
    assert (list(second.places), second.values) == ([1.0, 5.0, 5.0], [5.0, 5.0, None])


def test_time_in_which_nobody_ran_the_sweep_is_left_out() -> None:
    (line,) = lines_of(chunk(2, 100_004.0, 4.0), chunk(1, 100.0, 4.0))
    assert max(line.places) == 8.0


def test_long_sweeps_are_in_minutes_or_hours() -> None:
    for seconds, axis, end in ((599.0, "seconds", 599.0), (6000.0, "minutes", 100.0), (36_000.0, "hours", 10.0)):
        chart = memory_over_time([chunk(1, 0.0, seconds)], None)
        assert chart
        assert (chart.axis, max(chart.lines[0].places)) == (axis, end)


def test_many_looks_are_thinned_but_every_chunk_keeps_its_peak() -> None:
    looks = [3] * 120 + [9] + [3] * 79
    lines = lines_of(*(chunk(number, number * 10.0, 9.0, looks) for number in range(300)))
    points = [value for line in lines for value in line.values]
    assert points.count(9.0) == 300
    assert len(points) < 21_000


def test_a_sweep_that_nobody_looked_at_has_no_charts_of_memory() -> None:
    running = replace(chunk(2, 0.0, 1.0), state=ChunkState.RUNNING, duration_seconds=None, peak_pss_bytes=0)
    charts = report([], [chunk(1, 0.0, 1.0, ()), running]).charts
    assert [chart.title for chart in charts] == ["Jobs that are done", "What ran when"]
    assert report([], [running]).charts == []


def test_chunks_that_ran_side_by_side_have_slots_of_their_own_and_say_why_they_ended() -> None:
    line = slots_over_time([chunk(1, 100.0, 4.0), chunk(2, 101.0, 4.0, reason="killed\nmore"), chunk(3, 104.5, 2.0)])
    assert line
    assert line.rows == ["slot 1", "slot 2"]
    assert line.stretches[1] == ("slot 2", "did not", 1.0, 5.0, "chunk 2, 1 jobs: killed")
    assert [stretch.row for stretch in line.stretches] == ["slot 1", "slot 2", "slot 1"]


def test_jobs_are_counted_when_their_chunk_ends() -> None:
    jobs = [job("a", JobState.DONE, number=1), job("b", JobState.FAILED, number=2), job("c", JobState.DONE, number=2)]
    chart = jobs_over_time([*jobs, job("d", JobState.PENDING)], [chunk(2, 0.0, 9.0), chunk(1, 0.0, 4.0)])
    assert chart
    assert [line.places for line in chart.lines] == [[0.0, 4.0, 9.0]] * 2
    assert {line.name: line.values for line in chart.lines} == {"done": [0, 1, 2], "failed": [0, 0, 1]}
    assert chart.limits[0].value == 4


def test_chunks_that_did_not_end_well_stand_out_among_the_peaks() -> None:
    chart = peak_of_each_chunk([chunk(1, 0, 1), chunk(2, 0, 1, (7,), "killed"), chunk(3, 0, 1)], 64 * MIB)
    assert chart
    well, others = chart.lines
    assert (well.places, well.values, others.places, others.values) == ([1, 3], [2.0, 2.0], [2], [7.0])
    assert (others.colour, chart.limits[0].value, chart.axis) == ("limit", 64, "chunk")


def test_results_have_columns_for_weights_and_odd_values_only_where_there_are_some() -> None:
    plain, success, *_ = results_tables(summarize({"a": {"x": 1.0}, "b": {"x": 3.0, "ok": True}}))
    assert columns_of(plain) == {"metric": ["x"], "jobs": [2], "mean": [2.0], "std": [1.0], "min": [1.0], "max": [3.0]}
    assert columns_of(success) == {"metric": ["ok"], "jobs": [1], "true": [1], "rate": [1.0]}
    odd = {"a": {"count": 3, "x": 1.0, "ok": True}, "b": {"count": 1, "x": float("nan"), "ok": False}}
    weighted, rates, *_ = results_tables(summarize(odd))
    assert columns_of(weighted)["weighted mean"] == [None, 1.0]
    assert columns_of(weighted)["not finite"] == [0, 1]
    assert columns_of(rates)["weighted rate"] == [0.75]


def test_groups_have_a_row_for_each_of_their_metrics() -> None:
    metrics: dict[str, Any] = {"a": {"x": 1, "ok": True, "group": "g2"}, "b": {"x": 2, "ok": False, "group": "g1"}}
    _, _, results, success = results_tables(summarize(metrics))
    assert [(row[0], row[1], row[3]) for row in results.rows] == [("g1", "x", 2.0), ("g2", "x", 1.0)]
    assert [(row[0], row[4]) for row in success.rows] == [("g1", 0.0), ("g2", 1.0)]


def test_failures_name_job_chunk_attempt_reason_and_log() -> None:
    jobs = [job("fine", JobState.DONE), job("bad", JobState.FAILED, " killed\n", 2)]
    table = failures_table(jobs, [chunk(1, 0, 1), chunk(2, 0, 1)])
    assert table.rows == [("bad", 2, 1, "killed", "chunk-0002.log")]


def test_of_a_long_reason_the_end_is_shown() -> None:
    table = failures_table([job("bad", JobState.FAILED, "frame\n" * 10_000 + "ValueError: why")], [])
    shown = str(table.rows[0][3])
    assert shown.startswith("… ")
    assert shown.endswith("ValueError: why")
    assert len(shown) < 2000


def test_chunks_that_did_not_end_well_are_listed_first() -> None:
    killed = replace(chunk(3, 0, 1), state=ChunkState.INTERRUPTED, duration_seconds=None)
    table = chunks_table([chunk(1, 0, 1), chunk(2, 0, 1, (7,), "timed out"), killed])
    assert [row[:2] for row in table.rows] == [("2", "timed out"), ("3", "the sweep was killed"), ("1", "ended well")]


def test_a_page_of_thousands_of_jobs_and_hundreds_of_chunks_stays_small_and_says_what_it_leaves_out() -> None:
    failed = [job(f"job-{number}", JobState.FAILED, "x" * 5000) for number in range(5000)]
    chunks = [chunk(number, number * 10.0, 9.0, range(1, 100)) for number in range(800)]
    page = render_report(report(failed, chunks))
    assert "4,700 more rows: all 5,000 stand in summary.json." in page
    assert "500 more rows: all 800 stand in ledger.sqlite." in page
    assert len(page) - len(get_plotlyjs()) < 3_000_000
