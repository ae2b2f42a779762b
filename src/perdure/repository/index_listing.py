"""The pool's packs as a listing shows them, and reading the index rows of many packs."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from perdure.repository.index_segment import as_pack_ids, find_packs
from perdure.storage.contract import ObjectMissing

__all__ = ["PackListing", "each_pack_index"]

_AHEAD = 4
"""Packs per thread that may be read before their rows are wanted: bounds memory."""


class PackListing:
    """Ids and sizes of packs, in ascending order of the ids; each once.

    Args:
        packs: Pack ids, dtype ``V16``, in any order; of equal ones the last counts.
        sizes: Bytes of each.
    """

    def __init__(self, packs: NDArray[np.void], sizes: NDArray[np.uint64]) -> None:
        order = np.argsort(packs, kind="stable")
        packs, sizes = packs[order], sizes[order]
        last = np.append(packs[1:] != packs[:-1], np.ones(min(1, len(packs)), dtype=np.bool_))
        self.packs = packs[last]
        self.sizes = sizes[last]

    @classmethod
    def of(cls, packs: Iterable[tuple[bytes, int]]) -> PackListing:
        """Read a listing to its end."""
        ids, sizes = bytearray(), array("Q")
        for pack, size in packs:
            ids += pack
            sizes.append(size)
        return cls(as_pack_ids(bytes(ids)), np.array(sizes, dtype=np.uint64))

    def __len__(self) -> int:
        return len(self.packs)

    def changed(self, appeared: dict[bytes, int], vanished: set[bytes]) -> PackListing:
        """The listing with packs added and others left out."""
        if not appeared and not vanished:
            return self
        stay = find_packs(np.sort(as_pack_ids(list(vanished))), self.packs) < 0
        return PackListing(
            np.concatenate([self.packs[stay], as_pack_ids(list(appeared))]),
            np.concatenate([self.sizes[stay], np.array(list(appeared.values()), dtype=np.uint64)]),
        )

    def where(self, packs: NDArray[np.void], sizes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """For each pack its place here, or -1 if it is not listed with this size."""
        at = find_packs(self.packs, packs)
        listed = np.flatnonzero(at >= 0)
        at[listed[self.sizes[at[listed]] != sizes[listed]]] = -1
        return at

    def chosen(self, which: NDArray[np.bool_]) -> Sequence[tuple[bytes, int]]:
        """Ids and sizes of some of them."""
        return [
            (pack.tobytes(), size) for pack, size in zip(self.packs[which], self.sizes[which].tolist(), strict=True)
        ]


def each_pack_index(
    packs: Sequence[tuple[bytes, int]], read_index: Callable[[bytes, int], NDArray[np.void]], threads: int
) -> Iterator[tuple[bytes, int, NDArray[np.void]]]:
    """Id, size and index rows of packs, read by several threads; packs that are gone by then are left out.

    Args:
        packs: Ids and sizes.
        read_index: Reads the rows of one.
        threads: Packs that are read at once.
    """
    if not packs:
        return
    with ThreadPoolExecutor(max(1, min(threads, len(packs))), thread_name_prefix="read-index") as workers:
        waiting: deque[tuple[bytes, int, Future[NDArray[np.void]]]] = deque()
        try:
            for pack, size in packs:
                waiting.append((pack, size, workers.submit(read_index, pack, size)))
                if len(waiting) > _AHEAD * threads:
                    yield from _finished(*waiting.popleft())
            while waiting:
                yield from _finished(*waiting.popleft())
        finally:
            for _, _, left in waiting:
                left.cancel()


def _finished(
    pack: bytes, size: int, reading: Future[NDArray[np.void]]
) -> Iterator[tuple[bytes, int, NDArray[np.void]]]:
    try:
        yield pack, size, reading.result()
    except ObjectMissing:
        return
