"""Serving log to an engine that recovers by itself and asks for one file of it after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from perdure.model.errors import BadInput, NotFound, Refused
from perdure.model.logs import LogSpan, StoredSegment
from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position
from perdure.model.timeline import Stretch, Timeline
from perdure.protection.image_restore import read_file
from perdure.protection.points import timeline_of
from perdure.protection.protected import Protected
from perdure.protection.vault import Vault
from perdure.workloads.recovery_contract import FetchingWorkload, ServedFile

__all__ = ["serve_log"]


def serve_log(p: Protected, name: str, upto: Position | None) -> Iterator[ServedFile]:
    """The log file of a name and those that follow it.

    Args:
        p: The source.
        name: What the engine asks for.
        upto: Where its recovery is to end; ``None``: at the end of the log.

    Raises:
        NotFound: The log has no such file: recovery may end (code ``wal-not-found``).
        Refused, Damaged: It should have it, and recovery must not end.
        BadInput: The source's engine does not ask for files.
    """
    if not isinstance(p.workload, FetchingWorkload):
        raise BadInput(
            f"a {p.workload.kind} source has no log files that an engine could fetch",
            code="no-log-files",
            hint="recover it with: perdure recover",
        )
    chain = _Chain(p.vault, p.source.id, upto)
    try:
        yield from p.workload.log_files(name, chain)
    except NotFound as error:
        if error.code == "wal-not-found" or upto is None:
            raise
        raise Refused(error.message, code=error.code, hint=error.hint) from error


class _Chain:
    """Implements ``LogChain``: from the oldest image from which the log leads to its end without a gap."""

    def __init__(self, vault: Vault, source: str, upto: Position | None) -> None:
        self._vault, self._source = vault, source
        self._timeline = timeline_of(vault, source)
        self.upto = upto
        self._image = _oldest(self._timeline, upto)
        self.start = _position(self._image)
        self.spans = self._spans()

    def _spans(self) -> Sequence[LogSpan]:
        found = []
        for span in self._timeline.chain(self.start):
            if self.upto is not None and span.generation > self.upto.generation:
                break
            found.append(span)
            if self.upto is not None and span.last >= self.upto:
                break
        return found

    @property
    def openers(self) -> Iterable[LogSpan]:
        return [span for span in reversed(self._vault.spans(self._source)) if span.after_place == 0]

    def segment(self, span: LogSpan) -> StoredSegment:
        return self._vault.segment(self._source, span)

    def blocks(self, segment: StoredSegment) -> Iterable[bytes]:
        return self._vault.blocks(self._source, segment.span)

    def image_file(self, name: str) -> bytes:
        return read_file(self._vault, next(file for file in self._image.files if file.name == name))


def _oldest(timeline: Timeline, upto: Position | None) -> RecoveryPoint:
    stretches = timeline.stretches
    if not stretches:
        raise Refused("the source has no image yet, so its log leads nowhere", code="no-replica")
    row = len(stretches) - 1
    if upto is not None:
        while row >= 0 and not stretches[row].start <= upto <= stretches[row].end:
            row -= 1
        if row < 0:
            raise Refused(
                f"the log in the pool does not lead to position {upto}",
                code="log-gap",
                hint="what it leads to is shown by: perdure points",
            )
    while row > 0 and _joined(stretches[row - 1], stretches[row]):
        row -= 1
    return stretches[row].point


def _joined(below: Stretch, above: Stretch) -> bool:
    return below.end >= above.start


def _position(point: RecoveryPoint) -> Position:
    assert point.position is not None
    return point.position
