"""Stores for URLs that are read one by one: all objects of a bucket, a host or a folder share one, a few stay open."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from millpond._urls import redacted, scheme_of, shortened
from millpond.errors import DataError, UnsupportedFormat

if TYPE_CHECKING:
    from millpond._datasets.media_by_url import UrlAccess
    from millpond._sources.limits import FetchLimits
    from millpond._sources.object_store import ObjectStore

ALIASES = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az"}
"""Of schemes of buckets: what they are to options by scheme."""

BUCKETS = frozenset({"s3", "gs", "az", *ALIASES})

_MAX_OPEN_STORES = 8
"""Each has a thread and connections; a manifest rarely names more buckets."""

_PLAIN = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[\w.~-]+)+", re.ASCII)
"""A path of HTTP that is the same however it is quoted. Any other is left to the client as it stands."""


class UrlStores:
    """The stores that URLs lie in. Any thread of one process; not for a forked child of it.

    Those used last stay open from one object to the next, since making a client and finding credentials costs more
    than fetching a small object. No more than `_MAX_OPEN_STORES` do; what is in use beyond that ends after its use.

    Args:
        access: To stores.
        limits: Gives those of fetches, when a store is made; None: those that `ObjectStore` has by itself.
        keeps_hosts: Plain HTTP URLs of one host share a store that stays open; else each has one of its own, which
            does not.
    """

    def __init__(
        self, access: UrlAccess, limits: Callable[[], FetchLimits] | None = None, *, keeps_hosts: bool = True
    ) -> None:
        self._access = access
        self._limits = limits
        self._keeps_hosts = keeps_hosts
        self._lock = threading.Lock()
        self._stores: OrderedDict[str, ObjectStore] = OrderedDict()

    def place_of(self, url: str) -> tuple[ObjectStore, str]:
        """A store, and the key there. Nothing is asked of it yet.

        Raises:
            UnsupportedFormat: No such scheme.
            DataError: It is no address. The message holds no secret of the URL.
            TypeError, ValueError: Options that are not known, or do not fit.
        """
        base, key = split(url, by_host=self._keeps_hosts)
        if not key and not self._keeps_hosts:
            return self._store(url, url), ""
        with self._lock:
            store = self._stores.pop(base, None) or self._store(base, url)
            self._stores[base] = store
            if len(self._stores) > _MAX_OPEN_STORES:
                self._stores.popitem(last=False)  # closed when the last read of it has ended, in whatever thread
        return store, key

    def release(self) -> None:
        """Keep no store open: each ends with the last read that is under way. Used again, it opens them again."""
        with self._lock:
            self._stores = OrderedDict()

    def close(self) -> None:
        """As `release`, and what is under way is cancelled: when this returns, all threads have ended. Idempotent."""
        with self._lock:
            stores, self._stores = self._stores, OrderedDict()
        for store in stores.values():
            store.close()

    def _store(self, base: str, url: str) -> ObjectStore:
        from millpond._sources.limits import FETCH_LIMITS  # 10 ms that a local file need not wait for
        from millpond._sources.object_store import ObjectStore

        access, limits = self._access, FETCH_LIMITS if self._limits is None else self._limits()
        try:
            return ObjectStore(base, storage_options=access.options_for(url), token=access.token, limits=limits)
        except UnsupportedFormat:
            raise
        except (TypeError, ValueError) as error:
            if _is_address(base):  # then it is the options that no row is to blame for
                raise type(error)(
                    f"{error}; where URLs are of several kinds of stores, give options by scheme: "
                    "storage_options={'s3': {...}, 'https': {...}}"
                ) from None
            name = redacted(url)
            raise DataError(f"{shortened(name)!r} could not be fetched: {error}", path=name) from None


def split(url: str, *, by_host: bool = False) -> tuple[str, str]:
    """The URL of a bucket, a host, or a folder of what fsspec reads, and the key there.

    There is no key where a store serves one object alone. A chain, and what holds something to be redacted elsewhere
    than in front, is left whole: keys stand in errors.

    Args:
        url: Of an object.
        by_host: Whether HTTP has keys.
    """
    head, _, rest = url.partition("://")
    scheme = scheme_of(url)
    if "::" in url or "/" not in rest:
        return url, ""
    is_http = scheme in ("http", "https")
    if is_http and not (by_host and _PLAIN.fullmatch(rest[rest.index("/") :])):
        return url, ""
    cut = rest.index("/") if is_http or scheme in BUCKETS else rest.rindex("/")
    base, key = f"{head}://{rest[:cut]}", rest[cut + 1 :]
    return (base, key) if f"{redacted(base)}/{key}" == redacted(url) else (url, "")


def _is_address(base: str) -> bool:
    from millpond._sources.object_store import ObjectStore

    try:
        ObjectStore(base)
    except (TypeError, ValueError):
        return False
    return True
