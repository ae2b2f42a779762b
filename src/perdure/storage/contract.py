"""The storage contract: named immutable objects, written once, visible only when durable.

A storage promises four things, and the rest of perdure leans on them:

1. An object appears under its name whole or not at all, and never changes afterwards.
2. A name is given at most once: a second publication under it fails with :class:`ObjectExists`.
3. When :meth:`Storage.create`, :meth:`Storage.commit` or :meth:`Storage.barrier` has returned, what it wrote
   survives power loss.
4. Listing shows every object whose publication has returned.

Beside objects a storage keeps *leases*: signs that somebody is at work, which :mod:`perdure.repository.gc` obeys.
A lease is no part of the pool and needs not survive power loss, since its holder does not either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from perdure.model.errors import PerdureError, PoolUnusable, Refused

__all__ = [
    "LEASE_LIFE_S",
    "Buffer",
    "Capabilities",
    "Lease",
    "LeaseInfo",
    "ObjectExists",
    "ObjectInfo",
    "ObjectLocked",
    "ObjectMissing",
    "Pending",
    "Staged",
    "Storage",
    "StorageFailed",
    "StorageFull",
    "StorageReadOnly",
]

Buffer = bytes | bytearray | memoryview

LEASE_LIFE_S = 24 * 3600
"""Seconds after which a lease that was not renewed counts as given up, where nobody can tell if its holder lives."""


class ObjectExists(PerdureError):
    """The name is taken; objects are never overwritten."""

    exit_status = 4
    default_code = "object-exists"


class ObjectMissing(PerdureError):
    """No object has this name."""

    exit_status = 7
    default_code = "object-missing"


class StorageFull(PoolUnusable):
    """There is no room for the object; nothing of it is visible."""

    default_code = "pool-full"


class StorageReadOnly(PoolUnusable):
    """The storage refuses writing."""

    default_code = "pool-read-only"


class StorageFailed(PoolUnusable):
    """The storage failed in another way (input/output error, gone)."""

    default_code = "storage-failed"


class ObjectLocked(Refused):
    """The object is locked against deletion until a date."""

    default_code = "object-locked"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a storage can do beyond the contract.

    Args:
        local: Objects are files on this machine, so reading small ranges is cheap.
        liveness: It is known at once when the holder of a lease dies; elsewhere a lease has to run out.
        immutable: Objects can be locked against deletion until a date (:meth:`Storage.retain`).
    """

    local: bool
    liveness: bool = False
    immutable: bool = False


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One line of a listing.

    Args:
        name: The object's name.
        size: Bytes.
        modified_ns: When it was written by the storage's own clock, nanoseconds since 1970 UTC.
    """

    name: str
    size: int
    modified_ns: int = 0


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """A lease whose holder may be at work.

    Args:
        name: The lease's name.
        idle_s: Seconds since it was renewed, by the storage's own clock; 0 where its holder is known to live.
    """

    name: str
    idle_s: float


class Staged(Protocol):
    """An object under construction that nobody else can see."""

    @property
    def size(self) -> int:
        """Bytes written so far."""
        ...

    def write(self, *buffers: Buffer) -> None:
        """Append.

        Raises:
            StorageFull: No room.
        """
        ...

    def discard(self) -> None:
        """Give the object up. Idempotent."""
        ...


class Pending(Protocol):
    """A publication under way, to be handed to :meth:`Storage.barrier`."""


class Lease(Protocol):
    """A sign that its holder is at work, seen by everybody who uses the storage until it is released.

    Where the storage can tell, it ends with the process that holds it; elsewhere it has run out when it was not
    renewed for :data:`LEASE_LIFE_S`.
    """

    def renew(self) -> None:
        """Say that the holder is still at work. May be called from several threads."""
        ...

    def release(self) -> None:
        """End it. Idempotent; a failure is not reported, since a lease ends by itself."""
        ...


class Storage(Protocol):
    """A place for objects. Names are ``/``-separated; all methods may be called from several threads."""

    @property
    def url(self) -> str: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def stage(self) -> Staged:
        """Begin an object whose size is not known yet."""
        ...

    def publish(self, staged: Staged, name: str) -> Pending:
        """Begin to give a staged object its name; not done before :meth:`barrier` has returned for it."""
        ...

    def barrier(self, pending: Sequence[Pending]) -> None:
        """Return when these publications are durable and visible.

        Raises:
            ObjectExists: A name is taken.
            StorageFull: And the other storage errors: at least one of them did not happen.
        """
        ...

    def commit(self, staged: Staged, name: str) -> None:
        """Give a staged object its name, durable on return, ahead of publications that are under way.

        Raises:
            ObjectExists: The name is taken.
        """
        ...

    def create(self, name: str, *buffers: Buffer) -> None:
        """Write one object, durable on return.

        Raises:
            ObjectExists: The name is taken.
        """
        ...

    def read(self, name: str) -> bytes:
        """A whole object.

        Raises:
            ObjectMissing: No such object.
        """
        ...

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; shorter only at the object's end.

        Raises:
            ObjectMissing: No such object.
        """
        ...

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several ranges ``(offset, length)`` of one object, in the order asked for, with few requests.

        Each is shorter than asked for only at the object's end.

        Raises:
            ObjectMissing: No such object.
        """
        ...

    def size(self, name: str) -> int:
        """Bytes of an object.

        Raises:
            ObjectMissing: No such object.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects below ``prefix`` (whole path components; empty for all), sorted by name as text."""
        ...

    def delete(self, *names: str) -> None:
        """Remove objects; durable on return. Removing one that does not exist does nothing.

        Raises:
            ObjectLocked: One is locked; those before it in the order given are gone.
        """
        ...

    def retain(self, name: str, until_ns: int) -> None:
        """Lock an object against deletion by anybody until a moment, nanoseconds since 1970 UTC; never shortens.

        Raises:
            Refused: The storage cannot (code ``no-immutability``; see :attr:`Capabilities.immutable`).
            ObjectMissing: No such object.
        """
        ...

    def lease(self, name: str) -> Lease:
        """Take out a lease; :meth:`leases` of every other process shows it from the moment that this returns.

        Args:
            name: One path component, not used before.
        """
        ...

    def leases(self) -> Sequence[LeaseInfo]:
        """All leases, without those whose holders are known to be dead."""
        ...
