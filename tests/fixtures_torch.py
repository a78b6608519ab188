"""Both loader classes, for tests that hold millpond's against torch's. A plugin; no torch at the top."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_sharer
from typing import Any

import pytest

_REASON = "torch is not installed"

# torch's own workers are forked here, because a forkserver costs them seconds; ours never fork this process.
_FORKS_AMONG_THREADS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class LoaderMaker:
    """Makes loaders of one class, and gives those of torch a start method where the test names none.

    Attributes:
        cls: torch.utils.data.DataLoader or millpond.torch.DataLoader.
        is_ours: Whether it is millpond's.
    """

    def __init__(self, cls: Any) -> None:
        self.cls = cls
        self.is_ours = cls.__module__.startswith("millpond")

    def __call__(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """A loader of the class."""
        if kwargs.get("num_workers") and not self.is_ours:
            kwargs.setdefault("multiprocessing_context", "fork")
        return self.cls(dataset, *args, **kwargs)


@contextmanager
def torchs_workers_end() -> Iterator[None]:
    """Ends the workers of torch's iterators that an error keeps: collected as garbage, they are waited for 5 s each."""
    kind: Any = pytest.importorskip("torch.utils.data.dataloader", reason=_REASON)._MultiProcessingDataLoaderIter
    made: weakref.WeakSet[Any] = weakref.WeakSet()
    begin = kind.__init__

    def begin_noted(iterator: Any, loader: Any) -> None:
        made.add(iterator)
        begin(iterator, loader)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "__init__", begin_noted)
        yield
    for iterator in made:
        if hasattr(iterator, "_shutdown"):
            iterator._shutdown_workers()
    resource_sharer.stop()  # the thread that hands descriptors of tensors among indices to torch's workers


@pytest.fixture(
    params=[
        pytest.param("torch.utils.data", marks=_FORKS_AMONG_THREADS, id="torch"),
        pytest.param("millpond.torch", id="millpond"),
    ]
)
def make_loader(request: pytest.FixtureRequest) -> Iterator[LoaderMaker]:
    """Makes loaders of torch's class, then of ours: the test is the same."""
    with torchs_workers_end():
        yield LoaderMaker(pytest.importorskip(request.param, reason=_REASON).DataLoader)


@pytest.fixture
def make_torchs() -> Iterator[LoaderMaker]:
    """Makes loaders of torch's class: what they give is what is expected."""
    with torchs_workers_end():
        yield LoaderMaker(pytest.importorskip("torch.utils.data", reason=_REASON).DataLoader)
