"""A dataset's place, asked the way a run asks it: whether it answers, honours ranges, names versions, serves several.

It is asked for meta/info.json first, which a LeRobot dataset has; else for the URL itself, as that of one object.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from typing import Any, NamedTuple

from millpond._doctor.findings import Finding, Looking, error, fine, warning
from millpond._sources.limits import FetchLimits
from millpond._sources.object_store import ObjectStore
from millpond._urls import scheme_of
from millpond._values import ByteRange, FileIdentity
from millpond.errors import DataError, FetchError, FetchTimeout, MillpondError, ObjectMissing, UnsupportedFormat

_INFO = "meta/info.json"
_FIRST_BYTES = 64 << 10
_AT_ONCE = 8
_IN_TURN = 4.0
"""So many requests at once that take longer than this many one after the other are not served at once."""
_NOTICEABLE_SECONDS = 0.02
_SLOW_SECONDS = 2.0
_SKEW_SECONDS = 300.0
"""S3 and others refuse signatures that are 15 minutes off."""
_VERSION = "v3.0"
_PAGE = b"<!doctype html"


class _Object(NamedTuple):
    """One that was found: its key, its first bytes, its version, and how long the first request took."""

    key: str
    begin: bytes
    identity: FileIdentity
    seconds: float


def look_at_store(
    url: str, storage_options: Mapping[str, Any] | None, token: str | None, timeout_seconds: float
) -> Iterator[Finding | Looking]:
    """All that can be learned from a handful of requests.

    Args:
        url: Of a dataset or an object, or a path.
        storage_options: See `ObjectStore`.
        token: See `ObjectStore`.
        timeout_seconds: Of one request.
    """
    yield Looking("asking the store")
    limits = FetchLimits(timeout_seconds=timeout_seconds, max_tries=2)
    try:
        store = ObjectStore(url, storage_options=storage_options, token=token, limits=limits)
    except (MillpondError, ValueError, TypeError) as failure:
        yield error("store", str(failure), "see the URL and its --storage-option")
        return
    with store:
        try:
            found = _find(store)
        except (MillpondError, OSError, ValueError) as failure:
            yield unreachable(store.url, failure, is_remote=scheme_of(url) is not None)
            return
        yield answered(store.url, found.seconds)
        for subject, question in _QUESTIONS.items():
            try:
                yield question(store, found)
            except (MillpondError, OSError) as failure:
                yield error(subject, str(failure), _remedy(failure, is_remote=True))
        if (scheme_of(url) or "").startswith("http"):
            yield from _clock(url, timeout_seconds)


def _find(store: ObjectStore) -> _Object:
    began = time.monotonic()
    try:
        begin, identity = store.begin(_INFO, _FIRST_BYTES)
        return _Object(_INFO, begin, identity, time.monotonic() - began)
    except FetchTimeout:
        raise
    except DataError as no_dataset:  # also a refusal: what is signed is one object, and nothing below it
        seconds = time.monotonic() - began
        try:
            begin, identity = store.begin("", _FIRST_BYTES)
        except (DataError, OSError, ValueError):
            raise no_dataset from None
        if begin.lstrip()[: len(_PAGE)].lower() == _PAGE:  # a list of files, or where to log in
            raise
        return _Object("", begin, identity, seconds)


def unreachable(name: str, failure: Exception, *, is_remote: bool) -> Finding:
    """Why nothing came, and what may help."""
    return error("store", f"'{name}': {failure}", _remedy(failure, is_remote=is_remote))


def _remedy(failure: Exception, *, is_remote: bool) -> str:
    status = getattr(failure, "status", None)
    if isinstance(failure, ObjectMissing):
        return (
            f"give the URL of the folder that holds {_INFO}, or of one object"
            if is_remote
            else f"give the folder that holds {_INFO}, or one file; is the disk mounted?"
        )
    if isinstance(failure, FetchTimeout):
        return (
            "see whether a firewall or a proxy (HTTPS_PROXY) is in the way, and whether the endpoint is the right one"
        )
    if status in (401, 403) or "credentials" in str(failure):
        return "give credentials: AWS_PROFILE or the like in the environment, --token-env, --storage-option anon=true"
    if isinstance(failure, FetchError) and "range" in str(failure):
        return "serve it by what knows ranges: nginx, an object store, or `rclone serve http`"
    if isinstance(failure, UnsupportedFormat):
        return "write s3://, gs://, az://, https:// or hf://, and install what it names"
    return "see host, endpoint_url and the network: `curl -I` from this machine says more"


def answered(name: str, seconds: float) -> Finding:
    """That it did, and how long that took."""
    found = f"'{name}' answers; the first bytes came after {seconds * 1000:.0f} ms, connecting included"
    if seconds > _SLOW_SECONDS:
        return warning("store", found, "read from a store that is nearer, or keep what is read: cache_dir=")
    return fine("store", found)


def _ranges(store: ObjectStore, found: _Object) -> Finding:
    size = found.identity.size_bytes
    if size < 2:
        return fine("byte ranges", f"not tried: the object has {size} bytes")
    wanted = ByteRange(size // 2, size)
    data = store.read(found.key, wanted, identity=found.identity)
    expected = found.begin[wanted.start : wanted.stop]
    if data[: len(expected)] != expected:
        remedy = "serve it by what knows ranges; a proxy or a cache in between may be what breaks them"
        return error("byte ranges", f"bytes {wanted.start} to {wanted.stop} are not those of the object", remedy)
    return fine("byte ranges", f"honoured: bytes {wanted.start:,} to {wanted.stop:,} of {size:,} came")


def _version(store: ObjectStore, found: _Object) -> Finding:
    if found.identity.has_strong_etag:
        return fine("versions", f"told by an etag, {found.identity.etag}")
    if found.identity.mtime_ns:
        return fine("versions", "told by the time of the last change")
    return warning(
        "versions",
        "the store tells neither an etag nor a time of change",
        "a file that is replaced amid a run by one of its size is not noticed: have the server send ETag",
    )


def _several(store: ObjectStore, found: _Object) -> Finding:
    wanted = ByteRange(0, min(found.identity.size_bytes, 1024))
    began = time.monotonic()
    store.read(found.key, wanted, identity=found.identity)
    alone = time.monotonic() - began
    began = time.monotonic()
    requests: list[Future[Any]] = [store.submit(found.key, wanted, identity=found.identity) for _ in range(_AT_ONCE)]
    wait(requests)
    together = time.monotonic() - began
    failures = [failure for request in requests if (failure := request.exception()) is not None]
    return several(alone, together, failures)


def several(alone_seconds: float, together_seconds: float, failures: list[BaseException]) -> Finding:
    """Whether requests at once are served at once."""
    subject = "requests at once"
    if failures:
        found = f"{len(failures)} of {_AT_ONCE} failed: {failures[0]}"
        return error(subject, found, "see whether the store, or a proxy, limits connections: video_fetch_workers=")
    found = f"{_AT_ONCE} took {together_seconds * 1000:.0f} ms, one {alone_seconds * 1000:.0f} ms"
    if together_seconds > _IN_TURN * max(alone_seconds, _NOTICEABLE_SECONDS):
        return warning(subject, found, "the store, or a proxy, serves one after the other, or limits what comes")
    return fine(subject, found)


def _dataset(store: ObjectStore, found: _Object) -> Finding:
    if found.key != _INFO:
        return fine("dataset", f"one object of {found.identity.size_bytes:,} bytes; there is no {_INFO} below it")
    rest = ByteRange(len(found.begin), found.identity.size_bytes)
    data = found.begin + (store.read(_INFO, rest, identity=found.identity) if len(rest) else b"")
    return dataset(data)


def dataset(info: bytes) -> Finding:
    """What meta/info.json says."""
    try:
        facts = json.loads(info)
        version, episodes, frames = (facts.get(name) for name in ("codebase_version", "total_episodes", "total_frames"))
    except (ValueError, AttributeError):
        return error("dataset", f"{_INFO} does not read as JSON", "upload the dataset again")
    told = f"LeRobot {version}, {episodes} episodes, {frames} frames"
    if version != _VERSION:
        remedy = "convert it with `python -m lerobot.datasets.v30.convert_dataset_v21_to_v30`"
        return error("dataset", f"{told}; millpond reads {_VERSION}", remedy)
    return fine("dataset", told)


_QUESTIONS: dict[str, Callable[[ObjectStore, _Object], Finding]] = {
    "byte ranges": _ranges,
    "versions": _version,
    "requests at once": _several,
    "dataset": _dataset,
}


def _clock(url: str, timeout_seconds: float) -> Iterator[Finding]:
    """Against the server's, from the headers of whatever it answers."""
    parts = url.split("#")[0].split("?")[0]
    scheme, _, rest = parts.partition("://")
    host = rest.partition("/")[0].rpartition("@")[2]
    request = urllib.request.Request(f"{scheme}://{host}/", method="HEAD", headers={"User-Agent": "millpond"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:
            date = answer.headers.get("Date", "")
    except urllib.error.HTTPError as refused:
        date = refused.headers.get("Date", "")
        refused.close()
    except (OSError, ValueError, http.client.HTTPException):
        return
    try:
        server_time = email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return
    yield clock(time.time() - server_time)


def clock(ahead_seconds: float) -> Finding:
    """How far this machine's clock is from the server's."""
    found = f"{abs(ahead_seconds):.0f} s {'ahead of' if ahead_seconds > 0 else 'behind'} the server's"
    if abs(ahead_seconds) > _SKEW_SECONDS:
        remedy = "set it (chronyc makestep, timedatectl set-ntp true): stores refuse signatures of another time"
        return warning("clock of the store", found, remedy)
    return fine("clock of the store", found)
