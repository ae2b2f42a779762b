"""Why it does no harm that a log record is missing, there twice, or in another's place; every other case is noticed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from perdure.ese.replay.image_check import changes_of
from perdure.ese.replay.merges import MERGES, Merge
from perdure.ese.replay.splits import SPLITS

__all__ = ["TAMPERINGS", "Harmless", "TamperedStream", "tampered"]

_BEGIN, _COMMIT, _ROLLBACK, _BEGIN_0, _COMMIT_0 = 5, 6, 7, 8, 9
_MACRO_BEGIN, _MACRO_COMMIT = 11, 12
_UNDO_INFO, _UNDO, _EXTEND = 36, 39, 68
_BRACKETS = (_BEGIN, _COMMIT, _ROLLBACK, _BEGIN_0, _COMMIT_0)
_SAYS_NOTHING = frozenset((1, 2, 4, 18, 49, 50, 51, 52, 61, 67, _EXTEND, 71, 79))
_NEW_TREES, _CONVERSIONS = (24, 25), (26, 58)
_ATTACH, _DETACH, _DATABASE_MARKS = 15, 16, (14, 15, 16)
_FLAGS_AT, _VERSIONED = 31, 1
_EMPTIES = 4


class Harmless(StrEnum):
    """Why a result is right all the same, or why it cannot be otherwise."""

    NOT_READ = "replay begins behind it"
    SAYS_NOTHING = "it changes no page and no session: a mark, padding, a list, the size of the file"
    IN_IMAGE = "every page that it changes is in the image as it was then, or newer"
    HELD_BY_THEN = "the page has the change when the record comes again: where an image may be newer, it is skipped"
    GIVEN_UP = "every page that it changes is given up, or made anew, by a later record, and nobody needs it until then"
    EQUAL = "the two are equal"
    WITHIN = "the transaction around it ends as a whole, whatever became of its levels"
    ATTACHED = "that the database is attached, or is not, is said again before a change needs it"
    BEFORE_IMAGE = "its transaction may have begun before the image was taken, and it ends"
    NOT_NEEDED = "what was before the change is known from the change itself, or its transaction commits"
    APART = "the two are about different pages, and not about the beginning or end of each other's transaction"
    TOGETHER = "records of one macro take effect at its end, whatever their order"
    OPEN = "no later record is of that session: the report names its transaction as one that was taken back"
    LAST = "the last change of the stream: nothing behind it can tell that it was there"


def _dropped(records: list[bytes], index: int) -> None:
    del records[index]


def _doubled(records: list[bytes], index: int) -> None:
    records.insert(index, records[index])


def _swapped(records: list[bytes], index: int) -> None:
    records[index : index + 2] = reversed(records[index : index + 2])


TAMPERINGS: dict[str, Callable[[list[bytes], int], None]] = {
    "dropped": _dropped,
    "doubled": _doubled,
    "swapped": _swapped,
}
"""What can be done to the record at an index; ``swapped`` changes places with the one behind it."""


def tampered(generations: Sequence[Sequence[bytes]], log: int, index: int, how: str) -> list[list[bytes]]:
    """The records of all logs, one of them tampered with."""
    records = [list(some) for some in generations]
    TAMPERINGS[how](records[log], index)
    return records


@dataclass(eq=False)
class TamperedStream:
    """Records of a stream of one database, and what an image of it holds.

    Args:
        generations: The records of every log.
        dbid: Number of the database in them.
        image: dbtime of every page of the image, ``None`` if replay begins with nothing.
        first: Index of the first log that is read.
        newer_until: Index of the log from which on the image holds nothing.

    Attributes:
        last_dbtime: Of the last change.
    """

    generations: Sequence[Sequence[bytes]]
    dbid: int
    image: dict[int, int] | None = None
    first: int = 0
    newer_until: int = 0
    _macros: dict[tuple[int, int], list[bytes]] = field(default_factory=dict)
    last_dbtime: int = 0

    def __post_init__(self) -> None:
        for records in self.generations:
            for record in records:
                changes = changes_of(record, self.dbid)
                for _page, dbtime in changes[:1]:
                    self.last_dbtime = max(self.last_dbtime, dbtime)
                    self._macros.setdefault((_process(record), dbtime), []).append(record)

    def touches(self, record: bytes) -> dict[int, bool]:
        """The pages that a record changes, and whether it makes them anew, whatever was there."""
        anew = _makes_anew(record)
        return {page: page in anew for page, _dbtime in changes_of(record, self.dbid)}

    def why_harmless(self, log: int, index: int, how: str) -> Harmless | None:
        """Why a replay need not notice, ``None`` if it must."""
        if log < self.first:
            return Harmless.NOT_READ
        record = self.generations[log][index]
        if how == "swapped":
            return self._why_in_any_order(log, index, record, self.generations[log][index + 1])
        if record[0] in _SAYS_NOTHING:
            return Harmless.SAYS_NOTHING
        if record[0] == _UNDO_INFO:
            return Harmless.NOT_NEEDED
        pages = self._pages(record)
        if pages:
            return self._why_pages(log, index, pages, how)
        if record[0] in _BRACKETS:
            return self._why_bracket(log, index, record, how)
        return Harmless.ATTACHED if record[0] in (_ATTACH, _DETACH) else None

    def _why_pages(self, log: int, index: int, pages: dict[int, int], how: str) -> Harmless | None:
        lacking = self._lacking(pages)
        if not lacking:
            return Harmless.IN_IMAGE
        if self.image is not None and lacking <= self._given_up_behind(log, index):
            return Harmless.GIVEN_UP
        if how == "doubled" and log < self.newer_until:
            return Harmless.HELD_BY_THEN
        if how == "dropped" and max(pages.values()) == self.last_dbtime:
            return Harmless.LAST
        return None

    def _why_bracket(self, log: int, index: int, record: bytes, how: str) -> Harmless | None:
        ends = record[0] in (_COMMIT_0, _COMMIT, _ROLLBACK)
        if how == "dropped" and ends and _process(record) not in self._sessions_behind(log, index):
            return Harmless.OPEN
        if self.image is not None:
            return Harmless.BEFORE_IMAGE
        if record[0] in (_BEGIN, _COMMIT) and self._commits(log, index, _process(record)):
            return Harmless.WITHIN
        return None

    def _why_in_any_order(self, log: int, index: int, one: bytes, other: bytes) -> Harmless | None:
        if one == other:
            return Harmless.EQUAL
        kinds = {one[0], other[0]}
        if kinds == {_ROLLBACK, _UNDO}:
            return Harmless.WITHIN
        if kinds & _SAYS_NOTHING:
            return Harmless.SAYS_NOTHING
        # A macro takes effect where it ends: where it begins matters to its own records only.
        first, second = (self._pages(record) if record[0] != _MACRO_BEGIN else {} for record in (one, other))
        if _UNDO_INFO in kinds:
            return Harmless.NOT_NEEDED
        if first and second and {_MACRO_BEGIN, _MACRO_COMMIT}.isdisjoint(kinds):
            together = self._macros.get((_process(one), max(first.values())), [])
            if one in together and other in together:
                return Harmless.TOGETHER
        if not first.keys() & second.keys() and not self._order(one, other):
            return Harmless.APART
        lacking = self._lacking(first) | self._lacking(second)
        if self.image is not None and not lacking:
            return Harmless.IN_IMAGE if first or second else Harmless.BEFORE_IMAGE
        if self.image is not None and lacking <= self._given_up_behind(log, index):
            return Harmless.GIVEN_UP
        return None

    def _order(self, one: bytes, other: bytes) -> bool:
        """Whether one of two records begins or ends a transaction or macro that the other belongs to."""
        return self._orders(one, other) or self._orders(other, one)

    def _orders(self, one: bytes, other: bytes) -> bool:
        if one[0] in (_MACRO_BEGIN, _MACRO_COMMIT):
            macro = self._macros.get((_process(one), int.from_bytes(one[3:11], "little")), [])
            return other in macro or one[1:] == other[1:]
        if one[0] in _BRACKETS:
            taken_back = len(other) > _FLAGS_AT and (other[_FLAGS_AT] & _VERSIONED or other[0] == _UNDO)
            return bool(taken_back or other[0] in _BRACKETS) and _process(one) == _process(other)
        return one[0] in _DATABASE_MARKS and bool(changes_of(other, self.dbid) or other[0] in _DATABASE_MARKS)

    def _pages(self, record: bytes) -> dict[int, int]:
        """The pages that a record changes, or its macro if it begins or ends one, with their dbtime afterwards."""
        if record[0] in (_MACRO_BEGIN, _MACRO_COMMIT):
            dbtime = int.from_bytes(record[3:11], "little")
            parts = self._macros.get((_process(record), dbtime), [])
            return {page: time for part in parts for page, time in changes_of(part, self.dbid)}
        return dict(changes_of(record, self.dbid))

    def _lacking(self, pages: dict[int, int]) -> set[int]:
        image = self.image or {}
        return {page for page, dbtime in pages.items() if image.get(page, 0) < dbtime}

    def _behind(self, log: int, index: int) -> list[bytes]:
        return [*self.generations[log][index + 1 :], *(one for some in self.generations[log + 1 :] for one in some)]

    def _given_up_behind(self, log: int, index: int) -> set[int]:
        return {page for record in self._behind(log, index) for page in _gives_up(record)}

    def _commits(self, log: int, index: int, process: int) -> bool:
        """Whether the transaction of a session commits without taking a level back."""
        ends = (one[0] for one in self._behind(log, index) if one[0] in _BRACKETS and _process(one) == process)
        return next((kind for kind in ends if kind in (_COMMIT_0, _ROLLBACK)), 0) == _COMMIT_0

    def _sessions_behind(self, log: int, index: int) -> set[int]:
        return {_process(record) for record in self._behind(log, index) if record[0] in _BRACKETS}


def _process(record: bytes) -> int:
    return int.from_bytes(record[1:3], "little")


def _makes_anew(record: bytes) -> set[int]:
    """Pages that a record makes without regard to what they held."""
    kind = record[0]
    places: tuple[int, ...] = ()
    if kind in SPLITS:
        places = (32,)
    elif kind in _NEW_TREES:
        places = (4, 36, 40) if kind == 24 else (4,)
    elif kind in _CONVERSIONS:
        places = (36, 40)
    return {int.from_bytes(record[place : place + 4], "little") for place in places}


def _gives_up(record: bytes) -> set[int]:
    """Pages that a record gives up, or makes anew whatever they held."""
    if record[0] in MERGES:
        merge = Merge.of(record)
        return {merge.head.page} if merge.flags & _EMPTIES else set()
    return _makes_anew(record)
