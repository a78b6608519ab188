"""The contenders of bench/ray_data.py: a Ray cluster and millpond's reader, or Ray's own; and a loader without Ray.

Each cluster is its contender's: what its processes take is that side's, and it ends with it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from typing import Any

import millpond
from _peer import Batch, Side, contend, leave


class LoaderSide:
    """One loader for all epochs, in the training process."""

    fills_up = True

    def __init__(
        self, *, root: str, batch_size: int, num_workers: int, memory: str, policy: str, quarantine: str, **_: Any
    ) -> None:
        dataset = millpond.LeRobotDataset(root)
        self.cameras, self.num_samples = dataset.cameras, len(dataset)
        self.loader = millpond.Loader(
            dataset,
            batch_size=batch_size,
            num_workers=num_workers,
            memory=memory,
            shuffle=False,
            on_error=policy,  # type: ignore[arg-type]
            quarantine=quarantine,
            output="numpy",
        )

    def epoch(self) -> Iterator[Batch]:
        yield from self.loader

    def facts(self) -> dict[str, Any]:
        return {"memory_plan": str(self.loader.memory_plan())}

    def close(self) -> None:
        self.loader.close()


class OurReader:
    """`millpond.ray.read_lerobot`."""

    fills_up = True

    def __init__(self, *, root: str, batch_size: int, blocks: int, policy: str, quarantine: str, **_: Any) -> None:
        self.batch_size, self.blocks = batch_size, blocks
        with millpond.LeRobotDataset(root, lazy=True) as plain:
            self.cameras, self.num_samples = plain.cameras, len(plain)
        self.dataset = self.read(root, policy, quarantine)

    def read(self, root: str, policy: str, quarantine: str) -> Any:
        import millpond.ray

        return millpond.ray.read_lerobot(root, override_num_blocks=self.blocks, on_error=policy, quarantine=quarantine)  # type: ignore[arg-type]

    def epoch(self) -> Iterator[Batch]:
        yield from self.dataset.iter_batches(batch_size=self.batch_size)

    def facts(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


class TheirReader(OurReader):
    """`ray.data.read_lerobot`. It has no policy; Ray has one for blocks that fail, which leaves out the whole block."""

    def read(self, root: str, policy: str, quarantine: str) -> Any:
        import ray.data

        ray.data.DataContext.get_current().max_errored_blocks = -1 if policy == "skip" else 0
        return ray.data.read_lerobot(root, override_num_blocks=self.blocks)


def import_lerobot() -> None:
    """What Ray's reader imports, under the name that it has in LeRobot 0.5.

    LeRobot 0.4.4 has its metadata in another module; what Ray asks of it and of the decoder is there, and the same.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when it is imported
    import lerobot.datasets.lerobot_dataset as datasets

    try:
        import lerobot.datasets.dataset_metadata  # noqa: F401
    except ModuleNotFoundError:
        sys.modules["lerobot.datasets.dataset_metadata"] = datasets


@contextmanager
def cluster(folder: str, cpus: int, store_bytes: int) -> Iterator[None]:
    """Of one node; everything that it writes lies in the folder."""
    import ray
    import ray.data

    ray.init(
        address="local",
        num_cpus=cpus,
        object_store_memory=store_bytes,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
    )
    logging.disable(logging.ERROR)  # Ray tells each error in a hundred lines, and then raises it
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        ray.shutdown()


def main(kind: str, folder: str, cpus: str, store_bytes: str) -> None:
    sides: dict[str, type[Side]] = {"--loader": LoaderSide, "--ours": OurReader, "--theirs": TheirReader}
    packages = {"--loader": ["millpond"], "--ours": ["millpond", "ray"], "--theirs": ["ray", "lerobot", "torchcodec"]}
    if kind == "--theirs":
        import_lerobot()
    running: AbstractContextManager[None] = nullcontext()
    if kind != "--loader":
        running = cluster(folder, int(cpus), int(store_bytes))
    with running:
        contend(sides[kind], **{name: version(name) for name in packages[kind]})


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (ImportError, OSError, RuntimeError) as error:
        leave(error)
