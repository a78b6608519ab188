"""`Loader.statistics()`, the line of an epoch in the log, and `Loader.timeline()`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import FakeDataset
from millpond import errors
from millpond._loader.loader import Loader
from millpond._loader.timeline import Timeline
from millpond._observe.spans import Span


@pytest.fixture(scope="module")
def gone_through() -> Iterator[Loader]:
    """An epoch of 400 samples in batches of 8, skipping one, by two workers; and a third of another."""
    dataset = FakeDataset(bad=frozenset({3}))
    options: dict[str, Any] = {"batch_size": 8, "num_workers": 2, "memory": "300MiB", "output": "numpy"}
    with Loader(dataset, **options, on_error="skip", quarantine="/dev/null") as loader:
        for _ in loader:
            pass
        yield loader


def test_statistics_tell_what_was_done_and_how_it_goes(gone_through: Loader) -> None:
    told = gone_through.statistics()
    assert (told.epochs, told.batches, told.samples, told.skipped, told.failed) == (1, 50, 399, 1, 0)
    assert told.samples_per_second > 0
    assert 0 < told.wait.p50_seconds <= told.wait.p95_seconds <= told.wait.p99_seconds <= told.wait_seconds
    assert told.limited_by in ("decode", "gather", "consumer")
    assert 0 <= told.arena_used_bytes < told.arena_bytes
    assert told.pond_slots == gone_through.memory_plan().pond_slots
    assert len(told.worker_pids) == 2


def test_statistics_are_flat_names_and_numbers_for_other_tools(gone_through: Loader) -> None:
    flat = gone_through.statistics().as_dict("train/")
    assert flat["train/samples"] == 399
    assert flat["train/workers"] == 2
    assert flat["train/wait_p99_seconds"] == gone_through.statistics().wait.p99_seconds
    assert all(isinstance(value, int | float | str) for value in flat.values())


def test_the_timeline_has_every_stage_of_every_batch(gone_through: Loader) -> None:
    spans = gone_through.timeline()
    waits = [span for span in spans if span.name == "wait"]
    assert [span.facts["batch"] for span in waits] == list(range(50))
    decodes = [span for span in spans if span.stage == "decode"]
    assert sum(int(span.facts["samples"]) for span in decodes) == 400 * len(gone_through.dataset.parts)
    assert {span.facts["pid"] for span in decodes} <= set(gone_through.statistics().worker_pids)
    assert all(span.began_ns <= span.ended_ns for span in spans)


def test_held_batches_show_in_the_use_of_the_arena() -> None:
    with Loader(FakeDataset(), batch_size=8, num_workers=0, memory="160MiB", output="numpy") as loader:
        assert loader.statistics().arena_used_bytes == 0
        held = next(iter(loader))
        assert loader.statistics().arena_used_bytes > 0
        del held


def test_what_was_counted_stays_when_the_loader_is_closed_and_the_pond_is_empty_when_an_epoch_is_over() -> None:
    with Loader(FakeDataset(), batch_size=8, num_workers=2, memory="300MiB", output="numpy") as loader:
        for _ in range(2):
            for batch in loader:
                held = batch["index"]
        del batch
        before = loader.statistics()
        assert (before.open_slots, before.held_batches) == (1, 1)
        del held
        assert (loader.statistics().open_slots, loader.statistics().arena_used_bytes) == (0, 0)
    assert loader.statistics().counters == before.counters == {"frames_decoded": 1600}


def test_an_epoch_writes_one_line_that_says_how_it_went(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "millpond")
    with Loader(FakeDataset(), batch_size=8, num_workers=0, memory="160MiB", output="numpy") as loader:
        for _ in loader:
            pass
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert line.startswith("epoch 0: 400 samples in ")
    assert "0 skipped" in line
    assert "limited by decode" in line


def test_failed_samples_are_counted_where_an_epoch_stops() -> None:
    dataset = FakeDataset(bad=frozenset({3}))
    with Loader(dataset, batch_size=8, num_workers=0, memory="160MiB", output="numpy") as loader:
        with pytest.raises(errors.CorruptMedia):
            next(iter(loader))
        assert loader.statistics().failed == 1


def test_statistics_may_be_asked_for_by_any_thread_while_an_epoch_runs() -> None:
    problems: list[BaseException] = []
    over = threading.Event()
    with Loader(FakeDataset(), batch_size=4, num_workers=2, memory="300MiB", output="numpy") as loader:

        def ask() -> None:
            try:
                while not over.is_set():
                    loader.statistics().as_dict()
                    loader.timeline()
            except BaseException as error:  # noqa: BLE001 - told below
                problems.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        for _ in loader:
            pass
        over.set()
        thread.join()
    assert problems == []


def test_a_trace_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Loader(FakeDataset(), num_workers=0, memory="160MiB", trace=tmp_path / "file" / "trace.json")


def test_an_interrupt_while_a_batch_is_noted_ends_the_epoch_and_loses_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    with Loader(FakeDataset(), batch_size=8, num_workers=2, memory="300MiB", output="numpy") as loader:
        for _ in range(loader.memory_plan().pond_slots):
            epoch = iter(loader)
            with monkeypatch.context() as patch:
                patch.setattr(Timeline, "wait", _interrupted)
                with pytest.raises(KeyboardInterrupt):
                    next(epoch)
            with pytest.raises(errors.ClosedError):
                next(epoch)
        assert sum(len(batch["index"]) for batch in loader) == 400


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_trace_may_be_closed_amid_a_note_in_the_same_thread() -> None:
    class Sink:
        is_closed = False

        def write(self, span: Span) -> None:
            timeline.close()  # as the garbage collector does where it finds a loader, or a signal's handler
            assert not self.is_closed

        def close(self) -> None:
            self.is_closed = True

    sink = Sink()
    timeline = Timeline(1, fetches_ahead=False, sink=sink)
    timeline.note(Span("plan", 0, 0, 1, "epoch order"))
    assert sink.is_closed
