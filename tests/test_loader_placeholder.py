"""What becomes of bad samples: batches that keep their size, and runs that skip too much."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import FakeDataset, identity_of
from millpond import errors
from test_loader_inline import make_loader, take


def flexible(tmp_path: Path, bad: set[int], **options: Any) -> Any:
    dataset = options.pop("dataset", None) or FakeDataset(bad=frozenset(bad))
    return make_loader(dataset, quarantine=tmp_path / "q.jsonl", memory="300MiB", **options)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_placeholder_keeps_the_row_of_a_bad_sample_and_says_so(num_workers: int, tmp_path: Path) -> None:
    with flexible(tmp_path, {5, 17}, on_error="placeholder", num_workers=num_workers) as loader:
        seen: list[int] = []
        for batch in loader:
            assert len(batch["index"]) == len(batch["is_valid"]) == 8
            for row, valid in enumerate(batch["is_valid"].tolist()):
                if valid:
                    seen.append(int(batch["index"][row]))
                    assert identity_of(np.asarray(batch["front"][row])) == (seen[-1], 0)
                else:
                    assert not any(np.asarray(batch[name][row]).any() for name in ("front", "wrist", "index", "state"))
        books = loader.statistics().books
    assert sorted(seen) == sorted({*range(400)} - {5, 17})
    assert (books.delivered, books.skipped, books.balance) == (398, 2, 0)
    assert [json.loads(line)["sample"] for line in (tmp_path / "q.jsonl").read_text().splitlines()]


def test_with_placeholders_every_batch_comes_also_one_that_lost_every_row(tmp_path: Path) -> None:
    with flexible(tmp_path, set(range(16)), on_error="placeholder", shuffle=False) as loader:
        valid = [batch["is_valid"].tolist() for batch in loader]
        assert len(valid) == len(loader) == 50
        assert loader.statistics().batches == 50
    assert valid[:3] == [[False] * 8, [False] * 8, [True] * 8]


def test_rows_are_where_they_would_be_without_failures(tmp_path: Path) -> None:
    with flexible(tmp_path, set()) as calm, flexible(tmp_path, {3, 44}, on_error="placeholder") as loader:
        for expected, batch in zip(calm, loader, strict=True):
            rows = batch["is_valid"].tolist()
            assert [value for value, valid in zip(expected["index"].tolist(), rows, strict=True) if valid] == [
                value for value, valid in zip(batch["index"].tolist(), rows, strict=True) if valid
            ]


def test_a_placeholder_epoch_resumes_with_its_books(tmp_path: Path) -> None:
    with flexible(tmp_path, {5, 300}, on_error="placeholder", shuffle=False) as loader:
        iterator = iter(loader)
        for _ in range(10):
            next(iterator)
        state = json.loads(json.dumps(loader.state_dict()))
    with flexible(tmp_path, {5, 300}, on_error="placeholder", shuffle=False) as loader:
        loader.load_state_dict(state)
        assert sum(1 for _ in loader) == 40
        assert loader.statistics().books.skipped == 2


def test_a_transform_s_placeholder_is_zero_too(tmp_path: Path) -> None:
    def transform(sample: dict[str, Any]) -> dict[str, Any]:
        if sample["index"] == 9:
            raise ValueError("nine")
        return {"index": sample["index"] + 1, "task": sample["task"]}

    with flexible(tmp_path, {5}, on_error="placeholder", transform=transform, shuffle=False, num_workers=0) as loader:
        iterator = iter(loader)
        first, second = next(iterator), next(iterator)
    assert first["index"].tolist() == [1, 2, 3, 4, 5, 0, 7, 8]
    assert second["index"].tolist() == [9, 0, 11, 12, 13, 14, 15, 16]
    assert second["is_valid"].tolist() == [True, False, *[True] * 6]
    assert first["task"][:4] == ["task 0", "task 1", "task 2", "task 0"]


def test_text_that_a_transform_changes_is_named(tmp_path: Path) -> None:
    def transform(sample: dict[str, Any]) -> dict[str, Any]:
        return {"index": sample["index"], "task": sample["task"].upper() if sample["index"] == 9 else sample["task"]}

    with flexible(tmp_path, set(), transform=transform, num_workers=0) as loader:
        with pytest.raises(ValueError, match="'task' another text"):
            sum(1 for _ in loader)


@pytest.mark.parametrize(("max_errors", "limit"), [(2, 2), (0.006, 2), (0, 0), (0.0, 0)])
def test_too_many_errors_end_the_epoch(max_errors: float, limit: int, tmp_path: Path) -> None:
    with flexible(tmp_path, {50, 150, 250}, on_error="skip", max_errors=max_errors, shuffle=False) as loader:
        with pytest.raises(errors.TooManyErrors, match=rf"limit {limit}, from max_errors=") as caught:
            take(loader)
        assert loader.statistics().samples >= 40
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.skipped, error.limit, error.epoch) == (limit + 1, limit, 0)
    assert isinstance(caught.value.__cause__, errors.CorruptMedia)


@pytest.mark.parametrize("max_errors", [3, 0.0076, None])
def test_as_many_errors_as_allowed_do_not(max_errors: float | None, tmp_path: Path) -> None:
    with flexible(tmp_path, {50, 150, 250}, on_error="placeholder", max_errors=max_errors) as loader:
        take_all = [batch["is_valid"].sum() for batch in loader]
    assert sum(int(count) for count in take_all) == 397


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_errors": 3}, "needs on_error"),
        ({"max_errors": -1, "on_error": "skip"}, "max_errors must be a count"),
        ({"max_errors": 1.5, "on_error": "skip"}, "max_errors must be a count"),
        ({"max_tasks_per_worker": 0}, "max_tasks_per_worker must be at least 1"),
        ({"max_worker_anon": 0}, "max_worker_anon must be positive"),
        ({"stall_timeout": 0}, "stall_timeout must be positive"),
        ({"max_restarts": -1}, "max_restarts must be at least 0"),
    ],
)
def test_misuse_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_loader(**options)


def test_a_field_of_that_name_is_refused(tmp_path: Path) -> None:
    def transform(sample: dict[str, Any]) -> dict[str, Any]:
        return {"is_valid": sample["index"]}

    with pytest.raises(ValueError, match="'is_valid'"):
        make_loader(transform=transform, on_error="placeholder")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_would_end_a_process_fails_its_sample_and_no_more(num_workers: int, tmp_path: Path) -> None:
    def transform(sample: dict[str, Any]) -> dict[str, Any]:
        if sample["index"] == 37:
            raise SystemExit(1)
        return {"index": sample["index"]}

    with flexible(tmp_path, set(), on_error="skip", transform=transform, num_workers=num_workers) as loader:
        assert sum(len(batch["index"]) for batch in loader) == 399
    (line,) = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert (line["sample"], line["error"], "SystemExit" in line["message"]) == (37, "RemoteError", True)
