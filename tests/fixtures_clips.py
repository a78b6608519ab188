"""Small clips, made once per test session. A plugin, named by conftest.py; what tests import is in `clip_sets`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clip_sets import RECIPES, SIZE, rows_of, write_manifest
from millpond._synth.clips import write_clip
from millpond._synth.scene import Scene


@pytest.fixture(scope="session")
def scene() -> Scene:
    """What every clip shows, besides its pattern."""
    return Scene(*SIZE, seed=3)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> Path:
    """A manifest of one clip per recipe; never to be changed."""
    folder = tmp_path_factory.mktemp("clips")
    for name, recipe in RECIPES.items():
        write_clip(folder / name, scene, recipe)
    return write_manifest(folder / "manifest.jsonl", rows_of())


@pytest.fixture
def own_clips(clips: Path, tmp_path: Path) -> Path:
    """A copy of the clips that a test may break; its manifest."""
    shutil.copytree(clips.parent, tmp_path / "clips", ignore=shutil.ignore_patterns("cache"))
    return tmp_path / "clips" / clips.name
