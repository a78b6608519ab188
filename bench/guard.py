"""What does a guarded call cost over calling in process, beside pebble and a fork per call? And a hang?

pebble is no dependency: `pip install pebble`, or name an environment that has it by `--peers-python`. All contenders
answer with the same array, in alternating slices.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from numpy.typing import NDArray

import _guard_tasks as tasks
import millpond
from _results import Results
from _usable import borrow_from, why_not

Call = Callable[[int, float], NDArray[Any]]
CALLS, HANGS = "a call", "a hang: from its limit to the answer of the next call"
GUARD = "guard"
_FLOAT_BYTES = 4
_TIMEOUT_SECONDS = 30.0
_PEBBLE_HANGS = 10
"""pebble's hangs are one in so many."""


@dataclass
class Contender:
    """One way to make a call, with what its calls took."""

    name: str
    call: Call
    seconds: list[float] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)  # of each slice, in seconds
    cpu_seconds: float = 0.0  # of this process, and of children that have ended

    def slice(self, seconds: float, count: int) -> None:
        before = cpu_seconds()
        number, ends = 0, time.perf_counter() + seconds
        while (began := time.perf_counter()) < ends:
            number += 1
            result = self.call(count, number)
            self.seconds.append(time.perf_counter() - began)
            assert result[0] == result[-1] == number, self.name
        self.cpu_seconds += cpu_seconds() - before
        self.medians.append(statistics.median(self.seconds[-number:]))


def cpu_seconds() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def fork_per_call(count: int, value: float) -> NDArray[Any]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=tasks.answer, args=(theirs, count, value))
    process.start()
    theirs.close()
    result: NDArray[Any] = ours.recv()
    ours.close()
    process.join()
    process.close()
    return result


@contextmanager
def contenders(timeout: float, pebble: Any) -> Iterator[tuple[list[Contender], dict[str, int]]]:
    """All of them; and the pids of their workers, whose CPU is read at the end. `pebble` is the module, or None."""
    with ExitStack() as stack:
        guard = stack.enter_context(millpond.Guard(1, timeout=timeout))
        found = [
            Contender("in process", tasks.make_frames),
            Contender("guard", lambda *arguments: guard.call(tasks.make_frames, *arguments)),
            Contender("fork per call", fork_per_call),
        ]
        workers = {"guard": guard.call(tasks.pid)}
        if pebble is not None:
            pool = stack.enter_context(
                pebble.ProcessPool(max_workers=1, context=multiprocessing.get_context("forkserver"))
            )
            call = pool.schedule
            found.append(
                Contender("pebble", lambda *args: call(tasks.make_frames, args=args, timeout=timeout).result())
            )
            workers["pebble"] = call(tasks.pid).result()
        yield found, workers


def overheads(count: int, given: argparse.Namespace, pebble: Any, results: Results) -> None:
    """Slices in turn; a round is begun by another contender each time."""
    with contenders(_TIMEOUT_SECONDS, pebble) as (found, workers):
        for contender in found:
            contender.slice(given.slice, count)
            contender.seconds, contender.medians, contender.cpu_seconds = [], [], 0.0
        processes = {name: psutil.Process(pid) for name, pid in workers.items()}
        before = {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}
        for number in range(given.rounds):
            for contender in found[number % len(found) :] + found[: number % len(found)]:
                contender.slice(given.slice, count)
        for contender in found:
            if contender.name in processes:
                contender.cpu_seconds += sum(processes[contender.name].cpu_times()[:2]) - before[contender.name]
    base = statistics.median(found[0].seconds)
    for contender in found:
        results.add(CALLS, contender.name, "ms_per_call", "ms", [seconds * 1e3 for seconds in contender.medians])
    for contender in found[2:]:
        results.compare(CALLS, "ms_per_call", over=GUARD, sides=[contender.name])
    results.details["calls"] = {contender.name: _summary(contender, base) for contender in found}


def _summary(contender: Contender, base_seconds: float) -> dict[str, float]:
    ranked = sorted(contender.seconds)
    return {
        "median_ms": round(statistics.median(ranked) * 1e3, 4),
        "p99_ms": round(ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))] * 1e3, 4),
        "overhead_ms": round((statistics.median(ranked) - base_seconds) * 1e3, 4),
        "cpu_ms_per_call": round(contender.cpu_seconds / len(ranked) * 1e3, 4),
        "calls": len(ranked),
    }


def hangs(count: int, given: argparse.Namespace, pebble: Any, results: Results) -> None:
    """From the moment a limit passes until the next call, on the worker that takes its place, has answered."""
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        ways = _hanging_ways(stack, count, given.limit, pebble)
        for number in range(given.hangs):
            for name, (hang, call) in ways.items():
                if name != "pebble" or number % _PEBBLE_HANGS == 0:  # each takes seconds
                    found.setdefault(name, []).append(_hang_and_call(hang, call))
    for name, taken in found.items():
        late_ms = [(seconds - given.limit) * 1e3 for seconds in taken]
        results.add(HANGS, name, "ms_to_next_answer", "ms", late_ms)
        results.details.setdefault("limit_passed_to_next_answer", {})[name] = _milliseconds(late_ms)


