"""The batch meter adds up, in even bins, on a clock that the test holds."""

from __future__ import annotations

import numpy as np

from millpond._observe.environment import environment_facts
from millpond._observe.meter import BatchMeter


def metered(seconds: list[float], samples: int) -> BatchMeter:
    times = iter([0.0, *seconds])
    meter = BatchMeter(clock=lambda: next(times))
    for level, _ in enumerate(seconds):
        meter.note(samples, pond_level=level)
    return meter


def test_rate_counts_the_time_to_the_first_batch() -> None:
    meter = metered([2.0, 3.0, 4.0], samples=8)
    assert (meter.samples, meter.seconds_to_first_batch, meter.samples_per_second) == (24, 2.0, 6.0)


def test_bins_hold_every_sample_once() -> None:
    meter = metered(list(np.linspace(0.1, 10.0, 100)), samples=32)
    throughput = meter.throughput(max_bins=10)
    assert len(throughput.elapsed_seconds) == 10
    assert np.isclose(throughput.samples_per_second.sum() * 1.0, 3200)


def test_nothing_noted_is_nothing_shown() -> None:
    meter = metered([], samples=1)
    assert (meter.samples_per_second, len(meter.throughput().elapsed_seconds)) == (0.0, 0)


def test_pond_levels_come_back_as_noted() -> None:
    seconds, levels = metered([1.0, 2.0], samples=1).pond_levels()
    assert (seconds.tolist(), levels.tolist()) == ([1.0, 2.0], [0, 1])


def test_environment_names_versions_and_what_is_not_installed() -> None:
    facts = environment_facts()
    assert facts["millpond"][0].isdigit()
    assert "cores" in facts["machine"]
    assert all(facts.values())
