"""Segments of a version 8 log: which hold its records, where it ends, and what is wrong with the others.

Every segment is checked as a page of 4096 bytes whose number is the sector number that the segment itself states. The
last, partly filled one is written twice: its copy, the *shadow*, lies in the next sector and still states the number
of the first. A log ends before the first segment that is not the next one. What lies behind has never been used, or is
left over from an older log that the engine has recycled.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from perdure.ese.checksums import PageState, verify_pages
from perdure.ese.findings import Finding, Severity
from perdure.ese.repair import correct_page

__all__ = ["SEGMENT_HEADER", "SEGMENT_SIZE", "Segments", "examine_segments"]

SEGMENT_SIZE = 4096
SEGMENT_HEADER = 40

Octets = NDArray[np.uint8]


def _unused_pattern() -> Octets:
    """What the engine fills new log files with: 0xDA, and at every 16th byte of 512 another value."""
    pattern = np.full(512, 0xDA, np.uint8)
    pattern[::16] = (0xDA + np.arange(0, 512, 16)) & 0xFF
    return np.tile(pattern, SEGMENT_SIZE // 512)


_UNUSED = _unused_pattern()


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of a log that hold its records.

    Args:
        file: The log's name.
        generation: Its number.
        content: Them, ``uint8[n, 4096]``, as they were written: a flipped bit is corrected, a torn last segment is
            replaced by its shadow. Empty if it was let go.
        first: Sector number of the first.
        count: How many.
        checksums: XOR of the checksums of all of them, which the next log's header repeats.
        findings: What is wrong.
        has_shadow: Whether the last one is there twice.
        whole: Whether the log ends where it should: no damage stops it before.
    """

    file: str
    generation: int
    content: Octets
    first: int
    count: int
    checksums: int
    findings: tuple[Finding, ...]
    has_shadow: bool
    whole: bool

    def without_content(self) -> Segments:
        """The same without their bytes."""
        return replace(self, content=np.empty((0, SEGMENT_SIZE), np.uint8))

    @property
    def last(self) -> int:
        """Sector number of the last one that holds records; one less than :attr:`first` if none does."""
        return self.first + self.count - 1


def examine_segments(content: bytes | memoryview, generation: int, first: int, file: str, *, closed: bool) -> Segments:
    """Check all segments of a log.

    Args:
        content: The whole file.
        generation: The log's, from its header.
        first: The sector in which the first segment lies.
        file: Its name, for findings.
        closed: Whether the log is complete and will never change, so that not even its last segment may be torn.
    """
    whole = len(content) // SEGMENT_SIZE
    segments = np.frombuffer(content, np.uint8, whole * SEGMENT_SIZE).reshape(whole, SEGMENT_SIZE)[first:]
    return _Examination(segments, generation, first, file, closed=closed).result()


@dataclass(slots=True)
class _Head:
    """What the headers of all segments state."""

    sector: NDArray[np.int64]
    generation: NDArray[np.int64]
    offset: NDArray[np.int64]

    @staticmethod
    def of(segments: Octets) -> _Head:
        words = np.ascontiguousarray(segments[:, 8:12]).view("<u2").astype(np.int64)
        generation = np.ascontiguousarray(segments[:, 12:16]).view("<i4")[:, 0].astype(np.int64)
        return _Head(words[:, 1], generation, words[:, 0])


