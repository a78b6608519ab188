"""The measurements of the streaming bench, a function for each; `streaming.py` says what they are for."""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _pinning import pinned
from _process import Contender
from _streaming_data import Videos, temporary_folder, write_many_files
from _streaming_store import Store, Traffic
from millpond._observe.memory import MemorySampler

Answer = dict[str, Any]


@dataclass(frozen=True)
class Rig:
    """What every measurement is given.

    Attributes:
        options: The command line's.
        store: The server; it serves the folder that the dataset lies in.
        root: The dataset, in memory.
        videos: Its files.
        cores: That clients run on; none: any.
        num_workers: Of a client.
    """

    options: argparse.Namespace
    store: Store
    root: Path
    videos: Videos
    cores: tuple[int, ...]
    num_workers: int

    @property
    def url(self) -> str:
        return f"{self.store.url}/{self.root.name}"

    @property
    def loader(self) -> dict[str, Any]:
        return {
            "batch_size": self.options.batch_size,
            "shuffle": True,
            "seed": self.options.seed,
            "num_workers": self.num_workers,
            "memory": self.options.memory,
            "output": "numpy",
        }

    @contextmanager
    def contender(self, script: str) -> Iterator[Contender]:
        """A process of its own, which keeps what it keeps in a folder that goes with it."""
        with temporary_folder() as folder:
            environment = os.environ | {"MILLPOND_CACHE_DIR": str(folder), "TMPDIR": str(folder)}
            with pinned(*self.cores):
                contender = Contender(script, environment=environment)
            with contender:
                yield contender

    def faults(self) -> dict[str, float]:
        unavailable, reset, truncated = self.options.faults
        return {"unavailable": unavailable, "reset": reset, "truncated": truncated}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Pair:
    """Two clients with the same order: one reads from memory, one from the store."""

    def __init__(self, rig: Rig, ram: Contender, streamed: Contender) -> None:
        self._rig, self._ram, self._streamed = rig, ram, streamed
        self._repeats = 0

    def open(self, repeats: int) -> Answer:
        loader = self._rig.loader
        opened = self._streamed.ask("open", root=self._rig.url, repeats=repeats, loader=loader, order=None)
        self._ram.ask("open", root=str(self._rig.root), repeats=repeats, loader=loader, order=opened.pop("order"))
        self._repeats = repeats
        return opened

    def ram(self, **settings: Any) -> Answer:
        return rated(self._ram.ask("epoch", **settings))

    def streamed(self, *, with_faults: bool = False, **settings: Any) -> Answer:
        """An epoch, with what the server saw of it."""
        store = self._rig.store
        store.forget()
        if with_faults:
            store.begin_faults(**self._rig.faults())
        epoch = rated(self._streamed.ask("epoch", **settings))
        traffic = store.traffic()
        store.end_faults()
        ranges = epoch["counters"]["ranges_planned"]
        needed = self._rig.videos.packet_bytes * self._repeats
        return epoch | {
            "traffic": asdict(traffic),
            "bytes_over_needed": traffic.video_bytes / needed,
            "requests_per_range": traffic.video_requests / ranges if ranges else math.nan,
            "server_cpu": traffic.cpu_seconds / epoch["wall_seconds"],
        }


def rated(epoch: Answer) -> Answer:
    return epoch | {
        "samples_per_second": epoch["samples"] / epoch["wall_seconds"],
        "cpu_us_per_sample": 1e6 * epoch["cpu_seconds"]["total"] / epoch["samples"],
    }


@contextmanager
def opened_pair(rig: Rig) -> Iterator[tuple[Pair, Contender]]:
    with rig.contender("_streaming_client.py") as ram, rig.contender("_streaming_client.py") as streamed:
        yield Pair(rig, ram, streamed), streamed


def keep_up(rig: Rig, *, rounds: int, with_faults: bool) -> Answer:
    """Epochs from memory and from the store in turn, each as long as asked for; and the pixels of one epoch of each."""
    with opened_pair(rig) as (pair, streamed):
        with MemorySampler(streamed.pid) as sampler:
            pair.open(1)
            pair.ram()
            pair.streamed()
            seconds = pair.ram()["wall_seconds"]
            same = compared(pair) if with_faults else {}
            repeats = max(1, math.ceil(rig.options.seconds / seconds))
            opened = pair.open(repeats)
            pair.ram()  # arena and workers are new
            warm = pair.streamed()
        measured = [one_round(number, pair, with_faults) for number in range(rounds)]
        timed = [epoch for one in measured for epoch in one.values()]
        last = pair.ram()["samples_per_second"]
    return {
        "num_workers": rig.num_workers,
        "repeats": repeats,
        **opened,
        **same,
        "held_over_ring": warm["counters"]["most_bytes_held"] / opened["prefetch_bytes"],
        "memory_growth_bytes": sampler.peak_growth_bytes,
        "memory_growth_over_budget": sampler.peak_growth_bytes / opened["memory_bytes"],
        "samples_timed": {
            "miscounted": sum(epoch["miscounted"] for epoch in timed),
            "unbalanced": sum(epoch["balance"] != 0 for epoch in timed),
            "faults_served": sum(epoch["traffic"]["faults"] for epoch in timed if "traffic" in epoch),
        },
        "rounds": measured,
        "last_ram_samples_per_second": last,
        "results": results(measured, last),
    }


