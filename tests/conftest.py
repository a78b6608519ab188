"""Fixtures for every test: what is left behind is found, and shared media is found or skipped with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real clips and datasets beside the checkout; tests that want it are skipped where it is not."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data beside the checkout ({folder.name} is not there)")
    return folder
