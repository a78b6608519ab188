"""Statistics of loaders for Prometheus: `export(loader)`, and each scrape reads what the loader has counted by then.

    import millpond.prometheus
    import prometheus_client

    prometheus_client.start_http_server(9100)
    millpond.prometheus.export(loader, name="train")

Needs an installed `prometheus_client` when `export` is called, not when this module is imported. A program of several
ranks serves one port each. Prometheus's multiprocess mode (PROMETHEUS_MULTIPROC_DIR) knows no such collectors.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from millpond._flat import flat_values

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

__all__ = ["export"]

_LABEL = "loader"
_COUNTERS = {
    "epochs": "Epochs run to their end.",
    "batches": "Batches delivered.",
    "samples": "Samples delivered.",
    "skipped": "Samples left out under on_error='skip'.",
    "failed": "Bad samples of batches that stopped an epoch.",
    "heap_copies": "Batches copied because more were held than memory has slots for.",
    "worker_restarts": "Workers replaced because they died or hung.",
    "worker_recycles": "Workers followed by a new one in good order.",
    "bytes_read": "Read by workers, from files or from what was fetched ahead.",
    "bytes_fetched": "From an object store.",
    "retries": "Requests to a store that followed one that failed.",
}
_GAUGES = {
    "samples_per_second": "Samples delivered a second, of the last seconds.",
    "pond_slots": "Slots of the pond.",
    "open_slots": "Slots of the pond in use.",
    "arena_bytes": "Shared memory of the loader.",
    "arena_used_bytes": "Shared memory of the loader that holds something.",
    "shared_bytes": "Shared memory that slots take.",
    "copied_bytes": "Memory of copied batches that are held.",
    "held_batches": "Batches that the program holds.",
    "workers": "Live worker processes.",
    "limited_by": "1 for the stage that limits the loader now.",
    "books_planned": "Samples of the current or last epoch.",
    "books_padded": "Rows of it that repeat a sample so that ranks stay in step.",
    "books_delivered": "Samples of it that were delivered.",
    "books_skipped": "Bad samples of it that were left out.",
    "books_failed": "Bad samples of it that stopped it.",
    "books_dropped": "Samples of a short last batch under drop_last.",
}
_COUNTED = "counters_"
"""What workers and fetches count: every one of them only grows, and those that are no most of something add up."""
_MOST = f"{_COUNTED}most_"
_QUANTILES = {"wait_p50_seconds": "0.5", "wait_p95_seconds": "0.95", "wait_p99_seconds": "0.99"}
_WAIT = "batch_wait_seconds"
_WAIT_HELP = "That the program waited for a batch; quantiles are of those taken last."
_STAGES = ("fetch", "decode", "gather", "consumer")
_LIMITED = "limited_by"
_BYTES, _NS, _NANOSECOND = "bytes_", "_ns", 1e-9

_registering = threading.Lock()


class _Loader(Protocol):
    """`millpond.Loader` or `millpond.torch.DataLoader`."""

    @property
    def is_closed(self) -> bool: ...

    def statistics(self) -> Any: ...


class _Sample(NamedTuple):
    """One line of a scrape: of which metric, under which name, of what, how much."""

    metric: str
    suffix: str
    labels: dict[str, str]
    value: float


def export(loader: _Loader, name: str = "train", registry: CollectorRegistry | None = None) -> None:
    """Have every scrape of a registry tell of a loader, until that is closed or gone; this does not keep it alive.

    Args:
        loader: A `millpond.Loader` or a `millpond.torch.DataLoader`.
        name: Its label: `millpond_samples_total{loader="train"}`.
        registry: None takes prometheus_client's own, which its HTTP server shows.

    Raises:
        ModuleNotFoundError: prometheus_client is not installed.
        ValueError: The registry tells of another loader of this name.
    """
    try:
        from prometheus_client import REGISTRY
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "millpond.prometheus needs prometheus_client: pip install 'millpond[prometheus]'", name="prometheus_client"
        ) from None
    wanted = REGISTRY if registry is None else registry
    with _registering:
        collector = _collectors.get(wanted)
        if collector is None:
            collector = _Collector()
            wanted.register(collector)
            _collectors[wanted] = collector
    collector.add(loader, name)


class _Collector:
    """All loaders of one registry: a scrape may name a metric only once, whichever loaders have it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaders: dict[str, weakref.ref[_Loader]] = {}

    def add(self, loader: _Loader, name: str) -> None:
        with self._lock:
            known = _live(self._loaders.get(name))
            if known is not None and known is not loader:
                raise ValueError(f"another loader is exported as name={name!r}: give this one a name of its own")
            self._loaders[name] = weakref.ref(loader)

    def describe(self) -> list[Metric]:
        """The metrics that have names of their own, without values: `?name[]=millpond_samples_total` finds them."""
        names = [*_COUNTERS, *_GAUGES, _WAIT]
        return [_metric(name) for name in names]

    def collect(self) -> list[Metric]:
        """Ask each loader for its statistics, in the thread that scrapes."""
        metrics: dict[str, Metric] = {}
        for name, loader in self._live_loaders().items():
            for metric, suffix, labels, value in _samples(flat_values(loader.statistics())):
                known = metrics.setdefault(metric, _metric(metric))
                known.add_sample(known.name + suffix, {_LABEL: name, **labels}, value)
        return list(metrics.values())

    def _live_loaders(self) -> dict[str, _Loader]:
        """Forgets those that are gone or closed. Not when they go: garbage is collected anywhere, also within locks."""
        with self._lock:
            live = {name: loader for name, kept in self._loaders.items() if (loader := _live(kept)) is not None}
            self._loaders = {name: self._loaders[name] for name in live}
        return live


