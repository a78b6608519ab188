"""Files of numpy read whole, also where Python stumbles over its own threads."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millpond._arrays import load_arrays, map_array


def _saved(folder: Path) -> tuple[Path, Path]:
    np.save(folder / "a.npy", np.arange(5))
    np.savez(folder / "a.npz", a=np.arange(5))
    return folder / "a.npy", folder / "a.npz"


@pytest.mark.parametrize("read", [lambda paths: map_array(paths[0]), lambda paths: load_arrays(paths[1])["a"]])
def test_a_header_that_python_failed_to_parse_amid_a_collection_is_parsed_again(
    read: Callable[[tuple[Path, Path]], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As up to 3.11.7, where two threads parse at once (gh-106905)."""
    parse, failures = ast.literal_eval, [1, 2, 3]

    def stumbling(text: str) -> Any:
        if failures:
            failures.pop()
            raise SystemError("AST constructor recursion depth mismatch (before=30, after=25)")
        return parse(text)

    monkeypatch.setattr(ast, "literal_eval", stumbling)
    assert np.array_equal(read(_saved(tmp_path)), np.arange(5))
    assert not failures


def test_nothing_is_mapped_as_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "empty.npy", np.zeros(0))
    assert map_array(tmp_path / "empty.npy").shape == (0,)
