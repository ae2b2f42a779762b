"""Trees of files: scanned, listed, restored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from perdure.model.entries import Entry
from perdure.model.points import DataSource, StreamRef
from perdure.workloads.contract.description import Capabilities, WorkloadInfo

__all__ = ["ContentSink", "FolderScan", "FolderWorkload", "ListingSource"]


# --- folder workloads --------------------------------------------------------------------------------


class ContentSink(Protocol):
    """What a folder workload needs to put content into a vault. Thread-safe."""

    def put(self, data: bytes | bytearray | memoryview) -> bytes:
        """Store one chunk (at most 4 MiB); returns its id. Storing the same bytes again costs nothing."""
        ...

    def put_stream(self, data: bytes) -> StreamRef:
        """Store a byte string of any length."""
        ...


class ListingSource(Protocol):
    """What a folder workload needs to read of a vault."""

    def read_stream(self, ref: StreamRef) -> bytes: ...

    def read_chunk(self, chunk: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class FolderScan:
    """What one walk of a folder tree made.

    Args:
        root: The root directory's entry, its listing stored.
        files: Number of files.
        size: Bytes of file content protected.
        changed: Bytes of content of files that are new or changed.
        read: Bytes read.
        notes: What was skipped, unreadable or vanished, one line each.
    """

    root: Entry
    files: int
    size: int
    changed: int
    read: int
    notes: tuple[str, ...]


@runtime_checkable
class FolderWorkload(Protocol):
    """A tree of files."""

    kind: str
    capabilities: Capabilities

    def discover(self, location: str) -> WorkloadInfo: ...

    def scan(
        self,
        source: DataSource,
        sink: ContentSink,
        previous: tuple[Entry, ListingSource] | None,
        *,
        check_content: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> FolderScan:
        """Walk the tree and store what is new.

        Args:
            source: What to walk; ``options["exclude"]`` and ``options["include"]`` are patterns.
            sink: Where content goes.
            previous: The last point's root, and where its listings are read.
            check_content: Read every file even if its metadata says that it is unchanged.
            progress: Called with the number of bytes dealt with since the last call.
        """
        ...
