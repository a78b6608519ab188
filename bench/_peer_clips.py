"""The contenders of the clip bench: batches of clips, uint8 (B, T, 3, H, W), by one library each. Started by
`_process.Contender`, in a process each; a library is imported when it is asked for.

Clips that cannot be read are left out, as each has it: `on_error="skip"` of millpond; of torch's DataLoader a dataset
that returns None and a collate function that drops it, since there is nothing built in; SPDL by itself.
"""

from __future__ import annotations

import json
import random
import time
import zlib
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from _clip_checks import off_by
from _clip_decoders import DECODERS, Decode
from _cpu import cpu_seconds, spent
from _serving import serve
from _usable import why_not

Batch = tuple[list[int], Any]
"""Numbers of clips, and their frames, uint8 (B, T, 3, H, W)."""

PACKAGES = {
    "millpond": ("millpond", "av"),
    "torchcodec": ("torch", "torchcodec"),
    "PyAV": ("torch", "av"),
    "decord2": ("torch", "decord2"),
    "SPDL": ("spdl",),
    "WebDataset + torchcodec": ("torch", "torchcodec", "webdataset"),
    "WebDataset + PyAV": ("torch", "av", "webdataset"),
}
MODULES = {
    "millpond": (),
    "torchcodec": ("_torchvision_shim", "torch.utils.data", "torchcodec.decoders", "torchcodec.transforms"),
    "PyAV": ("torch.utils.data", "av"),
    "decord2": ("torch.utils.data", "decord"),
    "SPDL": ("torch", "spdl.io", "spdl.pipeline"),
    "WebDataset + torchcodec": ("_torchvision_shim", "webdataset", "torchcodec.decoders", "torchcodec.transforms"),
    "WebDataset + PyAV": ("_torchvision_shim", "webdataset", "av"),
}
"""What each needs."""


class ClipItems:
    """Map-style: one clip, its number and its frames (T, H, W, 3), or None if it cannot be read."""

    def __init__(self, rows: list[dict[str, Any]], decode: Decode, size: tuple[int, int]) -> None:
        self._rows, self._decode, self._size = rows, decode, size

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[int, Any] | None:
        row = self._rows[index]
        try:
            return row["clip"], self._decode(row["path"], row["seconds"], row["frames"], self._size)
        except Exception:  # noqa: BLE001 - what a library raises for a broken file is its own affair
            return None


def stacked(items: list[tuple[int, Any] | None]) -> Batch | None:
    """As they come, channels last: the view with channels first costs nothing."""
    import torch

    whole = [item for item in items if item is not None]
    if not whole:
        return None
    return [number for number, _ in whole], torch.stack([torch.as_tensor(frames) for _, frames in whole])


def open_dataloader(name: str, rows: list[dict[str, Any]], options: dict[str, Any]) -> Iterable[Batch | None]:
    import torch.utils.data

    return torch.utils.data.DataLoader(
        ClipItems(rows, DECODERS[name], tuple(options["size"])),  # type: ignore[arg-type]
        batch_size=options["batch_size"],
        shuffle=True,
        num_workers=options["num_workers"],
        persistent_workers=True,
        collate_fn=stacked,
    )


def open_shards(name: str, urls: list[str], options: dict[str, Any]) -> Iterable[Batch | None]:
    """WebDataset's pipeline: shards in random order, each read by one worker front to back; clips are shuffled in a
    buffer, decoded and batched in the worker. What raises is left out with `warn_and_continue`: a clip, or what is left
    of a shard.
    """
    import webdataset

    def decoded(sample: dict[str, Any]) -> tuple[int, Any]:
        row = json.loads(sample["json"])
        return row["clip"], decode(sample["mp4"], row["seconds"], row["frames"], tuple(options["size"]))

    decode, go_on = DECODERS[name], webdataset.warn_and_continue
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=len(urls), empty_check=False, handler=go_on)
        .shuffle(options["batch_size"] * 4)
        .map(decoded, handler=go_on)
        .batched(options["batch_size"], collation_fn=stacked)
    )
    loader: Iterable[Batch | None] = webdataset.WebLoader(
        dataset, batch_size=None, num_workers=options["num_workers"], persistent_workers=True
    )
    return loader


