"""A storage whose every call can be watched, held up or made to fail: what other processes do meanwhile is scripted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from perdure.storage.contract import Buffer, Capabilities, Lease, LeaseInfo, ObjectInfo, Pending, Staged, Storage

__all__ = ["Hook", "HookedStorage"]

Hook = Callable[[str, tuple[str, ...]], None]
"""Called before a call with the method's name and the object names that it is about."""


class HookedStorage:
    """Another storage with a hook before each of its calls; what the hook raises, the call raises.

    Args:
        inner: The storage.
        hook: Called before each call, in the thread that makes it; replace it at any time.
    """

    def __init__(self, inner: Storage, hook: Hook = lambda _, __: None) -> None:
        self.inner = inner
        self.hook = hook

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    def stage(self) -> Staged:
        self.hook("stage", ())
        return self.inner.stage()

    def publish(self, staged: Staged, name: str) -> Pending:
        self.hook("publish", (name,))
        return self.inner.publish(staged, name)

    def barrier(self, pending: Sequence[Pending]) -> None:
        self.hook("barrier", ())
        self.inner.barrier(pending)

    def commit(self, staged: Staged, name: str) -> None:
        self.hook("commit", (name,))
        self.inner.commit(staged, name)

    def create(self, name: str, *buffers: Buffer) -> None:
        self.hook("create", (name,))
        self.inner.create(name, *buffers)

    def read(self, name: str) -> bytes:
        self.hook("read", (name,))
        return self.inner.read(name)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        self.hook("read_range", (name,))
        return self.inner.read_range(name, offset, length)

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.hook("read_ranges", (name,))
        return self.inner.read_ranges(name, ranges)

    def size(self, name: str) -> int:
        self.hook("size", (name,))
        return self.inner.size(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.hook("list", (prefix,))
        yield from self.inner.list(prefix)

    def delete(self, *names: str) -> None:
        self.hook("delete", names)
        self.inner.delete(*names)

    def retain(self, name: str, until_ns: int) -> None:
        self.hook("retain", (name,))
        self.inner.retain(name, until_ns)

    def lease(self, name: str) -> Lease:
        self.hook("lease", (name,))
        return self.inner.lease(name)

    def leases(self) -> Sequence[LeaseInfo]:
        self.hook("leases", ())
        return self.inner.leases()


_check: type[Storage] = HookedStorage
