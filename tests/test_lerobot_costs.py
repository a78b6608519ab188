"""Where segments may be cut, and what they cost: against sets of frames, and against the decoder's own count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from millpond._datasets.decode_costs import DecodeCosts
from synthesized import FRONT, LENGTHS, WRIST, MakeDataset, MemorySink, open_dataset


def shown_by(costs: DecodeCosts, start: int, stop: int) -> set[int]:
    """Samples whose frames the samples start to stop show."""
    shown: set[int] = set()
    for sample in range(start, stop):
        episode = int(np.searchsorted(costs.bounds, sample, side="right")) - 1
        low, high = int(costs.bounds[episode]), int(costs.bounds[episode + 1]) - 1
        shown |= {min(max(sample + offset, low), high) for offset in costs.offsets.tolist()}
    return shown


def plain_decoded(costs: DecodeCosts, start: int, stop: int) -> int:
    """Every GOP from its keyframe to the last frame wanted of it."""
    last: dict[int, int] = {}
    for sample in shown_by(costs, start, stop):
        gop = int(costs.gop[sample])
        last[gop] = max(last.get(gop, 0), int(costs.preroll[sample]))
    return sum(last.values())


@st.composite
def cameras(draw: st.DrawFn) -> DecodeCosts:
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    skipped = draw(st.lists(st.integers(0, 4), min_size=len(lengths), max_size=len(lengths)))
    gops = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    offsets = draw(st.lists(st.integers(-15, 15), min_size=1, max_size=4))
    # Episodes lie in one file with gaps between them (episodes that were not selected), GOPs of several lengths.
    frames = np.concatenate([np.arange(n) for n in lengths])
    starts = np.cumsum([0, *lengths[:-1]]) + np.cumsum(skipped)
    frames = frames + np.repeat(starts, lengths)
    gop_starts = np.cumsum([0, *(gops * 100)])
    gop = np.searchsorted(gop_starts, frames, side="right") - 1
    bounds = np.cumsum([0, *lengths])
    return DecodeCosts(bounds, np.asarray(draw(st.just(offsets) | st.just([0]))), gop, frames - gop_starts[gop] + 1)


@given(cameras(), st.data())
def test_costs_are_those_of_decoding_from_each_keyframe(costs: DecodeCosts, data: st.DataObject) -> None:
    total = int(costs.bounds[-1])
    start = data.draw(st.integers(0, total - 1))
    stop = data.draw(st.integers(start + 1, total))
    pair = np.asarray([start, 0]), np.asarray([stop, total])
    assert costs.decoded(*pair).tolist() == [plain_decoded(costs, start, stop), plain_decoded(costs, 0, total)]
    assert costs.unique(*pair).tolist() == [len(shown_by(costs, start, stop)), len(shown_by(costs, 0, total))]


def test_millions_of_samples_are_no_loop() -> None:
    lengths: NDArray[np.int64] = np.full(10_000, 100)
    frames = np.arange(1_000_000)
    costs = DecodeCosts(np.cumsum([0, *lengths]), np.arange(-7, 1), frames // 30, frames % 30 + 1)
    starts = np.arange(0, 999_990, 10)
    assert int(costs.decoded(starts, starts + 10).min()) >= 10


def test_cuts_are_where_every_camera_starts_a_gop(synth: MakeDataset) -> None:
    total = sum(LENGTHS)
    assert open_dataset(synth(gop=6)).cuts().tolist() == [*range(0, total, 6), total]
    assert open_dataset(synth(gop=1000)).cuts().tolist() == [0, total]
    files = open_dataset(synth(gop=1000, episodes_per_file=2)).cuts().tolist()
    assert files == [0, LENGTHS[0] + LENGTHS[1], total - LENGTHS[4], total]


def test_a_gop_that_goes_on_over_skipped_episodes_is_not_cut(synth: MakeDataset) -> None:
    dataset = open_dataset(synth(gop=1000), episodes=[0, 2, 4])
    assert dataset.cuts().tolist() == [0, len(dataset)]
    assert open_dataset(synth(gop=6), episodes=[0, 2]).cuts().tolist()[:3] == [0, 6, 10]


@pytest.mark.parametrize("gop", [2, 6, 1000])
@pytest.mark.parametrize("deltas", [None, {FRONT: [-3 / 30, -2 / 30, -1 / 30, 0.0, 1 / 30]}])
def test_costs_are_what_the_decoder_counts(synth: MakeDataset, gop: int, deltas: dict[str, list[float]] | None) -> None:
    dataset = open_dataset(synth(gop=gop, codec="h264"), cameras=[FRONT], delta_timestamps=deltas)
    reader = dataset.reader()
    for start, stop in [(0, 5), (3, 4), (7, 30), (12, 13), (0, len(dataset)), (29, 50)]:
        sink = MemorySink()
        counted = reader.read(FRONT, np.arange(start, stop), sink, lambda: None).counters["frames_decoded"]
        pair = np.asarray([start]), np.asarray([stop])
        assert dataset.cut_costs(*pair).tolist() == [counted]
        assert dataset.unique_frames(*pair).tolist() == [len(sink.pictures[FRONT])]
    reader.close()


def test_costs_add_up_over_cameras(synth: MakeDataset) -> None:
    both, pair = open_dataset(synth(gop=6)), (np.asarray([3]), np.asarray([9]))
    assert both.cut_costs(*pair).tolist() == [2 * (6 + 3)]
    assert open_dataset(synth(gop=6), cameras=[WRIST]).cut_costs(*pair).tolist() == [6 + 3]
