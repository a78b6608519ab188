"""Small synthesized datasets, made once per test session.

A plugin, named by conftest.py: tests ask for `synth` or `damaged`; what they import by name is in `synthesized`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from millpond._synth import write_dataset
from synthesized import LENGTHS, SIZE, MakeDataset


@pytest.fixture(scope="session")
def synth(tmp_path_factory: pytest.TempPathFactory) -> MakeDataset:
    """Datasets by recipe: made at the first call, shared by the session, never to be changed."""
    made: dict[str, Path] = {}

    def make(**options: Any) -> Path:
        defaults: dict[str, Any] = {"episodes": 5, "frames": LENGTHS, "size": SIZE, "codec": "h264", "gop": 6}
        recipe = defaults | options
        key = repr(sorted(recipe.items()))
        if key not in made:
            made[key] = write_dataset(tmp_path_factory.mktemp("synth") / "dataset", **recipe)
        return made[key]

    return make


@pytest.fixture
def damaged(synth: MakeDataset, tmp_path: Path) -> MakeDataset:
    """A copy of a dataset that a test may break."""

    def make(**options: Any) -> Path:
        return Path(shutil.copytree(synth(**options), tmp_path / "damaged", ignore=shutil.ignore_patterns(".millpond")))

    return make
