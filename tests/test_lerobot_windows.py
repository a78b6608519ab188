"""Windows: LeRobot's meaning of `delta_timestamps`, against the plainest way to say it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond._datasets.windows import frame_offsets, padded_steps, window_positions
from millpond._synth import read_pattern
from synthesized import FRONT, LENGTHS, WRIST, MakeDataset, open_dataset, read_all

DELTAS: dict[str, list[float]] = {
    FRONT: [-1.0, -2 / 30, 0.0, 1 / 30],
    "action": [0.0, 1 / 30, 20 / 30],
    "timestamp": [-1 / 30],
}


def lerobots_window(position: int, length: int, offsets: list[int]) -> tuple[list[int], list[bool]]:
    """`LeRobotDataset._get_query_indices` of lerobot 0.4.4, within one episode."""
    shown = [max(0, min(length - 1, position + offset)) for offset in offsets]
    padding = [(position + offset < 0) | (position + offset >= length) for offset in offsets]
    return shown, padding


@given(st.integers(1, 40), st.lists(st.integers(-50, 50), min_size=1, max_size=6), st.data())
def test_positions_and_padding_are_lerobots(length: int, offsets: list[int], data: st.DataObject) -> None:
    position = data.draw(st.integers(0, length - 1))
    arrays = np.asarray([position]), np.asarray([length]), np.asarray(offsets)
    found = window_positions(*arrays)[0].tolist(), padded_steps(*arrays)[0].tolist()
    assert found == lerobots_window(position, length, offsets)


@pytest.mark.parametrize("options", [{}, {"episodes_per_file": 1}, {"gop": 1000}, {"image_features": 2}])
def test_windows_show_what_lerobot_would(synth: MakeDataset, options: dict[str, int]) -> None:
    dataset = open_dataset(synth(**options), delta_timestamps=DELTAS)
    samples = [(episode, frame) for episode, length in enumerate(LENGTHS) for frame in range(length)]
    told = iter(samples)
    for sink, report in read_all(dataset, FRONT):
        assert report.failures == []
        for n in range(len(sink.windows[FRONT])):
            episode, frame = next(told)
            shown, padding = lerobots_window(frame, LENGTHS[episode], [-30, -2, 0, 1])
            pictures = [read_pattern(sink.shown(FRONT, n, step)) for step in range(4)]
            assert pictures == [(episode, 0, position) for position in shown]
            assert sink.values[f"{FRONT}_is_pad"][n].tolist() == padding
            shown, padding = lerobots_window(frame, LENGTHS[episode], [0, 1, 20])
            assert sink.values["action"][n, :, :2].tolist() == [[position, episode] for position in shown]
            assert sink.values["action_is_pad"][n].tolist() == padding
    assert next(told, None) is None


def test_a_frame_is_decoded_once_for_all_samples_that_show_it(synth: MakeDataset) -> None:
    dataset = open_dataset(synth(gop=1000), delta_timestamps={FRONT: [-2 / 30, -1 / 30, 0.0]}, cameras=[FRONT])
    ((sink, report),) = read_all(dataset, FRONT, segment=1000)
    assert report.counters["frames_decoded"] == len(dataset)
    assert len(sink.pictures[FRONT]) == len(dataset)


def test_fields_have_a_first_axis_of_steps(synth: MakeDataset) -> None:
    dataset = open_dataset(synth(), delta_timestamps=DELTAS)
    shapes = {field.name: (field.shape, field.dtype) for field in dataset.fields}
    assert shapes[FRONT] == ((4, 96, 128, 3), "uint8")
    assert shapes[WRIST] == ((96, 128, 3), "uint8")
    assert shapes["action"] == ((3, 14), "float32")
    assert shapes["timestamp"] == ((1,), "float32")
    assert shapes["action_is_pad"] == ((3,), "bool")
    assert "observation.state_is_pad" not in shapes


def test_one_step_is_still_an_axis(synth: MakeDataset) -> None:
    dataset = open_dataset(synth(), delta_timestamps={WRIST: [0.0]})
    assert {field.name: field.shape for field in dataset.fields}[WRIST] == (1, 96, 128, 3)


@pytest.mark.parametrize(
    ("deltas", "match"),
    [
        ({"action": [0.01]}, "no multiples of 1/30"),
        ({"action": [float("nan")]}, "no multiples"),
        ({"action": []}, "empty"),
        ({"actoin": [0.0]}, "'actoin', which is no feature"),
        ({"instruction": [0.0]}, "'instruction', which is no feature"),
        ({WRIST: [0.0]}, "which is no feature"),
    ],
)
def test_times_that_cannot_be_are_refused(synth: MakeDataset, deltas: dict[str, list[float]], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        open_dataset(synth(extra_columns=True), cameras=[FRONT], delta_timestamps=deltas)


def test_times_may_be_off_by_the_tolerance() -> None:
    options: dict[str, Any] = {"known": ["a"], "fps": 30.0}
    assert frame_offsets({"a": [0.0335, -0.1]}, tolerance_s=1e-3, **options) == {"a": (1, -3)}
    with pytest.raises(ValueError, match=r"tolerance_s=0\.0001"):
        frame_offsets({"a": [0.0335]}, tolerance_s=1e-4, **options)
