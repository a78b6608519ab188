"""Arguments of a loader and their errors: torch's, held against both classes by the same test."""

from __future__ import annotations

import inspect
import multiprocessing
import re
from typing import Any

import pytest

from fixtures_torch import LoaderMaker

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch_parity import Items, Stream  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on machines of one core

MUST_DEFAULT = "mutually exclusive with batch_size, shuffle, sampler, and drop_last"
CONTEXT_WITHOUT_WORKERS = (
    "multiprocessing_context can only be used with multi-process loading (num_workers > 0), but got num_workers=0"
)
PREFETCH_WITHOUT_WORKERS = (
    "prefetch_factor option could only be specified in multiprocessing."
    "let num_workers > 0 to enable multiprocessing, otherwise set prefetch_factor to None."
)
BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    (
        {"num_workers": -1},
        "num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.",
    ),
    ({"timeout": -1}, "timeout option should be non-negative"),
    ({"timeout": -0.5, "num_workers": 1}, "timeout option should be non-negative"),
    ({"prefetch_factor": 2}, PREFETCH_WITHOUT_WORKERS),
    ({"prefetch_factor": -1, "num_workers": 1}, "prefetch_factor option should be non-negative"),
    ({"persistent_workers": True}, "persistent_workers option needs num_workers > 0"),
    ({"multiprocessing_context": "fork"}, CONTEXT_WITHOUT_WORKERS),
    ({"multiprocessing_context": multiprocessing.get_context("fork")}, CONTEXT_WITHOUT_WORKERS),
    ({"sampler": [0], "shuffle": True}, "sampler option is mutually exclusive with shuffle"),
    ({"batch_sampler": [[0]], "batch_size": 2}, f"batch_sampler option is {MUST_DEFAULT}"),
    ({"batch_sampler": [[0]], "batch_size": None}, f"batch_sampler option is {MUST_DEFAULT}"),
    ({"batch_sampler": [[0]], "shuffle": True}, f"batch_sampler option is {MUST_DEFAULT}"),
    ({"batch_sampler": [[0]], "sampler": [0]}, f"batch_sampler option is {MUST_DEFAULT}"),
    ({"batch_sampler": [[0]], "drop_last": True}, f"batch_sampler option is {MUST_DEFAULT}"),
    (
        {"batch_size": None, "drop_last": True},
        "batch_size=None option disables auto-batching and is mutually exclusive with drop_last",
    ),
    ({"batch_size": 0}, "batch_size should be a positive integer value, but got batch_size=0"),
    ({"batch_size": -3}, "batch_size should be a positive integer value, but got batch_size=-3"),
    ({"batch_size": 1.5}, "batch_size should be a positive integer value, but got batch_size=1.5"),
    ({"batch_size": True}, "batch_size should be a positive integer value, but got batch_size=True"),
    ({"drop_last": "yes"}, "drop_last should be a boolean value, but got drop_last=yes"),
    # of two mistakes the same one is told
    ({"timeout": -1, "prefetch_factor": 2}, "timeout option should be non-negative"),
    ({"prefetch_factor": 2, "persistent_workers": True}, PREFETCH_WITHOUT_WORKERS),
    (
        {"persistent_workers": True, "multiprocessing_context": "fork"},
        "persistent_workers option needs num_workers > 0",
    ),
    ({"multiprocessing_context": "fork", "batch_size": 0}, CONTEXT_WITHOUT_WORKERS),
]
UNSPECIFIED = "DataLoader with IterableDataset: expected unspecified"
BAD_FOR_STREAMS: list[tuple[dict[str, Any], str]] = [
    ({"shuffle": True}, f"{UNSPECIFIED} shuffle option, but got shuffle=True"),
    ({"sampler": [1]}, f"{UNSPECIFIED} sampler option, but got sampler=[1]"),
    ({"batch_sampler": [[1]]}, f"{UNSPECIFIED} batch_sampler option, but got batch_sampler=[[1]]"),
    (
        {"batch_size": None, "drop_last": True},
        "batch_size=None option disables auto-batching and is mutually exclusive with drop_last",
    ),
]


@pytest.mark.parametrize(("arguments", "text"), BAD_ARGUMENTS)
def test_bad_arguments_are_told_in_torchs_words(make_loader: LoaderMaker, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        make_loader.cls(Items(4), **arguments)


@pytest.mark.parametrize(("arguments", "text"), BAD_FOR_STREAMS)
def test_what_a_stream_cannot_have_is_told_in_torchs_words(
    make_loader: LoaderMaker, arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        make_loader.cls(Stream(lambda _: range(4)), **arguments)


def test_an_unknown_start_method_is_told_with_the_supported_ones(make_loader: LoaderMaker) -> None:
    with pytest.raises(ValueError, match=r"multiprocessing_context option should specify a valid start") as error:
        make_loader.cls(Items(4), num_workers=1, multiprocessing_context="thread")
    assert str(error.value).endswith("], but got multiprocessing_context='thread'")
    assert all(repr(method) in str(error.value) for method in multiprocessing.get_all_start_methods())


def test_a_context_of_another_type_is_told_in_torchs_words(make_loader: LoaderMaker) -> None:
    with pytest.raises(TypeError) as error:
        make_loader.cls(Items(4), num_workers=1, multiprocessing_context=7)
    assert str(error.value) == (
        "multiprocessing_context option should be a valid context object or a string specifying the start method, "
        "but got multiprocessing_context=7"
    )


def test_shuffling_nothing_is_an_error_of_the_sampler(make_loader: LoaderMaker) -> None:
    with pytest.raises(ValueError, match=r"^num_samples should be a positive integer value, but got num_samples=0$"):
        make_loader.cls(Items(0), shuffle=True)


def test_arguments_that_are_not_there_are_type_errors(make_loader: LoaderMaker) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'batchsize'"):
        make_loader.cls(Items(4), batchsize=2)
    with pytest.raises(TypeError, match="takes from 2 to 14 positional arguments"):
        make_loader.cls(Items(4), 1, None, None, None, 0, None, False, False, 0, None, None, None, 2)


def test_torchs_arguments_come_first_in_torchs_order(make_loader: LoaderMaker, make_torchs: LoaderMaker) -> None:
    torchs = [(p.name, p.kind) for p in inspect.signature(make_torchs.cls).parameters.values()]
    ours = [(p.name, p.kind) for p in inspect.signature(make_loader.cls).parameters.values()]
    assert ours[: len(torchs)] == torchs
    assert {kind for _, kind in ours[len(torchs) :]} <= {inspect.Parameter.KEYWORD_ONLY}


def test_positional_arguments_mean_what_torchs_mean(make_loader: LoaderMaker) -> None:
    generator, init = torch.Generator(), print
    loader = make_loader.cls(Items(5), 2, True, None, None, 1, list, False, True, 9, init, "fork", generator)
    assert (loader.batch_size, loader.num_workers, loader.collate_fn, loader.pin_memory) == (2, 1, list, False)
    assert (loader.drop_last, loader.timeout, loader.worker_init_fn) == (True, 9, init)
    assert loader.generator is loader.sampler.generator is generator
    assert loader.multiprocessing_context.get_start_method() == "fork"
