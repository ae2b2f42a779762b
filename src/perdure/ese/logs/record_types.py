"""Every type of log record: its name, how its size follows from its fixed part, and whether real logs have shown it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

__all__ = ["FRAGMENT", "FRAGMENT_BEGIN", "NO_OPERATION", "RECORD_TYPES", "Head", "RecordType", "SizeTable", "name_of"]

NO_OPERATION, FRAGMENT_BEGIN, FRAGMENT = 0, 76, 77

PAGE_HEAD, NODE_HEAD = 32, 44
"""Bytes of the heads that records about a page, and about a node, begin with."""


class Head(Enum):
    """Which fields a record begins with."""

    NONE = "none"
    PAGE = "page"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class RecordType:
    """A type of log record.

    Its size is ``base``, plus the 16-bit numbers at ``words`` (offset and mask), plus the 32-bit numbers at ``longs``,
    plus 4 if bit 2 of the byte at ``version_flags`` is set.

    Args:
        number: The record's first byte.
        name: What it is called.
        base: Bytes of its fixed part.
        words: Where 16-bit lengths are, and the bits that count.
        longs: Where 32-bit lengths are.
        head: What it begins with.
        proven: Whether real logs were seen to hold it.
        version_flags: Where the flag is that says that a version follows, 0 for none.
    """

    number: int
    name: str
    base: int
    words: tuple[tuple[int, int], ...] = ()
    longs: tuple[int, ...] = ()
    head: Head = Head.NONE
    proven: bool = False
    version_flags: int = 0


def _plain(sizes: dict[int, tuple[str, int]], *, proven: tuple[int, ...] = ()) -> list[RecordType]:
    return [RecordType(number, name, size, proven=number in proven) for number, (name, size) in sizes.items()]


def _with_words(
    number: int, name: str, base: int, *words: int, head: Head = Head.NONE, proven: bool = False
) -> RecordType:
    return RecordType(number, name, base, tuple((offset, 0xFFFF) for offset in words), (), head, proven)


_SPLIT, _MERGE = 102, 88

_FIXED = _plain(
    {
        0: ("NOP", 1),
        1: ("Init", 568),
        2: ("Term", 18),
        3: ("MS", 9),
        4: ("End", 1),
        5: ("Begin", 4),
        6: ("Commit", 4),
        7: ("Rollback", 4),
        8: ("Begin0", 8),
        9: ("Commit0", 8),
        10: ("Refresh", 7),
        11: ("MacroBegin", 11),
        12: ("MacroCommit", 11),
        13: ("MacroAbort", 11),
        17: ("RecoveryUndo", 1),
        18: ("RecoveryQuit", 18),
        21: ("JetOp", 4),
        23: ("ShutDown", 1),
        49: ("Init2", 576),
        50: ("Term2", 26),
        51: ("RecoveryUndo2", 9),
        52: ("RecoveryQuit2", 26),
        53: ("BeginDT", 8),
        55: ("PrepRollback", 3),
        57: ("ForceWriteLog", 3),
        66: ("PagePatchRequest", 46),
        78: ("ShrinkDB", 10),
        79: ("CreateDBFinish", 4),
        80: ("RecoveryQuitKeepAttachments", 26),
        81: ("TrimDB", 10),
        92: ("SetDbVersion", 14),
        94: ("ShrinkDB2", 10),
        95: ("NewPage", 20),
        96: ("RootPageMove", 16),
        97: ("SignalAttachDb", 2),
        98: ("ScanCheck2", 27),
        99: ("ShrinkDB3", 18),
        100: ("ExtentFreed", 11),
        101: ("ExtentFreed2", 19),
    },
    proven=(0, 5, 6, 8, 9, 11, 12, 13, 49, 79),
)

_PAGE = [
    RecordType(24, "CreateMultipleExtentFDP", 56, head=Head.PAGE, proven=True),
    RecordType(25, "CreateSingleExtentFDP", 48, head=Head.PAGE, proven=True),
    RecordType(26, "ConvertFDP", 60, head=Head.PAGE),
    RecordType(58, "ConvertFDP2", 68, head=Head.PAGE, proven=True),
    _with_words(27, "Split", _SPLIT, 96, 98, 100, head=Head.PAGE),
    RecordType(62, "Split2", _SPLIT + 8, ((96, 0xFFFF), (98, 0xFFFF), (100, 0xFFFF)), (106,), Head.PAGE, proven=True),
    _with_words(28, "Merge", _MERGE, 86, head=Head.PAGE),
    RecordType(63, "Merge2", _MERGE + 8, ((86, 0xFFFF),), (92,), Head.PAGE, proven=True),
    RecordType(65, "PageMove", 96, (), (88, 92), Head.PAGE),
]

_NODE = [
    _with_words(29, "Insert", 50, 44, 46, 48, head=Head.NODE, proven=True),
    _with_words(30, "FlagInsert", 48, 44, 46, head=Head.NODE),
    _with_words(31, "FlagInsertAndReplaceData", 52, 44, 46, head=Head.NODE, proven=True),
    RecordType(32, "FlagDelete", 44, head=Head.NODE, proven=True),
    RecordType(33, "Replace", 50, ((44, 0x7FFF),), head=Head.NODE, proven=True),
    RecordType(34, "ReplaceD", 50, ((44, 0x7FFF),), head=Head.NODE, proven=True),
    RecordType(35, "Delete", 44, head=Head.NODE, proven=True),
    _with_words(36, "UndoInfo", 56, 44, 46, 54, head=Head.NODE),
    _with_words(37, "Delta", 54, 44, 46, head=Head.NODE),
    _with_words(38, "SetExternalHeader", 46, 44, head=Head.NODE, proven=True),
    _with_words(39, "Undo", 51, 44, 46, head=Head.NODE),
    _with_words(48, "EmptyTree", 46, 44, head=Head.NODE, proven=True),
    _with_words(64, "Scrub", 54, 52, head=Head.NODE),
    _with_words(93, "Delta64", 58, 44, 46, head=Head.NODE),
]

_OTHERS = [
    RecordType(14, "CreateDB", 43, ((40, 0xFFFF),), version_flags=42, proven=True),
    _with_words(15, "AttachDB", 75, 72, proven=True),
    _with_words(16, "DetachDB", 7, 4, proven=True),
    _with_words(19, "FullBackup", 3, 1),
    _with_words(20, "IncBackup", 3, 1),
    _with_words(22, "Trace", 5, 3),
    _with_words(45, "ExtRestore", 3, 1),
    _with_words(46, "Backup", 5, 3),
    RecordType(54, "PrepCommit", 7, longs=(3,)),
    _with_words(59, "ExtRestore2", 3, 1),
    _with_words(60, "Backup2", 35, 33),
    _with_words(61, "ForceLogRollover", 5, 3),
    _with_words(FRAGMENT_BEGIN, "FragmentBegin", 7, 5, proven=True),
    _with_words(FRAGMENT, "Fragment", 3, 1, proven=True),
]

_IGNORABLE_NAMES = {
    67: "MacroInfo",
    68: "ExtendDB",
    69: "CommitCtx",
    70: "ScanCheck",
    71: "NOP2",
    72: "ReAttach",
    73: "MacroInfo2",
    74: "FreeFDP",
}
# Old engines skip these by the length that they all state at the same place.
_IGNORABLE = [
    RecordType(number, _IGNORABLE_NAMES.get(number, f"Ignored{number}"), 5, longs=(1,), proven=number in (67, 68, 71))
    for number in (*range(67, 76), *range(82, 92))
]

RECORD_TYPES: dict[int, RecordType] = {
    kind.number: kind for kind in sorted([*_FIXED, *_PAGE, *_NODE, *_OTHERS, *_IGNORABLE], key=lambda kind: kind.number)
}
"""All types of records that version 8 logs can hold, by number."""


def name_of(number: int) -> str:
    """The name of a record type."""
    return RECORD_TYPES[number].name if number in RECORD_TYPES else f"type {number}"


class SizeTable:
    """Computes the sizes of many records at once.

    Args:
        content: The bytes that the records lie in, ``uint8[n]``, with 128 more bytes behind the last record.
    """

    MARGIN = 128
    """Bytes behind the last record that must be there, so that no length field lies outside."""

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self._types = content
        self._words = np.ndarray((len(content) - 1,), "<u2", content, strides=(1,))
        self._longs = np.ndarray((len(content) - 3,), "<u4", content, strides=(1,))

    def sizes(self, starts: NDArray[np.int64], types: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The size of the record at every start, 0 where the type is not known."""
        sizes = _BASE[types]
        rules = _RULES[types]
        varying = rules.nonzero()[0]
        if len(varying):
            some, kinds = starts[varying], types[varying]
            # Column by column: a table of three columns would be gathered, and summed over them, far slower.
            lengths = (self._words[some + _OFFSETS[0][kinds]] & _MASKS[0][kinds]).astype(np.int64)
            for column in range(1, _WORDS):
                lengths += self._words[some + _OFFSETS[column][kinds]] & _MASKS[column][kinds]
            sizes[varying] += lengths
            if rules.max() > _ONLY_WORDS:
                rare = np.flatnonzero(rules > _ONLY_WORDS)
                sizes[rare] += self._rare(starts[rare], types[rare])
        return sizes

    def _rare(self, starts: NDArray[np.int64], types: NDArray[np.uint8]) -> NDArray[np.int64]:
        more = np.zeros(len(starts), np.int64)
        for column in range(_LONGS):
            place = _LONG_RULES[types, column]
            more += np.where(place > 0, self._longs[starts + place].astype(np.int64), 0)
        flags = _VERSION_RULES[types]
        more += np.where((flags > 0) & (self._types[starts + flags] & 4 > 0), 4, 0)
        return more


_WORDS, _LONGS = 3, 2
_BASE = np.zeros(256, np.int64)
_OFFSETS = np.zeros((_WORDS, 256), np.int64)
_MASKS = np.zeros((_WORDS, 256), np.uint16)
_LONG_RULES = np.zeros((256, _LONGS), np.int64)
_VERSION_RULES = np.zeros(256, np.int64)
for _kind in RECORD_TYPES.values():
    _BASE[_kind.number] = _kind.base
    _VERSION_RULES[_kind.number] = _kind.version_flags
    for _column, (_offset, _mask) in enumerate(_kind.words):
        _OFFSETS[_column, _kind.number], _MASKS[_column, _kind.number] = _offset, _mask
    for _column, _offset in enumerate(_kind.longs):
        _LONG_RULES[_kind.number, _column] = _offset
_ONLY_WORDS = 1
_RARE = (_LONG_RULES > 0).any(axis=1) | (_VERSION_RULES > 0)
_RULES: NDArray[np.uint8] = np.where(_RARE, 2, (_MASKS > 0).any(axis=0)).astype(np.uint8)
"""0 where a size is fixed, 1 where only 16-bit lengths add to it, 2 otherwise."""
