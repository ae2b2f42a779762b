"""Taking changes back: as the log says it was done, and for transactions that the log does not see end."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from perdure.ese.editing import EditablePage
from perdure.ese.pages import NodeFlag
from perdure.ese.replay.errors import Contradiction
from perdure.ese.replay.heads import NODE_BODY, UNIQUE, NodeHead
from perdure.ese.replay.nodes import with_delta
from perdure.ese.replay.target import ReplayTarget
from perdure.ese.replay.transactions import Change, ChangeKind, Session

__all__ = ["UndoRecords", "roll_back"]

_DELETED = int(NodeFlag.DELETED)
_UNDO_FIELDS = struct.Struct("<HHHB")
_INFO_FIELDS = struct.Struct("<HHHhhH")
_DEEPEST = 32
_WIDTHS = {ChangeKind.DELTA: 4, ChangeKind.DELTA_64: 8}


@dataclass(slots=True)
class UndoRecords:
    """Applies Undo and UndoInfo records.

    Args:
        target: The database.
    """

    target: ReplayTarget

    def information(self, head: NodeHead, session: Session | None, log: bytes, at: int) -> None:
        """UndoInfo: the data before a change, logged because its page was to be written."""
        if session is None:
            return  # the transaction is over
        key_size, data_size, kind, _most, _delta, before_size = _INFO_FIELDS.unpack_from(log, at + NODE_BODY)
        if kind not in (ChangeKind.REPLACE, ChangeKind.FLAG_DELETE):
            raise Contradiction(f"it holds the data before a change of kind {kind}, which needs none", head.page)
        start = at + NODE_BODY + _INFO_FIELDS.size
        middle = start + key_size + data_size
        change = Change(
            ChangeKind(kind),
            head.version,
            head.root,
            bool(head.flags & UNIQUE),
            log[start : start + key_size],
            log[start + key_size : middle],
            before=log[middle : middle + before_size],
            excusable=True,
        )
        session.learn(change)

    def undo(self, head: NodeHead, session: Session | None, log: bytes, at: int) -> None:
        """Undo: a change was taken back while its transaction rolled back.

        Raises:
            Contradiction: The log does not hold what was taken back, or the page does not hold it.
        """
        key_size, _data_size, kind, _level = _UNDO_FIELDS.unpack_from(log, at + NODE_BODY)
        start = at + NODE_BODY + _UNDO_FIELDS.size
        key = log[start : start + key_size]
        change = session.find(head.version) if session is not None else None
        page = self.target.existing(head.page, head.before, head.dbtime)
        if page is not None:
            if change is None or change.kind != kind or change.key != key:
                raise Contradiction(
                    f"version {head.version:#x} is taken back there, and no unfinished change has that number",
                    head.page,
                )
            _take_back(page, head.line, change)
            self.target.changed(page, head.dbtime)
        if session is not None and change is not None:
            session.drop(change)


def roll_back(target: ReplayTarget, session: Session) -> int:
    """Take back everything that an unfinished transaction changed, the newest first.

    Returns:
        How many changes.

    Raises:
        Contradiction: Something that is needed for that is not in the logs.
    """
    begun = session.begun or "a position before the logs"
    if not session.whole and any(session.levels):
        raise Contradiction(
            f"session {session.process:#x} is in a transaction that began before the first log: "
            "what it changed there is not known, so it cannot be taken back"
        )
    unknown = next((change for change in session.newest_first() if change.kind is ChangeKind.UNKNOWN), None)
    if unknown is not None:
        raise Contradiction(
            f"the transaction begun at {begun} has to be taken back, and what was before its {unknown.key.decode()} "
            f"(version {unknown.version:#x}) is not in the log"
        )
    count = 0
    for change in session.newest_first():
        page, line = _find(target, change)
        _take_back(page, line, change)
        target.dbtime += 1
        target.changed(page, target.dbtime)
        count += 1
    session.levels.clear()
    return count


def _take_back(page: EditablePage, line: int, change: Change) -> None:
    node = page.node(line)
    if node.key != change.key or (change.data and not change.unique and node.data != change.data):
        raise Contradiction(
            f"line {line} holds the key {node.key.hex()}, and a change of {change.key.hex()} is taken back", page.number
        )
    if change.after is not None and node.data != change.after:
        raise Contradiction(
            f"the node on line {line} was changed by somebody else since its {change.kind.name.lower()} (version "
            f"{change.version:#x}), which is taken back: the end of its transaction is missing",
            page.number,
        )
    deleted = bool(node.flags & _DELETED)
    if deleted != (change.kind is ChangeKind.FLAG_DELETE):
        raise Contradiction(
            f"the node on line {line} is {'deleted' if deleted else 'there'}, "
            f"and its {change.kind.name.lower().replace('_', ' ')} (version {change.version:#x}) is taken back",
            page.number,
        )
    if change.kind is ChangeKind.INSERT:
        # The engine leaves the node and lets its cleanup remove it later.
        page.set_flags(line, _DELETED)
    elif change.kind is ChangeKind.FLAG_DELETE:
        page.set_flags(line, 0)
    elif change.kind is ChangeKind.REPLACE:
        page.replace(line, change.before)
    else:
        page.replace(line, with_delta(page, line, change.offset, _WIDTHS[change.kind], -change.delta))


def _find(target: ReplayTarget, change: Change) -> tuple[EditablePage, int]:
    """The node of a change, wherever splits and merges have moved it since."""
    sought = change.key if change.unique else change.key + change.data
    number = change.root
    for _ in range(_DEEPEST):
        page = _sound(target, number)
        if page.leaf:
            break
        line = page.find(sought)
        nodes = page.nodes
        if line < len(nodes) - 1 and nodes[line].key == sought:
            line += 1  # a separator is above every key to its left
        if line >= len(nodes):
            raise Contradiction(f"it has no pointer for the key {sought.hex()}", number)
        number = nodes[line].child
    else:
        raise Contradiction("the tree below it has no leaves", change.root)
    line = page.find(change.key)
    if not change.unique:
        while line < len(page) and page.nodes[line].key == change.key and page.nodes[line].data != change.data:
            line += 1
    if line >= len(page) or page.nodes[line].key != change.key:
        raise Contradiction(
            f"the key {change.key.hex()}, a change of which has to be taken back, is not in the tree", change.root
        )
    return page, line


def _sound(target: ReplayTarget, number: int) -> EditablePage:
    page = target.cache.page(number)
    if number in target.pending or not page.written:
        raise Contradiction("a change has to be taken back there, and the page was never written", number)
    return page
