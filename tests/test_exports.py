"""The front door: what `millpond` exports is explicit, sorted, and loaded when it is first used."""

from __future__ import annotations

import ast
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import millpond

assert millpond.__file__ is not None
TREE = ast.parse(Path(millpond.__file__).read_text(encoding="utf-8"))


def assigned_names() -> list[str]:
    """`__all__` as the source has it: a list of plain strings."""
    for node in TREE.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return [str(name) for name in ast.literal_eval(node.value)]
    raise AssertionError("millpond/__init__.py assigns no __all__")


def names_for_type_checkers() -> set[str]:
    block = next(node for node in TREE.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def output_of(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_all_is_explicit_sorted_and_without_doubles() -> None:
    assert assigned_names() == sorted(set(assigned_names())) == millpond.__all__


def test_all_has_what_the_readme_uses() -> None:
    assert {"ClipDataset", "LeRobotDataset", "Loader", "MillpondError", "shutdown"} <= set(millpond.__all__)


def test_what_users_annotate_is_what_they_get() -> None:
    cached = typing.get_type_hints(millpond.VideoDecoderCache.get_decoder)["return"]
    hints = typing.get_type_hints(
        millpond.FrameDecoder.get_frames_at, vars(sys.modules[millpond.FrameDecoder.__module__])
    )
    assert issubclass(cached, millpond.FrameDecoder)
    assert hints["return"] is millpond.FrameBatch


def test_type_checkers_see_exactly_what_is_exported() -> None:
    assert names_for_type_checkers() == set(millpond.__all__)


@pytest.mark.parametrize("name", millpond.__all__)
def test_public_name_loads_and_has_a_docstring(name: str) -> None:
    assert getattr(millpond, name).__doc__
    assert name in dir(millpond)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Pond'"):
        _ = millpond.Pond


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, millpond; print({'torch', 'plotly', 'pandas', 'pyarrow', 'av', 'numpy'} & set(sys.modules))"
    assert output_of(code) == "set()"


def test_what_is_local_is_loaded_without_what_fetches() -> None:
    wanted = "{'ssl', 'asyncio', 'obstore', 'fsspec', 'millpond._sources.object_store'}"
    code = f"import sys, millpond; millpond.load_image(b'P6 1 1 255 ' + bytes(3)); print({wanted} & set(sys.modules))"
    assert output_of(code) == "set()"


def test_no_public_name_needs_torch() -> None:
    code = "import sys, millpond; [getattr(millpond, n) for n in millpond.__all__]; print('torch' in sys.modules)"
    assert output_of(code) == "False"
