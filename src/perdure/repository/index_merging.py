"""Which segments of the cached index are merged when something is written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perdure.repository.index_segment import Segment, as_pack_ids, find_packs

__all__ = ["Parts", "due_for_merging", "is_stale", "plan_merge"]

_SMALL = 1 << 14
"""Segments with fewer rows are merged whenever something is written."""
_RATIO = 4
"""A segment is merged with all smaller ones when it has at most this many times their rows together: keeps segments
few, and writes each row only a few times in its life."""
_MOST_SEGMENTS = 24
"""While a rebuild writes segments one after the other, they are merged when there are more: a look-up asks each."""

Parts = list[tuple[Segment, NDArray[np.bool_]]]
"""Segments, and for each which of its packs count."""


def plan_merge(cached: list[Segment], parts: Parts, spilling: bool) -> tuple[list[Segment], Parts]:
    """What becomes of the cache: the segments that stay, and what is merged into a new one.

    Args:
        cached: The segments of the cache, also those that another process wrote.
        parts: This process's segments, and which of their packs there are.
        spilling: Merge cached segments only if there are too many.
    """
    kept_by_file = {segment.file: kept for segment, kept in parts if segment.file}
    # What another process knows to be gone or not is not known here: its packs stay until the next match.
    keep = [kept_by_file.get(segment.file, np.ones(len(segment.packs), dtype=np.bool_)) for segment in cached]
    ours = [(segment, kept) for segment, kept in parts if segment.file not in {named.file for named in cached}]
    new_rows = sum(len(segment) for segment, _ in ours)
    sizes = [(len(segment), is_stale(kept)) for segment, kept in zip(cached, keep, strict=True)]
    merging = due_for_merging(sizes, new_rows)
    if spilling and len(cached) < _MOST_SEGMENTS:
        merging = set()
    staying = [number for number in range(len(cached)) if number not in merging]
    merged: Parts = []
    taken = [cached[number].packs[keep[number]] for number in staying]
    for segment, kept in [*((cached[number], keep[number]) for number in sorted(merging)), *ours]:
        before = np.sort(np.concatenate([as_pack_ids(b""), *taken]))
        fresh = kept & (find_packs(before, segment.packs) < 0)
        if fresh.any():
            merged.append((segment, fresh))
            taken.append(segment.packs[fresh])
    return [cached[number] for number in staying], merged


def due_for_merging(cached: Sequence[tuple[int, bool]], new_rows: int) -> set[int]:
    """Which cached segments are to be merged with the new rows.

    Args:
        cached: Rows of each, and whether it is stale.
        new_rows: Rows that are in none of them.
    """
    merging = {number for number, (_, stale) in enumerate(cached) if stale}
    total = new_rows + sum(cached[number][0] for number in merging)
    below: list[int] = []
    for number in sorted(set(range(len(cached))) - merging, key=lambda number: cached[number][0]):
        rows = cached[number][0]
        below.append(number)
        if total and rows <= max(_SMALL, _RATIO * total):
            merging.update(below)
        total += rows
    return merging


def is_stale(kept: NDArray[np.bool_]) -> bool:
    """Whether more than a quarter of a segment's packs are gone.

    Args:
        kept: For every pack whether it is still there.
    """
    return bool((~kept).sum() * 4 > len(kept))