def one_round(number: int, pair: Pair, with_faults: bool) -> dict[str, Answer]:
    measured = {"ram": pair.ram(), "streamed": pair.streamed()}
    if with_faults:
        measured["faults"] = pair.streamed(with_faults=True)
    rates = {name: round(epoch["samples_per_second"], 1) for name, epoch in measured.items()}
    costs = {name: round(epoch["cpu_us_per_sample"]) for name, epoch in measured.items()}
    say(f"round {number}: {rates} samples/s, {costs} us of CPU a sample")
    return measured


def results(rounds: list[dict[str, Answer]], last_ram: float) -> Answer:
    """Medians; each streamed epoch is held against those from memory just before and just after it."""
    ram = [one["ram"] for one in rounds]
    rates = [epoch["samples_per_second"] for epoch in ram] + [last_ram]
    found: Answer = {"ram": summary(ram)}
    for name in rounds[0].keys() - {"ram"}:
        epochs = [one[name] for one in rounds]
        ratios = [
            2 * epoch["samples_per_second"] / (before + after)
            for epoch, before, after in zip(epochs, rates[:-1], rates[1:], strict=True)
        ]
        found[name] = summary(epochs) | {
            "keep_up": statistics.median(ratios),
            "keep_ups": ratios,
            "keep_up_least": min(ratios),
            "keep_up_most": max(ratios),
            "keep_up_of_cpu": median_of(ram, "cpu_us_per_sample") / median_of(epochs, "cpu_us_per_sample"),
            "bytes_over_needed": max(epoch["bytes_over_needed"] for epoch in epochs),
            "requests_per_range": max(epoch["requests_per_range"] for epoch in epochs),
            "server_cpu": median_of(epochs, "server_cpu"),
        }
    return found


def summary(epochs: list[Answer]) -> Answer:
    samples = sum(epoch["samples"] for epoch in epochs)
    cpu = sum((Counter(epoch["cpu_seconds"]) for epoch in epochs), Counter())
    return {
        "samples_per_second": median_of(epochs, "samples_per_second"),
        "cpu_us_per_sample": median_of(epochs, "cpu_us_per_sample"),
        "first_batch_seconds": median_of(epochs, "first_batch_seconds"),
        "cpu_us_per_sample_by_role": {role: 1e6 * seconds / samples for role, seconds in cpu.items()},
    }


def median_of(epochs: list[Answer], name: str) -> float:
    return statistics.median(epoch[name] for epoch in epochs)


def compared(pair: Pair) -> Answer:
    """Every sample of an epoch from the store, calm and under faults, held against the same epoch from memory."""
    wanted = [tuple(sample) for sample in pair.ram(crcs=True)["crcs"]]
    found: Answer = {}
    for name, with_faults in (("calm", False), ("faults", True)):
        epoch = pair.streamed(crcs=True, with_faults=with_faults)
        came = [tuple(sample) for sample in epoch["crcs"]]
        times = Counter(index for index, _ in came)
        pixels = dict(wanted)
        found[f"samples_{name}"] = {
            "lost": sum(index not in times for index, _ in wanted),
            "twice": sum(times.values()) - len(times),
            "altered": sum(pixels[index] != crc for index, crc in came),
            "misplaced": sum(one != other for one, other in zip(came, wanted, strict=False)),
            "unbalanced": abs(epoch["balance"]),
            "faults_served": epoch["traffic"]["faults"],
            "retries": epoch["counters"]["retries"],
        }
        say(f"{name}: {found[f'samples_{name}']}")
    return found


