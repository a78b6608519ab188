"""The sweep plan settles every job, whatever processes do, and finds out how many jobs a process bears."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond._plan.chunk_sizes import learned_size
from millpond._plan.chunks import Chunk, ChunkEnd, JobState, JobVerdict, SweepPlan
from millpond.errors import InternalError

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
        assert len(chunks) < 5000, "this sweep does not come to an end"
        chunks.append(next_of(plan))
        last |= {verdict.name: verdict for verdict in plan.ended(chunks[-1], process(chunks[-1]))}
    return last, chunks


def leaky(*, budget: int, base: int, growth: int) -> Process:
    """A process that reports as it goes, and needs `growth` more with each job."""

    def run(chunk: Chunk) -> ChunkEnd:
        num_done = min(len(chunk.names), (budget - base) // growth)
        if num_done < len(chunk.names):
            return died(*chunk.names[:num_done], is_over_budget=True, peak_bytes=base + (num_done + 1) * growth)
        return all_done(chunk, peak_bytes=base + num_done * growth)

    return run


# -- whatever happens


class AnyEnd:
    """Any end of a chunk, also one that makes little sense; of a kind that may repeat itself for ever.

    Args:
        seed: Of what happens.
        weights: Of a job that is done, is at fault, or has not reported.
        likely: Of each flag, out of 4.
    """

    def __init__(self, seed: int, weights: tuple[int, int, int], likely: tuple[int, int, int, int]) -> None:
        self.rng, self.weights, self.likely = random.Random(seed), weights, likely

    def __call__(self, chunk: Chunk) -> ChunkEnd:
        fates = self.rng.choices("des", [*self.weights[:2], self.weights[2] + 1], k=len(chunk.names))
        of = {fate: [name for name, one in zip(chunk.names, fates, strict=True) if one == fate] for fate in "de"}
        clean, over, drained, cooperates = (self.rng.randrange(4) < one for one in self.likely)
        return ChunkEnd(
            frozenset(of["d"]),
            dict.fromkeys(of["e"], "raised"),
            is_clean=clean,
            reason="died",
            is_over_budget=over,
            is_drained=drained,
            cooperates=cooperates,
            current=self.rng.choice(["", "", "unknown", *chunk.names]),
            peak_bytes=self.rng.randrange(1000),
        )


FOUR, NINE = st.integers(0, 4), st.integers(0, 9)
ANY_END = st.builds(AnyEnd, st.integers(0), st.tuples(NINE, NINE, NINE), st.tuples(FOUR, FOUR, FOUR, FOUR))
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


@given(st.integers(0, 40), OPTIONS, ANY_END)
def test_every_job_is_settled_once_whatever_processes_do(count: int, options: dict[str, Any], any_end: AnyEnd) -> None:
    plan, rng = make_plan(count, **options), any_end.rng
    most_attempts = options["retries"] + 1 + ((count - 1).bit_length() + 1 if options["bisect"] else 0)
    waiting, running, settled = set(names_of(count)), dict[int, Chunk](), dict[str, JobVerdict]()
    num_ended, num_cancelled = 0, 0
    while not plan.is_over:
        if (chunk := plan.next_chunk()) is not None:
            assert waiting.issuperset(chunk.names)  # so no job is in two chunks
            waiting.difference_update(chunk.names)
            running[chunk.number] = chunk
            continue
        ended = running.pop(rng.choice(list(running)))
        if num_cancelled < 5 and rng.random() < 0.1:
            verdicts = plan.cancelled(ended, any_end(ended).done)
            num_cancelled += 1
        else:
            verdicts = plan.ended(ended, any_end(ended))
            num_ended += 1
        assert tuple(verdict.name for verdict in verdicts) == ended.names
        waiting |= {verdict.name for verdict in verdicts if verdict.state is PENDING}
        now = {verdict.name: verdict for verdict in verdicts if verdict.state is not PENDING}
        assert not now.keys() & settled.keys()
        settled |= now
        assert plan.num_pending == len(waiting)
        assert num_ended <= 2 * count * (most_attempts + 1) + 10, "it does not come to an end"
    assert plan.next_chunk() is None
    assert not running
    assert waiting | settled.keys() == set(names_of(count))
    assert not waiting or plan.is_stopping
    assert options["stop_on_error"] or not plan.is_stopping
    assert all(verdict.attempt <= most_attempts for verdict in settled.values())
    assert all(verdict.reason for verdict in settled.values() if verdict.state is FAILED)


@given(st.sets(st.integers(0, 59)), st.sampled_from(["", "reports", "tells"]), OPTIONS)
def test_bisect_finds_the_jobs_that_kill_and_keeps_the_others(
    positions: set[int], kind: str, options: dict[str, Any]
) -> None:
    killers = {f"job{k:03}" for k in positions}

    def run(chunk: Chunk) -> ChunkEnd:
        at = next((k for k, name in enumerate(chunk.names) if name in killers), None)
        if at is None:
            return all_done(chunk, cooperates=kind == "tells")
        reported = chunk.names[:at] if kind else ()
        return died(*reported, current=chunk.names[at] if kind == "tells" else "")

    last, _ = sweep(make_plan(60, **{**options, "bisect": True, "stop_on_error": False, "chunk_size": 20}), run)
    assert {name for name, verdict in last.items() if verdict.state is FAILED} == killers
    assert {name for name, verdict in last.items() if verdict.state is DONE} == set(names_of(60)) - killers


def test_one_killer_among_64_is_found_in_14_chunks() -> None:
    run = lambda chunk: died() if "job041" in chunk.names else all_done(chunk)  # noqa: E731 - reads as the table it is
    last, chunks = sweep(make_plan(64, chunk_size=64, bisect=True), run)
    assert (last["job041"].state, last["job041"].attempt) == (FAILED, 7)
    assert len(chunks) == 1 + 2 * 6
    assert max(verdict.attempt for verdict in last.values() if verdict.state is DONE) == 7


# -- chunks and their order


def test_chunks_of_a_fixed_size_take_jobs_in_order_and_number_on() -> None:
    _, chunks = sweep(make_plan(10, first_number=7), all_done)
    assert [chunk.number for chunk in chunks] == [7, 8, 9]
    assert [name for chunk in chunks for name in chunk.names] == names_of(10)
    assert [len(chunk.names) for chunk in chunks] == [4, 4, 2]
    assert {chunk.attempt for chunk in chunks} == {1}


def test_no_more_chunks_run_than_the_capacity() -> None:
    plan = make_plan(20, capacity=2)
    running = (next_of(plan), next_of(plan))
    assert plan.next_chunk() is None
    assert plan.running == running
    plan.ended(running[0], all_done(running[0]))
    assert next_of(plan).names == tuple(names_of(20)[8:12])


def test_a_sweep_without_jobs_is_over() -> None:
    plan = make_plan(0)
    assert plan.is_over
    assert plan.next_chunk() is None


def test_pieces_of_chunks_that_failed_come_before_new_jobs_the_earliest_first() -> None:
    plan = make_plan(12, capacity=2, retries=1)
    first, second = next_of(plan), next_of(plan)
    plan.ended(second, died())
    plan.ended(first, died(*first.names[:2]))
    assert [next_of(plan).names, next_of(plan).names] == [first.names[2:], second.names]


# -- processes that die


def test_jobs_of_a_dead_process_run_again_as_one_chunk_until_their_tries_are_used() -> None:
    plan = make_plan(["a", "b", "c"], retries=1)
    assert states(plan.ended(next_of(plan), died("b"))) == "pdp"
    again = next_of(plan)
    assert (again.names, again.attempt) == (("a", "c"), 2)
    assert plan.ended(again, died("a")) == (
        JobVerdict("a", DONE, 2),
        JobVerdict("c", FAILED, 2, "killed by SIGKILL (9)"),
    )
    assert plan.is_over


def test_without_bisect_every_job_that_has_not_reported_fails_with_the_process() -> None:
    plan = make_plan(["a", "b", "c"])
    assert states(plan.ended(next_of(plan), died("a"))) == "dff"


def test_the_job_at_which_a_process_died_is_charged_alone() -> None:
    plan = make_plan(["a", "b", "c", "d"])  # `a` was over and its result is lost, `c` and `d` had not begun
    verdicts = plan.ended(next_of(plan), died(cooperates=True, current="b"))
    assert states(verdicts) == "pfpp"
    assert [verdict.attempt for verdict in verdicts] == [0, 1, 0, 0]
    assert next_of(plan).names == ("a", "c", "d")


def test_the_job_at_which_a_process_died_runs_again_alone() -> None:
    plan = make_plan(["a", "b", "c", "d"], retries=1)
    plan.ended(next_of(plan), died("a", current="b"))
    assert next_of(plan).names == ("b",)


def test_under_bisect_a_job_has_failed_only_when_its_process_had_no_other() -> None:
    plan = make_plan(["a", "b", "c"], bisect=True)
    assert states(plan.ended(next_of(plan), died("a", current="b"))) == "dpp"
    alone = next_of(plan)
    assert (alone.names, states(plan.ended(alone, died(current="b")))) == (("b",), "f")
    assert next_of(plan).names == ("c",)


def test_under_bisect_and_stop_the_others_of_the_chunk_run_all_the_same() -> None:
    plan = make_plan(["a", "b", "c", "d", "e"], bisect=True, stop_on_error=True)
    last, _ = sweep(plan, lambda chunk: died(current="a") if "a" in chunk.names else all_done(chunk))
    assert (states(tuple(last[name] for name in "abcd")), plan.num_pending) == ("fddd", 1)


def test_a_process_that_died_at_a_job_that_has_reported_may_have_died_of_any_other() -> None:
    plan = make_plan(["a", "b", "c"])
    assert states(plan.ended(next_of(plan), died("a", current="a"))) == "dff"


# -- jobs with a fault of their own


def test_a_job_that_raised_is_not_bisected_and_takes_no_other_with_it() -> None:
    plan = make_plan(["a", "b", "c"], bisect=True)
    verdicts = plan.ended(next_of(plan), well("a", "c", errors={"b": "ValueError"}))
    assert verdicts[1] == JobVerdict("b", FAILED, 1, "ValueError")
    assert states(verdicts) == "dfd"


def test_a_job_that_raised_runs_again_apart_from_those_that_died() -> None:
    plan = make_plan(["a", "b", "c"], retries=1)
    assert states(plan.ended(next_of(plan), died(errors={"b": "ValueError"}))) == "ppp"
    assert [next_of(plan).names] == [("a", "c")]


def test_a_job_that_reported_nothing_though_its_process_ended_well_is_at_fault() -> None:
    plan = make_plan(["a", "b"], bisect=True)
    verdicts = plan.ended(next_of(plan), well("a", current="b"))  # it began, and ended the process
    assert verdicts[1] == JobVerdict("b", FAILED, 1, "reported nothing, though its process ended well")


# -- the budget


def test_jobs_that_a_process_gave_back_wait_as_if_they_had_never_begun() -> None:
    plan = make_plan(["a", "b", "c", "d", "e"])
    assert states(plan.ended(next_of(plan), well("a", "b", is_drained=True, cooperates=True))) == "ddpp"
    assert next_of(plan) == Chunk(2, ("c", "d", "e"), 1)


def test_a_process_that_gave_every_job_back_would_do_so_for_ever() -> None:
    plan = make_plan(["a", "b"], stop_on_error=True)
    verdicts = plan.ended(next_of(plan), well(is_drained=True, cooperates=True))
    assert states(verdicts) == "ff"
    assert "before any job of its chunk was over" in verdicts[0].reason


def test_a_fixed_size_shrinks_to_half_of_what_was_got_through_within_the_budget() -> None:
    _, chunks = sweep(make_plan(40, chunk_size=20, budget_bytes=1000), leaky(budget=1000, base=100, growth=100))
    assert [len(chunk.names) for chunk in chunks][:5] == [20, 5, 5, 5, 5]


def test_jobs_over_the_budget_are_charged_nothing() -> None:
    plan = make_plan(4, budget_bytes=1000, stop_on_error=True)
    verdicts = plan.ended(next_of(plan), died("job000", is_over_budget=True))
    assert states(verdicts) == "dppp"
    assert {verdict.attempt for verdict in verdicts[1:]} == {0}
    assert not plan.is_stopping


def test_a_chunk_over_the_budget_of_which_nothing_is_known_is_halved() -> None:
    plan = make_plan(9, chunk_size=9, budget_bytes=1000)
    plan.ended(next_of(plan), died(is_over_budget=True))
    assert next_of(plan).names == tuple(names_of(4))


def test_a_job_that_passes_the_budget_by_itself_leaves_sizes_alone() -> None:
    def run(chunk: Chunk) -> ChunkEnd:
        at = chunk.names.index("job009") if "job009" in chunk.names else None
        return all_done(chunk) if at is None else died(*chunk.names[:at], is_over_budget=True, peak_bytes=99 * MIB)

    last, chunks = sweep(make_plan(40, chunk_size=10, budget_bytes=64 * MIB, retries=3), run)
    assert [len(chunk.names) for chunk in chunks] == [10, 5, 1, 5, 5, 5, 5, 5, 5]
    assert last["job009"].reason == (
        "needs more than the budget of 64 MiB in a process of its own: it reached 99 MiB; raise the budget to run it"
    )


@pytest.mark.parametrize("is_over_budget", [True, False])
def test_the_first_job_over_the_budget_runs_alone_where_others_would_have_reported(is_over_budget: bool) -> None:
    plan = make_plan(12, budget_bytes=1000)
    plan.ended(next_of(plan), died("job000", "job001", "job002", is_over_budget=is_over_budget))
    plan.ended(next_of(plan), died(is_over_budget=True))
    assert len(next_of(plan).names) == 1


def piece_while_stopping() -> tuple[SweepPlan, Chunk]:
    """The first four of 12 jobs run again; the next four have failed."""
    plan = make_plan(12, capacity=2, budget_bytes=1000, retries=1, stop_on_error=True)
    first, second = next_of(plan), next_of(plan)
    plan.ended(first, died())
    plan.ended(second, died("job004"))
    piece, other = next_of(plan), next_of(plan)
    plan.ended(other, died())
    assert plan.is_stopping
    return plan, piece


def test_a_piece_over_the_budget_stays_a_piece() -> None:
    plan, piece = piece_while_stopping()
    plan.ended(piece, died("job000", is_over_budget=True))
    assert next_of(plan).names == ("job001",)
    assert plan.num_pending == 2 + 4


def test_the_first_job_of_a_piece_over_the_budget_runs_alone() -> None:
    plan, piece = piece_while_stopping()
    plan.ended(piece, died(is_over_budget=True))
    assert [next_of(plan).names, next_of(plan).names] == [("job000",), ("job001", "job002", "job003")]


def test_a_piece_that_was_interrupted_is_still_to_run() -> None:
    plan, piece = piece_while_stopping()
    plan.cancelled(piece, frozenset({"job000"}))
    assert next_of(plan).names == piece.names[1:]
    assert plan.next_chunk() is None


# -- sizes that are learned


def test_a_learned_size_grows_to_what_the_budget_bears() -> None:
    plan = make_plan(300, chunk_size=None, budget_bytes=8192 * MIB)
    _, chunks = sweep(plan, leaky(budget=8192 * MIB, base=500 * MIB, growth=72 * MIB))
    assert [len(chunk.names) for chunk in chunks] == [1, 2, 8, 32, 95, 95, 67]


@given(st.integers(1, 400), st.integers(0, 1000), st.integers(1, 1000))
def test_a_steady_leak_passes_the_budget_seldom(count: int, base: int, growth: int) -> None:
    budget = base + growth + 50
    plan = make_plan(count, chunk_size=None, budget_bytes=budget)
    process = leaky(budget=budget, base=base, growth=growth)
    num_over = 0

    def run(chunk: Chunk) -> ChunkEnd:
        nonlocal num_over
        end = process(chunk)
        num_over += end.is_over_budget
        return end

    last, _ = sweep(plan, run)
    assert {verdict.state for verdict in last.values()} == {DONE}
    assert num_over <= 1 + math.log(1 + count, 4)


def test_one_hungry_job_does_not_keep_chunks_small_for_ever() -> None:
    def run(chunk: Chunk) -> ChunkEnd:
        is_over = "job009" in chunk.names
        return died(is_over_budget=True, peak_bytes=2000) if is_over else all_done(chunk, peak_bytes=100)

    last, chunks = sweep(make_plan(200, chunk_size=None, budget_bytes=1000), run)
    assert [name for name, verdict in last.items() if verdict.state is FAILED] == ["job009"]
    assert max(len(chunk.names) for chunk in chunks[10:]) >= 32
    assert len(chunks) < 40


def test_without_a_leak_the_size_grows_fourfold_at_a_time() -> None:
    plan = make_plan(100, chunk_size=None, budget_bytes=1000)
    _, chunks = sweep(plan, lambda chunk: all_done(chunk, peak_bytes=100))
    assert [len(chunk.names) for chunk in chunks] == [1, 2, 8, 32, 57]


def test_a_process_that_gives_jobs_back_is_not_offered_all_of_very_many() -> None:
    def run(chunk: Chunk) -> ChunkEnd:
        return well(*chunk.names[:2000], is_drained=len(chunk.names) > 2000, cooperates=True, peak_bytes=100)

    _, chunks = sweep(make_plan(10_000, chunk_size=None, budget_bytes=1000), run)
    assert [len(chunk.names) for chunk in chunks] == [1, 1000, 4000, 6999, 4999, 2999, 999]


def test_where_nobody_looked_at_memory_chunks_stay_at_one_job() -> None:
    _, chunks = sweep(make_plan(5, chunk_size=None, budget_bytes=1000), all_done)
    assert [len(chunk.names) for chunk in chunks] == [1] * 5


def test_the_greatest_peaks_lie_on_or_below_the_line_that_sizes_are_read_from() -> None:
    assert learned_size({1: 110, 2: 200, 8: 800, 10: 1500}, 1000) == 5
    assert learned_size({1: 950}, 1000) == 1
    assert learned_size({4: 300, 2: 400}, 1000) == 16


def test_a_child_that_drains_gets_its_share_of_all_jobs() -> None:
    plan = make_plan(41, chunk_size=None, budget_bytes=1000, capacity=2)
    first, second = next_of(plan), next_of(plan)
    plan.ended(first, all_done(first, cooperates=True))
    plan.ended(second, all_done(second, cooperates=True))
    assert [len(next_of(plan).names), len(next_of(plan).names)] == [20, 19]


def test_no_learned_size_takes_jobs_that_another_process_could_run() -> None:
    plan = make_plan(40, chunk_size=None, budget_bytes=1000, capacity=2)
    sizes = []
    while not plan.is_over:
        chunks = next_of(plan), next_of(plan)
        sizes.append([len(chunk.names) for chunk in chunks])
        for chunk in chunks:
            plan.ended(chunk, all_done(chunk, peak_bytes=10))
    assert sizes == [[1, 1], [2, 2], [8, 8], [9, 9]]


def test_the_greatest_of_several_peaks_counts() -> None:
    plan = make_plan(9, chunk_size=None, budget_bytes=1000, capacity=2)
    for chunk, peak in [(next_of(plan), 950), (next_of(plan), 10)]:
        plan.ended(chunk, all_done(chunk, peak_bytes=peak))
    assert len(next_of(plan).names) == 1


# -- stopping


def test_after_a_failure_chunks_that_run_are_waited_for_and_new_jobs_stay_pending() -> None:
    plan = make_plan(12, capacity=2, stop_on_error=True)
    first, second = next_of(plan), next_of(plan)
    plan.ended(first, died())
    assert (plan.is_stopping, plan.is_over, plan.next_chunk()) == (True, False, None)
    assert states(plan.ended(second, all_done(second))) == "dddd"
    assert (plan.is_over, plan.num_pending) == (True, 4)


def test_pieces_run_on_when_the_sweep_is_stopping() -> None:
    plan = make_plan(["a", "b", "c", "d", "e"], bisect=True, stop_on_error=True)
    last, chunks = sweep(plan, lambda chunk: died() if "a" in chunk.names else all_done(chunk))
    assert [chunk.names for chunk in chunks] == [("a", "b", "c", "d"), ("a", "b"), ("a",), ("b",), ("c", "d")]
    assert (states(tuple(last[name] for name in "abcd")), plan.num_pending) == ("fddd", 1)


def test_a_process_that_fails_after_all_of_its_jobs_stops_the_sweep() -> None:
    plan = make_plan(8, stop_on_error=True)
    assert states(plan.ended(next_of(plan), died(*names_of(4)))) == "dddd"
    assert (plan.is_stopping, plan.is_over, plan.num_pending) == (True, True, 4)


def test_a_process_that_fails_after_giving_jobs_back_stops_the_sweep_and_charges_none() -> None:
    plan = make_plan(4, stop_on_error=True)
    verdicts = plan.ended(next_of(plan), died("job000", is_drained=True))
    assert (states(verdicts), plan.is_over) == ("dppp", True)


def test_with_on_error_continue_nothing_stops_a_sweep() -> None:
    plan = make_plan(8, stop_on_error=False)
    _, chunks = sweep(plan, lambda chunk: died())
    assert (len(chunks), plan.is_stopping) == (2, False)


def test_a_chunk_that_was_interrupted_is_no_attempt() -> None:
    plan = make_plan(["a", "b", "c"], retries=0)
    verdicts = plan.cancelled(next_of(plan), frozenset("b"))
    assert verdicts == (JobVerdict("a", PENDING, 0), JobVerdict("b", DONE, 1), JobVerdict("c", PENDING, 0))
    assert next_of(plan) == Chunk(2, ("a", "c"), 1)


# -- calls that make no sense


def test_a_chunk_ends_once() -> None:
    plan = make_plan(4)
    chunk = next_of(plan)
    plan.ended(chunk, all_done(chunk))
    with pytest.raises(InternalError, match="chunk 1 does not run"):
        plan.ended(chunk, all_done(chunk))
    with pytest.raises(InternalError, match="chunk 1 does not run"):
        plan.cancelled(chunk, frozenset())


@pytest.mark.parametrize(
    ("end", "message"),
    [(well("zoe"), "does not have: .'zoe'"), (well("a", errors={"a": "raised"}), "both done and at fault: .'a'")],
)
def test_an_end_that_contradicts_its_chunk_changes_nothing(end: ChunkEnd, message: str) -> None:
    plan = make_plan(["a"])
    chunk = next_of(plan)
    with pytest.raises(InternalError, match=message):
        plan.ended(chunk, end)
    assert plan.running == (chunk,)
    assert states(plan.ended(chunk, all_done(chunk))) == "d"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_size": 0}, "chunk_size must be 1 or more, not 0"),
        ({"budget_bytes": -1}, "budget_bytes must be 1 or more, not -1"),
        ({"capacity": 0}, "capacity must be 1 or more, not 0"),
        ({"retries": -1}, "retries must be 0 or more, not -1"),
        ({"chunk_size": None}, "give budget_bytes, or a chunk_size"),
        ({"names": ["a", "b", "a"]}, "1 of 3 jobs have the name of another"),
    ],
)
def test_bad_values_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(**{"names": 3, **options})
