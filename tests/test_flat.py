"""Statistics as flat numbers: names that say where a value came from, nothing that loggers would refuse."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from millpond._flat import flat_values
from millpond._plan.books import Books


@dataclass(frozen=True)
class _Statistics:
    samples: int = 3
    wait_seconds: float = 0.5
    limited_by: str | None = "decode"
    counters: dict[str, int] = field(default_factory=lambda: {"frames": 7})
    worker_pids: tuple[int, ...] = (11, 12)
    books: Books | None = None


def test_each_number_has_the_name_of_its_field_behind_the_prefix() -> None:
    flat = flat_values(_Statistics(books=Books(planned=9)), "train/")
    assert flat["train/samples"] == 3
    assert flat["train/counters_frames"] == 7
    assert flat["train/books_planned"] == 9
    assert flat["train/workers"] == 2
    assert flat["train/limited_by"] == "decode"
    assert all(isinstance(value, int | float | str) for value in flat.values())


def test_what_is_not_known_is_left_out() -> None:
    flat = flat_values(_Statistics(limited_by=None))
    assert "limited_by" not in flat
    assert not any(name.startswith("books") for name in flat)


def test_what_has_no_flat_form_is_named() -> None:
    with pytest.raises(TypeError, match=r"counters_frames has no flat form: it is a list"):
        flat_values(_Statistics(counters={"frames": [1]}))  # type: ignore[dict-item]