@dataclass(slots=True)
class _Examination:
    segments: Octets
    generation: int
    first: int
    file: str
    closed: bool = field(kw_only=True)
    findings: list[Finding] = field(default_factory=list)
    repaired: dict[int, Octets] = field(default_factory=dict)
    places: NDArray[np.uint32] = field(init=False)
    sound: NDArray[np.bool_] = field(init=False)
    head: _Head = field(init=False)

    def __post_init__(self) -> None:
        self.places = np.arange(self.first, self.first + len(self.segments), dtype=np.uint32)
        self.sound = verify_pages(self.segments, self.places) == PageState.SOUND_ECC
        self.head = _Head.of(self.segments)

    def result(self) -> Segments:
        ours = self.sound & (self.head.generation == self.generation)
        expected = ours & (self.head.sector == self.places) & (self.head.offset == 0)
        end, whole = self._end(expected)
        shadow = end > 0 and end < len(self.segments) and self._is_shadow(end)
        self._look_behind(end + shadow, expected)
        content = self.segments[:end]
        if self.repaired:
            content = content.copy()
            for index, segment in self.repaired.items():
                content[index] = segment
        stored = np.ascontiguousarray(content[:, :8]).view("<u8")[:, 0]
        checksums = int(np.bitwise_xor.reduce(stored)) if len(stored) else 0
        return Segments(
            file=self.file,
            generation=self.generation,
            content=content,
            first=self.first,
            count=end,
            checksums=checksums,
            findings=tuple(self.findings),
            has_shadow=bool(shadow),
            whole=whole,
        )

    def _end(self, expected: NDArray[np.bool_]) -> tuple[int, bool]:
        """Index of the first segment that does not continue the log, and whether that is where the log should end."""
        at = 0
        while True:
            others = np.flatnonzero(~expected[at:])
            if not len(others):
                return len(expected), True
            at += int(others[0])
            if self._ends_the_log(at):
                if expected[at + 1 :].any():
                    self._blank_inside(at, int(np.count_nonzero(expected[at + 1 :])))
                    return at, False
                return at, True
            if not self._repair(at):
                self._damaged(at, int(np.count_nonzero(expected[at + 1 :])))
                return at, False
            at += 1

    def _ends_the_log(self, at: int) -> bool:
        if self._unused(at) or (at > 0 and self._is_shadow(at)):
            return True
        return bool(self.sound[at]) and int(self.head.generation[at]) < self.generation

    def _repair(self, at: int) -> bool:
        """Take a segment's bytes from its own checksum, or from its shadow; says so."""
        corrected = self._corrected(at)
        if corrected is not None:
            self.repaired[at] = corrected
            self._find(
                at,
                "one bit is flipped; its checksum names it, so every record is still known",
                code="ese-segment-damaged",
            )
            return True
        if at + 1 < len(self.segments) and self._is_shadow(at + 1):
            self.repaired[at] = self.segments[at + 1]
            severity = Severity.DAMAGE if self.closed else Severity.NOTE
            what = "the last segment is torn; its shadow behind it holds all of its records"
            self._find(at, what, code="ese-segment-torn", severity=severity)
            return True
        return False

    def _corrected(self, at: int) -> Octets | None:
        if self.sound[at]:
            return None
        place = self.first + at
        fixed = correct_page(self.segments[at].tobytes(), place)
        if fixed is None:
            return None
        segment = np.frombuffer(fixed.content, np.uint8)
        head = _Head.of(segment.reshape(1, -1))
        ours = int(head.generation[0]) == self.generation and int(head.sector[0]) == place
        return segment if ours else None

    def _is_shadow(self, at: int) -> bool:
        """Whether a segment is the copy of the one before it."""
        place = self.first + at - 1
        if int(self.head.sector[at]) != place or int(self.head.generation[at]) != self.generation:
            return False
        state = verify_pages(self.segments[at : at + 1], np.array([place], np.uint32))[0]
        return bool(state == PageState.SOUND_ECC)

    def _unused(self, at: int) -> bool:
        segment = self.segments[at]
        return not segment.any() or bool((segment == _UNUSED).all())

    def _look_behind(self, start: int, expected: NDArray[np.bool_]) -> None:
        """Everything behind the end must be unused, or left over from an older log."""
        for at in range(start, len(self.segments)):
            if expected[at] or self._unused(at) or self._left_over(at):
                continue
            if self.findings and at == start and not self.sound[at]:
                continue  # it is what ended the log, and was reported
            self._find(
                at,
                "it lies behind the end of the log and is neither unused nor left over from an older log: "
                "either it is damaged, or records of this log are lost",
                code="ese-segment-unexpected",
            )

    def _left_over(self, at: int) -> bool:
        if int(self.head.generation[at]) >= self.generation:
            return False
        if self.sound[at]:
            return True
        stated = np.array([self.head.sector[at]], np.uint32)
        return bool(verify_pages(self.segments[at : at + 1], stated)[0] == PageState.SOUND_ECC)

    def _blank_inside(self, at: int, later: int) -> None:
        self._find(
            at,
            f"it holds nothing of this log, but {later} later segments do: the records between are lost, "
            "and recovery ends here",
            code="ese-segment-missing",
        )

    def _damaged(self, at: int, later: int) -> None:
        if self.sound[at]:
            stated = f"it states sector {int(self.head.sector[at])} of generation {int(self.head.generation[at]):X}"
            what = f"{stated}, not this one of generation {self.generation:X}"
        else:
            what = "its checksum does not hold"
        loss = f"the records of {later} later segments are cut off" if later else "the records from here on are lost"
        self._find(at, f"{what}; {loss}, and recovery ends here", code="ese-segment-damaged")

    def _find(self, at: int, what: str, *, code: str, severity: Severity = Severity.DAMAGE) -> None:
        place = f"segment {self.first + at} ({self.generation:X},{self.first + at:X},0)"
        self.findings.append(Finding(code, self.file, place, what, severity))
