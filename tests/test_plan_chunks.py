"""The sweep plan settles every job, whatever processes do, and finds out how many jobs a process bears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from millpond._plan.chunks import Chunk, ChunkEnd, JobState, JobVerdict, SweepPlan

DONE, FAILED, PENDING = JobState.DONE, JobState.FAILED, JobState.PENDING
MIB = 1 << 20
Process = Callable[[Chunk], ChunkEnd]


def names_of(count: int) -> list[str]:
    return [f"job{k:03}" for k in range(count)]


def make_plan(names: int | list[str], **options: Any) -> SweepPlan:
    defaults: dict[str, Any] = {"chunk_size": 4, "budget_bytes": None, "capacity": 1, "stop_on_error": False}
    return SweepPlan(names_of(names) if isinstance(names, int) else names, **{**defaults, **options})


def next_of(plan: SweepPlan) -> Chunk:
    chunk = plan.next_chunk()
    assert chunk is not None
    return chunk


def all_done(chunk: Chunk, **facts: Any) -> ChunkEnd:
    return ChunkEnd(frozenset(chunk.names), {}, is_clean=True, **facts)


def died(*done: str, **facts: Any) -> ChunkEnd:
    return ChunkEnd(frozenset(done), facts.pop("errors", {}), is_clean=False, reason="killed by SIGKILL (9)", **facts)


def well(*done: str, **facts: Any) -> ChunkEnd:
    return ChunkEnd(frozenset(done), facts.pop("errors", {}), is_clean=True, **facts)


def states(verdicts: tuple[JobVerdict, ...]) -> str:
    """The first letter of each: "dpf"."""
    return "".join(verdict.state[0] for verdict in verdicts)


def sweep(plan: SweepPlan, process: Process) -> tuple[dict[str, JobVerdict], list[Chunk]]:
    """One chunk at a time to the end; the last verdict of each job, and all chunks."""
    last: dict[str, JobVerdict] = {}
    chunks: list[Chunk] = []
    while not plan.is_over:
        chunks.append(next_of(plan))
        last |= {verdict.name: verdict for verdict in plan.ended(chunks[-1], process(chunks[-1]))}
    return last, chunks


def leaky(*, budget: int, base: int, growth: int, killers: tuple[str, ...] = ()) -> Process:
    """A process that reports as it goes, needs `growth` more with each job, and dies of some."""

    def run(chunk: Chunk) -> ChunkEnd:
        for k, name in enumerate(chunk.names):
            peak = base + (k + 1) * growth
            if peak > budget:
                return died(*chunk.names[:k], is_over_budget=True, peak_bytes=peak)
            if name in killers:
                return died(*chunk.names[:k], peak_bytes=peak)
        return all_done(chunk, peak_bytes=peak)

    return run


# -- whatever happens


@st.composite
def ends(draw: st.DrawFn, chunk: Chunk) -> ChunkEnd:
    """Any end of a chunk, also one that makes little sense."""
    fates = draw(st.lists(st.sampled_from("desss"), min_size=len(chunk.names), max_size=len(chunk.names)))
    of = {fate: [name for name, one in zip(chunk.names, fates, strict=True) if one == fate] for fate in "des"}
    flag = st.booleans()
    return ChunkEnd(
        frozenset(of["d"]),
        dict.fromkeys(of["e"], "raised"),
        is_clean=draw(flag),
        reason="died",
        is_over_budget=draw(flag),
        is_drained=draw(flag),
        cooperates=draw(flag),
        current=draw(st.sampled_from(["", "unknown", *chunk.names])),
        peak_bytes=draw(st.integers(0, 1000)),
    )


OPTIONS = st.fixed_dictionaries(
    {
        "chunk_size": st.none() | st.integers(1, 9),
        "budget_bytes": st.just(900),
        "capacity": st.integers(1, 3),
        "retries": st.integers(0, 2),
        "bisect": st.booleans(),
        "stop_on_error": st.booleans(),
    }
)


@given(st.integers(0, 24), OPTIONS, st.data())
def test_every_job_is_settled_once_whatever_processes_do(
    count: int, options: dict[str, Any], data: st.DataObject
) -> None:
    plan = make_plan(count, **options)
    waiting, running, settled = set(names_of(count)), dict[int, Chunk](), dict[str, JobVerdict]()
    while not plan.is_over:
        if (chunk := plan.next_chunk()) is not None:
            assert waiting.issuperset(chunk.names)
            waiting.difference_update(chunk.names)
            running[chunk.number] = chunk
            continue
        ended = running.pop(data.draw(st.sampled_from(sorted(running))))
        verdicts = plan.ended(ended, data.draw(ends(ended)))
        assert tuple(verdict.name for verdict in verdicts) == ended.names
        for verdict in verdicts:
            assert verdict.name not in settled
            waiting.add(verdict.name) if verdict.state is PENDING else settled.update({verdict.name: verdict})
        assert plan.num_pending == len(waiting)
    assert plan.next_chunk() is None
    assert not running
    assert waiting | settled.keys() == set(names_of(count))
    assert not waiting or (plan.is_stopping and options["stop_on_error"])
    splits = (count - 1).bit_length() + 1 if options["bisect"] else 0
    assert all(verdict.attempt <= options["retries"] + 1 + splits for verdict in settled.values())
    assert all(verdict.reason for verdict in settled.values() if verdict.state is FAILED)


@given(st.integers(1, 60), st.data(), OPTIONS)
def test_bisect_finds_the_job_that_kills_and_keeps_the_others(count: int, data: st.DataObject, options: Any) -> None:
    killer = data.draw(st.sampled_from(names_of(count)))
    plan = make_plan(count, **{**options, "bisect": True, "stop_on_error": False, "capacity": 1, "chunk_size": count})
    last, _ = sweep(plan, lambda chunk: died() if killer in chunk.names else all_done(chunk))
    assert {name for name, verdict in last.items() if verdict.state is FAILED} == {killer}
    assert last[killer].reason == "killed by SIGKILL (9)"
    assert {name for name, verdict in last.items() if verdict.state is DONE} == set(names_of(count)) - {killer}
