"""Making one log segment of several neighbours."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from perdure.model.errors import Damaged
from perdure.model.logs import LogSegment
from perdure.workloads.contract import LogReader
from perdure.workloads.sqlite.payload import SegmentIndex, decode_index, encode_index, frames_per_block

__all__ = ["join_segments"]


def join_segments(log: LogReader) -> LogSegment:
    """Join neighbours of one WAL generation, in order; the payload is held in memory.

    Raises:
        Damaged: They are not neighbours, or a payload is not what its index says.
    """
    segments = list(log.segments())
    indexes = [decode_index(segment.index) for segment in segments]
    for before, after in pairwise(segments):
        if before.last != after.after:
            raise Damaged(f"the log has a gap between {before.last} and {after.after}", code="log-gap")
    if len({index.page_size for index in indexes}) != 1:
        raise Damaged("log segments of one WAL generation have different page sizes", code="bad-segment-index")
    page_size = indexes[0].page_size
    starts = np.cumsum([0, *(len(index.pages) for index in indexes[:-1])])
    joined = SegmentIndex(
        page_size,
        np.concatenate([index.pages for index in indexes]),
        np.concatenate([index.commits + start for index, start in zip(indexes, starts, strict=True)]).astype(np.uint32),
        np.concatenate([index.sizes for index in indexes]),
    )
    payload = b"".join(block for segment in segments for block in log.blocks(segment))
    if len(payload) != len(joined.pages) * page_size:
        raise Damaged("the payload of a log segment is not what its index says", code="bad-segment")
    step = frames_per_block(page_size) * page_size
    view = memoryview(payload)
    return LogSegment(
        segments[0].after,
        segments[-1].last,
        np.concatenate([segment.marks for segment in segments]),
        segments[-1].chain,
        encode_index(joined),
        [view[at : at + step] for at in range(0, len(view), step)],
    )