def _hanging_ways(
    stack: ExitStack, count: int, limit: float, pebble: Any
) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """How each contender hangs, and what it is asked next; warm."""
    guard = stack.enter_context(millpond.Guard(1, timeout=_TIMEOUT_SECONDS))
    guard.call(tasks.make_frames, count, 0)
    limited = guard.with_timeout(limit)
    ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "guard": (lambda: limited.call(tasks.hang), lambda: guard.call(tasks.nothing)),
        "guard, next result 3.2 MB": (
            lambda: limited.call(tasks.hang),
            lambda: guard.call(tasks.make_frames, count, 0),
        ),
        "fork per call": (lambda: fork_and_hang(limit), lambda: fork_per_call(1, 0)),
    }
    if pebble is not None:
        forkserver = multiprocessing.get_context("forkserver")
        pool = stack.enter_context(pebble.ProcessPool(max_workers=1, context=forkserver))
        pool.schedule(tasks.nothing).result()
        ways["pebble"] = (
            lambda: pool.schedule(tasks.hang, timeout=limit).result(),
            lambda: pool.schedule(tasks.nothing).result(),
        )
    return ways


def fork_and_hang(limit: float) -> None:
    """What a fork per call comes to where a call hangs: it is waited for, and killed."""
    process = multiprocessing.get_context("fork").Process(target=tasks.hang)
    process.start()
    process.join(limit)
    process.kill()
    process.join()
    process.close()
    raise TimeoutError


def _hang_and_call(hang: Callable[[], object], call: Callable[[], object]) -> float:
    began = time.perf_counter()
    try:
        hang()
    except TimeoutError:  # pebble's is concurrent.futures', and since Python 3.11 that is this one
        call()
        return time.perf_counter() - began
    raise AssertionError("it did not hang")


def _milliseconds(taken: Sequence[float]) -> dict[str, float]:
    ranked = sorted(taken)
    return {
        "median_ms": round(statistics.median(ranked), 2),
        "p99_ms": round(ranked[min(len(ranked) - 1, int(0.99 * len(ranked)))], 2),
        "repeats": len(ranked),
    }


def soak(count: int, calls: int, kills: int, parts: int = 10) -> list[dict[str, float]]:
    """Memory, descriptors and processes after each part of many calls, some of which end their worker."""
    found = []
    process = psutil.Process()
    with millpond.Guard(2, timeout=30) as guard:
        for number in range(calls):
            assert guard.call(tasks.make_frames, count, number)[-1] == number
            if number % (calls // kills) == number // (calls // kills) % 2:
                with suppress(millpond.WorkerDied, millpond.DecodeTimeout):
                    guard.with_timeout(0.05).call(tasks.hang if number % 2 else os.abort)
            if (number + 1) % (calls // parts) == 0:
                guard.call(tasks.nothing)
                children = process.children(recursive=True)
                memory = [each.memory_full_info().pss for each in [process, *children]]
                found.append(
                    {
                        "calls": number + 1,
                        "kills": guard.statistics().calls_died + guard.statistics().calls_timed_out,
                        "pss_of_caller_mib": round(memory[0] / 2**20, 1),
                        "pss_of_all_mib": round(sum(memory) / 2**20, 1),
                        "descriptors": process.num_fds(),
                        "processes": len(children),
                        "shared_mib": round(guard.statistics().shared_bytes / 2**20, 1),
                    }
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--bytes", type=int, default=3_200_000, help="size of a result")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--slice", type=float, default=0.1, help="seconds of each contender in a round")
    parser.add_argument("--hangs", type=int, default=50)
    parser.add_argument("--limit", type=float, default=0.1, help="of a hang, in seconds")
    parser.add_argument("--soak", action="store_true", help="many calls and kills instead: what grows?")
    parser.add_argument("--soak-calls", type=int, default=10_000)
    parser.add_argument("--soak-kills", type=int, default=200)
    parser.add_argument("--peers-python", default="", help="of an environment with pebble, if this one has it not")
    parser.add_argument("--json", type=Path, help="the report goes here, too")
    given = parser.parse_args()
    logging.getLogger("millpond").setLevel(logging.ERROR)  # not a line for each worker that is killed
    count = given.bytes // _FLOAT_BYTES
    settings = {name: value for name, value in vars(given).items() if name not in ("json", "peers_python")}
    results = Results("guard", "what a guarded call costs, and a hang", settings, packages=("pebble",))
    borrow_from(given.peers_python)
    if reason := why_not("pebble"):
        results.absent["pebble"] = reason
    pebble = None if reason else importlib.import_module("pebble")
    if given.soak:
        results.details["soak"] = soak(count, given.soak_calls, given.soak_kills)
    else:
        overheads(count, given, pebble, results)
        hangs(count, given, pebble, results)
    millpond.shutdown()
    results.publish(given.json)


if __name__ == "__main__":
    main()
