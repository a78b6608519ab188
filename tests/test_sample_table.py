"""The sample table: which rows are frames, which rows a run of GOPs is fed, which frame is shown when."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond._plan.sample_table import SampleTable
from millpond._values import ByteRange, FileIdentity, StreamParameters
from millpond.errors import FrameTimestampError

STREAM = StreamParameters("h264", b"", (1, 10), 64, 48, "yuv420p")


def table(pts: list[int], keys: list[int], **changed: Any) -> SampleTable:
    """A table of 100-byte packets that lie one behind the other."""
    count = len(pts)
    is_key = np.zeros(count, np.bool_)
    is_key[keys] = True
    columns: dict[str, Any] = {
        "stream": STREAM,
        "identity": FileIdentity(100 * count, 0),
        "backend": "packets",
        "pts": np.array(pts, np.int64),
        "dts": np.arange(count),
        "offset": 100 * np.arange(count),
        "size": np.full(count, 100, np.int32),
        "is_key": is_key,
        "is_discard": np.zeros(count, np.bool_),
        "crc": np.zeros(count, np.uint32),
        "crc_known": np.zeros(count, np.bool_),
    }
    return SampleTable(**(columns | changed))


CLOSED = table([0, 2, 1, 3, 5, 4], [0, 3])
OPEN = table([0, 1, 2, 5, 3, 4, 6, 9, 7, 8], [0, 3, 7])  # rows 4, 5 lead key 3, and rows 8, 9 lead key 7


def test_frames_are_rows_in_presentation_order() -> None:
    assert CLOSED.frame_rows.tolist() == [0, 2, 1, 3, 5, 4]
    assert CLOSED.gop_starts.tolist() == [0, 3, 6]
    np.testing.assert_allclose(CLOSED.frame_seconds, np.arange(6) / 10)


def test_a_gop_owns_the_frames_up_to_the_next_key_also_when_they_are_decoded_after_it() -> None:
    assert OPEN.gop_starts.tolist() == [0, 5, 9, 10]
    assert OPEN.is_open_gop.tolist() == [False, True, True]


def test_an_open_gop_is_fed_the_next_key_and_its_leading_packets_and_skips_its_own() -> None:
    assert OPEN.feed_rows(0, 1).tolist() == [0, 1, 2, 3, 4, 5]
    assert OPEN.feed_rows(1, 2).tolist() == [3, 6, 7, 8, 9]
    assert OPEN.feed_rows(2, 3).tolist() == [7]


def test_a_closed_gop_is_fed_nothing_more() -> None:
    assert CLOSED.feed_rows(0, 1).tolist() == [0, 1, 2]


def test_preroll_starts_a_gop_earlier_and_then_feeds_every_leading_packet() -> None:
    assert OPEN.feed_rows(1, 2, 1).tolist() == list(range(10))
    assert OPEN.feed_rows(2, 3, 1).tolist() == [3, 6, 7, 8, 9]
    assert OPEN.feed_rows(0, 1, 1).tolist() == OPEN.feed_rows(0, 1).tolist()


def test_feeding_stops_with_the_last_row_wanted() -> None:
    assert CLOSED.feed_rows(0, 1, last_row=0).tolist() == [0]
    assert CLOSED.feed_rows(0, 1, last_row=5).tolist() == [0, 1, 2]
    assert OPEN.feed_rows(0, 1, last_row=4).tolist() == [0, 1, 2, 3, 4]
    assert OPEN.feed_rows(1, 2, last_row=8).tolist() == [3, 6, 7, 8]


def test_rows_owned_are_those_of_frames_shown_before_the_next_key() -> None:
    assert CLOSED.own_rows(0, 1, 1).tolist() == [0, 1]
    assert CLOSED.own_rows(0, 2, 9).tolist() == [0, 2, 1, 3, 5, 4]
    assert OPEN.own_rows(0, 1, 4).tolist() == [0, 1, 2, 4]
    assert OPEN.own_rows(1, 2, 8).tolist() == [3, 6, 8]


def test_rows_before_the_first_key_and_discarded_rows_are_no_frames() -> None:
    leading = table([0, 3, 1, 2, 4], [1])
    assert leading.frame_rows.tolist() == [1, 4]
    cut = table([0, 1, 2, 3], [0, 2], is_discard=np.array([True, False, False, False]))
    assert cut.frame_rows.tolist() == [1, 2, 3]
    assert cut.feed_rows(0, 1).tolist() == [0, 1]


def test_a_gop_that_shows_nothing_is_not_counted_but_serves_as_preroll() -> None:
    cut = table([0, 1, 2, 3], [0, 2], is_discard=np.array([True, True, False, False]))
    assert cut.num_gops == 1
    assert cut.feed_rows(0, 1).tolist() == [2, 3]
    assert cut.feed_rows(0, 1, 1).tolist() == [0, 1, 2, 3]


def test_a_frame_decoded_outside_of_its_gop_cannot_be_cut_out() -> None:
    assert CLOSED.uncuttable_reason() is None
    assert OPEN.uncuttable_reason() is None
    assert "outside" in str(table([0, 5, 1, 4, 6], [0, 3]).uncuttable_reason())
    assert "ascend" in str(table([4, 5, 0, 1], [0, 2]).uncuttable_reason())
    assert "no keyframe" in str(table([0, 1], []).uncuttable_reason())


def test_times_match_the_nearest_frame_within_the_tolerance() -> None:
    assert CLOSED.frames_at(np.array([0.5, 0.0, 0.2000004, 0.2999996]), 1e-4).tolist() == [5, 0, 2, 3]


@pytest.mark.parametrize("seconds", [0.05, 0.6, -0.01, float("nan"), float("inf")])
def test_a_time_beyond_the_tolerance_is_an_error_that_names_it(seconds: float) -> None:
    with pytest.raises(FrameTimestampError, match="no frame within") as caught:
        CLOSED.frames_at(np.array([0.1, seconds]), 1e-4)
    assert caught.value.positions == [1]


def test_a_stream_of_one_frame_is_found() -> None:
    assert table([7], [0]).frames_at(np.array([0.7, 0.70001]), 1e-3).tolist() == [0, 0]


def test_a_table_without_frames_says_so() -> None:
    with pytest.raises(FrameTimestampError, match="no frame at all"):
        table([0], []).frames_at(np.array([0.0]), 1.0)


def test_ranges_are_joined_over_small_gaps_only() -> None:
    rows = np.array([5, 0, 1, 3])
    assert CLOSED.byte_ranges(rows, max_gap_bytes=0) == (ByteRange(0, 200), ByteRange(300, 400), ByteRange(500, 600))
    assert CLOSED.byte_ranges(rows, max_gap_bytes=100) == (ByteRange(0, 600),)
    assert CLOSED.byte_ranges(rows[:0]) == ()


@given(st.lists(st.integers(0, 5), max_size=6, unique=True), st.integers(0, 300))
def test_ranges_hold_every_packet_asked_for_and_never_overlap(rows: list[int], max_gap_bytes: int) -> None:
    ranges = CLOSED.byte_ranges(np.array(rows, np.int64), max_gap_bytes=max_gap_bytes)
    assert all(any(r.start <= 100 * row and 100 * row + 100 <= r.stop for r in ranges) for row in rows)
    assert all(a.stop + max_gap_bytes < b.start for a, b in itertools.pairwise(ranges))


def test_crcs_that_are_learned_do_not_replace_those_that_are_known() -> None:
    first = CLOSED.with_crcs(np.array([1, 2]), np.array([11, 22], np.uint32))
    second = first.with_crcs(np.array([2, 3]), np.array([99, 33], np.uint32))
    assert second.crc[second.crc_known].tolist() == [11, 22, 33]
    assert not CLOSED.crc_known.any()


def test_a_quarter_turn_swaps_the_sides_of_the_picture() -> None:
    turned = StreamParameters("h264", b"", (1, 10), 64, 48, "yuv420p", rotation_degrees=270)
    assert CLOSED.picture_size == (48, 64)
    assert table([0], [0], stream=turned).picture_size == (64, 48)
