"""Where a dataset lies, by the path or URL that a user gives, and where what is kept of it goes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from millpond._amounts import parse_bytes
from millpond._datasets.dataset_files import DatasetFiles, LocalFiles
from millpond._datasets.writable_store import absolute, store_in
from millpond._media.sidecars import SidecarStore
from millpond._urls import path_of_file_url, query_digest, scheme_of

RANGES_FOLDER = "ranges"
"""In `cache_dir`: bytes that were fetched."""

_LEAST_TRIES, _TRY_SECONDS = 8, 2.0
"""Waits between tries grow to 4 s: so it is the time that ends them, not the number."""


def open_files(
    root: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_bytes: int | str = "10GiB",
    storage_options: Mapping[str, Any] | None = None,
    token: str | None = None,
    fetch_timeout: float = 60.0,
) -> tuple[DatasetFiles, SidecarStore]:
    """The files of a dataset, and the store of its sidecars; arguments as for `LeRobotDataset`.

    Raises:
        ValueError: Options that are not known, or that mean nothing for a local folder.
        UnsupportedFormat: No such scheme, or what reads it is not installed.
    """
    scheme = scheme_of(root) if isinstance(root, str) else None
    if scheme in (None, "file"):
        if storage_options or token:
            raise ValueError(
                f"storage_options= and token= are for stores behind URLs, and {str(root)!r} is on this machine: leave "
                "them out"
            )
        path = path_of_file_url(str(root)) if scheme else root
        folder = os.path.abspath(path)  # also after a chdir, here or in a worker
        return LocalFiles(folder), store_in(cache_dir, Path(folder))
    if not isinstance(fetch_timeout, int | float) or not 0 < fetch_timeout < math.inf:
        raise ValueError(f"fetch_timeout must be a number of seconds above 0, not {fetch_timeout!r}")
    if storage_options is not None and not isinstance(storage_options, Mapping):
        raise TypeError(f"storage_options must be a mapping of names to values, not {type(storage_options).__name__}")
    if cache_dir == "beside":
        raise ValueError('cache_dir="beside" is for local folders: give a folder of this machine')
    # whoever reads local files alone need not wait for these imports
    from millpond._datasets.remote_files import RemoteFiles
    from millpond._sources.limits import FetchLimits
    from millpond._sources.object_store import ObjectStore
    from millpond._sources.range_cache import RangeCache

    size = parse_bytes(cache_bytes)
    if size < 1:
        raise ValueError(f"cache_bytes must be at least 1, not {cache_bytes!r}; without cache_dir= no range is kept")
    store = store_in(cache_dir, Path(), query_digest(str(root)))
    cache = None if cache_dir is None else RangeCache(absolute(cache_dir) / RANGES_FOLDER, size)
    limits = FetchLimits(timeout_seconds=fetch_timeout, max_tries=max(_LEAST_TRIES, int(fetch_timeout / _TRY_SECONDS)))
    objects = ObjectStore(str(root), storage_options=storage_options, token=token, limits=limits, cache=cache)
    return RemoteFiles(objects), store
