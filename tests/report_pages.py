"""Reports as demo, sweep and soak make them, of what was never run."""

from __future__ import annotations

from itertools import accumulate

from millpond._observe.descriptors import Descriptors
from millpond._observe.epoch_report import (
    books_table,
    descriptors_chart,
    environment_table,
    memory_chart,
    pond_chart,
    throughput_chart,
)
from millpond._observe.memory import Memory, MemoryPoint
from millpond._observe.meter import BatchMeter
from millpond._observe.report import Chart, Limit, Line, Report, Table, Text
from millpond._observe.spans import Span
from millpond._observe.work_chart import work_chart
from millpond._plan.chunks import JobState
from millpond._sweep.ledger_records import ChunkRecord, ChunkState, JobRecord
from millpond._sweep.orders import Look
from millpond._sweep.report_page import sweep_report

MIB = 1 << 20
LONG = "packet 7 of 'clips/007.mp4' has 512 of its 3306 bytes in a run of zeros, as in a hole of the file"


def demo_report() -> Report:
    spans = work_chart(_spans(), 0)
    assert spans
    seconds = accumulate([0.0, *(0.05 + 0.01 * (at % 3) for at in range(160))])
    meter = BatchMeter(lambda: next(seconds))
    for at in range(160):
        meter.note(32, min(at, 30))
    points = [
        MemoryPoint(at / 5, Memory(90 * MIB), Memory(min(at, 8) * 40 * MIB), Descriptors(6, 2, 20 + min(at, 9), 3, 5))
        for at in range(50)
    ]
    return Report(
        "millpond demo --clips",
        "One shuffled epoch of demo-clips: 24 clips, of which clips/007.mp4 is corrupt.",
        {"good clips, once each": "22 of 22", "memory": "312 MiB of 512 MiB", "workers ended and replaced": "1"},
        [throughput_chart(meter, 720.0), memory_chart(points, 512 * MIB), pond_chart(meter, 32),
         descriptors_chart(points), spans],
        [books_table({"planned": 24, "delivered": 22}), environment_table(),
         Table("Errors", [("7", 0, "row 7", "CorruptMedia", LONG)], ("sample", "epoch", "what", "error", "message"))],
        [Text("Memory plan", "arena" + " " * 90 + "312 MiB")],
    )  # fmt: skip


def _spans() -> list[Span]:
    """4,096 of them, most finer than a pixel."""
    milli = 1_000_000
    work = [
        Span(
            "gather" if at % 4 == 3 else "decode", lane, at * 8 * milli, (at * 8 + 7) * milli, "decode", {"segment": at}
        )
        for at in range(682)
        for lane in range(4)
    ]
    loop = [
        Span("consumer", 0, at * 4 * milli, (at * 4 + 3) * milli, ("wait", "training")[at % 2]) for at in range(1364)
    ]
    fetches = [Span("fetch", at, at * 100 * milli, at * 700 * milli + milli, "fetch") for at in range(3)]
    return [*work, *loop, *fetches, Span("plan", 0, 0, 50 * milli, "epoch order")]


def sweep_report_of_two_slots() -> Report:
    chunks = [_chunk(number, "killed by SIGKILL (9)" if number == 7 else "") for number in range(1, 41)]
    jobs = [
        JobRecord(
            f"seed={at}", at, JobState.FAILED if at == 7 else JobState.DONE, 1, at, 0, 0, 1.0, "", LONG * (at == 7)
        )
        for at in range(1, 41)
    ]
    figures = {"count": 39, "mean": 0.5, "std": 0.1, "min": 0.0, "max": 1.0, "nonfinite": 0}
    summary = {"metrics": {"reward": figures}, "success": {}, "groups": {}}
    facts = {"command": '["python", "eval.py"]'}
    return sweep_report("millpond sweep", jobs, chunks, summary, facts, wall_seconds=812.0, budget_bytes=1024 * MIB)


def _chunk(number: int, reason: str) -> ChunkRecord:
    looks = tuple(Look(float(at), (200 + 30 * at) * MIB) for at in range(20))
    return ChunkRecord(
        number, (f"seed={number}",), 1, ChunkState.ENDED, f"chunk-{number:04d}.log", "", number * 10.5, 20.0, 0,
        "itself", reason, 770 * MIB, 770 * MIB, 0, 0, looks,
    )  # fmt: skip


def soak_report() -> Report:
    seconds = [float(at) for at in range(600)]

    def line(name: str, at_first: float, per_second: float = 0.0) -> Line:
        return Line(name, seconds, [at_first + per_second * at for at in seconds])

    memory = [line("RSS", 1500), line("PSS", 800), line("USS", 500, 0.05), line("shared", 300), line("swap", 0)]
    kinds = [line("pipes", 24, 0.02), line("sockets", 4), line("files", 40), line("memfds", 9), line("others", 7)]
    return Report(
        "millpond soak",
        "python train.py --with --many --arguments, 600 s, looked at every second.",
        {"verdict": "growing", "USS": "+3.0 MiB a minute"},
        [
            Chart("Memory (MiB)", "MiB", memory, [Limit("cgroup", 2048)], "USS grows."),
            Chart("Descriptors", "", kinds, kind="stack"),
            Chart("Threads", "threads", [line("threads", 34)]),
        ],
        [Table("Verdicts", [("USS", "growing", 3.0, LONG)], ("series", "verdict", "slope", "why"))],
    )


def all_in_one() -> Report:
    """What the three pages show, on one: a browser reads plotly once, which takes a second or two."""
    parts = [demo_report(), sweep_report_of_two_slots(), soak_report()]
    return Report(
        "millpond demo, sweep and soak",
        parts[0].subtitle,
        {name: figure for part in parts for name, figure in part.headlines.items()},
        [chart for part in parts for chart in part.charts],
        [table for part in parts for table in part.tables],
        [text for part in parts for text in part.texts],
    )
