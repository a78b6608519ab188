"""`report.html` of an epoch: what `demo` and `bench` write."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from millpond._cli.measure import EpochMeasure
from millpond._loader.loader import Loader
from millpond._loader.statistics import LoaderStatistics
from millpond._observe.epoch_report import (
    books_table,
    descriptors_chart,
    environment_table,
    errors_table,
    memory_chart,
    pond_chart,
    throughput_chart,
)
from millpond._observe.memory import MemorySampler
from millpond._observe.report import Cell, Report, Table, Text, write_report
from millpond._observe.work_chart import work_chart

_LIMITS = {
    "fetch": "fetch: bytes that are not there yet",
    "decode": "decode: the workers",
    "gather": "gather: the transform, or copying batches together",
    "consumer": "consumer: batches lie ready",
}


def write_epoch_page(
    path: Path,
    title: str,
    subtitle: str,
    loader: Loader,
    epoch: EpochMeasure,
    memory: MemorySampler,
    *,
    headlines: dict[str, str],
    ceiling_samples_per_second: float | None = None,
    quarantine: Path | None = None,
) -> None:
    """Write the page of one epoch.

    Args:
        path: Of the page.
        title: Of it.
        subtitle: What ran.
        loader: That ran it; it may be closed.
        epoch: As it was measured.
        memory: A sampler that has looked since before the loader was made.
        headlines: Figures by what they say.
        ceiling_samples_per_second: Where it is known.
        quarantine: The file that names what was skipped.
    """
    plan, books = loader.memory_plan(), epoch.statistics.books
    charts = (
        throughput_chart(epoch.meter, ceiling_samples_per_second),
        memory_chart(memory.points, plan.memory_bytes),
        pond_chart(epoch.meter, plan.pond_slots),
        descriptors_chart(memory.points),
        work_chart(epoch.spans, epoch.began_ns),
    )
    tables = (
        books_table(asdict(books) if books else {}),
        _loader_table(epoch.statistics),
        environment_table(),
        errors_table(quarantine) if quarantine else Table("Errors", []),
    )
    report = Report(
        title=title,
        subtitle=subtitle,
        headlines=headlines,
        charts=[chart for chart in charts if chart],
        tables=tables,
        texts=(Text("Memory plan", str(plan)),),
    )
    write_report(report, path)


def _loader_table(statistics: LoaderStatistics) -> Table:
    """How it went, of `loader.statistics()`."""
    wait = statistics.wait
    rows: dict[str, Cell] = {
        "limited by": _LIMITS.get(statistics.limited_by or ""),
        "waited for batches": f"{statistics.wait_seconds:.2f} s in all",
        "half of the batches within": _milliseconds(wait.p50_seconds),
        "95 % of them within": _milliseconds(wait.p95_seconds),
        "99 % of them within": _milliseconds(wait.p99_seconds),
        "frames decoded": statistics.counters.get("frames_decoded"),
        "bytes read": statistics.bytes_read,
        "bytes fetched": statistics.bytes_fetched or None,
        "retries": statistics.retries or None,
        "copies to the heap": statistics.heap_copies,
        "workers replaced": statistics.worker_restarts,
        "workers recycled": statistics.worker_recycles,
    }
    return Table("The loader, since it was made", [(name, value) for name, value in rows.items() if value is not None])


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"
