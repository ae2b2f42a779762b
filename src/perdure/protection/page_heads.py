"""The first bytes of pages as an image in the pool has them, where they can be had cheaply."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perdure.model.extents import HOLE
from perdure.model.points import ImageFile
from perdure.protection.vault import Vault

__all__ = ["page_heads"]

_WORTH = 8
"""Pages that a chunk must have of those asked for, or it is not read: it may hold a mebibyte of others."""


def page_heads(
    vault: Vault, file: ImageFile, pages: NDArray[np.int64], length: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Read the first bytes of pages of a file.

    Args:
        vault: The pool.
        file: The file in an image.
        pages: Page numbers of the file.
        length: How many bytes of each.

    Returns:
        Those of the pages that lie close together in the pool, as an express full stores them, and their first bytes,
        ``uint8[n, length]``.

    Raises:
        Damaged: A chunk is missing or damaged.
    """
    extents = vault.image_map(file)
    rows = extents.extents
    offsets = pages.astype(np.int64) * file.page_size
    row = np.searchsorted(rows["offset"].astype(np.int64), offsets, side="right") - 1
    found = np.flatnonzero(row >= 0)
    extent = rows[row[found]]
    inside = offsets[found] - extent["offset"].astype(np.int64)
    whole = (inside + length <= extent["length"].astype(np.int64)) & (extent["chunk"] != HOLE)
    found, chunk = found[whole], extent["chunk"][whole].astype(np.int64)
    start = (inside + extent["start"].astype(np.int64))[whole]
    if not len(found):
        return pages[:0], np.empty((0, length), np.uint8)
    near = np.bincount(chunk)[chunk] >= _WORTH
    found, chunk, start = found[near], chunk[near], start[near]
    heads = np.zeros((len(found), length), np.uint8)
    numbers = np.unique(chunk)
    for index, content in vault.read_chunks([extents.chunks[number].tobytes() for number in numbers.tolist()]):
        octets = np.frombuffer(content, np.uint8)
        ours = np.flatnonzero(chunk == numbers[index])
        heads[ours] = octets[start[ours, None] + np.arange(length)]
    return pages[found], heads
