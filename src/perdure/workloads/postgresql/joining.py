"""Making one log segment of several neighbours."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from perdure.model.errors import Damaged
from perdure.model.logs import LogSegment
from perdure.workloads.contract import LogReader
from perdure.workloads.postgresql.cutting import BLOCK_BYTES
from perdure.workloads.postgresql.segment_index import (
    VERSION,
    SegmentIndex,
    decode_changes,
    decode_index,
    encode_changes,
    encode_index,
    joined_changes,
)

__all__ = ["join_segments"]


def join_segments(log: LogReader) -> LogSegment:
    """Join neighbours of one generation, in order; the payload is held in memory.

    Raises:
        Damaged: They are not neighbours, or a payload is not what its index says.
    """
    segments = list(log.segments())
    for before, after in pairwise(segments):
        if before.last != after.after:
            raise Damaged(f"the log has a gap between {before.last} and {after.after}", code="log-gap")
    indexes = [decode_index(segment.index) for segment in segments]
    payload = b"".join(block for segment in segments for block in log.blocks(segment))
    if len(payload) != segments[-1].last.place - segments[0].after.place:
        raise Damaged("the payload of a log segment is not what its index says", code="bad-segment")
    index = SegmentIndex(
        VERSION,
        indexes[0].timeline,
        indexes[0].segment_size,
        b"".join(each.transactions for each in indexes),
        [point for each in indexes for point in each.points],
        encode_changes(joined_changes([decode_changes(each.changes) for each in indexes])),
        indexes[0].history,
    )
    view = memoryview(payload)
    return LogSegment(
        segments[0].after,
        segments[-1].last,
        np.concatenate([segment.marks for segment in segments]),
        segments[-1].chain,
        encode_index(index),
        [view[at : at + BLOCK_BYTES] for at in range(0, len(view), BLOCK_BYTES)],
    )
