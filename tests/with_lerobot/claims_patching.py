"""Which names a patch exchanges in a real LeRobot, and that it gives all of them back."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from lerobot.datasets import lerobot_dataset, streaming_dataset, video_utils

import millpond
import millpond.lerobot
from lerobot_samples import assert_same, opened
from synthesized import MakeDataset

HOMES = (video_utils, lerobot_dataset, streaming_dataset)
NAMES = [
    "VideoDecoderCache",
    "_default_decoder_cache",
    "decode_video_frames",
    "decode_video_frames_torchcodec",
    "decode_video_frames_torchvision",
]


def names_of_lerobot() -> dict[tuple[str, str], Any]:
    """Every global of all its modules, and what its datasets have."""
    modules = {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "lerobot"}
    found = {(home, name): value for home, module in modules.items() for name, value in vars(module).items()}
    for kind in (lerobot_dataset.LeRobotDataset, streaming_dataset.StreamingLeRobotDataset):
        found |= {(kind.__name__, name): value for name, value in vars(kind).items()}
    return found


def test_every_module_that_has_the_names_gets_others_and_gets_its_own_back() -> None:
    before = names_of_lerobot()
    with millpond.lerobot.patch():
        during = names_of_lerobot()
    assert names_of_lerobot() == before
    changed = {key for key in during if key not in before or during[key] is not before[key]}
    own = {(home.__name__, name) for home in HOMES for name in NAMES if name in vars(home)}
    assert changed == own | {("LeRobotDataset", "__reduce_ex__"), ("StreamingLeRobotDataset", "__reduce_ex__")}


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("decode")])
def test_functions_keep_their_signatures(name: str) -> None:
    own = inspect.signature(getattr(video_utils, name))
    with millpond.lerobot.patch():
        assert inspect.signature(getattr(video_utils, name)) == own
        assert getattr(video_utils, name).__name__ == name


def test_a_module_that_is_imported_later_gives_the_names_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    late = ModuleType("lerobot.late")
    own = video_utils.decode_video_frames
    with millpond.lerobot.patch():
        late.__dict__["its_name_for_it"] = video_utils.decode_video_frames
        monkeypatch.setitem(sys.modules, late.__name__, late)
    assert late.its_name_for_it is own


def test_patching_twice_is_one_patch() -> None:
    before = names_of_lerobot()
    first = millpond.lerobot.patch()
    during = names_of_lerobot()
    second = millpond.lerobot.patch(first.cache)
    assert names_of_lerobot() == during
    assert second.cache is first.cache
    second.undo()
    assert names_of_lerobot() == before
    first.undo()
    assert names_of_lerobot() == before


def test_a_block_inside_a_patched_program_leaves_it_patched() -> None:
    with millpond.lerobot.patch() as outer:
        with millpond.lerobot.patch():
            pass
        assert "in force" in repr(outer)
        assert vars(video_utils)["VideoDecoderCache"] is millpond.VideoDecoderCache
    assert "undone" in repr(outer)


def test_what_was_undone_does_not_undo_the_next() -> None:
    first = millpond.lerobot.patch()
    first.undo()
    with millpond.lerobot.patch():
        first.undo()
        assert vars(video_utils)["VideoDecoderCache"] is millpond.VideoDecoderCache


def test_another_cache_has_to_wait_for_the_end_of_the_first() -> None:
    with (
        millpond.lerobot.patch(millpond.VideoDecoderCache(max_size=2)),
        pytest.raises(RuntimeError, match=r"undo\(\)"),
    ):
        millpond.lerobot.patch(millpond.VideoDecoderCache(max_size=2))


def test_a_cache_of_lerobots_is_refused() -> None:
    with pytest.raises(TypeError, match=r"millpond\.VideoDecoderCache"):
        millpond.lerobot.patch(video_utils.VideoDecoderCache())


def test_frames_come_from_the_cache_that_was_given(synth: MakeDataset) -> None:
    cache = millpond.VideoDecoderCache(max_size=5)
    with millpond.lerobot.patch(cache) as patch:
        opened(synth())[0]
        assert patch.cache is vars(video_utils)["_default_decoder_cache"] is cache
        assert (cache.size(), cache.statistics().misses) == (2, 2)
    cache.clear()


def test_a_pickled_dataset_patches_where_it_is_unpickled(synth: MakeDataset) -> None:
    dataset = opened(synth())
    plain = pickle.dumps(dataset)
    with millpond.lerobot.patch(millpond.VideoDecoderCache(max_size=7)) as patch:
        pickled = pickle.dumps(dataset)
        expected = dataset[3]
        assert_same(pickle.loads(pickled)[3], expected)
        assert_same(copy.deepcopy(dataset)[3], expected)
        assert vars(video_utils)["_default_decoder_cache"] is patch.cache
        patch.cache.clear()
    pickle.loads(plain)
    assert vars(video_utils)["VideoDecoderCache"] is not millpond.VideoDecoderCache
    again = pickle.loads(pickled)
    with millpond.lerobot.patch() as patch:  # one more, to end it by
        assert_same(again[3], expected)
        assert patch.cache.max_size == 7
        assert patch.cache.statistics().misses == 2
        patch.cache.clear()
        patch.undo()


def test_a_subclass_travels_with_what_it_adds(synth: MakeDataset) -> None:
    with millpond.lerobot.patch() as patch:
        dataset = Marked("local/dataset", root=synth())
        dataset.mark = "mine"
        again = pickle.loads(pickle.dumps(dataset))
        assert (type(again), again.mark) == (Marked, "mine")
        assert torch.equal(again[1]["action"], dataset[1]["action"])
        patch.cache.clear()


class Marked(lerobot_dataset.LeRobotDataset):  # type: ignore[misc] # LeRobot is not typed for us
    """A user's own."""

    mark = ""
