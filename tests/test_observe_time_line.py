"""A time line draws what can be seen: neighbours finer than a pixel are one bar, and it says so."""

from __future__ import annotations

import json

import pytest

from millpond._observe.spans import Span
from millpond._observe.time_line import Stretch, TimeLine, merged, time_line_as_data
from millpond._observe.work_chart import work_chart


def line(*stretches: Stretch, rows: tuple[str, ...] = ()) -> TimeLine:
    return TimeLine("work", stretches, {"decode": "first", "wait": "third"}, rows=rows)


def test_stretches_of_a_row_and_kind_are_bars_with_what_they_say() -> None:
    drawn = time_line_as_data(line(Stretch("b", "wait", 0.0, 4.0, "<b>"), Stretch("a", "decode", 5.0, 10.0, "part 1")))
    decode, wait = drawn["lines"]
    assert (drawn["rows"], drawn["range"], drawn["caption"]) == (["b", "a"], [0.0, 10.0], "")
    assert (decode["row"], decode["base"], decode["x"], decode["share"]) == ([1], [5.0], [5.0], [1.0])
    assert (wait["row"], wait["labels"], wait["colour"]) == ([0], ["&lt;b&gt;"], "third")


def test_neighbours_less_than_a_pixel_apart_are_one_bar_that_knows_how_much_of_it_was_worked() -> None:
    near = [Stretch("a", "decode", begins, begins + 0.5, f"part {begins}") for begins in (0.0, 1.0, 2.0)]
    (bar,) = merged(near, pixel=0.6)
    assert (bar.begins, bar.ends, bar.count, bar.share) == (0.0, 2.5, 3, 0.6)
    assert len(merged(near, pixel=0.5)) == 3


def test_a_merged_bar_ends_after_some_pixels_so_that_change_is_seen() -> None:
    busy = [Stretch("a", "decode", at / 10, at / 10 + 0.09, "") for at in range(1000)]
    bars = merged(busy, pixel=1.0)
    assert len(bars) == 20
    assert all(bar.share == pytest.approx(0.9, abs=0.01) for bar in bars)


def test_thousands_of_spans_stay_small_and_the_caption_says_what_was_merged() -> None:
    spans = [
        Span("decode", lane, at * 1_000_000, at * 1_000_000 + 900_000, "decode", {"segment": at})
        for at in range(1024)
        for lane in range(4)
    ]
    chart = work_chart(spans, 0)
    assert chart
    drawn = time_line_as_data(chart)
    assert len(json.dumps(drawn)) < 100_000
    assert sum(drawn["lines"][0]["count"]) == 4096
    assert "less than a pixel apart are one bar" in drawn["caption"]


def test_rows_beyond_what_a_screen_holds_are_left_out_and_counted() -> None:
    many = [Stretch(f"worker {lane}", "decode", 0.0, 1.0, "") for lane in range(100)]
    drawn = time_line_as_data(line(*many))
    assert (len(drawn["rows"]), drawn["caption"]) == (64, "The first 64 of 100 rows.")


def test_a_line_that_begins_late_does_not_begin_at_zero() -> None:
    assert time_line_as_data(line(Stretch("a", "decode", 90.0, 100.0, "")))["range"] == [90.0, 100.0]
    assert time_line_as_data(line(Stretch("a", "decode", 10.0, 100.0, "")))["range"] == [0.0, 100.0]
    assert time_line_as_data(line())["rows"] == []


def test_work_is_in_rows_from_the_plan_to_the_training_loop() -> None:
    spans = [
        Span("consumer", 0, 900, 1000, "wait"),
        Span("consumer", 0, 1000, 1900, "training"),
        Span("gather", 1, 1000, 2000, "gather", {"batch": 3}),
        Span("decode", 1, 0, 2_000_000_000, "decode", {"segment": 12, "samples": 1500, "pid": 7}),
        Span("fetch", 0, 0, 1500, "fetch"),
        Span("plan", 0, 0, 1200, "epoch order"),
        Span("decode", 2, 0, 999, "decode"),
    ]
    chart = work_chart(spans, 1000)
    assert chart
    assert chart.rows == ["plan", "fetch 0", "worker 1", "training loop"]
    assert list(chart.colours) == ["plan", "fetch", "decode", "gather", "training"]
    assert Stretch("worker 1", "decode", 0.0, 2.0 - 1e-6, "decode, segment 12, samples 1,500") in chart.stretches


def test_a_loader_that_kept_no_spans_has_no_time_line() -> None:
    assert work_chart([Span("plan", 0, 0, 5, "epoch order")], 5) is None
