"""What every log record does to the database under replay, to sessions, and to macros."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from perdure.ese.replay.errors import Contradiction, Incapable
from perdure.ese.replay.heads import CONCURRENT_INDEX, VERSIONED, NodeHead, node_head, page_head
from perdure.ese.replay.macros import Macro, MacroRedo
from perdure.ese.replay.merges import MERGES
from perdure.ese.replay.moves import PAGE_MOVE, PageMove, redo_page_move
from perdure.ese.replay.nodes import NODE_RECORDS, NodeRecords
from perdure.ese.replay.sizes import SizeRecords
from perdure.ese.replay.spaces import (
    CONVERT,
    CONVERT_2,
    convert_tree,
    create_multiple_extent_tree,
    create_single_extent_tree,
)
from perdure.ese.replay.splits import SPLITS
from perdure.ese.replay.target import ReplayTarget
from perdure.ese.replay.transactions import Session, Sessions
from perdure.ese.replay.undo import UndoRecords
from perdure.ese.structures import LogPosition

__all__ = ["Interpreter"]

_UNDO_INFO, _UNDO, _NEW_PAGE, _ROOT_MOVE = 36, 39, 95, 96
_MULTIPLE, _SINGLE = 24, 25
_BEGIN_0, _COMMIT_0 = 8, 9
_DISTRIBUTED = (53, 54, 55)
"""BeginDT, PrepCommit, PrepRollback."""

_DBTIME = struct.Struct("<HQ")
_NOTHING_TO_DO = frozenset(
    (0, 4, 19, 20, 21, 22, 23, 42, 45, 46, 57, 59, 60, 61, 66, 67, 69, 71, 72, 73, 74, 75, 79, *range(82, 92), 97)
)
"""Types that change no page, session or size: marks, padding, hints, and those that the engine may skip."""


@dataclass(slots=True)
class Interpreter:
    """Applies the records of one log stream to one database.

    Args:
        target: The database.
        sessions: All that are in a transaction.
        dbid: Number of the database in the records at hand, ``None`` while it is not attached.
        sizes: Applies records about the size of the file.
        position: Says where the record at work is.
    """

    target: ReplayTarget
    sessions: Sessions
    sizes: SizeRecords
    position: Callable[[], LogPosition]
    dbid: int | None = None
    macros: dict[tuple[int, int], Macro] = field(default_factory=dict)
    nodes: NodeRecords = field(init=False)
    undo: UndoRecords = field(init=False)
    handlers: list[Callable[[bytes, int, int], None]] = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = NodeRecords(self.target)
        self.undo = UndoRecords(self.target)
        self.handlers = [self._unknown] * 256
        for kind, handler in self._table().items():
            self.handlers[kind] = handler

    def _table(self) -> Mapping[int, Callable[[bytes, int, int], None]]:
        return {
            **dict.fromkeys(_NOTHING_TO_DO, self._nothing),
            **dict.fromkeys(NODE_RECORDS, self._node),
            _UNDO_INFO: self._undo_info,
            _UNDO: self._undo,
            **dict.fromkeys((5, _BEGIN_0), self._begin),
            **dict.fromkeys((6, _COMMIT_0), self._commit),
            7: self._roll_back,
            10: self._refresh,
            11: self._macro_begin,
            12: self._macro_commit,
            13: self._macro_abort,
            **dict.fromkeys((1, 49, 2, 18, 50, 52, 80), self._end_sessions),
            **dict.fromkeys((17, 51), self._nothing),
            **dict.fromkeys(_DISTRIBUTED, self._distributed),
            _MULTIPLE: self._create,
            _SINGLE: self._create,
            **dict.fromkeys((CONVERT, CONVERT_2, PAGE_MOVE), self._page),
            **dict.fromkeys((*SPLITS, *MERGES), self._part_of_macro),
            _ROOT_MOVE: self._root_move,
            _NEW_PAGE: self._new_page,
            **self.sizes.handlers(self._own),
        }

    def _own(self, dbid: int) -> bool:
        return dbid == self.dbid

    # ---- pages

    def _node(self, log: bytes, at: int, size: int) -> None:
        head = node_head(log, at)
        if head.dbid != self.dbid:
            return
        target = self.target
        target.reached(head.dbtime, head.objid)
        if self.macros and self._kept_for_macro(head.process, head.dbtime, log, at, size):
            return
        kind = log[at]
        NODE_RECORDS[kind](self.nodes, head, self._session_of(head, kind), log, at, target.existing)

    def _session_of(self, head: NodeHead, kind: int) -> Session | None:
        """The session of a record, ``None`` for one that no rollback takes back: whose it is does not matter then."""
        if not head.flags & VERSIONED and kind != _UNDO:
            return None
        session = self.sessions.get(head.process)
        if session is not None and len(session.levels) == head.level:
            return session
        if not head.level:
            raise Contradiction("a change that can be taken back is made outside of any transaction", head.page)
        exact = not head.flags & CONCURRENT_INDEX and kind not in (_UNDO, _UNDO_INFO)
        return self.sessions.at_level(head.process, head.level, exact=exact)

    def _undo_info(self, log: bytes, at: int, _size: int) -> None:
        head = node_head(log, at)
        if head.dbid == self.dbid:
            self.undo.information(head, self.sessions.get(head.process), log, at)

    def learn_undo(self, record: bytes) -> None:
        """Take from an UndoInfo record behind the end what takes a change before it back."""
        head = node_head(record, 0)
        session = self.sessions.get(head.process)
        if head.dbid == self.dbid:
            self.undo.information(head, session, record, 0)

    def _undo(self, log: bytes, at: int, _size: int) -> None:
        head = node_head(log, at)
        if head.dbid != self.dbid:
            return
        self.target.dbtime = max(self.target.dbtime, head.dbtime)
        session = self._session_of(head, _UNDO)
        self.undo.undo(head, session, log, at)

    def _page(self, log: bytes, at: int, size: int) -> None:
        head = page_head(log, at)
        if head.dbid != self.dbid:
            return
        self.target.dbtime = max(self.target.dbtime, head.dbtime)
        if self.macros and self._kept_for_macro(head.process, head.dbtime, log, at, size):
            return
        if log[at] == PAGE_MOVE:
            move = PageMove.of(log[at : at + size])
            if move.of_root:
                raise Contradiction("a root moves, and the other records of that are missing", head.page)
            redo_page_move(self.target, move, self.target.existing)
        else:
            convert_tree(self.target, head, log, at, self.target.existing)

    def _create(self, log: bytes, at: int, _size: int) -> None:
        head = page_head(log, at)
        if head.dbid != self.dbid:
            return
        self.target.dbtime = max(self.target.dbtime, head.dbtime)
        if log[at] == _MULTIPLE:
            create_multiple_extent_tree(self.target, head, log, at)
        else:
            create_single_extent_tree(self.target, head, log, at)

    def _new_page(self, log: bytes, at: int, _size: int) -> None:
        dbid, number, objid, dbtime = struct.unpack_from("<BIIQ", log, at + 3)
        if dbid == self.dbid:
            self.target.dbtime = max(self.target.dbtime, dbtime)
            self.target.fresh(number, dbtime, objid, 0)

    # ---- macros

    def _macro_begin(self, log: bytes, at: int, _size: int) -> None:
        key = _DBTIME.unpack_from(log, at + 1)
        if key in self.macros:
            raise Contradiction(f"session {key[0]:#x} begins a macro twice")
        self.macros[key] = Macro(key[1])

    def _macro_commit(self, log: bytes, at: int, _size: int) -> None:
        key = _DBTIME.unpack_from(log, at + 1)
        macro = self.macros.pop(key, None)
        if macro is None:
            if not self.target.may_be_newer:
                raise Contradiction(f"session {key[0]:#x} ends a macro that it did not begin")
            return
        MacroRedo(self.target, self.nodes, self._session_of).redo(macro)

    def _macro_abort(self, log: bytes, at: int, _size: int) -> None:
        self.macros.pop(_DBTIME.unpack_from(log, at + 1), None)

    def _part_of_macro(self, log: bytes, at: int, size: int) -> None:
        head = page_head(log, at)
        if head.dbid != self.dbid:
            return
        self.target.dbtime = max(self.target.dbtime, head.dbtime)
        if not self._kept_for_macro(head.process, head.dbtime, log, at, size):
            self._of_earlier_macro(head.process, head.dbtime, log[at : at + size])

    def _root_move(self, log: bytes, at: int, size: int) -> None:
        dbtime, dbid, _objid, process = struct.unpack_from("<QBIH", log, at + 1)
        if dbid != self.dbid:
            return
        self.target.dbtime = max(self.target.dbtime, dbtime)
        if not self._kept_for_macro(process, dbtime, log, at, size):
            self._of_earlier_macro(process, dbtime, log[at : at + size])

    def _kept_for_macro(self, process: int, dbtime: int, log: bytes, at: int, size: int) -> bool:
        macro = self.macros.get((process, dbtime))
        if macro is None:
            return False
        macro.records.append(log[at : at + size])
        return True

    def _of_earlier_macro(self, process: int, dbtime: int, record: bytes) -> None:
        """Part of a macro that began before the logs at hand: what it changes must be in the image."""
        if not self.target.may_be_newer:
            raise Contradiction("a split, merge or move stands outside of a macro", page_head(record, 0).page)
        self.macros[process, dbtime] = Macro(dbtime, whole=False, records=[record])

    # ---- transactions

    def _begin(self, log: bytes, at: int, _size: int) -> None:
        process, levels = struct.unpack_from("<HB", log, at + 1)
        level = 0 if log[at] == _BEGIN_0 else levels & 0xF
        self.sessions.begin(process, level, max(1, levels >> 4), self.position())

    def _commit(self, log: bytes, at: int, _size: int) -> None:
        process, level = struct.unpack_from("<HB", log, at + 1)
        session = self.sessions.get(process)
        if log[at] == _COMMIT_0:
            level = 0
        elif session is not None and level == session.level > 1:
            # The engine's source says that it states the level that it goes down to. No real log with nested
            # transactions was seen, and the level that it ends can mean nothing else.
            level -= 1
        self.sessions.commit(process, level)

    def _roll_back(self, log: bytes, at: int, _size: int) -> None:
        self.sessions.roll_back(*struct.unpack_from("<HB", log, at + 1))

    def _refresh(self, log: bytes, at: int, _size: int) -> None:
        (process,) = struct.unpack_from("<H", log, at + 1)
        self.sessions.refresh(process, self.position())

    def _end_sessions(self, _log: bytes, _at: int, _size: int) -> None:
        self.sessions.end_all()
        self.macros.clear()

    # ---- the rest

    def _nothing(self, _log: bytes, _at: int, _size: int) -> None:
        return

    def _distributed(self, _log: bytes, _at: int, _size: int) -> None:
        raise Incapable(
            "it is part of a transaction that several stores commit together: whether that was committed is known to "
            "their coordinator only"
        )

    def _unknown(self, _log: bytes, _at: int, _size: int) -> None:
        raise Incapable("what a record of this type does is not known")
