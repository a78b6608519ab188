"""An index of episodes in a file: numpy arrays and JSON, no pickle and no secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np

from millpond import errors
from millpond._arrays import load_arrays
from millpond._datasets.episode_index import IndexFile, IndexParts
from millpond._datasets.index_columns import COLUMNS, TableColumns, TableFacts
from millpond._media.sidecars import replacing
from millpond.errors import CorruptMedia, DataError, ObjectMissing, UnsupportedFormat

_VERSION = 1
_FACTS = "facts.json"
_ARRAYS = ("episodes", "file_of", "first", "lengths", "spans")
_PLAIN = (str, int, float, bool)


def save_index(path: Path, parts: IndexParts) -> None:
    """Write it, in one step."""
    scattered = sorted(parts.scattered.items())
    facts = {
        "millpond_index": _VERSION,
        "libraries": _libraries(),
        "root": parts.root,
        "video_keys": parts.video_keys,
        "files": [[file.location, file.key, file.place] for file in parts.files],
        "tables": [table.to_json() for table in parts.tables.facts],
        "scattered": [[e, c, len(frames)] for (e, c), frames in scattered],
        "problems": [[e, c, *_told(problem)] for (e, c), problem in sorted(parts.problems.items())],
    }
    arrays = {name: getattr(parts, name) for name in _ARRAYS}
    arrays |= {f"column.{name}": parts.tables.columns[name] for name in COLUMNS}
    arrays["bounds"] = parts.tables.bounds
    arrays["scattered"] = np.concatenate([np.zeros(0, np.int64), *(frames for _, frames in scattered)])
    arrays[_FACTS] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    with replacing(path.absolute()) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_index(path: Path) -> tuple[IndexParts, list[str]]:
    """What `save_index` wrote, and the places that files lie below.

    Raises:
        ObjectMissing: No file at `path`.
        CorruptMedia: It does not read.
        UnsupportedFormat: Another version wrote it.
    """
    try:
        arrays = load_arrays(path)
        facts = json.loads(arrays.pop(_FACTS).tobytes())
        version = facts.get("millpond_index"), facts.get("libraries")
    except (FileNotFoundError, NotADirectoryError):
        raise ObjectMissing(f"no index at '{path}'; `millpond index` makes one", path=str(path)) from None
    except Exception as error:  # noqa: BLE001 - numpy and zipfile raise a dozen kinds over torn bytes
        raise CorruptMedia(
            f"'{path}' does not read as an index of millpond ({type(error).__name__}); build it again", path=str(path)
        ) from None
    if version != (_VERSION, _libraries()):
        raise UnsupportedFormat(
            f"'{path}' was written by another version of millpond, or with another FFmpeg, which may name decoders "
            "otherwise; build it again",
            path=str(path),
            version=version,
            supported=(_VERSION, _libraries()),
        )
    try:
        return _parts(facts, arrays)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise CorruptMedia(f"'{path}' lacks parts of an index ({error!r}); build it again", path=str(path)) from None


def _parts(facts: Mapping[str, Any], arrays: Mapping[str, Any]) -> tuple[IndexParts, list[str]]:
    bounds = np.cumsum([0, *(length for _, _, length in facts["scattered"])])
    files = tuple(IndexFile(*file) for file in facts["files"])
    parts = IndexParts(
        root=facts["root"],
        video_keys=tuple(facts["video_keys"]),
        files=files,
        tables=TableColumns(
            [TableFacts.from_json(table) for table in facts["tables"]],
            arrays["bounds"],
            {name: arrays[f"column.{name}"] for name in COLUMNS},
        ),
        scattered={
            (e, c): arrays["scattered"][bounds[k] : bounds[k + 1]] for k, (e, c, _) in enumerate(facts["scattered"])
        },
        problems={(e, c): _error(*told) for e, c, *told in facts["problems"]},
        **{name: arrays[name] for name in _ARRAYS},
    )
    return parts, _locations(parts)


def _locations(parts: IndexParts) -> list[str]:
    """Of a dataset its root; else what is left of each file's place without its key."""
    if parts.root:
        return [parts.root]
    found = {file.location: file.place.removesuffix(file.key).rstrip("/") or "/" for file in parts.files}
    return [found.get(number, "") for number in range(max(found, default=-1) + 1)]


def _told(problem: DataError) -> tuple[str, str, dict[str, Any]]:
    return type(problem).__name__, str(problem), {k: v for k, v in problem.facts.items() if isinstance(v, _PLAIN)}


def _error(kind: str, message: str, facts: Mapping[str, Any]) -> DataError:
    cls = getattr(errors, kind, DataError)
    is_known = isinstance(cls, type) and issubclass(cls, DataError)
    return cls(message, **facts) if is_known else DataError(message, **facts)


def _libraries() -> str:
    return ".".join(map(str, av.library_versions["libavformat"] + av.library_versions["libavcodec"]))
