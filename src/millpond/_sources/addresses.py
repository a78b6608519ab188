"""Where a store is, what its objects are called, and how much of that may be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from millpond._urls import path_of_file_url, redacted, scheme_of

_ALIASES = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "azure": "az", "adl": "az", "https": "http"}
"""Schemes that mean the same kind of store."""


@dataclass(frozen=True, slots=True)
class Address:
    """A URL or a path, as the user gave it; its repr shows no secret.

    Attributes:
        url: As given. May hold a password or a signature.
        kind: "s3", "gs", "az", "http", "file" (also a path), or the scheme of any other URL.
        name: The redacted URL without "/" at its end: what errors and logs say.
    """

    url: str = field(repr=False)
    kind: str
    name: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Take a URL apart; ValueError for an empty one."""
        if not isinstance(url, str) or not url:
            raise ValueError(f"a store is named by a URL or a path, not by {url!r}")
        scheme = scheme_of(url)
        kind = "file" if scheme is None else _ALIASES.get(scheme, scheme)
        name = url if scheme is None else redacted(url)
        return cls(url, kind, _without_slash(name))

    def name_of(self, key: str) -> str:
        """What errors, logs and sidecars call an object; "" is the URL itself."""
        if not key:
            return self.name
        if self.kind == "file":
            return f"{_without_slash(self.name, keep_root=False)}/{key}"
        address, mark, rest = self.name.partition("?")  # of a redacted query, "..." is left
        return f"{_without_slash(address, keep_root=False)}/{key}{mark}{rest}"

    def local_path(self, key: str) -> str:
        """The path of an object of a local store."""
        folder = path_of_file_url(self.url) if scheme_of(self.url) else self.url
        return f"{folder.rstrip('/')}/{key}" if key else _without_slash(folder)

    def bucket_and_prefix(self) -> tuple[str, str]:
        """Of a URL of a bucket or container: its name, and what all keys begin with, without "/" around it."""
        _, _, rest = self.url.partition("://")
        bucket, _, prefix = rest.partition("/")
        bucket = bucket.partition("@")[0]  # abfs://container@account.dfs.core.windows.net/path
        if not bucket:
            raise ValueError(f"{self.name!r} names no bucket")
        return bucket, prefix.strip("/")

    def account(self) -> str | None:
        """Of abfs://container@account.host/path: the account."""
        host = self.url.partition("://")[2].partition("/")[0].partition("@")[2]
        return host.partition(".")[0] or None

    def user_and_password(self) -> str | None:
        """Of an HTTP URL: "user:password"; None if it names nobody."""
        user, at, _ = self._http_parts()[1].rpartition("@")
        return unquote(user) if at else None

    def http_url(self, key: str = "") -> str:
        """The URL of an object, without user and fragment."""
        scheme, host, path, query = self._http_parts()
        path = f"{path.rstrip('/')}/{quote(key)}" if key else path
        return f"{scheme}://{host.rpartition('@')[2]}{path}{query}"

    def _http_parts(self) -> tuple[str, str, str, str]:
        """Scheme, host, path, query with its "?": of whatever is there, where `urlsplit` would refuse."""
        scheme, _, rest = self.url.partition("#")[0].partition("://")
        rest, mark, query = rest.partition("?")
        host, slash, path = rest.partition("/")
        return scheme, host, slash + path, mark + query


def joined(prefix: str, key: str) -> str:
    """Two parts of a key, either of which may be empty."""
    return f"{prefix}/{key}" if prefix and key else prefix or key


def _without_slash(text: str, *, keep_root: bool = True) -> str:
    short = text.rstrip("/")
    is_root = not short or short.endswith(":")
    return text if is_root and keep_root else short
