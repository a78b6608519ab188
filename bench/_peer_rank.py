"""One rank, in a process of its own: constructs its loader, looks at epochs, times them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np

import millpond
from _peer import tree_cpu_seconds
from _serving import serve


class Rank:
    """Operations of a rank, over the loader that was constructed last; numpy batches, so that no rank imports torch."""

    def __init__(self) -> None:
        self.loader: millpond.Loader | None = None

    def construct(self, *, root: str, image_size: list[int] | None, **loader: Any) -> dict[str, Any]:
        self.close()
        dataset = millpond.LeRobotDataset(root, image_size=tuple(image_size) if image_size else None)
        self.loader = millpond.Loader(dataset, shuffle=True, output="numpy", **loader)
        return {"memory_plan": str(self.loader.memory_plan())}

    def look(self, *, state: dict[str, Any] | None = None, num_batches: int | None = None) -> dict[str, Any]:
        """Which samples come in which batch of epoch 0, or from a state on; of the first so many batches, or all.

        The state is the one after them. What fills a batch up is counted, and is not among the samples.
        """
        assert self.loader is not None
        if state is None:
            self.loader.set_epoch(0)
        else:
            self.loader.load_state_dict(state)
        batches, padded = [], 0
        with closing(iter(self.loader)) as epoch:  # type: ignore[type-var]
            for batch in islice(epoch, num_batches):
                valid = valid_rows(batch)
                batches.append(batch["index"].ravel()[valid].tolist())
                padded += int((~valid).sum())
            after = self.loader.state_dict()
        return {"batches": batches, "padded_rows": padded, "state": after}

    def epoch(self) -> dict[str, Any]:
        """Time the next one, from asking for it to its last batch."""
        assert self.loader is not None
        samples, decoded, cpu, began = 0, self.frames_decoded(), tree_cpu_seconds(), time.monotonic()
        for batch in self.loader:
            samples += int(valid_rows(batch).sum())
        return {
            "samples": samples,
            "wall_seconds": time.monotonic() - began,
            "cpu_seconds": tree_cpu_seconds() - cpu,
            "frames_decoded": self.frames_decoded() - decoded,
        }

    def frames_decoded(self) -> int:
        assert self.loader is not None
        return self.loader.statistics().counters.get("frames_decoded", 0)

    def close(self) -> dict[str, Any]:
        if self.loader is not None:
            self.loader.close()
        self.loader = None
        return {}


def valid_rows(batch: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """All of a loader that fills nothing up."""
    return np.asarray(batch.get("is_valid", np.ones(len(batch["index"]), bool)))


if __name__ == "__main__":
    rank = Rank()
    serve({name: getattr(rank, name) for name in ("construct", "look", "epoch", "close")})
    rank.close()
