"""Ranges that tests keep in a cache and find there, here and in programs that import this."""

from __future__ import annotations

from millpond._sources.range_cache import RangeCache
from millpond._values import ByteRange, FileIdentity

NAME = "s3://bucket/a"
ETAG = FileIdentity(10_000, 0, '"a"')


def data_of(i: int, size_bytes: int = 1000) -> bytes:
    return (i.to_bytes(4, "little") * (size_bytes // 4 + 1))[:size_bytes]


def keep(cache: RangeCache, i: int, size_bytes: int = 1000) -> None:
    cache.keep(NAME, ETAG, [(ByteRange(i, i + size_bytes), data_of(i, size_bytes))])


def find(cache: RangeCache, i: int, size_bytes: int = 1000) -> bytes | None:
    return cache.find(NAME, ETAG, ByteRange(i, i + size_bytes))
