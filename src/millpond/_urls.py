"""What is in a URL, and what of it may be told."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import parse_qsl, unquote, urlsplit

from millpond.errors import UnsupportedFormat

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)(?:://|::(?=[a-zA-Z][a-zA-Z0-9+.-]*:))")
"""Also the first of a chain, as fsspec has them: simplecache::https://host/file."""

_USER = re.compile(r"://(?:[^/]*@|[^/@:[]*:(?!:|\d*(?:/|$))(?:(?!://)[^@])*@)")
"""A password may hold what it should not, a "/": what follows a name and a ":" and is no port is one, up to the "@"."""

_SIGNATURES = frozenset({"signature", "sig", "x-amz-signature", "x-goog-signature"})
_OF_SIGNATURES = re.compile(
    r"x-(?:amz|goog)-.*|signature|expires|awsaccesskeyid|googleaccessid|key-pair-id|policy"  # S3, GCS, CloudFront
    r"|sig|sv|ss|srt|sp|se|st|spr|sip|sr|si|sk(?:oid|tid|t|e|s|v)"  # shared access signatures of Azure
)

_LONGEST_LABEL = 300
"""Of a longer path or URL, messages show both ends."""


def scheme_of(source: str) -> str | None:
    """The scheme of a URL in lower case; None for a path."""
    match = _SCHEME.match(source)
    return match[1].lower() if match else None


def path_of_file_url(url: str) -> str:
    """The path that a file:// URL names.

    Raises:
        UnsupportedFormat: It names a file of another machine.
    """
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UnsupportedFormat(
            f"{redacted(url)!r} names a file of another machine: write file:///path for a local one"
        )
    return unquote(parts.path, errors="surrogateescape")  # as Path.as_uri writes names that are no text


def redacted(url: str) -> str:
    """A URL without what may be secret: user, password, query and fragment."""
    address, mark, _ = url.partition("#")[0].partition("?")
    return _USER.sub("://", address) + ("?..." if mark else "")


def query_digest(url: str) -> str:
    """Of what tells objects apart and is left out of their names, since it may be secret; "" where there is nothing.

    A signature tells none apart: an object that is signed anew is the same one.
    """
    query = url.partition("#")[0].partition("?")[2]
    found = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    pairs = [(name.lower(), value) for name, value in found]
    if _SIGNATURES.intersection(name for name, _ in pairs):
        pairs = [(name, value) for name, value in pairs if not _OF_SIGNATURES.fullmatch(name)]
    return hashlib.sha256(repr(sorted(pairs)).encode()).hexdigest()[:24] if pairs else ""


def shortened(text: str) -> str:
    """The text, or both ends of a long one."""
    half = (_LONGEST_LABEL - 5) // 2
    return text if len(text) <= _LONGEST_LABEL else f"{text[:half]} ... {text[-half:]}"
