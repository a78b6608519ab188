"""Reading with Ray Data: on a cluster of two nodes, in a program of its own."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond._ray.options import checked_options
from millpond._ray.runs import LEAST_SAMPLES, MOST_SAMPLES, cut_runs, tasks_for
from programs import program
from store_server import serving_store
from synthesized import FRONT, LENGTHS, SIZE, WRIST, MakeDataset, zero_the_middle

TOTAL = sum(LENGTHS)
EVERY_NAME = [
    [episode, frame, [episode, 0, frame], [episode, 1, frame]]
    for episode, length in enumerate(LENGTHS)
    for frame in range(length)
]


@pytest.fixture(scope="module")
def found(synth: MakeDataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the program saw, and what it left."""
    folder = tmp_path_factory.mktemp("ray-data")
    root = shutil.copytree(synth(), folder / "dataset", ignore=shutil.ignore_patterns(".millpond"))
    broken = shutil.copytree(root, folder / "broken")
    zero_the_middle(broken)
    home = {"HOME": str(folder / "home"), "RAY_ADDRESS": "", "RAY_USAGE_STATS_ENABLED": "0"}
    home |= {"STORE_TOKEN": "swordfish"}
    home |= {"RANK": "1", "WORLD_SIZE": "2"}  # of a trainer, say: a read task is no rank of its
    code = "import sys, ray_reading; ray_reading.main(*sys.argv[1:])"
    with serving_store(root, bearer=home["STORE_TOKEN"]) as store:
        arguments = (str(root), str(broken), store.url, str(folder))
        with program(code, folder / "temporary", *arguments, environment=home) as reading:
            _, errors = reading.process.communicate(timeout=280)  # 20 s, and more where others are at work
            assert reading.process.returncode == 0, errors
            return {**json.loads((folder / "found.json").read_text()), "left": reading.left(5)}


def test_every_sample_comes_once_with_its_pixels_from_both_nodes(found: Any) -> None:
    spread = found["spread"]
    assert sorted(spread["names"]) == EVERY_NAME
    assert spread["is_there"] == {"left": [True] * sum(LENGTHS[:2]), "right": [True] * sum(LENGTHS[2:])}


def test_tensors_of_a_dataset_in_a_store_are_those_of_the_dataset(found: Any) -> None:
    tensors = found["tensors"]
    assert (sorted(tensors["seen"]), tensors["wrong"]) == (list(range(TOTAL)), [])
    pictures = {FRONT: ["torch.uint8", [3, *SIZE]], WRIST: ["torch.uint8", [3, *SIZE]]}
    assert pictures.items() <= tensors["shapes"].items()
    assert tensors["shapes"]["index"] == ["torch.int64", []]
    assert tensors["tasks"] == ["pick up the cube"]


def test_a_few_rows_of_windows_with_channels_last(found: Any) -> None:
    assert found["windows"]["shown"] == [[0, 0], [0, 1], [1, 2]]
    assert found["windows"]["shapes"] == [[2, *SIZE, 3], [*SIZE, 3]]


def test_a_token_is_in_no_log_of_rays(found: Any) -> None:
    assert found["logged"] > 10_000
    assert found["secrets"] == 0


def test_what_a_killed_task_had_given_is_neither_lost_nor_given_twice(found: Any) -> None:
    assert found["killed"]["was_killed"]
    assert sorted(found["killed"]["seen"]) == list(range(TOTAL))


def test_a_shuffled_order_is_another_in_every_epoch_and_the_same_for_the_same_seed(found: Any) -> None:
    first, second, again = found["orders"]
    assert sorted(first) == sorted(second) == list(range(TOTAL))
    assert first == again != second
    assert first != sorted(first)


def test_skip_loses_what_is_damaged_and_names_it_once(found: Any) -> None:
    damaged = found["damaged"]
    lost = sorted([line["episode_index"], line["frame_index"]] for line in damaged["quarantined"])
    assert 0 < len(lost) <= 12  # the zeros lie in one GOP of six frames, or over the border of two
    assert sorted(damaged["names"] + [name for name in EVERY_NAME if name[:2] in lost]) == EVERY_NAME
    assert sorted(damaged["names again"]) == sorted(damaged["names"])
    assert {line["error"] for line in damaged["quarantined"]} == {"CorruptMedia"}


