"""Joining log segments: continuous protection writes several a second, and few are easier to keep than many.

It takes two runs. The first writes wide segments over runs of narrow ones; readers take the widest. A later one, when a
wide segment is older than the grace period and was read back whole, deletes the narrow ones below it, so that whoever
had begun to read those is done. Every place that could be recovered still can.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from perdure.model.errors import Damaged
from perdure.model.logs import LogSpan, StoredSegment
from perdure.model.points import DataSource
from perdure.protection.points import timeline_of
from perdure.protection.vault import Vault
from perdure.workloads.contract import ImageWorkload

__all__ = ["Joined", "delete_covered", "join_log"]

LARGEST = 32 << 20
"""No joined segment holds more bytes of log than this, since it is made in memory."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What a run joined.

    Args:
        segments: Narrow segments.
        into: Wide segments that cover them.
    """

    segments: int
    into: int


class _Neighbours:
    """Stored segments as a workload reads them; implements ``LogReader``."""

    def __init__(self, vault: Vault, source: str, segments: Sequence[StoredSegment]) -> None:
        self._vault, self._source, self._segments = vault, source, segments

    def segments(self) -> Iterable[StoredSegment]:
        return self._segments

    def blocks(self, segment: StoredSegment) -> Iterable[bytes]:
        return self._vault.blocks(self._source, segment.span)


def join_log(vault: Vault, source: DataSource, workload: ImageWorkload, *, most: int) -> Joined:
    """Join the log between two images where it lies in more than so many segments.

    The log after the newest image is left alone: it is still growing.

    Args:
        vault: The pool.
        source: The data source.
        workload: Knows how to join its log.
        most: Segments for one image that need no joining.
    """
    segments = into = 0
    for stretch in timeline_of(vault, source.id).stretches[:-1]:
        if len(stretch.spans) <= most:
            continue
        for run in _runs(vault, source.id, stretch.spans):
            vault.put_joined(source.id, workload.join_log(_Neighbours(vault, source.id, run)))
            segments += len(run)
            into += 1
    return Joined(segments, into)


def _runs(vault: Vault, source: str, spans: Sequence[LogSpan]) -> Iterator[list[StoredSegment]]:
    """Two or more neighbours of one generation that are small enough together."""
    run: list[StoredSegment] = []
    size = 0
    for span in spans:
        segment = vault.segment(source, span)
        bytes_ = sum(segment.block_sizes)
        if run and (run[-1].span.generation != span.generation or size + bytes_ > LARGEST):
            if len(run) > 1:
                yield run
            run, size = [], 0
        run.append(segment)
        size += bytes_
    if len(run) > 1:
        yield run


def delete_covered(vault: Vault, source: DataSource, *, grace_s: float, now_ns: int | None = None) -> int:
    """Delete narrow segments below wide ones that are old enough and whole; returns how many."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    covered: list[LogSpan] = []
    for wide, below in _covers(vault.spans(source.id)):
        if now_ns - vault.segment(source.id, wide).durable_ns >= grace_s * 1e9 and _is_whole(vault, source.id, wide):
            covered.extend(below)
    if covered:
        vault.delete_log(source.id, covered)
    return len(covered)


def _covers(spans: Sequence[LogSpan]) -> Iterator[tuple[LogSpan, list[LogSpan]]]:
    """Each span that no other covers, with those that it covers."""
    wide: LogSpan | None = None
    below: list[LogSpan] = []
    for span in sorted(spans, key=lambda span: (span.generation, span.after_place, -span.last_place)):
        if wide is not None and span.generation == wide.generation and span.last_place <= wide.last_place:
            below.append(span)
            continue
        if wide is not None and below:
            yield wide, below
        wide, below = span, []
    if wide is not None and below:
        yield wide, below


def _is_whole(vault: Vault, source: str, span: LogSpan) -> bool:
    try:
        for _ in vault.blocks(source, span):
            pass
    except Damaged:
        return False
    return True