def byte_cache(rig: Rig) -> Answer:
    """What an `EpisodeByteCache` holds that is a quarter as large as the videos, or has room for eight episodes."""
    max_bytes = max(rig.videos.packet_bytes // 4, rig.options.cache_bytes)
    with rig.contender("_streaming_client.py") as client:
        rig.store.forget()
        found = client.ask("churn", url=rig.url, max_bytes=max_bytes, ahead=4, passes=rig.options.cache_passes)
    return found | {
        "peak_over_max": found["peak_bytes"] / max_bytes,
        "pss_growth_over_max": found["pss_growth_bytes"] / max_bytes,
        "traffic": asdict(rig.store.traffic()),
    }


def side_by_side(rig: Rig) -> Answer:
    """From nothing: no sidecar, no connection, no file. Each to its first batch and through one epoch, in turn."""
    rounds = [one_beside(rig) for _ in range(rig.options.peer_rounds)]
    return {name: medians([one[name] for one in rounds]) for name in rounds[0]}


def medians(answers: list[Any]) -> Any:
    """Of what are numbers; what is told in words is told once."""
    if not isinstance(answers[0], dict):
        return answers[0]
    return {
        name: statistics.median(one[name] for one in answers) if isinstance(value, int | float) else value
        for name, value in answers[0].items()
    }


def one_beside(rig: Rig) -> Answer:
    found: Answer = {}
    for name, root in (("memory", str(rig.root)), ("millpond", rig.url)):
        with rig.contender("_streaming_client.py") as client:
            rig.store.forget()
            opened = client.ask("open", root=root, repeats=1, loader=rig.loader, order=None)
            epoch = client.ask("epoch")
            found[name] = from_nothing(opened["open_seconds"], epoch, rig.store.traffic())
    with rig.contender("_peer_fsspec.py") as peer:
        found["versions"] = peer.facts
        missing = [name for name, version in peer.facts.items() if version == "not installed"]
        told = f"not installed: {', '.join(missing)}"
        found["fsspec_download"] = beside_download(rig, peer) if {"fsspec", "aiohttp"}.isdisjoint(missing) else told
        found["fsspec_readahead"] = told if missing else beside_readahead(rig, peer)
    return found


def beside_download(rig: Rig, peer: Contender) -> Answer:
    names = [str(file.relative_to(rig.root)) for file in sorted(rig.root.rglob("*")) if file.is_file()]
    with (
        temporary_folder(rig.options.ram, num_bytes=rig.videos.file_bytes) as folder,
        rig.contender("_streaming_client.py") as client,
    ):
        rig.store.forget()
        got = peer.ask("download", url=rig.url, names=names, folder=str(folder))
        traffic = rig.store.traffic()
        opened = client.ask("open", root=str(folder), repeats=1, loader=rig.loader, order=None)
        epoch = client.ask("epoch")
    seconds = got["seconds"] + opened["open_seconds"]
    return from_nothing(seconds, epoch, traffic) | {"download_seconds": got["seconds"]}


def beside_readahead(rig: Rig, peer: Contender) -> Answer:
    rig.store.forget()
    urls = [f"{rig.url}/{name}" for name in rig.videos.first]
    read = peer.ask("readahead", urls=urls, num_frames=rig.videos.first_frames, seconds=rig.options.peer_seconds)
    traffic = rig.store.traffic()
    return read | {
        "samples_per_second": read["samples"] / read["wall_seconds"],
        "bytes_sent": traffic.bytes_sent,
        "requests": traffic.requests,
    }


def from_nothing(seconds: float, epoch: Answer, traffic: Traffic) -> Answer:
    """`seconds` went by before the loader was asked for its first batch."""
    return {
        "open_seconds": seconds,
        "first_batch_seconds": seconds + epoch["first_batch_seconds"],
        "samples": epoch["samples"],
        "samples_per_second": epoch["samples"] / (seconds + epoch["wall_seconds"]),
        "bytes_sent": traffic.bytes_sent,
        "requests": traffic.requests,
    }


def index(options: argparse.Namespace, store: Store, cores: tuple[int, ...]) -> Answer:
    """Index many files from nothing: a dataset with an episode in each, and single files."""
    with temporary_folder(options.ram) as folder:
        dataset, names = write_many_files(folder, options.index_files)
        store.serve(folder)
        sources = {"dataset": f"{store.url}/{dataset}", "files": [f"{store.url}/{name}" for name in names]}
        found: Answer = {}
        for name, source in sources.items():
            rig = Rig(options, store, folder, Videos([], 0, [], 0, 0), cores, 0)
            with rig.contender("_streaming_client.py") as client:
                store.forget()
                built = client.ask("index", sources=source)
                found[name] = built | {"traffic": asdict(store.traffic())}
                say(f"index of {name}: {found[name]}")
    return found
