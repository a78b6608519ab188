"""What obstore's errors mean. Their texts hold URLs, keys and bodies: they are read here, and never passed on.

obstore tells few things apart by class; the rest stands in the text of its Rust errors, as it did in 0.12.1.
"""

from __future__ import annotations

import os
import re

from millpond._sources.failures import Kind, TryFailed, failed_with_status

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s)\"']*")
_HOST = re.compile(r"://(?:[^/@\s]*@)?([^/?#\s,)\"']+)")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_PARTIAL = re.compile(r"Requested (\d+)\.\.(\d+), got (\d+)\.\.(\d+)")

_NO_CREDENTIALS = (
    "no credentials were found: give storage_options, set the store's environment variables, or ask without "
    "(storage_options={'anon': True})"
)
_CREDENTIAL_WORDS = ("://169.254.169.254", "://169.254.170.", "token request", "://metadata.google.internal")
"""Where machines of a cloud find credentials; an object may be called so, too."""

_NO_RANGES = (
    "the server sends the whole object where a byte range is asked for: serve it by one that knows ranges, such as "
    "nginx or `rclone serve http`"
)

# The first that is in the text names the reason. Those of which the last column is AGAIN pass.
_WORDS = (
    ("MissingContentLength", Kind.UNSIZED, "the server does not say how long it is"),
    ("RangeNotSupported", Kind.UNRANGED, _NO_RANGES),
    ("non-partial response", Kind.UNRANGED, _NO_RANGES),
    ("InvalidUri", Kind.REFUSED, "its address, or the endpoint's, is no URL"),
    ("NoContentRange", Kind.UNRANGED, "the server sends a byte range without saying which"),
    ("ParseContentRange", Kind.UNRANGED, "the server sends a byte range without saying of how many bytes"),
    ("without LOCATION", Kind.REFUSED, "the bucket lies in another region: name it, storage_options={'region': ...}"),
    ("BadScheme", Kind.REFUSED, "it redirects to a URL of another scheme"),
    ("TooManyRedirects", Kind.REFUSED, "it redirects too often"),
    ("InvalidCertificate", Kind.REFUSED, "the server's certificate is not trusted"),
    ("InvalidMessage", Kind.REFUSED, "no encrypted connection can be made: does the server speak https?"),
    ("RelativeUrlWithoutBase", Kind.REFUSED, "it is no URL"),
    ("dns error", Kind.AGAIN, "the name of the host is not known"),
    ("kind: Connect", Kind.AGAIN, "no connection"),
    ("kind: Interrupted", Kind.AGAIN, "the connection was closed before all bytes came"),
    ("IncompleteMessage", Kind.AGAIN, "the connection was closed without an answer"),
    ("ConnectionReset", Kind.AGAIN, "the connection was reset"),
)

_OF_HOST = ("no connection", "the name of the host is not known")
"""Reasons that want to know which."""


def failure_of(error: Exception, stall_seconds: float) -> TryFailed:
    """Say what an exception of obstore means."""
    whole = str(error)
    text = _URL.sub("", whole)  # names of objects say nothing of what went wrong
    if isinstance(error, ValueError):
        return TryFailed(Kind.REFUSED, "it is no valid address")
    match = _STATUS.search(text)
    if any(words in whole for words in _CREDENTIAL_WORDS):
        return TryFailed(Kind.REFUSED, _NO_CREDENTIALS, status=int(match[1]) if match else None)
    if match:
        return failed_with_status(int(match[1]))
    if isinstance(error, FileNotFoundError):
        return TryFailed(Kind.MISSING, "no such object")
    if type(error).__name__ == "PreconditionError":
        return TryFailed(Kind.CHANGED, "another version is there", status=412)
    if partial := _PARTIAL.search(text):
        return TryFailed(Kind.AGAIN, f"bytes {partial[3]} to {partial[4]} came for {partial[1]} to {partial[2]}")
    if "kind: Timeout" in text or "TimedOut" in text:
        return TryFailed(Kind.AGAIN, f"nothing came for {stall_seconds:g} s", silent_seconds=stall_seconds)
    for words, kind, reason in _WORDS:
        if words in text:
            host = _HOST.search(whole) if reason in _OF_HOST else None
            return TryFailed(kind, f"{reason} ({host[1]})" if host else reason)
    if isinstance(error, OSError) and error.errno is not None:
        return TryFailed(Kind.AGAIN, os.strerror(error.errno))
    return TryFailed(Kind.AGAIN, f"the request failed ({type(error).__name__})")
