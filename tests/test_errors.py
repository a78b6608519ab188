"""Errors travel: every class survives pickle with its message, facts and notes, and stands where the tree says."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from millpond import errors
from millpond.errors import MillpondError

CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, MillpondError)]


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def error_class(request: pytest.FixtureRequest) -> type[MillpondError]:
    found: type[MillpondError] = request.param
    return found


def test_error_survives_pickle_with_facts_and_notes(error_class: type[MillpondError]) -> None:
    error = error_class("decoding 'ep7.mp4' failed", path="ep7.mp4", episode=7)
    error.add_note("Traceback of the worker")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is error_class
        assert (str(again), again.path, again.episode) == ("decoding 'ep7.mp4' failed", "ep7.mp4", 7)
        assert again.__notes__ == ["Traceback of the worker"]


def test_error_survives_copy(error_class: type[MillpondError]) -> None:
    again = copy.deepcopy(error_class("no room", wanted_bytes=7))
    assert (type(again), str(again), again.wanted_bytes) == (error_class, "no room", 7)


def test_a_fact_that_is_not_there_is_an_attribute_error(error_class: type[MillpondError]) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'episode'"):
        _ = error_class("message", path="a").episode


def test_an_error_without_facts_or_notes_survives_pickle() -> None:
    again = pickle.loads(pickle.dumps(MillpondError("plain")))
    assert (str(again), again.facts, hasattr(again, "__notes__")) == ("plain", {}, False)


def test_every_class_has_a_line_in_the_drawn_tree(error_class: type[MillpondError]) -> None:
    assert errors.__doc__ is not None
    drawn = errors.__doc__.partition("::")[2].partition("Misuse")[0]
    assert any(line.split()[:1] == [error_class.__name__] for line in drawn.splitlines())


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.ObjectMissing, FileNotFoundError),
        (errors.UnsupportedFormat, ValueError),
        (errors.DeadlineExceeded, TimeoutError),
    ],
)
def test_errors_are_also_what_python_calls_them(cls: type[MillpondError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="why"):
        raise cls("why")