_collectors: weakref.WeakKeyDictionary[CollectorRegistry, _Collector] = weakref.WeakKeyDictionary()


def _live(kept: weakref.ref[_Loader] | None) -> _Loader | None:
    loader = None if kept is None else kept()
    return None if loader is None or loader.is_closed else loader


def _samples(flat: dict[str, float | int | str]) -> Iterator[_Sample]:
    """What a loader tells, by Prometheus's conventions."""
    limited_by = flat.pop(_LIMITED, None)
    if limited_by is not None:
        for stage in _STAGES:
            yield _Sample(_LIMITED, "", {"stage": stage}, float(stage == limited_by))
    for name, quantile in _QUANTILES.items():
        if name in flat:
            yield _Sample(_WAIT, "", {"quantile": quantile}, float(flat.pop(name)))
    yield _Sample(_WAIT, "_sum", {}, float(flat.pop("wait_seconds")))
    yield _Sample(_WAIT, "_count", {}, float(flat["batches"]))
    for name, value in flat.items():
        is_told_twice = name.startswith(_COUNTED) and name.removeprefix(_COUNTED) in flat
        if not isinstance(value, str) and not is_told_twice:
            scale = _NANOSECOND if name.endswith(_NS) else 1.0
            yield _Sample(name, "_total" if _is_counter(name) else "", {}, float(value) * scale)


def _is_counter(name: str) -> bool:
    return name in _COUNTERS or (name.startswith(_COUNTED) and not name.startswith(_MOST))


def _metric(name: str) -> Metric:
    """Of a flat name, without values: units end the name, and are base units."""
    from prometheus_client.metrics_core import Metric

    told = name.removeprefix(_COUNTED)
    words = told.removesuffix(_NS).replace("_", " ").capitalize()
    if told.startswith(_BYTES):
        told = f"{told.removeprefix(_BYTES)}_bytes"
    elif told.endswith(_NS):
        told = f"{told.removesuffix(_NS)}_seconds"
    if _is_counter(name):
        return Metric(f"millpond_{told}", _COUNTERS.get(name, f"{words}, as workers counted."), "counter")
    if name == _WAIT:
        return Metric(f"millpond_{told}", _WAIT_HELP, "summary")
    return Metric(f"millpond_{told}", _GAUGES.get(name, f"{words}, now."), "gauge")
