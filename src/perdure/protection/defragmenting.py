"""Defragmenting an image: so that recovering it does not read many chunks for a few pages each.

Every express full packs its pages into chunks of its own. As later ones overwrite them, a chunk stays needed for
ever fewer pages, and after hundreds of express fulls a recovery would decode several times the size of the image.
When a new base map is written anyway, what the image still uses of such sparse chunks is stored again, in file order
in full chunks; points before it keep the old ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged
from perdure.model.extents import HOLE, ExtentMap, chunk_table, overlay
from perdure.protection.vault import Capture, Vault

__all__ = ["WORTH_IT", "amplification", "defragmented"]

WORTH_IT = 1.5
"""A map is defragmented when recovering it would decode more than so many times the bytes that it holds."""

SPARSE = 0.6
"""A chunk is sparse when the map uses less than this share of it."""

CHUNK = 1 << 20


def amplification(extents: ExtentMap, sizes: NDArray[np.int64]) -> float:
    """How many bytes a recovery decodes for each byte of the file that is not a hole.

    Args:
        extents: A resolved map.
        sizes: Bytes of each chunk of its table.
    """
    stored = extents.stored_length()
    return float(sizes.sum()) / stored if stored else 1.0


def defragmented(extents: ExtentMap, capture: Capture, vault: Vault) -> ExtentMap:
    """A map of the same content that uses no sparse chunk, or the same map if that is not worth it.

    Args:
        extents: A resolved map.
        capture: Where new chunks go.
        vault: Where the old ones are read.
    """
    if not len(extents.chunks):
        return extents
    sizes = vault.chunk_sizes(extents.ids())
    if amplification(extents, sizes) <= WORTH_IT:
        return extents
    rows = extents.extents
    data = np.flatnonzero(rows["chunk"] != HOLE)
    used = np.bincount(rows["chunk"][data], weights=rows["length"][data], minlength=len(sizes))
    sparse = used < SPARSE * sizes
    moving = rows[data[sparse[rows["chunk"][data]]]]
    return overlay(extents, *(_stored_again(part, extents, capture, vault) for part in _parts(moving)))


def _parts(moving: NDArray[np.void]) -> list[NDArray[np.void]]:
    """Extents in runs of about a chunk each."""
    if not len(moving):
        return []
    ends = np.cumsum(moving["length"])
    cuts = np.searchsorted(ends, np.arange(CHUNK, int(ends[-1]), CHUNK))
    return [part for part in np.split(moving, np.unique(cuts)) if len(part)]


def _stored_again(part: NDArray[np.void], extents: ExtentMap, capture: Capture, vault: Vault) -> ExtentMap:
    """Store what some extents hold as one chunk, in file order; returns the map of just these."""
    places = np.concatenate([[0], np.cumsum(part["length"])]).astype(np.int64)
    content = bytearray(int(places[-1]))
    numbers = np.unique(part["chunk"])
    for row, chunk in vault.read_chunks([extents.chunks[number].tobytes() for number in numbers.tolist()]):
        for which in np.flatnonzero(part["chunk"] == numbers[row]).tolist():
            start, length = int(part["start"][which]), int(part["length"][which])
            if start + length > len(chunk):
                raise Damaged("a chunk is shorter than an extent map says", code="damaged-chunk")
            content[places[which] : places[which + 1]] = chunk[start : start + length]
    stored = capture.put(content)
    moved = part.copy()
    moved["chunk"], moved["start"] = 0, places[:-1]
    return ExtentMap(extents.size, moved, chunk_table([stored]))
