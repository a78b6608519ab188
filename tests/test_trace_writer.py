"""A trace's file: what spans become in it, and what happens when it cannot be written."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from chrome_traces import of_kind, read_cut_short, read_events
from file_limits import files_of_at_most
from millpond._observe.spans import Span
from millpond._observe.trace import TraceWriter
from millpond.errors import UsageError
from programs import forked

SECOND = 1_000_000_000


def decoded(
    number: int, *, lane: int = 0, flows_in: tuple[int, ...] = (), flows_out: tuple[int, ...] = (), **facts: int | str
) -> Span:
    """A span of 2 ms, 10 ms after the one before."""
    began_ns = SECOND + number * 10_000_000
    return Span("decode", lane, began_ns, began_ns + 2_000_000, "decode", facts, flows_in, flows_out)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.json"


def test_spans_become_complete_events_with_their_facts(path: Path) -> None:
    writer = TraceWriter(path)
    writer.write(Span("decode", 3, 1_234_567_891, 1_234_569_899, "decode", {"segment": 7, "part": 'a "b" é \udc80'}))
    writer.close()
    [event] = of_kind(read_events(path), "X")
    assert (event["name"], event["cat"], event["ts"], event["dur"]) == ("decode", "decode", 1_234_567.891, 2.008)
    assert event["args"] == {"segment": 7, "part": 'a "b" é ?'}  # Perfetto refuses a file with what is no Unicode


def test_stages_are_groups_and_lanes_are_named_tracks(path: Path) -> None:
    writer = TraceWriter(path)
    for lane in (1, 0, 1):
        writer.write(decoded(lane, lane=lane))
    writer.write(Span("consumer", 0, SECOND, 2 * SECOND, "wait"))
    writer.close()
    named = [(event["name"], event["args"]) for event in of_kind(read_events(path), "M")]
    names = [args["name"] for name, args in named if name == "thread_name"]
    groups = [args["name"] for name, args in named if name == "process_name"]
    assert names == ["worker 1", "worker 0", "training loop"]
    assert set(groups) == {"decode", "consumer"}
    tracks = {(event["pid"], event["tid"]) for event in of_kind(read_events(path), "X")}
    assert len(tracks) == len({thread for _, thread in tracks}) == 3


def test_the_lane_of_the_training_process_says_so(path: Path) -> None:
    writer = TraceWriter(path)
    writer.write(decoded(0, pid=os.getpid()))
    writer.close()
    names = {event["name"]: event["args"] for event in of_kind(read_events(path), "M")}
    assert names["thread_name"] == {"name": "training process"}


def test_a_flow_begins_passes_and_ends_within_its_spans_and_in_time_order(path: Path) -> None:
    writer = TraceWriter(path)
    spans = [decoded(0, flows_out=(5, 6)), decoded(1, flows_in=(5, 6), flows_out=(5,)), decoded(2, flows_in=(5,))]
    for span in spans:
        writer.write(span)
    writer.close()
    flows = [(e["id"], e["ph"], round(e["ts"] * 1000)) for e in of_kind(read_events(path), "s", "t", "f")]
    ends = [span.ended_ns - 1 for span in spans]
    assert [(kind, ns) for flow, kind, ns in flows if flow == 5] == list(zip("stf", ends, strict=True))
    assert [(kind, ns) for flow, kind, ns in flows if flow == 6] == list(zip("sf", ends[:2], strict=True))


def test_what_was_waited_for_flows_to_the_end_of_the_wait(path: Path) -> None:
    writer = TraceWriter(path)
    writer.write(decoded(1, flows_out=(7,)))
    writer.write(Span("consumer", 0, SECOND, SECOND + 20_000_000, "wait", {"batch": 4}, flows_in=(7,)))
    writer.close()
    _, wait, delivery = of_kind(read_events(path), "X")
    [_, flow] = of_kind(read_events(path), "s", "f")
    assert (wait["name"], delivery["name"], delivery["args"]) == ("wait", "delivery", {"batch": 4})
    assert delivery["ts"] == wait["ts"] + wait["dur"]
    assert delivery["ts"] < flow["ts"] < delivery["ts"] + delivery["dur"]


def test_a_span_of_no_length_has_one_that_flows_bind_to(path: Path) -> None:
    writer = TraceWriter(path)
    writer.write(Span("plan", 0, 5000, 5000, "epoch order", flows_out=(1,)))
    writer.close()
    [event, flow] = of_kind(read_events(path), "X", "s")
    assert event["dur"] == 0.001
    assert flow["ts"] == event["ts"] == 5.0


def test_open_slots_draw_the_level_of_the_pond(path: Path) -> None:
    writer = TraceWriter(path)
    writer.write(decoded(0, open_slots=3))
    writer.close()
    [level] = of_kind(read_events(path), "C")
    assert (level["name"], level["args"], level["ts"]) == ("open slots", {"slots": 3}, 1_002_000.0)


def test_what_is_on_disk_opens_at_any_moment_and_is_at_most_a_second_old(path: Path) -> None:
    writer = TraceWriter(path)
    for number in range(201):  # two seconds
        writer.write(decoded(number))
    on_disk = list(of_kind(read_cut_short(path), "X"))
    writer.close()
    assert 100 <= len(on_disk) <= 201


def test_a_trace_replaces_the_last_one_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trace.json"
    for spans in (3, 1):
        writer = TraceWriter(path)
        for number in range(spans):
            writer.write(decoded(number))
        writer.close()
    assert len(list(of_kind(read_events(path), "X"))) == 1


def test_a_trace_of_nothing_is_one(path: Path) -> None:
    TraceWriter(path).close()
    assert [event["ph"] for event in read_events(path)] == ["M"]


def test_two_loaders_do_not_write_one_file_at_a_time(path: Path) -> None:
    first = TraceWriter(path)
    with pytest.raises(UsageError, match="give each loader, and each rank, a file of its own"):
        TraceWriter(path)
    first.write(decoded(0))
    first.close()
    assert len(list(of_kind(read_events(path), "X"))) == 1


def test_closing_twice_and_writing_after_it_change_nothing(path: Path) -> None:
    writer = TraceWriter(path)
    writer.close()
    before = path.read_bytes()
    writer.write(decoded(0))
    writer.close()
    assert path.read_bytes() == before


def test_a_trace_that_cannot_be_begun_says_so_at_once(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        TraceWriter(tmp_path)


def test_a_trace_ends_at_its_limit_and_tells_why_in_the_file_and_in_the_log(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = TraceWriter(path, max_bytes=40_000)
    for number in range(4000):
        writer.write(decoded(number))
    writer.close()
    events = read_events(path)
    assert events[-1]["ph"] == "i"
    assert "limit of 40,000 bytes" in events[-1]["name"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert path.stat().st_size < 40_000 + 2**17


def test_a_full_disk_ends_the_trace_after_a_whole_event_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = TraceWriter(path)
    with files_of_at_most(20_000):
        for number in range(400):
            writer.write(decoded(number))
        writer.close()
    assert 100 <= len(list(of_kind(read_cut_short(path), "X"))) < 400
    assert [record.getMessage() for record in caplog.records] == [
        f"the trace {str(path)!r} ends early, and the loader goes on: [Errno 27] File too large"
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_was_full_from_the_first_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    writer = TraceWriter(Path("/dev/full"))
    for number in range(400):
        writer.write(decoded(number))
    writer.close()
    assert len(caplog.records) == 1


def test_a_forked_child_leaves_its_parents_trace_alone(path: Path) -> None:
    writer = TraceWriter(path)
    writer.write(decoded(0))

    def work() -> bytes:
        writer.write(decoded(1))
        writer.close()
        return b""

    with forked(work) as result:
        result()
    writer.write(decoded(2))
    writer.close()
    assert [event["ts"] for event in of_kind(read_events(path), "X")] == [1_000_000.0, 1_020_000.0]


def test_every_line_between_the_brackets_is_one_event(path: Path) -> None:
    writer = TraceWriter(path)
    writer.write(decoded(0, flows_out=(1, 2), open_slots=2))
    writer.close()
    first, *lines, last = path.read_text(encoding="ascii").splitlines()
    assert (first, last) == ("[", "]")
    assert all(isinstance(json.loads(line.rstrip(",")), dict) for line in lines)