def test_placeholder_keeps_every_row_and_says_which_are_none(found: Any) -> None:
    lost = {line["sample"] for line in found["damaged"]["quarantined"]}
    rows = found["damaged"]["rows"]
    assert sorted(index for index, is_valid in rows if is_valid) == sorted(set(range(TOTAL)) - lost)
    assert [index for index, is_valid in rows if not is_valid] == [0] * len(lost)


def test_raise_brings_the_error_with_its_facts_to_the_program(found: Any) -> None:
    raised = found["damaged"]["raised"]
    assert {"CorruptMedia", "MillpondError"} < set(raised["kinds"])
    assert raised["facts"]["camera"] == FRONT
    assert f"of camera '{FRONT}': packet" in raised["text"]


def test_too_many_bad_samples_of_a_task_end_the_reading(found: Any) -> None:
    assert "TooManyErrors" in found["damaged"]["too many"]["kinds"]


def test_the_budget_holds_for_each_task(found: Any) -> None:
    assert "ValueError" in found["too small"]["kinds"]
    assert "memory=1048576 bytes (1 MiB) cannot hold batches of 1 samples" in found["too small"]["text"]


def test_an_option_that_ray_does_not_know_is_refused(found: Any) -> None:
    assert "TypeError" in found["unknown"]["kinds"]
    assert "know no concurency=" in found["unknown"]["text"]


def test_nothing_is_left_of_tasks_when_the_cluster_is_gone(found: Any) -> None:
    assert found["left"] == []


# ---- without Ray


@given(st.integers(1, 5000), st.integers(1, 300), st.lists(st.integers(1, 400), min_size=1, max_size=60))
def test_runs_are_disjoint_together_everything_and_balanced(
    num_samples: int, num_tasks: int, lengths: list[int]
) -> None:
    inner = [bound for bound in np.cumsum(lengths).tolist() if bound < num_samples]
    runs = cut_runs(num_samples, num_tasks, np.asarray([0, *inner, num_samples], np.int64))
    assert [sample for run in runs for sample in range(*run)] == list(range(num_samples))
    ideal = num_samples / min(num_tasks, num_samples)
    assert len(runs) == min(num_tasks, num_samples)
    assert all(abs(len(run) - ideal) <= ideal / 4 + 1 for run in runs)


def test_runs_begin_with_an_episode_where_one_begins_nearby() -> None:
    cuts = np.asarray([0, 95, 190, 310, 420, 500], np.int64)
    assert cut_runs(500, 5, cuts) == [(0, 95), (95, 190), (190, 310), (310, 400), (400, 500)]


@pytest.mark.parametrize(
    ("num_samples", "num_cpus", "tasks"),
    [
        (1, 64, 1),
        (LEAST_SAMPLES * 3, 64, 3),
        (1_000_000, 64, 256),
        (1_000_000_000, 64, 1 + 1_000_000_000 // MOST_SAMPLES),
        (1_000, 0.0, 1),
    ],
)
def test_tasks_are_some_for_each_cpu_of_a_worthwhile_size(num_samples: int, num_cpus: float, tasks: int) -> None:
    assert tasks_for(num_samples, num_cpus) == tasks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_errors": 5, "on_error": "skip"}, "max_errors must be a fraction"),
        ({"max_errors": 0.1}, "max_errors counts samples that are bad"),
        ({"on_error": "ignore"}, 'on_error must be "raise", "skip" or "placeholder"'),
        ({"memory": "much"}, "'much' is no size"),
        ({"decode_workers": -1}, "decode_workers must be at least 0"),
    ],
)
def test_what_cannot_work_is_refused_before_there_are_tasks(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_options(**{**DEFAULTS, **options})


DEFAULTS: dict[str, Any] = {
    "batch_size": None,
    "memory": "512MiB",
    "decode_workers": 1,
    "shuffle": False,
    "seed": 0,
    "on_error": "raise",
    "max_errors": None,
    "quarantine": "q",
    "timeout": 300.0,
    "stall_timeout": 60.0,
    "video_fetch_workers": 16,
    "channels_last": False,
}


def test_a_missing_ray_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "millpond.ray", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'millpond\[ray\]'"):
        importlib.import_module("millpond.ray")
