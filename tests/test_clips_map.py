"""`dataset[i]`: the loader's samples, one by one, in this process, under the guard, and in a DataLoader's workers."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_sets import (
    FOUR_FRAMES,
    NAMES,
    RECIPES,
    SOUND,
    make_loader,
    numbers_shown,
    open_clips,
    write_manifest,
)
from millpond import AudioOptions, ClipDataset, VideoOptions

HERE = Path(__file__).parent


@pytest.fixture
def dataset(clips: Path) -> Iterator[ClipDataset]:
    dataset = open_clips(clips, video=VideoOptions(fps=8, image_size=(64, 80)), audio=SOUND)
    yield dataset
    dataset.close()


def test_samples_are_those_of_the_loader(dataset: ClipDataset) -> None:
    with make_loader(dataset, batch_size=1, num_workers=1) as loader:
        for index, batch in enumerate(loader):
            sample = dataset[index]
            assert sample.keys() == batch.keys()
            assert all(np.array_equal(np.asarray(sample[name]), np.asarray(batch[name][0])) for name in sample)
            assert [sample[name].dtype for name in sample if name != "caption"] == [
                batch[name].dtype for name in sample if name != "caption"
            ]


def test_a_timeout_changes_nothing_but_the_process(clips: Path, dataset: ClipDataset) -> None:
    options: dict[str, Any] = {"video": VideoOptions(fps=8, image_size=(64, 80)), "audio": SOUND}
    guarded = open_clips(clips, timeout=60, **options)
    for index in (0, 7):
        mine, theirs = dataset[index], guarded[index]
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
        assert theirs["video"].shape[1:] == (3, 64, 80)
        theirs["video"][:] = 0  # it is the caller's own


def test_indices_are_those_of_a_list(dataset: ClipDataset) -> None:
    assert len(dataset) == 10
    assert dataset[-1]["number"] == dataset[9]["number"] == dataset[np.int64(9)]["number"] == 9
    for index in (10, -11):
        with pytest.raises(IndexError, match=f"sample {index} of 10"):
            dataset[index]
    with pytest.raises(TypeError):
        dataset[slice(2)]  # type: ignore[index]
    assert [int(sample["number"]) for sample in dataset] == list(range(10))  # type: ignore[attr-defined]


def test_arrays_are_whole_and_the_caller_s_own(dataset: ClipDataset) -> None:
    sample = dataset[0]
    assert sample["video"].shape == (10, 3, 64, 80)
    assert sample["video"].strides[1] == 1  # channels-last in memory, as batches are
    assert sample["video_length"].shape == sample["number"].shape == ()
    assert sample["audio"].flags.writeable
    assert sample["caption"] == "this is h264.mp4"
    assert numbers_shown(sample["video"]) == {0}


def test_nothing_stays_open_between_two_samples(dataset: ClipDataset) -> None:
    dataset[0]
    before = len(os.listdir("/proc/self/fd"))
    for index in range(len(dataset)):
        dataset[index]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_dataset_travels(dataset: ClipDataset) -> None:
    dataset[1]
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.fingerprint == dataset.fingerprint
    assert np.array_equal(copy[1]["audio"], dataset[1]["audio"])


def test_a_forked_child_reads_on_its_own(dataset: ClipDataset) -> None:
    dataset[8]
    code = (
        "import os, sys; sys.path.insert(0, {tests!r})\n"
        "import pickle; dataset = pickle.loads(bytes.fromhex({data!r}))\n"
        "dataset[8]; pid = os.fork()\n"
        "same = [int(dataset[i]['number']) for i in (8, 2)] == [8, 2]\n"
        "if pid == 0: os._exit(0 if same else 1)\n"
        "print(os.waitpid(pid, 0)[1], same)"
    )
    code = code.format(tests=str(HERE), data=pickle.dumps(dataset).hex())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["0", "True"]


SCRIPT = """
import pickle, sys
import torch.utils.data
if __name__ == "__main__":
    for context, num_workers, data in zip(*[iter(sys.argv[1:])] * 3, strict=True):
        dataset = pickle.loads(bytes.fromhex(data))
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=5, shuffle=True, num_workers=int(num_workers), multiprocessing_context=context
        )
        for batch in loader:
            assert batch["video"].shape == (5, 4, 3, 64, 80)
            print(*batch["number"].tolist(), *(caption.rpartition(" ")[2] for caption in batch["caption"]))
"""


def test_it_works_in_the_workers_of_a_dataloader(clips: Path, tmp_path: Path) -> None:
    """Forked and spawned, and with a timeout; in one program, and spawned once: torch's import is most of it."""
    pytest.importorskip("torch", reason="torch is not installed")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    plain, limited = (
        pickle.dumps(open_clips(clips, video=FOUR_FRAMES, timeout=timeout)).hex() for timeout in (None, 60.0)
    )
    done = subprocess.run(
        [sys.executable, str(script), "fork", "2", plain, "spawn", "1", plain, "fork", "2", limited],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    words = done.stdout.split()
    assert sorted(words) == sorted(3 * [*map(str, range(10)), *RECIPES]), done.stderr


def test_a_column_is_a_medium_only_where_it_is_asked_for(clips: Path) -> None:
    rows = [{"clip": name, "video": n} for n, name in enumerate(NAMES[:2])]
    manifest = write_manifest(clips.parent / "other.jsonl", rows)
    sample = open_clips(manifest, audio=AudioOptions(sampling_rate=8000, column="clip"))[1]
    assert list(sample) == ["audio", "audio_length", "video"]
    assert sample["video"] == 1
