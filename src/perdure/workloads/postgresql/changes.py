"""From what the WAL says to the pages of an image that have to be read.

Changes of relations are in the WAL, but for four kinds: free space maps, bits of the visibility map that are cleared
(the record names only the heap page), hint bits where nothing protects them by checksums, and pages of zeros added at
the end. Both kinds of map, and every file that is no relation, are read and compared by digest. Unlogged hints are
hints: an image may have older ones. A file that is longer than in the image before is read from where that one ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from perdure.workloads.postgresql.blocks import FREE_SPACE, VISIBILITY, BlockChanges
from perdure.workloads.postgresql.layout import PAGE, pages_of, virtual_pages
from perdure.workloads.postgresql.listing import ListedFile
from perdure.workloads.postgresql.scanning import FileIdentity, FoundFile, relation_of

__all__ = ["DIGEST", "ChangedPages", "digests_of", "is_tracked"]

PIECE = 1 << 20
DIGEST = 16
_SEGMENT_PAGES = 131072
_MAPS = (FREE_SPACE, VISIBILITY)

_Fork = tuple[int, int, int, int]


def is_tracked(path: str) -> bool:
    """Whether every change of a file is in the WAL."""
    identity = relation_of(path)
    return identity is not None and identity.fork not in _MAPS


def digests_of(read: Callable[[int, int], bytes], size: int) -> bytes:
    """The digest of every MiB of a file."""
    return b"".join(blake3(read(at, min(PIECE, size - at))).digest(length=DIGEST) for at in range(0, size, PIECE))


class ChangedPages:
    """Which pages of the files of an image may differ from the image before.

    Args:
        changes: What the WAL says since that one.
        before: Its files by path.
    """

    def __init__(self, changes: BlockChanges, before: Mapping[str, ListedFile]) -> None:
        self._before = before
        self._blocks = _by_fork(changes.blocks)
        self._limits: dict[_Fork, int] = {}
        for limit in changes.limits:
            key = (limit.space, limit.database, limit.relation, limit.fork)
            self._limits[key] = min(limit.block, self._limits.get(key, limit.block))
        self._databases = set(changes.databases)

    def of(self, file: FoundFile, digests: bytes) -> NDArray[np.int64]:
        """Sorted page numbers in a file.

        Args:
            file: The file now.
            digests: Of its content now, if it is not tracked.
        """
        before = self._before.get(file.path)
        pages = pages_of(file.size)
        if before is None:
            return np.arange(pages, dtype=np.int64)
        grown = np.arange(min(before.size // PAGE, pages), pages, dtype=np.int64)
        identity = relation_of(file.path)
        if identity is None or identity.fork in _MAPS:
            return np.union1d(_differing_pieces(before.digests, digests, pages), grown)
        return np.union1d(self._in_relation(identity, pages), grown)

    def _in_relation(self, identity: FileIdentity, pages: int) -> NDArray[np.int64]:
        if (identity.space, identity.database) in self._databases:
            return np.arange(pages, dtype=np.int64)
        key = (identity.space, identity.database, identity.relation, identity.fork)
        first = identity.segment * _SEGMENT_PAGES
        found = self._blocks.get(key, np.empty(0, np.int64))
        here = found[(found >= first) & (found < first + pages)] - first
        limit = self._limits.get(key)
        if limit is None:
            return here
        return np.union1d(here, np.arange(min(max(limit - first, 0), pages), pages, dtype=np.int64))


def all_virtual(files: Iterable[tuple[list[int], NDArray[np.int64]]], freed: list[int]) -> NDArray[np.int64]:
    """Pages of files, given with the files' runs, as sorted pages of the common space; freed runs among them."""
    found = [virtual_pages(runs, pages) for runs, pages in files if len(pages)]
    found += [
        np.arange(first, first + count, dtype=np.int64) for first, count in zip(freed[0::2], freed[1::2], strict=True)
    ]
    return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)


def _differing_pieces(before: bytes, now: bytes, pages: int) -> NDArray[np.int64]:
    per_piece = PIECE // PAGE
    pieces = len(now) // DIGEST
    differing = [
        number
        for number in range(pieces)
        if before[number * DIGEST : (number + 1) * DIGEST] != now[number * DIGEST : (number + 1) * DIGEST]
    ]
    found = [np.arange(number * per_piece, (number + 1) * per_piece, dtype=np.int64) for number in differing]
    if not found:
        return np.empty(0, np.int64)
    together = np.concatenate(found)
    return together[together < pages]


def _by_fork(blocks: NDArray[np.void]) -> dict[_Fork, NDArray[np.int64]]:
    found: dict[_Fork, NDArray[np.int64]] = {}
    if not len(blocks):
        return found
    new = np.zeros(len(blocks), bool)
    new[0] = True
    for name in ("space", "database", "relation", "fork"):
        new[1:] |= blocks[name][1:] != blocks[name][:-1]
    starts = np.flatnonzero(new).tolist()
    for begin, end in zip(starts, [*starts[1:], len(blocks)], strict=True):
        row = blocks[begin]
        key = (int(row["space"]), int(row["database"]), int(row["relation"]), int(row["fork"]))
        found[key] = blocks["block"][begin:end].astype(np.int64)
    return found
