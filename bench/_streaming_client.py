"""The contender millpond, reading a dataset from memory or from a store. Started by `_process.Contender`."""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from dataclasses import asdict
from typing import Any

import millpond
from _cpu import cpu_seconds, spent
from _epochs import run_epoch
from _repeated import RepeatedDataset
from millpond._observe.memory import MemorySampler


class Client:
    """Does as it is asked; each method is a request."""

    def __init__(self) -> None:
        self._loader: millpond.Loader | None = None
        self._repeats, self._num_samples = 1, 0

    def open(self, root: str, repeats: int, loader: dict[str, Any], order: dict[str, Any] | None) -> dict[str, Any]:
        """Make a loader, in place of the one before; `order` is what another one's `open` gave, to have the same."""
        self.close()
        began = time.monotonic()
        dataset: Any = millpond.LeRobotDataset(root)
        if repeats > 1:
            dataset = RepeatedDataset(dataset, repeats)
        self._repeats, self._num_samples = repeats, len(dataset)
        self._loader = millpond.Loader(dataset, **loader)
        if order is not None:
            self._loader.load_state_dict(order)
        plan = self._loader.memory_plan()
        return {
            "open_seconds": time.monotonic() - began,
            "num_samples": len(dataset),
            "memory_plan": str(plan),
            "memory_bytes": plan.memory_bytes,
            "prefetch_bytes": plan.prefetch_bytes,
            "order": self._loader.state_dict(),
        }

    def epoch(self, crcs: bool = False) -> dict[str, Any]:
        """Run epoch 0: all epochs of loaders with the same order are the same."""
        assert self._loader is not None
        counters = self._loader.statistics().counters
        looked = cpu_seconds()
        epoch = run_epoch(self._loader, crcs=crcs)
        cpu = spent(looked, cpu_seconds())
        after = self._loader.statistics()
        books = after.books
        times = Counter(index for index, _ in epoch.samples)
        return {
            "samples": len(epoch.samples),
            "miscounted": sum(abs(count - self._repeats) for count in times.values())
            + self._num_samples
            - self._repeats * len(times),
            "crcs": epoch.samples if crcs else None,
            "wall_seconds": epoch.wall_seconds,
            "first_batch_seconds": epoch.first_batch_seconds,
            "longest_wait_seconds": epoch.longest_wait_seconds,
            "cpu_seconds": cpu,
            # most_bytes_held is a level, all others are counts
            "counters": {name: value - counters.get(name, 0) for name, value in after.counters.items()}
            | {"most_bytes_held": after.counters.get("most_bytes_held", 0)},
            "balance": None if books is None else books.balance,
        }

    def index(self, sources: str | list[str]) -> dict[str, Any]:
        """Build an index of a dataset, or of video files."""
        began = time.monotonic()
        index = millpond.EpisodeByteIndex.build(sources)
        return {"seconds": time.monotonic() - began, "files": index.num_files, "episodes": len(index)}

    def churn(self, url: str, max_bytes: int, ahead: int, passes: int) -> dict[str, Any]:
        """Go through the episodes in random order, always some of them ahead, and decode a frame of each camera."""
        index = millpond.EpisodeByteIndex.build(url)
        order = index.episodes.tolist() * passes
        random.Random(0).shuffle(order)
        go_through(index, max_bytes, order[:2], ahead=0)  # what any cache needs once: connections, threads, decoders
        with MemorySampler(interval_seconds=0.02) as sampler:
            stats = go_through(index, max_bytes, order, ahead)
        return {**asdict(stats), "pss_growth_bytes": sampler.peak_growth_bytes, "looks": len(sampler.points)}

    def close(self) -> None:
        if self._loader is not None:
            self._loader.close()
            self._loader = None


def go_through(index: Any, max_bytes: int, episodes: list[int], ahead: int) -> Any:
    with millpond.EpisodeByteCache(index, max_bytes=max_bytes) as cache:
        for at, episode in enumerate(episodes):
            for coming in episodes[at : at + 1 + ahead]:
                cache.submit_prefetch(coming)
            cache.ensure_ready(episode)
            for camera in index.video_keys:
                cache.get_decoder(episode, camera).get_frame_at(0)
        return cache.stats


def main() -> None:
    print(json.dumps({"millpond": millpond.__file__}), flush=True)
    client = Client()
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(client, request.pop("do"))(**request)
        print(json.dumps(answer), flush=True)
    client.close()


if __name__ == "__main__":
    main()
