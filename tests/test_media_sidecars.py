"""Sidecars: whole or not there, and never those of another version of the file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from millpond._media.sidecars import SidecarStore, file_identity, version_of
from millpond.errors import ObjectMissing
from millpond.settings import Settings


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def store(tmp_path: Path) -> SidecarStore:
    return SidecarStore(tmp_path / "cache")


def test_what_is_saved_is_loaded(video: Path, store: SidecarStore) -> None:
    store.save(
        version_of(video), "table", {"a": np.arange(3), "b": np.zeros((2, 2), np.bool_)}, {"fps": 30, "name": "é"}
    )
    kept = store.load(version_of(video), "table")
    assert kept is not None
    assert kept.facts == {"fps": 30, "name": "é"}
    assert kept.arrays["a"].tolist() == [0, 1, 2]
    assert store.load(version_of(video), "other") is None


def test_a_changed_file_has_no_sidecar_and_the_next_save_drops_the_old_one(video: Path, store: SidecarStore) -> None:
    store.save(version_of(video), "table", {}, {})
    video.write_bytes(b"longer")
    assert store.load(version_of(video), "table") is None
    store.save(version_of(video), "table", {}, {})
    assert len(list(store.folder.glob("*/*"))) == 1


def test_a_file_touched_but_of_the_same_size_has_no_sidecar(video: Path, store: SidecarStore) -> None:
    store.save(version_of(video), "table", {}, {})
    os.utime(video, ns=(5, 5))
    assert store.load(version_of(video), "table") is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"\x93NUMPY"])
def test_a_torn_sidecar_is_as_good_as_none(video: Path, store: SidecarStore, content: bytes) -> None:
    store.save(version_of(video), "table", {"a": np.arange(3)}, {})
    store.path_of(version_of(video), "table", ".npz").write_bytes(content)
    assert store.load(version_of(video), "table") is None


def test_pickled_objects_are_never_loaded(video: Path, store: SidecarStore) -> None:
    with store.write(version_of(video), "table", ".npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=True, a=np.array([{}], dtype=object))
    assert store.load(version_of(video), "table") is None


def test_a_write_that_fails_leaves_the_old_sidecar_and_nothing_else(video: Path, store: SidecarStore) -> None:
    with store.write(version_of(video), "columns", ".npy") as temporary:
        temporary.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), store.write(version_of(video), "columns", ".npy") as temporary:
        temporary.write_bytes(b"n" * (1 // 0))
    found = store.find(version_of(video), "columns", ".npy")
    assert found is not None
    assert found.read_bytes() == b"old"
    assert len(list(store.folder.glob("*/*"))) == 1


def test_a_sidecar_can_be_mapped_and_outlives_its_replacement(video: Path, store: SidecarStore) -> None:
    for value in (1, 2):
        with store.write(version_of(video), "columns", ".npy") as temporary, open(temporary, "wb") as file:
            np.save(file, np.full(1000, value))
        if value == 1:
            mapped = np.load(store.path_of(version_of(video), "columns", ".npy"), mmap_mode="r")
    assert mapped[0] == 1
    assert np.load(store.path_of(version_of(video), "columns", ".npy"))[0] == 2


def test_a_missing_file_has_no_identity(tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match="nothing"):
        file_identity(tmp_path / "nothing")


def test_the_default_folder_is_the_one_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLPOND_CACHE_DIR", str(tmp_path))
    assert Settings().cache_dir == tmp_path
    assert SidecarStore().folder == tmp_path / "sidecars"
    monkeypatch.setenv("MILLPOND_CACHE_DIR", "")
    assert Settings().cache_dir.name == "millpond"


def test_what_a_killed_writer_left_is_dropped_by_a_later_one(video: Path, store: SidecarStore) -> None:
    with (
        store.write(version_of(video), "table", ".npz") as abandoned,
        store.write(version_of(video), "other", ".npz") as in_progress,
    ):
        old = abandoned.with_name(f"{abandoned.name}.left")
        old.touch()
        os.utime(old, (0, 0))
        store.save(version_of(video), "third", {}, {})
        assert (old.exists(), abandoned.exists(), in_progress.exists()) == (False, True, True)


def test_what_is_mapped_is_kept_for_a_while_after_the_file_has_changed(video: Path, store: SidecarStore) -> None:
    """A run that goes on with the former version maps it again, in a worker that follows another."""

    def written() -> Path:
        with store.write(version_of(video), "columns", ".npy") as temporary:
            temporary.touch()
        return store.path_of(version_of(video), "columns", ".npy")

    first = written()
    os.utime(first, (0, 0))
    assert store.find(version_of(video), "columns", ".npy") == first
    video.write_bytes(b"second")
    second = written()
    assert (first.exists(), second.exists()) == (True, True)
    os.utime(first, (0, 0))
    video.write_bytes(b"the third")
    written()
    assert (first.exists(), second.exists()) == (False, True)
