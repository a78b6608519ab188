"""Media by URL: fetched whole, into memory, for one read. What is local already is left as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from millpond._datasets.url_stores import ALIASES, BUCKETS, UrlStores
from millpond._media.media_path import MediaPath
from millpond._urls import redacted, scheme_of

if TYPE_CHECKING:
    from millpond._datasets.base import Progress
    from millpond._sources.limits import FetchLimits

_T = TypeVar("_T")

STALL_SECONDS = 30.0
TOTAL_SECONDS = 600.0
MAX_BYTES = 2 << 30
"""Of one object. A larger one had better be downloaded."""

MAX_TRIES = 3
"""Lists of scraped clips name many servers that are gone: a try costs a tenth of a second, eight half a minute."""


@dataclass(frozen=True, slots=True)
class UrlAccess:
    """How media by URL may be had. Its repr shows nothing of it; a pickled copy carries it, secrets and all.

    Attributes:
        storage_options: See `millpond._sources.object_store.ObjectStore`; or scheme to such options, where URLs are of
            several kinds of stores.
        token: For every URL, whatever its host.

    Raises:
        TypeError: `storage_options` is no mapping.
    """

    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.storage_options is not None and not isinstance(self.storage_options, Mapping):
            raise TypeError(
                f"storage_options must be a mapping of names to values, not a {type(self.storage_options).__name__}"
            )

    def options_for(self, url: str) -> Mapping[str, Any] | None:
        """The options for one URL."""
        options = self.storage_options or {}
        if any(name in _SCHEMES and isinstance(value, Mapping) for name, value in options.items()):
            scheme = scheme_of(url) or ""
            found: Mapping[str, Any] | None = options.get(scheme, options.get(ALIASES.get(scheme, scheme)))
            return found
        return options


_SCHEMES = BUCKETS | {"http", "https", "hf"}
"""By one of these options by scheme are known; beside it there may be any other."""

NO_ACCESS = UrlAccess()


def is_url(source: object) -> bool:
    """A URL of something that must be fetched; file:// is a path."""
    return isinstance(source, str) and scheme_of(source) not in (None, "file")


class MediaByUrl:
    """Fetches what URLs name. Any thread of one process; not for a forked child of it.

    Stores of buckets stay open from one read to the next, since making a client and finding credentials costs more
    than fetching a small image. HTTP keeps nothing open.

    Args:
        access: To stores.
    """

    def __init__(self, access: UrlAccess) -> None:
        self._stores = UrlStores(access, _limits, keeps_hosts=False)

    def __enter__(self) -> MediaByUrl:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the stores. Idempotent; used again, it opens them again."""
        self._stores.close()

    @contextlib.contextmanager
    def at_hand(self, source: _T, progress: Progress | None = None) -> Iterator[_T | MediaPath]:
        """Give what can be read here: what a URL names in memory, valid within the block; anything else as it is.

        Args:
            source: A URL, or whatever else media come from.
            progress: Called per part fetched.

        Raises:
            ObjectMissing: The server has no such object.
            FetchTimeout: Nothing came for `STALL_SECONDS`, or not all within `TOTAL_SECONDS`.
            CorruptMedia: It changed while it was fetched.
            FetchError: It is refused, or cannot be fetched in `MAX_TRIES` tries.
            UnsupportedFormat: No such scheme, or what reads it is not installed.
            DataError: It comes incomplete, is too large, or has no address. No message holds a secret of the URL.
            ValueError: Options that are not known, or do not fit.
            UsageError: In a process that was forked from one that had fetched from a bucket.
        """
        if not is_url(source):
            yield source
            return
        from millpond._media.memory_file import memory_file, write_all

        url = str(source)
        store, key = self._stores.place_of(url)
        with memory_file() as file:
            store.read_whole(
                key,
                lambda part: write_all(file.descriptor, memoryview(part)),
                max_bytes=MAX_BYTES,
                stall_seconds=STALL_SECONDS,
                timeout_seconds=TOTAL_SECONDS,
                progress=progress,
            )
            yield MediaPath(file.path, redacted(url), is_copy=True)


@contextlib.contextmanager
def at_hand(source: _T, access: UrlAccess = NO_ACCESS, progress: Progress | None = None) -> Iterator[_T | MediaPath]:
    """As `MediaByUrl.at_hand`, for one read."""
    with MediaByUrl(access) as media, media.at_hand(source, progress) as local:
        yield local


def _limits() -> FetchLimits:
    from millpond._sources.limits import FetchLimits  # 10 ms that a local file need not wait for

    return FetchLimits(timeout_seconds=4 * STALL_SECONDS, max_tries=MAX_TRIES)  # a client waits for a quarter
