"""Records of version 8 logs: found in all segments at once, fragments put together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.ese.findings import Finding
from perdure.ese.logs.record_types import FRAGMENT, FRAGMENT_BEGIN, SizeTable, name_of
from perdure.ese.logs.segments import SEGMENT_HEADER, SEGMENT_SIZE, Segments
from perdure.ese.structures import LogPosition

__all__ = ["LogRecord", "Records", "find_records"]

Octets = NDArray[np.uint8]
Places = NDArray[np.int64]

_BEGIN_HEAD, _FRAGMENT_HEAD = 7, 3


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record.

    Args:
        position: Where it begins.
        content: All its bytes; of a record in fragments the whole.
    """

    position: LogPosition
    content: bytes

    @property
    def type(self) -> int:
        return self.content[0]

    @property
    def name(self) -> str:
        return name_of(self.type)


@dataclass(frozen=True, slots=True)
class Records:
    """All records of a log, in columns: the same index means the same record everywhere.

    Args:
        generation: The log's.
        content: The bytes that records lie in, ``uint8[n]``.
        starts: Where each begins in ``content``, ``int64[n]``.
        sizes: Bytes of each, ``int64[n]``.
        places: Where each begins in the file, ``int64[n]``.
        findings: What is wrong.
        unfinished: Where a record in fragments begins whose end the log does not hold.
    """

    generation: int
    content: Octets
    starts: Places
    sizes: Places
    places: Places
    findings: tuple[Finding, ...]
    unfinished: LogPosition | None

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[LogRecord]:
        return (self.record(index) for index in range(len(self)))

    @property
    def types(self) -> Octets:
        """The type of each, ``uint8[n]``."""
        found: Octets = self.content[self.starts]
        return found

    def record(self, index: int) -> LogRecord:
        """One of them."""
        start = int(self.starts[index])
        return LogRecord(self.position(index), self.content[start : start + int(self.sizes[index])].tobytes())

    def position(self, index: int) -> LogPosition:
        """Where one of them begins."""
        return _position(self.generation, int(self.places[index]))


