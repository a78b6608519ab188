"""What tests have workers do with samples, in a module that imports nothing heavy: workers import it.

A module of tests brings pytest along, and what it tests: more than a second in each worker, and each that replaces it.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from deadlock import hold_the_gil


def index_only(sample: dict[str, Any]) -> dict[str, Any]:
    return {"index": sample["index"]}


def sleep_at_77(sample: dict[str, Any]) -> dict[str, Any]:
    while sample["index"] == 77:
        time.sleep(60)
    return {"index": sample["index"]}


def hang_at(sample: dict[str, Any], *, number: int) -> dict[str, Any]:
    if sample["index"] == number:
        hold_the_gil()
    return {"index": sample["index"]}


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("this does not travel")


def short_sound(sample: dict[str, Any]) -> dict[str, Any]:
    assert sample["caption"].startswith("this is ")
    assert sample["audio"].shape == (int(sample["audio_length"]),)
    assert sample["video"].shape == (int(sample["video_length"]), 3, 64, 80)
    assert sample["video_seconds"].shape == (int(sample["video_length"]),)
    return {
        "letters": np.asarray(len(sample["caption"])),
        "loudness": np.abs(sample["audio"]).mean(),
        "number": sample["number"],
        "caption": sample["caption"],
    }


def with_letters(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "letters": np.int64(len(sample["caption"]))}
