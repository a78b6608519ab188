"""What every kind of store does for us, one request at a time; tries, hedges and checks are made above it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from millpond._sources.addresses import Address
from millpond._sources.limits import FetchLimits
from millpond._sources.storage_options import Access, access_of
from millpond._values import FileIdentity

if TYPE_CHECKING:
    from typing_extensions import Buffer

OBSTORE_KINDS = frozenset({"s3", "gs", "az", "http"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request brought: bytes, and the version that they are of."""

    data: Buffer
    identity: FileIdentity

    @property
    def num_bytes(self) -> int:
        """How many came."""
        return memoryview(self.data).nbytes


class Parts(Protocol):
    """An object that comes in parts. Whoever opened it closes it.

    Attributes:
        identity: Its version; None where the server says nothing of it.
        size_bytes: Of the whole; None where the server does not say.
    """

    identity: FileIdentity | None
    size_bytes: int | None

    async def part(self) -> Buffer | None:
        """What comes next; None at the end."""

    async def close(self) -> None:
        """Let go of the connection."""


class Backend(Protocol):
    """Requests to one store, from the one thread of its loop. What fails is a `TryFailed`."""

    async def get(self, key: str, start: int, stop: int, identity: FileIdentity | None) -> Answer:
        """Bytes `start` to `stop`, or what of them is there; of this version, where the store can be told so."""

    async def head(self, key: str) -> FileIdentity:
        """The version that is there."""

    async def parts(self, key: str, start: int, identity: FileIdentity | None) -> Parts:
        """All of it from `start` on, in parts."""

    async def keys(self, prefix: str) -> list[str]:
        """Keys below a folder, in any order."""

    async def settle(self) -> None:
        """Wait until what was cancelled is over: a thread that comes to an interpreter that has ended would panic."""

    def close(self) -> None:
        """Let go of connections and threads."""


@dataclass(frozen=True, slots=True)
class BackendMaker:
    """Makes the backend of an address when it is first wanted; what was said wrong of it is told at once.

    Raises:
        ValueError: An option that is not known, or that has no meaning here. Values are not shown.
    """

    address: Address
    access: Access | None
    options: Mapping[str, Any] = field(repr=False)
    limits: FetchLimits

    @classmethod
    def of(
        cls, address: Address, options: Mapping[str, Any] | None, token: str | None, limits: FetchLimits
    ) -> BackendMaker:
        """Look at the options."""
        if address.kind in OBSTORE_KINDS or address.kind == "file":
            return cls(address, access_of(address, options, token), {}, limits)
        if token is not None and address.kind != "hf":
            raise ValueError(
                f"token= has no meaning for {address.kind}:// URLs; fsspec's options go to storage_options"
            )
        return cls(address, None, {**dict(options or {}), **({"token": token} if token is not None else {})}, limits)

    def make(self) -> Backend:
        """Import what reads such an address, and make it. May take a tenth of a second."""
        if self.access is None:
            from millpond._sources.fsspec_backend import FsspecBackend

            return FsspecBackend(self.address, self.options, self.limits)
        if self.address.kind == "file":
            from millpond._sources.local_backend import LocalBackend

            return LocalBackend(self.address)
        from millpond._sources.obstore_backend import ObstoreBackend

        return ObstoreBackend(self.address, self.access, self.limits)