def find_records(logs: Sequence[Segments]) -> list[Records]:
    """Find all records of several logs.

    Many small numpy calls cost more than few large ones, so several logs together take much less time than each alone;
    sixteen of a mebibyte are enough.
    """
    used = [log.content.reshape(-1) for log in logs]
    content = np.concatenate([*used, np.zeros(SizeTable.MARGIN, np.uint8)])
    starts, sizes, bad = _walk(content, len(content) // SEGMENT_SIZE)
    found, begin = [], 0
    for log, own in zip(logs, used, strict=True):
        end = begin + len(own)
        some = slice(*np.searchsorted(starts, (begin, end)))
        wrong = bad[(bad >= begin) & (bad < end)] - begin
        found.append(_of_log(log, content[begin : end + SizeTable.MARGIN], starts[some] - begin, sizes[some], wrong))
        begin = end
    return found


def _of_log(log: Segments, content: Octets, starts: Places, sizes: Places, bad: Places) -> Records:
    shift = log.first * SEGMENT_SIZE
    findings = [_unreadable(log, content, int(start)) for start in np.sort(bad)]
    if len(bad):
        # What follows a record that cannot be read is not known to be a record.
        until = int(np.searchsorted(starts, bad.min()))
        starts, sizes = starts[:until], sizes[:until]
    joined = _Joining(log, content, starts, sizes, shift)
    findings += joined.findings
    return Records(
        log.generation, joined.content, joined.starts, joined.sizes, joined.places, tuple(findings), joined.unfinished
    )


def _position(generation: int, place: int) -> LogPosition:
    return LogPosition(generation, place // SEGMENT_SIZE, place % SEGMENT_SIZE)


def _walk(content: Octets, count: int) -> tuple[Places, Places, Places]:
    """Walk through all segments in step: no record crosses a segment, so each can be read on its own.

    Returns:
        Starts and sizes of all records in order, and the starts of those that cannot be read.
    """
    table = SizeTable(content)
    at = np.arange(count, dtype=np.int64) * SEGMENT_SIZE + SEGMENT_HEADER
    ends = at - SEGMENT_HEADER + SEGMENT_SIZE
    starts, sizes, bad = [], [], []
    while len(at):
        types = content[at]
        if not types.all():
            at = _past_padding(content, at, ends, types)
            at, ends = at[at < ends], ends[at < ends]
            types = content[at]
        size = table.sizes(at, types)
        after = at + size
        fits = (size > 0) & (after <= ends)
        if not fits.all():
            bad.append(at[~fits])
            at, size, after, ends = at[fits], size[fits], after[fits], ends[fits]
        starts.append(at)
        sizes.append(size)
        more = after < ends
        at, ends = after[more], ends[more]
    if not starts:
        return (np.empty(0, np.int64),) * 3
    all_starts, all_sizes = np.concatenate(starts), np.concatenate(sizes)
    order = np.argsort(all_starts, kind="stable")
    return all_starts[order], all_sizes[order], np.concatenate(bad) if bad else np.empty(0, np.int64)


def _past_padding(content: Octets, at: Places, ends: Places, types: Octets) -> Places:
    """Past the zero bytes that pad a segment."""
    moved = at.copy()
    for index in np.flatnonzero(types == 0):
        rest = content[at[index] : ends[index]].tobytes()
        moved[index] += len(rest) - len(rest.lstrip(b"\0"))
    return moved


def _unreadable(log: Segments, content: Octets, start: int) -> Finding:
    position = _position(log.generation, start + log.first * SEGMENT_SIZE)
    return Finding(
        code="ese-log-record-damaged",
        file=log.file,
        place=f"record {position}",
        what=f"a record of {name_of(int(content[start]))} cannot be read: its type is not known, or it reaches beyond "
        "its segment; the records from here on are not known",
    )


class _Joining:
    """Puts records in fragments together again.

    A fragment's bytes are moved to directly behind those of the fragment before it, over the heads between them: so the
    whole record lies behind the head of its first fragment, and no other buffer is needed.
    """

    def __init__(self, log: Segments, content: Octets, starts: Places, sizes: Places, shift: int) -> None:
        self.content, self.starts, self.sizes, self.places = content, starts, sizes, starts + shift
        self.findings: list[Finding] = []
        self.unfinished: LogPosition | None = None
        self._generation, self._file = log.generation, log.file
        types = content[starts]
        pieces = np.flatnonzero((types == FRAGMENT_BEGIN) | (types == FRAGMENT))
        if len(pieces):
            self._join(pieces, types)

    def _join(self, pieces: Places, types: Octets) -> None:
        memory = self.content.data
        joined: list[tuple[int, int, int]] = []
        problem: tuple[int, str] | None = None
        wanted = end = begin = 0
        owner, last = -1, -2
        some = zip(pieces.tolist(), self.starts[pieces].tolist(), self.sizes[pieces].tolist(), strict=True)
        for piece, start, size in some:
            if types[piece] == FRAGMENT_BEGIN:
                if wanted:
                    problem = piece, "it begins before the record before it is complete"
                    break
                owner, begin, end = piece, start + _BEGIN_HEAD, start + size
                wanted = int.from_bytes(memory[start + 1 : start + 5], "little")
            else:
                if not wanted or piece != last + 1:
                    problem = piece, "it continues no record"
                    break
                part = memory[start + _FRAGMENT_HEAD : start + size]
                memory[end : end + len(part)] = part
                end += len(part)
            last = piece
            if end - begin > wanted:
                problem = owner, f"its parts have {end - begin} bytes, and it has {wanted}"
                break
            if end - begin == wanted:
                joined.append((owner, begin, wanted))
                wanted = 0
        if wanted and problem is None:
            if last + 1 < len(self.starts):
                problem = last + 1, "another record begins before the record before it is complete"
            else:
                self.unfinished = _position(self._generation, int(self.places[owner]))
        until = len(self.starts)
        if problem is not None:
            self._broken(*problem)
            until = problem[0]
        self._replace(pieces, joined, until)

    def _replace(self, pieces: Places, joined: list[tuple[int, int, int]], until: int) -> None:
        """Let the first fragment's place stand for the whole record; drop the others, and what follows a broken one."""
        owners, begins, wholes = np.array(joined, np.int64).reshape(-1, 3).T
        keep = np.ones(len(self.starts), bool)
        keep[pieces] = False
        keep[owners] = True
        keep[until:] = False
        starts, sizes = self.starts.copy(), self.sizes.copy()
        starts[owners], sizes[owners] = begins, wholes
        expected = SizeTable(self.content).sizes(begins, self.content[begins])
        for index in np.flatnonzero(expected != wholes):
            what = f"it has {wholes[index]} bytes, and its fields ask for {expected[index]}"
            self._broken(int(owners[index]), what)
            keep[owners[index] :] = False
        self.starts, self.sizes, self.places = starts[keep], sizes[keep], self.places[keep]

    def _broken(self, index: int, what: str) -> None:
        position = _position(self._generation, int(self.places[index]))
        self.findings.append(
            Finding(
                code="ese-log-record-damaged",
                file=self._file,
                place=f"record {position}",
                what=f"a record in fragments is broken: {what}",
            )
        )
