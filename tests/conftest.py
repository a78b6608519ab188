"""Fixtures for every test: what is left behind is found, and shared media is found or skipped with a reason."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from leftovers import (  # noqa: F401 - importing these fixtures makes them run around every test
    nothing_left_behind,
    temporary_folder_of_the_session,
    zygotes_end_with_the_session,
)

REPOSITORY = Path(__file__).resolve().parent.parent

pytest_plugins = ("fixtures_clips", "fixtures_datasets")

# Shells start background jobs with SIGINT ignored, and programs that tests start inherit that: here Ctrl-C is Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real clips and datasets beside the checkout; tests that want it are skipped where it is not."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data beside the checkout ({folder.name} is not there)")
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps sidecars of tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLPOND_CACHE_DIR", str(tmp_path_factory.mktemp("sidecars")))
        yield
