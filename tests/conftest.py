"""Fixtures for every test: what is left behind is found, and shared media is found or skipped with a reason."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings

from leftovers import (  # noqa: F401 - importing these fixtures makes them run around every test
    nothing_left_behind,
    runtime_of_obstore,
    temporary_folder_of_the_session,
    zygotes_end_with_the_session,
)
from millpond._guard.timeouts import end_default_guard
from millpond._workers import supervisor
from millpond._workers.verdicts import ProcessLimits
from real_servers import s3_server
from streamed import SmallSteps

REPOSITORY = Path(__file__).resolve().parent.parent

# OpenMP's threads, torch's among them, sleep while they wait, also those of programs that tests start: they would spin,
# and that was a quarter of the CPU time of tests that hold tensors against each other. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A machine that stands still for a second is no fault of an example.
settings.register_profile("millpond", settings(), deadline=None)
settings.load_profile("millpond")

pytest_plugins = ("fixtures_clips", "fixtures_datasets", "fixtures_torch", "fixtures_videos")

# Shells start background jobs with SIGINT ignored, and programs that tests start inherit that: here Ctrl-C is Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What was imported is no garbage: with torch among it a collection took 0.2 s, and tests ask for many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def default_guard_ends(nothing_left_behind: None) -> Iterator[None]:  # noqa: F811 - the fixture of leftovers
    """The process's own guard stays warm for the next call, but not for the next test."""
    yield
    end_default_guard()


@pytest.fixture(autouse=True)
def stacks_have_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that hangs has 20 s to write its stack, not 0.25: tests look at it, on overloaded machines too."""
    monkeypatch.setattr(supervisor, "ProcessLimits", partial(ProcessLimits, dump_seconds=20.0))


@pytest.fixture(autouse=True)
def no_hedges(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for two seconds makes every request a slow one: counts would be of the machine."""
    if request.node.get_closest_marker("hedged") is None:
        monkeypatch.setattr("millpond._sources.hedging.Pace.try_hedge", lambda self: False)


@pytest.fixture
def quick_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that stays away is given up in milliseconds, however many tries it has; in this process."""
    monkeypatch.setattr("millpond._sources.retrying.FIRST_WAIT_SECONDS", 0.0001)
    monkeypatch.setattr("millpond._sources.retrying._LONGEST_WAIT_SECONDS", 0.003)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> SmallSteps:
    return SmallSteps(monkeypatch)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The endpoint of a store that others wrote."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real clips and datasets beside the checkout; tests that want it are skipped where it is not."""
    folder = REPOSITORY.parent / "shared"
    if not ((folder / "data").is_dir() and any((folder / "media").glob("*"))):
        pytest.skip(f"no shared data beside the checkout ({folder.name} is not there)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps sidecars of tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLPOND_CACHE_DIR", str(tmp_path_factory.mktemp("sidecars")))
        yield
