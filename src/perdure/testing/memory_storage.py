"""A storage in memory, as strict as the contract allows: the base of fault injection and of model checking.

A publication happens in the barrier that waits for it and not before, so a caller that relies on more than the
contract promises is found out. Time stands still until the test moves it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from perdure.model.errors import Refused
from perdure.storage.contract import (
    Buffer,
    Capabilities,
    Lease,
    LeaseInfo,
    ObjectExists,
    ObjectInfo,
    ObjectLocked,
    ObjectMissing,
    Pending,
    Staged,
    Storage,
)
from perdure.storage.names import check_name

__all__ = ["ManualClock", "MemoryLease", "MemoryObject", "MemoryObjects", "MemoryStaged", "MemoryStorage"]

_START_NS = 1_700_000_000 * 10**9


class ManualClock:
    """A clock that moves when it is told to.

    Args:
        now_ns: What it shows, nanoseconds since 1970 UTC.
    """

    def __init__(self, now_ns: int = _START_NS) -> None:
        self.now_ns = now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


@dataclass(frozen=True, slots=True)
class MemoryObject:
    """One object."""

    content: bytes
    modified_ns: int
    retained_until_ns: int = 0


@dataclass(slots=True)
class MemoryObjects:
    """What lies in the storage, shared by all its clients; hold ``lock`` to look at several things at once.

    Args:
        clock: The storage's own clock.
        immutable: Whether objects can be retained.
    """

    clock: ManualClock = field(default_factory=ManualClock)
    immutable: bool = False
    objects: dict[str, MemoryObject] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    """Names of leases, and when they were renewed."""
    lock: threading.RLock = field(default_factory=threading.RLock)


class MemoryStaged:
    """An object under construction."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def write(self, *buffers: Buffer) -> None:
        for buffer in buffers:
            self._parts.append(bytes(buffer))
            self.size += len(self._parts[-1])

    def content(self) -> bytes:
        return b"".join(self._parts)

    def discard(self) -> None:
        self._parts.clear()


@dataclass(slots=True)
class _Publication:
    """A name that a barrier will give."""

    name: str
    content: bytes
    done: bool = False


class MemoryLease:
    """A lease in memory; it never ends with its holder, as on an object store."""

    def __init__(self, shared: MemoryObjects, name: str) -> None:
        self.name = name
        self._shared = shared
        self._released = False
        self.renew()

    def renew(self) -> None:
        with self._shared.lock:
            if not self._released:
                self._shared.leases[self.name] = self._shared.clock.now_ns

    def release(self) -> None:
        with self._shared.lock:
            if not self._released:
                self._released = True
                self._shared.leases.pop(self.name, None)


class MemoryStorage:
    """One client of a storage in memory.

    Args:
        shared: What lies in it; give the same to another client of the same storage.
    """

    def __init__(self, shared: MemoryObjects | None = None) -> None:
        self.shared = shared or MemoryObjects()

    @property
    def url(self) -> str:
        return f"memory://{id(self.shared):x}"

    @property
    def clock(self) -> ManualClock:
        return self.shared.clock

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(local=False, liveness=False, immutable=self.shared.immutable)

    # --- writing ---

    def stage(self) -> Staged:
        return MemoryStaged()

    def publish(self, staged: Staged, name: str) -> Pending:
        assert isinstance(staged, MemoryStaged)
        check_name(name)
        publication = _Publication(name, staged.content())
        staged.discard()
        return publication

    def barrier(self, pending: Sequence[Pending]) -> None:
        failure: ObjectExists | None = None
        for publication in pending:
            assert isinstance(publication, _Publication)
            try:
                if not publication.done:
                    self._put(publication.name, publication.content)
                publication.done = True
            except ObjectExists as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def commit(self, staged: Staged, name: str) -> None:
        assert isinstance(staged, MemoryStaged)
        check_name(name)
        content = staged.content()
        staged.discard()
        self._put(name, content)

    def create(self, name: str, *buffers: Buffer) -> None:
        check_name(name)
        self._put(name, b"".join(buffers))

    def _put(self, name: str, content: bytes) -> None:
        with self.shared.lock:
            if name in self.shared.objects:
                raise ObjectExists(f"{name} exists already; objects are never overwritten")
            self.shared.objects[name] = MemoryObject(content, self.clock.now_ns)

    def delete(self, *names: str) -> None:
        for name in names:
            check_name(name)
        with self.shared.lock:
            for name in names:
                found = self.shared.objects.get(name)
                if found is not None and found.retained_until_ns > self.clock.now_ns:
                    raise ObjectLocked(f"{name} is locked against deletion")
                self.shared.objects.pop(name, None)

    def retain(self, name: str, until_ns: int) -> None:
        check_name(name)
        if not self.shared.immutable:
            raise Refused(f"{name} cannot be locked: this storage has no immutability", code="no-immutability")
        with self.shared.lock:
            found = self._found(name)
            until_ns = max(until_ns, found.retained_until_ns)
            self.shared.objects[name] = MemoryObject(found.content, found.modified_ns, until_ns)

    # --- leases ---

    def lease(self, name: str) -> Lease:
        if not name or "/" in name:
            raise ValueError(f"not the name of a lease: {name!r}")
        return MemoryLease(self.shared, name)

    def leases(self) -> Sequence[LeaseInfo]:
        with self.shared.lock:
            now = self.clock.now_ns
            return [LeaseInfo(name, max(0.0, (now - at) / 1e9)) for name, at in sorted(self.shared.leases.items())]

    # --- reading ---

    def read(self, name: str) -> bytes:
        check_name(name)
        with self.shared.lock:
            return self._found(name).content

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return self.read(name)[offset : offset + length]

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        content = self.read(name)
        return [content[offset : offset + length] for offset, length in ranges]

    def size(self, name: str) -> int:
        return len(self.read(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        _ = check_name(prefix) if prefix else ()
        with self.shared.lock:
            found = sorted(self.shared.objects.items())
        for name, each in found:
            if not prefix or name.startswith(f"{prefix}/"):
                yield ObjectInfo(name, len(each.content), each.modified_ns)

    def _found(self, name: str) -> MemoryObject:
        try:
            return self.shared.objects[name]
        except KeyError:
            raise ObjectMissing(f"there is no object {name}") from None


_check: type[Storage] = MemoryStorage