class Spdl:
    """SPDL's pipeline, made anew for each epoch: threads that decode, and one copy from FFmpeg's frames to a batch."""

    def __init__(self, rows: list[dict[str, Any]], options: dict[str, Any]) -> None:
        self._rows, self._options = rows, options

    def __iter__(self) -> Iterator[Batch]:
        from spdl.pipeline import PipelineBuilder

        threads = self._options["num_workers"]
        rows = random.sample(self._rows, len(self._rows))
        pipeline = (
            PipelineBuilder()
            .add_source(rows)
            .pipe(self._decoded, concurrency=threads)
            .aggregate(self._options["batch_size"])
            .pipe(self._gathered)
            .add_sink(3)
            .build(num_threads=threads + 1)
        )
        with pipeline.auto_stop():
            yield from pipeline.get_iterator()

    def _decoded(self, row: dict[str, Any]) -> tuple[int, Any]:
        size = tuple(self._options["size"])
        return row["clip"], DECODERS["SPDL"](row["path"], row["seconds"], row["frames"], size)

    def _gathered(self, items: list[tuple[int, Any]]) -> Batch:
        import spdl.io

        return [number for number, _ in items], spdl.io.to_torch(spdl.io.convert_frames([clip for _, clip in items]))


class Millpond:
    def __init__(self, manifest: Path, options: dict[str, Any]) -> None:
        import millpond

        frames = millpond.VideoOptions(times="seconds", image_size=tuple(options["size"]))
        self._loader = millpond.Loader(
            millpond.ClipDataset(manifest, video=frames),
            batch_size=options["batch_size"],
            shuffle=True,
            num_workers=options["num_workers"],
            memory=options["memory"],
            on_error="skip",
            quarantine=manifest.parent / "quarantine.jsonl",
            stall_timeout=options["stall_seconds"],
        )

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            yield batch["clip"].tolist(), batch["video"]

    def close(self) -> None:
        self._loader.close()


def why_not_here(side: str) -> dict[str, Any]:
    """None if the side can be asked to open."""
    return {"reason": next(filter(None, map(why_not, MODULES[side])), None)}


class Clips:
    """One side; each method is a request."""

    def __init__(self) -> None:
        self._side = ""
        self._batches: Any = None

    def open(self, side: str, folder: str, options: dict[str, Any]) -> dict[str, Any]:
        for module in MODULES[side]:  # before workers are forked
            import_module(module)
        self.close()
        rows = json.loads((Path(folder) / "rows.json").read_text(encoding="utf-8"))
        self._side = side
        if side == "millpond":
            self._batches = Millpond(Path(folder) / "manifest.jsonl", options)
        elif side == "SPDL":
            self._batches = Spdl(rows, options)
        elif side.startswith("WebDataset"):
            urls = json.loads((Path(folder) / "shards.json").read_text(encoding="utf-8"))
            self._batches = open_shards(side.rpartition(" ")[2], urls, options)
        else:
            self._batches = open_dataloader(side, rows, options)
        return {"versions": {name: version(name) for name in PACKAGES[side]}}

    def epoch(self) -> dict[str, Any]:
        """Time one; a byte of every frame is looked at."""
        looked, began = cpu_seconds(), time.monotonic()
        samples, first_seconds = 0, 0.0
        for numbers, frames in self._epoch():
            first_seconds = first_seconds or time.monotonic() - began
            assert int(frames[..., 0, 0].amax()) >= 0
            samples += len(numbers)
        seconds = time.monotonic() - began
        cpu = spent(looked, cpu_seconds())["total"]
        return {"samples": samples, "seconds": seconds, "first_seconds": first_seconds, "cpu_seconds": cpu}

    def check(self, reference: str, tell: bool = False) -> dict[str, Any]:
        """Hold an epoch against an independent decode; with `tell`, each clip is told of as it comes."""
        pictures = np.load(reference)
        came: list[dict[str, Any]] = []
        for numbers, frames in self._epoch():
            for number, of_clip in zip(numbers, np.asarray(frames), strict=True):
                crc = zlib.crc32(np.ascontiguousarray(of_clip))
                came.append({"clip": number, "off_by": off_by(of_clip, pictures[number]), "crc": crc})
                if tell:
                    print(json.dumps(came[-1]), flush=True)
        return {"came": came}

    def _epoch(self) -> Iterator[Batch]:
        for batch in self._batches:
            if batch is not None:
                yield batch if self._side == "millpond" else (batch[0], batch[1].movedim(-1, 2))

    def close(self) -> None:
        if isinstance(self._batches, Millpond):
            self._batches.close()
        self._batches = None  # ends the workers of a DataLoader


def main() -> None:
    clips = Clips()
    serve({"why_not": why_not_here, "open": clips.open, "epoch": clips.epoch, "check": clips.check})
    clips.close()


if __name__ == "__main__":
    main()
