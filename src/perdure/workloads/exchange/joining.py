"""Joining segments of one log generation: each holds the whole log as it was, so the last one holds them all."""

from __future__ import annotations

from perdure.model.errors import Damaged
from perdure.model.logs import LogSegment
from perdure.workloads.contract import LogReader

__all__ = ["join_segments"]


def join_segments(log: LogReader) -> LogSegment:
    """See :meth:`perdure.workloads.contract.ImageWorkload.join_log`.

    Only the last segment's places are kept: in a place of an earlier one, the log may have ended within a segment
    that it went on to fill, and only an image was ever recovered to there.
    """
    segments = list(log.segments())
    if not segments:
        raise Damaged("there is no log to join", code="bad-segment")
    last = segments[-1]
    return LogSegment(
        after=segments[0].after,
        last=last.last,
        marks=last.marks,
        chain=last.chain,
        index=last.index,
        blocks=tuple(log.blocks(last)),
    )
