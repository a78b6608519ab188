"""What a loader's trace tells: every delivery, the work behind it and whose it was, whatever happens to the run."""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chrome_traces import Event, of_kind, read_cut_short, read_events
from fakes import FakeDataset
from file_limits import files_of_at_most
from millpond import LoaderStatistics
from millpond._plan.epoch import EpochPlan
from perfetto_processor import loaded_in_perfetto
from programs import start_python
from streamed import SmallSteps, loader_of, streamed, taken
from synthesized import FRONT, WRIST, MakeDataset
from test_loader_inline import checked, flat, make_loader, take
from told_traces import (
    ToldTrace,
    decoded_samples,
    epoch_plan,
    require_flows_forward_in_time,
    require_origins,
    require_tracks_without_overlap,
)


@dataclass(frozen=True)
class Run:
    """Two epochs of a dataset in a store, each batch put together by a transform, traced."""

    path: Path
    events: list[Event]
    trace: ToldTrace
    plans: list[EpochPlan]
    statistics: LoaderStatistics


@pytest.fixture(scope="module")
def run(synth: MakeDataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("traced") / "trace.json"
    with pytest.MonkeyPatch.context() as patch, streamed(synth()) as (dataset, _):
        SmallSteps(patch)()
        with loader_of(dataset, transform=_same, trace=path) as loader:
            for _ in range(2):
                taken(loader)
            plans, statistics = [epoch_plan(loader, epoch) for epoch in (0, 1)], loader.statistics()
    events = read_events(path)
    return Run(path, events, ToldTrace(events), plans, statistics)


def _same(sample: dict[str, Any]) -> dict[str, Any]:
    return sample


def require_a_sound_trace(path: Path, plan: EpochPlan, epoch: int = 0) -> ToldTrace:
    """Of a `FakeDataset`'s loader."""
    trace = ToldTrace(read_events(path))
    require_tracks_without_overlap(trace)
    require_flows_forward_in_time(trace)
    require_origins(trace, plan, epoch, {"front", "wrist"})
    return trace


def test_behind_each_delivery_are_the_decodes_of_its_samples_and_no_others(run: Run) -> None:
    for epoch, plan in enumerate(run.plans):
        require_origins(run.trace, plan, epoch, {FRONT, WRIST})


def test_behind_each_decode_are_the_fetches_of_its_bytes(run: Run) -> None:
    for span in run.trace.of("decode"):
        fetches = run.trace.behind(span, "fetch")
        assert fetches
        assert {fetch.facts["segment"] for fetch in fetches} == {span.facts["segment"]}


def test_each_delivery_was_put_together_once_before(run: Run) -> None:
    for epoch in (0, 1):
        for delivery in run.trace.deliveries(epoch):
            [gather] = run.trace.behind(delivery, "gather")
            assert gather.facts["batch"] == delivery.facts["batch"]


def test_what_leads_to_a_span_was_over_when_that_began(run: Run) -> None:
    require_flows_forward_in_time(run.trace)


def test_work_of_one_track_never_overlaps(run: Run) -> None:
    require_tracks_without_overlap(run.trace)


def test_workers_have_a_track_each_and_their_pid_on_every_span(run: Run) -> None:
    for stage in ("decode", "gather"):
        pids = {(span.track, span.facts["pid"]) for span in run.trace.of(stage)}
        assert len(pids) == len({track for track, _ in pids}) <= 2
        assert {pid for _, pid in pids} <= {*run.statistics.worker_pids}


def test_the_samples_of_decodes_are_the_books(run: Run) -> None:
    books = run.statistics.books
    assert books is not None
    assert decoded_samples(run.trace, 1) == {FRONT: books.delivered, WRIST: books.delivered}
    assert sum(span.facts["samples"] for span in run.trace.deliveries(1)) == books.delivered


def test_the_plan_is_on_the_time_line_and_so_is_the_training_between_batches(run: Run) -> None:
    assert [span.facts["epoch"] for span in run.trace.of("plan", "epoch order")] == [0, 1]
    assert len(run.trace.of("consumer", "training", epoch=0)) >= len(run.trace.deliveries(0)) - 1
    assert any(event["args"]["slots"] > 0 for event in of_kind(run.events, "C"))


def test_perfetto_finds_every_span_track_and_flow_and_nothing_wrong(run: Run) -> None:
    with loaded_in_perfetto(run.path) as perfetto:
        assert perfetto.complaints() == []
        spans = perfetto.rows("select category, count(*) from slice group by 1")
        tracks = perfetto.rows(
            "select distinct process.name as stage, thread.name as lane from slice"
            " join thread_track on track_id = thread_track.id join thread using (utid) join process using (upid)"
        )
        flows = perfetto.rows(
            "select a.category as one, b.category as other, count(*) as n from flow join slice a on slice_out = a.id"
            " join slice b on slice_in = b.id group by 1, 2"
        )
        [(nested,)] = perfetto.rows("select count(*) from slice where depth > 0")
        [(levels,)] = perfetto.rows("select count(*) from counter")
    assert dict(spans) == {
        stage: len(run.trace.of(stage)) for stage in ("plan", "fetch", "decode", "gather", "consumer")
    }
    assert len(tracks) == len(run.trace.spans)
    assert ("consumer", "training loop") in tracks
    # either worker may have done all of the work
    assert {track for stage, track in tracks if stage == "decode"} & {"worker 0", "worker 1"}
    told = Counter((one.stage, other.stage) for other, origins in run.trace.origins.items() for one in origins)
    assert {(one, other): count for one, other, count in flows} == told
    assert nested == 0
    assert levels == sum(1 for _ in of_kind(run.events, "C"))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_trace_changes_no_batch_and_accounts_for_bad_samples(num_workers: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"on_error": "skip", "quarantine": tmp_path / "q", "memory": "300MiB", "num_workers": 2}
    dataset = FakeDataset(bad=frozenset({3, 200}))
    with make_loader(dataset, **options) as plain:
        expected = take(plain)
    with make_loader(dataset, trace=tmp_path / "trace.json", **options | {"num_workers": num_workers}) as loader:
        assert take(loader) == expected
        plan, statistics = epoch_plan(loader, 0), loader.statistics()
    trace = require_a_sound_trace(tmp_path / "trace.json", plan)
    assert statistics.books is not None
    assert statistics.books.skipped == 2
    assert decoded_samples(trace, 0) == dict.fromkeys(["front", "wrist"], statistics.books.planned)
    pids = {span.facts["pid"] for span in trace.of("decode")}
    assert pids <= {*statistics.worker_pids} if num_workers else pids == {os.getpid()}


def test_a_worker_that_is_killed_leaves_its_track_to_the_next(tmp_path: Path) -> None:
    dataset = FakeDataset(deadly=frozenset({200}), died=tmp_path / "died")
    path = tmp_path / "trace.json"
    with make_loader(dataset, num_workers=1, memory="300MiB", trace=path) as loader:
        assert sorted(flat(take(loader))) == list(range(400))
        plan = epoch_plan(loader, 0)
        assert loader.statistics().worker_restarts == 1
    trace = require_a_sound_trace(path, plan)
    assert decoded_samples(trace, 0) == {"front": 400, "wrist": 400}
    [(track, pids)] = {
        span.track: {span.facts["pid"] for span in trace.of("decode")} for span in trace.of("decode")
    }.items()
    assert len(pids) == 2, track
    assert [span.name for span in trace.of("decode") if span.name != "decode"] == ["died"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_epochs_that_are_broken_off_lead_nowhere_in_the_next(num_workers: int, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with make_loader(num_workers=num_workers, memory="300MiB", trace=path) as loader:
        for batches in (0, 2, 5, 1, 2):
            epoch = iter(loader)
            for _ in range(batches):
                next(epoch)
            epoch.close()  # type: ignore[attr-defined]
        take(loader)
        plan = epoch_plan(loader, 4)
    trace = require_a_sound_trace(path, plan, epoch=4)
    assert [len(trace.deliveries(epoch)) for epoch in range(5)] == [2, 5, 1, 2, 50]  # the first of 0 was none
    assert decoded_samples(trace, 4) == {"front": 400, "wrist": 400}


_KILLED = """
import os, signal, sys
from test_loader_inline import make_loader
with make_loader(trace=sys.argv[1]) as loader:
    for epoch in range(6):
        for batch in loader:
            if epoch == 5:
                os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_training_process_that_is_killed_leaves_a_trace_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with start_python(_KILLED, str(path)) as process:
        assert process.wait(60) == -signal.SIGKILL
    trace = ToldTrace(read_cut_short(path))
    assert len(trace.deliveries(0)) == 50
    assert not trace.deliveries(5)


def test_a_full_disk_ends_the_trace_and_not_the_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "trace.json"
    caplog.set_level(logging.WARNING)
    with make_loader(trace=path) as loader:
        first = iter(loader)  # an arena is a file, too
        with files_of_at_most(10_000):
            assert sorted(flat(map(checked, first))) == list(range(400))
            assert sorted(flat(take(loader))) == list(range(400))
    assert read_cut_short(path)
    assert ["File too large" in record.getMessage() for record in caplog.records] == [True]
