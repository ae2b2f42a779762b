"""A second copy: bringing a pool up to what another one holds, re-encrypted under its own keys.

What is copied
--------------

Data sources, retention policies where the other pool has none, recovery points with everything that they name, log,
and holds. Ids, names, numbers, times, positions and the shape of maps and trees stay; chunk ids, being keyed, do not.
A point that was deleted where it is copied from stays where it was copied to; one that the other pool's own policy
would delete at once is not sent.

How little travels
------------------

Points that both pools have tell which chunk is which without reading data (:mod:`copying_pairs`). Only chunks that
are not known from there are read; the other pool stores those that it has not.

What may happen meanwhile
-------------------------

=====================  ==============================================================================================
kill -9, power cut     points are committed one by one; packs of an unfinished one are found again by content, read
                       back, and relied on. Log segments are whole or not there
two copies at once     both store; the record's name is given once, and the other takes the point for copied
collection, target     one lease is held from the first look at what is there until the last commit; what is condemned
                       meanwhile waits for it, what was condemned before is not relied on
pruning, target        what a pruned point shared stays as long as the lease
pruning, origin        a point that goes while it is read is left out, with a note
repacking, origin      a chunk that moved is looked for again
damage, origin         every chunk is hashed before it is sealed anew; a point that needs a damaged one is refused, the
                       others are copied
damage on the way      everything is read back before a record names it; what is wrong is condemned
both protected into    a number or a piece of log that is another in each pool stops the source (``copy-diverged``)
=====================  ==============================================================================================

Memory: 64 bytes per chunk of the source (:mod:`copying_translation`), one map or listing, some tens of MiB of chunks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from perdure.model.errors import BadInput, Damaged, NotFound, PerdureError, Refused
from perdure.model.points import DataSource
from perdure.repository.copying_arrival import DamagedOnArrival
from perdure.repository.copying_chunks import Origin
from perdure.repository.copying_report import CopyFailure, CopyReport, SourceCopy
from perdure.repository.copying_source import CopyOptions, copy_source
from perdure.repository.pool import Pool

__all__ = ["CopyOptions", "CopyReport", "Wanted", "copy_pool"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A source to copy.

    Args:
        source: The data source.
        numbers: Only these points and no log; everything if ``None``.
    """

    source: DataSource
    numbers: frozenset[int] | None = None


def copy_pool(origin: Pool, target: Pool, wanted: Sequence[Wanted], options: CopyOptions | None = None) -> CopyReport:
    """Bring a pool up to what another one holds.

    A source or point that cannot be copied does not keep the others from being.

    Args:
        origin: The pool that is copied from; nothing in it is changed.
        target: The pool that is copied into.
        wanted: The sources.
        options: How.

    Raises:
        BadInput: It is one pool.
        Refused: None of the sources may be copied; this says why the first may not.
        DamagedOnArrival: What was written does not read back as it was.
        PoolUnusable: One of the pools cannot be used any more; what was committed before stays.
    """
    if origin.id == target.id:
        raise BadInput(
            f"{origin.storage.url} and {target.storage.url} are one storage pool, or one is a plain copy of the other",
            code="same-pool",
            hint="make a new pool for the second copy with: perdure pool create PATH",
        )
    started = time.monotonic()
    read_from = Origin(origin)
    reports, refusals = [], []
    for each in wanted:
        try:
            report = copy_source(read_from, target, each.source, each.numbers, options or CopyOptions())
        except DamagedOnArrival:
            raise
        except (Refused, Damaged, NotFound) as error:
            refusals.append(error)
            report = _not_copied(each.source, error)
        reports.append(report)
    if refusals and len(refusals) == len(wanted):
        raise refusals[0]
    return CopyReport(tuple(reports), time.monotonic() - started)


def _not_copied(source: DataSource, error: PerdureError) -> SourceCopy:
    failure = CopyFailure(f"data source {source.name}", error.code, error.message, error.hint)
    return SourceCopy(source, failures=[failure])
