"""What millpond's DataLoader takes beyond torch's arguments: constructor, environment, default; and back to torch's."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from millpond.errors import WorkerDied

torch = pytest.importorskip("torch", reason="the DataLoader needs torch")

from millpond.torch import DataLoader  # noqa: E402
from torch_datasets import Made, Numbered, all_identities, identities, kill, refuse  # noqa: E402
from torch_memory import lies_in_arena  # noqa: E402

MIB = 1 << 20
KNOBS: list[tuple[str, Any, str, Any, Any, Any]] = [
    # name, default, in the environment, what that means, argument, what that means
    ("timeout", 300.0, "12.5", 12.5, 7, 7),
    ("stall_timeout", 0.0, "3", 3.0, 2.5, 2.5),
    ("memory", None, "2GiB", 2 << 30, "100MiB", 100 * MIB),
    ("max_tasks_per_worker", 0, "50", 50, 9, 9),
    ("max_worker_anon", None, "4GiB", 4 << 30, 5 * MIB, 5 * MIB),
    ("max_restarts", 100, "5", 5, 0, 0),
    ("on_error", "raise", "skip", "skip", "raise", "raise"),
    ("quarantine", Path.cwd() / "millpond-quarantine.jsonl", "/bad.jsonl", Path("/bad.jsonl"), "/b", Path("/b")),
    ("held_batches", 4, "7", 7, 0, 0),
]
NAMES = [knob[0] for knob in KNOBS]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MILLPOND_") and "CACHE" not in name]:
        if "TEST" not in name:
            monkeypatch.delenv(name)


def option(name: str, **given: Any) -> Any:
    return getattr(DataLoader(Numbered(4), num_workers=1, **given), name)


@pytest.mark.parametrize(("name", "default", "text", "told", "argument", "given"), KNOBS, ids=NAMES)
def test_the_constructor_beats_the_environment_and_that_the_default(
    name: str, default: Any, text: str, told: Any, argument: Any, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert option(name) == default
    monkeypatch.setenv(f"MILLPOND_{name.upper()}", text)
    assert option(name) == told
    assert option(name, **{name: argument}) == given


@pytest.mark.parametrize(("name", "default"), [knob[:2] for knob in KNOBS], ids=NAMES)
def test_an_empty_variable_is_none(name: str, default: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MILLPOND_{name.upper()}", "")
    assert option(name) == default


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("TIMEOUT", "-1"),
        ("TIMEOUT", "soon"),
        ("TIMEOUT", "nan"),
        ("STALL_TIMEOUT", "-3"),
        ("MEMORY", "much"),
        ("MEMORY", "0"),
        ("MAX_TASKS_PER_WORKER", "1.5"),
        ("MAX_WORKER_ANON", "-1GiB"),
        ("MAX_RESTARTS", "-1"),
        ("ON_ERROR", "ignore"),
        ("HELD_BATCHES", "-2"),
        ("TRANSPORT", "pigeon"),
        ("KEEP_HEAP", "perhaps"),
        ("MP_CONTEXT", "thread"),
    ],
)
def test_a_value_that_cannot_work_names_its_variable(variable: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MILLPOND_{variable}", text)
    with pytest.raises(ValueError, match=rf"MILLPOND_{variable}\b.*{text}"):
        DataLoader(Numbered(4), num_workers=1)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"stall_timeout": -1}, ValueError, "stall_timeout must be positive"),
        ({"stall_timeout": "1"}, TypeError, "stall_timeout must be a number"),
        ({"memory": "much"}, ValueError, "memory: 'much' is no size"),
        ({"memory": -5}, ValueError, "memory: must be positive"),
        ({"memory": []}, TypeError, "memory: a size is a number of bytes"),
        ({"max_tasks_per_worker": 1.5}, TypeError, "max_tasks_per_worker must be an integer"),
        ({"max_tasks_per_worker": -1}, ValueError, "max_tasks_per_worker must be at least 0"),
        ({"max_worker_anon": "0"}, ValueError, "max_worker_anon: must be positive"),
        ({"max_restarts": -1}, ValueError, "max_restarts must be at least 0"),
        ({"held_batches": True}, TypeError, "held_batches must be an integer"),
        ({"on_error": "ignore"}, ValueError, 'on_error must be "raise" or "skip", not \'ignore\''),
        ({"quarantine": 5}, TypeError, "os.PathLike"),
    ],
)
def test_an_argument_that_cannot_work_is_named(given: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        DataLoader(Numbered(4), num_workers=1, **given)


def test_no_limit_can_be_said_where_the_environment_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_MEMORY", "1GiB")
    monkeypatch.setenv("MILLPOND_MAX_WORKER_ANON", "1GiB")
    assert option("memory", memory="none") is None
    assert option("max_worker_anon", max_worker_anon="none") is None


@pytest.mark.parametrize("given", [{}, {"timeout": 0}])
def test_without_workers_there_is_no_timeout_and_no_context(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_TIMEOUT", "5")
    monkeypatch.setenv("MILLPOND_MP_CONTEXT", "spawn")
    loader = DataLoader(Numbered(4), **given)
    assert (loader.timeout, loader.multiprocessing_context) == (0, None)
    assert all_identities(loader) == [[0], [1], [2], [3]]


# ---- back to torch's, one by one


@pytest.mark.parametrize("how", [{"timeout": 0}, {}])
def test_no_timeout(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_TIMEOUT", "0")
    with DataLoader(Numbered(4), 4, num_workers=1, **how) as loader:
        assert loader.timeout == 0
        assert all_identities(loader) == [[0, 1, 2, 3]]


def test_batches_through_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_TRANSPORT", "pickle")
    with DataLoader(Numbered(16), 4, num_workers=2) as loader:
        batches = list(loader)
        assert not any(map(lies_in_arena, batches))
        assert all_identities(batches) == [list(range(start, start + 4)) for start in range(0, 16, 4)]
        assert loader.statistics().heap_copies == 0


@pytest.mark.parametrize(("text", "keeps"), [("0", False), ("1", True)])
def test_heaps_of_workers_as_they_are(text: str, keeps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_KEEP_HEAP", text)

    def freed_is_kept(index: int) -> bool:
        def resident_pages() -> int:
            return int(Path("/proc/self/statm").read_text().split()[1])

        large = bytearray(16 * MIB)
        before = resident_pages()
        del large
        return resident_pages() > before - 2048

    with DataLoader(Made(freed_is_kept, 1), None, num_workers=1) as loader:
        assert list(loader) == [keeps]


@pytest.mark.parametrize("context", ["zygote", "fork", ""])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_start_methods(context: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_MP_CONTEXT", context)
    with DataLoader(Numbered(8), 4, num_workers=1) as loader:
        assert all_identities(loader) == [[0, 1, 2, 3], [4, 5, 6, 7]]
        started = loader.multiprocessing_context
        assert started is not None
        assert started.get_start_method() == (context or multiprocessing.get_start_method())


def test_no_second_try_for_a_worker_that_died() -> None:
    with DataLoader(Numbered(8, {5: kill}), 4, num_workers=1, max_restarts=0) as loader:
        batches = iter(loader)
        assert identities(next(batches)) == [0, 1, 2, 3]
        with pytest.raises(RuntimeError) as caught:
            next(batches)
    assert isinstance(caught.value, WorkerDied)
    assert caught.value.signal_name == signal.SIGKILL.name


def test_errors_of_samples_are_raised_where_the_environment_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_ON_ERROR", "skip")
    with DataLoader(Numbered(8, {5: refuse}), 4, num_workers=1, on_error="raise") as loader:
        with pytest.raises(ValueError, match="this sample is bad"):
            all_identities(loader)


def test_what_is_skipped_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with DataLoader(Numbered(8, {5: refuse}), 4, on_error="skip", quarantine=tmp_path / "bad") as loader:
        with caplog.at_level(logging.WARNING, "millpond"):
            all_identities(loader)
    assert [record.getMessage() for record in caplog.records] == [
        "sample 5 is left out: ValueError: this sample is bad"
    ]
