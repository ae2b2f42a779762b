"""Which pages an image may differ in from the one before, from the log between them.

A page in an image lags the log: what was changed up to the image's position may still have been in the engine's memory
when the older image was taken, and be written since. So the map begins with the first log that either image needs for
recovery, not with the position of the older one. What the log says is then confirmed on the image: a page whose own
count of changes is older than anything in these logs cannot have changed, and of the pages that the log does not name
a sample is looked at: a single newer one among them shows that the log does not tell everything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.ese.logs.files import examine_logs
from perdure.ese.structures import Signature
from perdure.model.errors import PerdureError
from perdure.workloads.contract import BaseImage
from perdure.workloads.exchange.image import HEAD, HEADER_PAGES, DatabaseReader, dbtimes
from perdure.workloads.exchange.indexes import PageChanges, changes_in, decode_index

__all__ = ["ChangedMap", "KnownChanges", "changes_since", "confirmed_pages", "join_changes", "log_names"]

_LOG_NAME = re.compile(r"(?P<base>.{3})(?P<number>[0-9A-Fa-f]{5,8})\.(?:log|jtx)")
_SAMPLE_PER_PAGE = 200
_LEAST_SAMPLED, _MOST_SAMPLED = 64, 1024
_BATCH = 16
_OUT_OF_ORDER = 1000
"""Counts are drawn before a change is logged, so neighbours in the log may be out of order by the threads at work."""


@dataclass(frozen=True, slots=True)
class ChangedMap:
    """The pages that logs change.

    Args:
        pages: Their numbers, ascending, ``uint32[n]``.
        bounds: For each, a count of changes below which it has not been changed by these logs.
        first_dbtime: The least of all bounds.
    """

    pages: NDArray[np.uint32]
    bounds: NDArray[np.uint64]
    first_dbtime: int


def log_names(names: Sequence[str]) -> dict[int, str]:
    """The logs among the files of an image, by generation."""
    found = {name: _LOG_NAME.fullmatch(name) for name in names}
    return {int(match["number"], 16): name for name, match in found.items() if match is not None}


@dataclass(frozen=True, slots=True)
class KnownChanges:
    """What the pool's logs change since an image, and what those did that the image needs itself.

    Args:
        before: Of the logs that the image needs: what they changed was in it, or was yet to be written to the file.
        after: Of the log behind it.
        pages: Pages of the file that the first changed and the image has, as far as that was cheap to find out.
        heads: Their heads in the image, ``uint8[n, 16]``.
    """

    before: Sequence[PageChanges]
    after: Sequence[PageChanges]
    pages: NDArray[np.int64]
    heads: NDArray[np.uint8]


def changes_since(base: BaseImage, name: str, database: Signature) -> KnownChanges | None:
    """What the logs in the pool change, from the first that an image needs; ``None`` if one cannot be read.

    Args:
        base: The image.
        name: The database's file in it.
        database: The database's identity.
    """
    before: list[PageChanges] = []
    names = log_names(list(base.sizes))
    try:
        for start in range(0, len(names), _BATCH):
            some = sorted(names)[start : start + _BATCH]
            contents = [(Path(names[number]), base.content(names[number])) for number in some]
            before += [changes_in(log, database) for log in examine_logs(contents)]
        after = [decode_index(segment.index).changes for segment in base.log()]
        pages = [part.numbers for part in before if part.known]
        places = _places(np.unique(np.concatenate(pages)) if pages else np.empty(0, np.uint32))
        return KnownChanges(before, after, *base.heads(name, places, HEAD))
    except (PerdureError, KeyError, StopIteration):
        # Whatever keeps the log from being read makes the map incomplete; comparing needs none of it.
        return None


def join_changes(parts: Sequence[PageChanges]) -> ChangedMap | None:
    """Join what several logs change; ``None`` if that is not wholly known of one of them."""
    if not all(part.known for part in parts):
        return None
    first = min((part.first_dbtime for part in parts), default=0)
    if not parts:
        return ChangedMap(np.empty(0, np.uint32), np.empty(0, np.uint64), first)
    pages = np.concatenate([part.numbers for part in parts])
    bounds = np.concatenate([np.full(len(part.numbers), part.first_dbtime, np.uint64) for part in parts])
    order = np.lexsort((bounds, pages))
    pages, bounds = pages[order], bounds[order]
    kept = np.ones(len(pages), bool)
    kept[1:] = pages[1:] != pages[:-1]
    return ChangedMap(pages[kept], bounds[kept], first)


def confirmed_pages(
    known: KnownChanges, later: Sequence[PageChanges], reader: DatabaseReader
) -> NDArray[np.int64] | None:
    """The pages of the file that an image has to store: those of the map that did change, and the header.

    Args:
        known: What the pool's logs change.
        later: What the logs change that are not in the pool yet.
        reader: The frozen database.

    Returns:
        Sorted page numbers of the file, or ``None`` if the map is not complete, or a page changed that is not in it.
    """
    after = [*known.after, *later]
    found = join_changes([*known.before, *after])
    if found is None:
        return None
    count = reader.size // reader.page_size
    places = _places(found.pages)
    inside = places < count
    places, bounds = places[inside], found.bounds[inside]
    if not _sample_is_old(found, reader, places, count):
        return None
    heads = reader.heads(places)
    counts = dbtimes(heads)
    # A page that is blank now may have been given back to the file system, which leaves no count.
    changed = (counts >= bounds) | (counts == 0)
    changed &= ~_as_before(known, after, places, heads)
    return np.concatenate([np.arange(min(HEADER_PAGES, count), dtype=np.int64), places[changed]])


def _as_before(
    known: KnownChanges, after: Sequence[PageChanges], places: NDArray[np.int64], heads: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Which pages no log has changed since the older image, and bear the same head as there."""
    same = np.zeros(len(places), bool)
    later = np.concatenate([np.empty(0, np.uint32), *(part.numbers for part in after)])
    untouched = ~np.isin(known.pages, _places(later))
    pages, before = known.pages[untouched], known.heads[untouched]
    row = np.searchsorted(places, pages)
    there = row < len(places)
    there[there] = places[row[there]] == pages[there]
    row = row[there]
    same[row] = (heads[row] == before[there]).all(axis=1)
    return same


def _places(pages: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Page numbers of the database as page numbers of its file."""
    return pages.astype(np.int64) + HEADER_PAGES - 1


def _sample_is_old(found: ChangedMap, reader: DatabaseReader, places: NDArray[np.int64], count: int) -> bool:
    """Whether a sample of the pages that the map leaves out is older than all that the logs did."""
    size = min(_MOST_SAMPLED, max(_LEAST_SAMPLED, count // _SAMPLE_PER_PAGE), count - HEADER_PAGES)
    if size <= 0:
        return True
    sample = np.unique(np.random.default_rng().integers(HEADER_PAGES, count, size))
    others = np.setdiff1d(sample, places, assume_unique=False)
    newest = np.uint64(min(found.first_dbtime + _OUT_OF_ORDER, np.iinfo(np.uint64).max))
    return bool((dbtimes(reader.heads(others)) < newest).all())
