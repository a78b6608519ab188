"""Prometheus: real scrapes of loaders that run, in its own text format."""

from __future__ import annotations

import dataclasses
import gc
import re
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import millpond.prometheus
from fakes import FakeDataset
from millpond import Loader

Samples = dict[str, float]


def make_loader(**changes: Any) -> Loader:
    options: dict[str, Any] = {"batch_size": 8, "num_workers": 0, "memory": "160MiB", "output": "numpy"} | changes
    return Loader(FakeDataset(total=80), **options)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry(auto_describe=True)


def parsed(text: str) -> Samples:
    """Name and labels to value, of what a scrape brought; each family once."""
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    found: Samples = {}
    for family in families:
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            assert found.setdefault(f"{sample.name}{{{labels}}}", sample.value) == sample.value
    return found


def scraped(registry: CollectorRegistry) -> Samples:
    return parsed(generate_latest(registry).decode())


def test_a_scrape_amid_an_epoch_tells_what_was_delivered_by_then(registry: CollectorRegistry) -> None:
    with make_loader() as loader:
        millpond.prometheus.export(loader, "train", registry)
        batches = iter(loader)
        next(batches)
        next(batches)
        found = scraped(registry)
        assert found["millpond_samples_total{loader=train}"] == 16
        assert found["millpond_batch_wait_seconds_count{loader=train}"] == 2
        assert found["millpond_batch_wait_seconds_sum{loader=train}"] == loader.statistics().wait_seconds
        assert found["millpond_frames_decoded_total{loader=train}"] > 0
        assert found["millpond_books_planned{loader=train}"] == 80
        assert found["millpond_workers{loader=train}"] == 0
        assert sum(value for name, value in found.items() if name.startswith("millpond_limited_by{")) == 1
        assert {f"millpond_batch_wait_seconds{{loader=train,quantile={part}}}" for part in (0.5, 0.95, 0.99)} <= set(
            found
        )


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def test_its_own_http_server_shows_loaders_side_by_side(registry: CollectorRegistry) -> None:
    app = prometheus_client.make_wsgi_app(registry)
    with (
        make_server("127.0.0.1", 0, app, handler_class=_Silent) as server,
        ThreadPoolExecutor(1) as pool,
        make_loader() as train,
        make_loader() as valid,
    ):
        millpond.prometheus.export(train, "train", registry)
        millpond.prometheus.export(valid, "valid", registry)
        sum(1 for _ in train)
        served = pool.submit(server.handle_request)
        address = f"http://127.0.0.1:{server.server_port}/metrics?name[]=millpond_samples_total"
        with urllib.request.urlopen(address) as answer:
            found = parsed(answer.read().decode())
        served.result()
    assert found == {"millpond_samples_total{loader=train}": 80, "millpond_samples_total{loader=valid}": 0}


def test_a_loader_that_is_closed_or_gone_is_told_of_no_more(registry: CollectorRegistry) -> None:
    closed, gone = make_loader(), make_loader()
    millpond.prometheus.export(closed, "closed", registry)
    millpond.prometheus.export(gone, "gone", registry)
    assert scraped(registry)
    closed.close()
    del gone
    gc.collect()
    assert scraped(registry) == {}


def test_a_name_is_free_again_when_its_loader_is_closed(registry: CollectorRegistry) -> None:
    with make_loader() as first, make_loader() as second:
        millpond.prometheus.export(first, "train", registry)
        millpond.prometheus.export(first, "train", registry)
        with pytest.raises(ValueError, match="another loader is exported as name='train'"):
            millpond.prometheus.export(second, "train", registry)
        first.close()
        millpond.prometheus.export(second, "train", registry)


class _Told:
    """A loader that tells what the counters of another would be."""

    is_closed = False

    def __init__(self, statistics: Any) -> None:
        self.statistics = lambda: statistics


def test_quantiles_and_limits_come_as_prometheus_has_them(registry: CollectorRegistry) -> None:
    told = dataclasses.make_dataclass(
        "Told", ["batches", "wait", "wait_seconds", "limited_by", "bytes_read", "counters"]
    )
    wait = dataclasses.make_dataclass("Wait", ["p50_seconds", "p95_seconds", "p99_seconds"])
    loader = _Told(told(2, wait(0.5, 0.75, 1.0), 1.5, "decode", 7, {"bytes_read": 7, "read_ns": 250_000_000}))
    millpond.prometheus.export(loader, "x", registry)
    found = scraped(registry)
    assert found["millpond_batch_wait_seconds{loader=x,quantile=0.95}"] == 0.75
    assert found["millpond_limited_by{loader=x,stage=decode}"] == 1
    assert found["millpond_limited_by{loader=x,stage=fetch}"] == 0
    assert found["millpond_read_bytes_total{loader=x}"] == 7
    assert found["millpond_read_seconds_total{loader=x}"] == 0.25


def test_scrapes_in_other_threads_disturb_no_epoch(registry: CollectorRegistry) -> None:
    done = threading.Event()
    errors: list[Exception] = []

    def scrape() -> None:
        while not done.is_set():
            try:
                scraped(registry)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shall tell
                errors.append(error)
                return

    with make_loader(num_workers=1) as loader:
        millpond.prometheus.export(loader, "train", registry)
        threads = [threading.Thread(target=scrape) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            assert sum(len(batch["index"]) for _ in range(2) for batch in loader) == 160
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert scraped(registry)["millpond_epochs_total{loader=train}"] == 2
    assert errors == []


def test_the_drop_in_dataloader_is_told_of_too(registry: CollectorRegistry) -> None:
    pytest.importorskip("torch", reason="the DataLoader needs torch")
    from millpond.torch import DataLoader

    with DataLoader(range(6), batch_size=2) as loader:
        millpond.prometheus.export(loader, "torch", registry)
        sum(1 for _ in loader)
        assert scraped(registry)["millpond_samples_total{loader=torch}"] == 6
        assert loader.statistics().as_dict("train/")["train/batches"] == 3
    assert scraped(registry) == {}


def test_without_prometheus_client_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with make_loader() as loader:
        with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'millpond[prometheus]'")):
            millpond.prometheus.export(loader)
