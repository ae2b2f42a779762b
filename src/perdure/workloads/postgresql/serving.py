"""WAL files as PostgreSQL asks for them by name while it recovers, put together from the pool's copy of the log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from perdure.model.errors import Damaged, NotFound
from perdure.model.logs import LogSpan
from perdure.workloads.postgresql.listing import LISTING, WAL, Listing, decode_listing
from perdure.workloads.postgresql.lsn import format_lsn, segment_name
from perdure.workloads.postgresql.segment_index import SegmentIndex, decode_index
from perdure.workloads.postgresql.tablespaces import creations
from perdure.workloads.postgresql.wal_pages import PAGE
from perdure.workloads.recovery_contract import LogChain, ServedFile

__all__ = ["WalFiles"]

_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")


@dataclass(frozen=True, slots=True)
class _Part:
    """Bytes ``[begin, end)`` of the log, by LSN, written on one timeline; from the image if ``span`` is ``None``."""

    begin: int
    end: int
    timeline: int
    span: LogSpan | None


class WalFiles:
    """The files that a chain of log makes.

    A file of a timeline begins with what its ancestors wrote, as on a server. The last one may not be full: zeros
    follow, where replay ends. In no file a record of CREATE TABLESPACE names a directory, see ``tablespaces``.

    Args:
        chain: The log.
    """

    def __init__(self, chain: LogChain) -> None:
        self._chain = chain
        self._listing: Listing | None = None
        self._indexes: dict[str, SegmentIndex] = {}
        self._logged = self._parts_of_log()

    # --- what there is ---------------------------------------------------------------------------

    def _parts_of_log(self) -> list[_Part]:
        """What the spans add, without overlap; their names say nearly everything."""
        parts: list[_Part] = []
        at = self._chain.start.place
        upto = self._chain.upto
        timelines: dict[int, int] = {}
        for span in self._chain.spans:
            end = span.last_place
            if upto is not None and span.generation == upto.generation:
                end = min(end, upto.place)
            if end > at:
                if span.generation not in timelines:
                    timelines[span.generation] = self._index(span).timeline
                parts.append(_Part(at, end, timelines[span.generation], span))
                at = end
        return parts

    def _index(self, span: LogSpan) -> SegmentIndex:
        if span.name not in self._indexes:
            self._indexes[span.name] = decode_index(self._chain.segment(span).index)
        return self._indexes[span.name]

    @property
    def _image(self) -> Listing:
        if self._listing is None:
            self._listing = decode_listing(self._chain.image_file(LISTING))
        return self._listing

    def _parts(self, timeline: int, begin: int) -> list[_Part]:
        """All parts; the image is looked at only when its part or its timeline is asked for."""
        if begin >= self._chain.start.place and any(part.timeline == timeline for part in self._logged):
            return self._logged
        image = self._image
        return [_Part(image.wal_begin, self._chain.start.place, image.timeline, None), *self._logged]

    @property
    def _segment_size(self) -> int:
        return self._index(self._chain.spans[0]).segment_size if self._chain.spans else self._image.segment_size

    # --- files -----------------------------------------------------------------------------------

    def files(self, name: str) -> Iterator[ServedFile]:
        """The file of a name and those that follow it on its timeline.

        Raises:
            NotFound: The log does not have it, because it lies on another timeline or beyond the end.
            Damaged: It lies before the end, so replay needs it, but it is not here.
        """
        if (history := _HISTORY.fullmatch(name)) is not None:
            content = self._history(int(history[1], 16), name)
            yield ServedFile(name, content, len(content))
            return
        if (match := _SEGMENT.fullmatch(name)) is None:
            raise _not_here(name)
        timeline, high, low = (int(each, 16) for each in match.groups())
        size = self._segment_size
        begin = (high * ((1 << 32) // size) + low) * size
        parts = self._parts(timeline, begin)
        own = [part for part in parts if part.timeline == timeline]
        if not own or begin >= own[-1].end:
            raise _not_here(name)
        if begin < own[0].begin and own[0] is parts[0]:
            raise NotFound(
                f"{name} begins before the log in the pool, at {format_lsn(parts[0].begin)}",
                code="wal-not-kept",
                hint="recover from an older copy of the pool, or begin with a newer image",
            )
        if begin + size <= own[0].begin:
            raise _not_here(name)
        yield from self._from(timeline, begin, [part for part in parts if part.begin < own[-1].end])

    def _from(self, timeline: int, begin: int, parts: list[_Part]) -> Iterator[ServedFile]:
        size, end = self._segment_size, parts[-1].end
        window = _Window(self._read(parts, begin - PAGE), max(begin - PAGE, parts[0].begin))
        while begin < end:
            until = min(begin + size, end)
            stretch = window.take(begin - PAGE, until + PAGE)
            at = begin - window.begin
            content = bytearray(stretch[at : at + until - begin].ljust(size, b"\0"))
            # The context has to begin at a page; the log's own beginning does, since it is that of a file.
            for creation in creations(stretch, window.begin, size):
                for lsn, byte in creation.changes:
                    if begin <= lsn < until:
                        content[lsn - begin] = byte
            yield ServedFile(segment_name(timeline, begin, size), content, until - begin)
            begin += size

    def _read(self, parts: list[_Part], begin: int) -> Iterator[bytes]:
        """The bytes from a place on, in pieces."""
        for part in parts:
            at = max(begin, part.begin)
            if at >= part.end:
                continue
            for piece in self._read_part(part, at):
                yield piece
                at += len(piece)
            if at < part.end:
                raise Damaged(
                    f"the log in the pool ends at {format_lsn(at)} instead of {format_lsn(part.end)}",
                    code="bad-segment",
                    hint="see what is damaged with: perdure verify",
                )

    def _read_part(self, part: _Part, begin: int) -> Iterator[bytes]:
        if part.span is None:
            content = self._chain.image_file(WAL)
            first = self._image.wal_begin
            yield content[begin - first : part.end - first]
            return
        stored = self._chain.segment(part.span)
        at = stored.after.place
        for block in self._chain.blocks(stored):
            if at >= part.end:
                return
            if at + len(block) > begin:
                yield block[max(0, begin - at) : part.end - at]
            at += len(block)

    # --- histories -------------------------------------------------------------------------------

    def _history(self, timeline: int, name: str) -> bytes:
        """Of any timeline that the pool knows: a server must not give a number again that was taken."""
        for span in self._chain.openers:
            index = self._index(span)
            if index.timeline == timeline and index.history:
                return index.history
        if timeline > 1 and self._image.timeline == timeline and self._image.history:
            return self._image.history
        raise _not_here(name)


class _Window:
    """A stretch of a stream that moves on."""

    def __init__(self, pieces: Iterator[bytes], begin: int) -> None:
        self._pieces, self._content = pieces, bytearray()
        self.begin = begin

    def take(self, begin: int, end: int) -> bytes:
        """The bytes from ``begin`` or the stream's beginning to ``end`` or the stream's end."""
        drop = max(0, begin - self.begin)
        del self._content[:drop]
        self.begin += drop
        while self.begin + len(self._content) < end and (piece := next(self._pieces, None)) is not None:
            self._content += piece
        return bytes(self._content[: end - self.begin])


def _not_here(name: str) -> NotFound:
    return NotFound(f"the log in the pool has no {name}", code="wal-not-found")
