"""Macros: records that take effect together, when the last of them is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from perdure.ese.editing import EditablePage
from perdure.ese.replay.errors import Contradiction
from perdure.ese.replay.heads import VERSIONED, NodeHead, node_head, page_head
from perdure.ese.replay.merges import MERGES, Merge, redo_merges
from perdure.ese.replay.moves import PAGE_MOVE, PageMove, redo_page_move, redo_root_move
from perdure.ese.replay.nodes import EXTERNAL_HEADER, NODE_RECORDS, NodeRecords, header_content
from perdure.ese.replay.spaces import CONVERT, CONVERT_2, convert_tree, with_space_header
from perdure.ese.replay.splits import SPLITS, OperationOfSplit, Split, redo_splits
from perdure.ese.replay.target import ReplayTarget
from perdure.ese.replay.transactions import Session

__all__ = ["Macro", "MacroRedo"]

_ROOT_MOVE = 96
_OPERATIONS = (29, 31, 33, 34)
"""Types of the changes that a split makes room for."""


@dataclass(slots=True)
class Macro:
    """Records waiting for the end of their macro.

    Args:
        dbtime: Of all changes that it makes.
        whole: Whether its beginning is in the logs at hand.
        records: Type and bytes of each.
    """

    dbtime: int
    whole: bool = True
    records: list[bytes] = field(default_factory=list)


@dataclass(slots=True)
class _Decisions:
    """Decides once for every page of a macro whether it still has to change, since its records share one dbtime."""

    target: ReplayTarget
    made: dict[int, bool] = field(default_factory=dict)

    def existing(self, number: int, before: int, after: int) -> EditablePage | None:
        decided = self.made.get(number)
        if decided is None:
            page = self.target.existing(number, before, after)
            self.made[number] = page is not None
            return page
        return self.target.cache.page(number) if decided else None


@dataclass(slots=True)
class MacroRedo:
    """Lets one macro take effect.

    Args:
        target: The database.
        nodes: Applies records about nodes.
        session_of: Gives the session of a record about a node, by its head and type.
    """

    target: ReplayTarget
    nodes: NodeRecords
    session_of: Callable[[NodeHead, int], Session | None]
    decisions: _Decisions = field(init=False)

    def __post_init__(self) -> None:
        self.decisions = _Decisions(self.target)

    def redo(self, macro: Macro) -> None:
        """Let it take effect.

        Raises:
            Contradiction: A page is not as a record expects it, or the records do not belong together.
        """
        if len(set(macro.records)) < len(macro.records):
            raise Contradiction("a macro holds the same record twice")
        kinds = {record[0] for record in macro.records}
        if not macro.whole:
            _check_done(self.target, macro)
        elif kinds & set(SPLITS):
            self._splits(macro.records)
        elif kinds & set(MERGES):
            self._merges(macro.records)
        elif _ROOT_MOVE in kinds:
            self._root_move(macro.records)
        else:
            for record in macro.records:
                self._single(record)

    def _splits(self, records: Sequence[bytes]) -> None:
        splits = [Split.of(record) for record in records if record[0] in SPLITS]
        operation, others = _operation_of(splits[-1], [record for record in records if record[0] not in SPLITS])
        session = self.session_of(operation.head, operation.record[0]) if operation is not None else None
        replaced = redo_splits(self.target, splits, operation, self.decisions.existing)
        if operation is not None and session is not None and operation.head.flags & VERSIONED:
            self.nodes.remember_operation(operation.head, session, operation.record, replaced)
        self._beside(others, {number for split in splits for number in (split.head.page, split.new, split.right)})

    def _merges(self, records: Sequence[bytes]) -> None:
        merges = [Merge.of(record) for record in records if record[0] in MERGES]
        redo_merges(self.target, merges, self.decisions.existing)
        others = [record for record in records if record[0] not in MERGES]
        self._beside(others, {number for merge in merges for number in (merge.head.page, merge.left, merge.right)})

    def _root_move(self, records: Sequence[bytes]) -> None:
        moves = [PageMove.of(record) for record in records if record[0] == PAGE_MOVE]
        redo_root_move(self.target, moves, self.decisions.existing)
        for record in records:
            if record[0] == EXTERNAL_HEADER:
                # A tree below gets its parent's new number: only its space header is logged.
                head = node_head(record, 0)
                page = self.decisions.existing(head.page, head.before, head.dbtime)
                if page is not None:
                    header = header_content(record, 0)
                    page.external_header = with_space_header(page.external_header, header, page.number)
                    self.target.changed(page, head.dbtime)
            elif record[0] not in (_ROOT_MOVE, PAGE_MOVE):
                self._single(record)

    def _beside(self, records: Sequence[bytes], touched: set[int]) -> None:
        """What a macro holds besides a split or merge; on a page of it, nobody could tell in which order."""
        for record in records:
            number = page_head(record, 0).page
            if number in touched:
                raise Contradiction("a macro changes it besides splitting or merging it", number)
            self._single(record)

    def _single(self, record: bytes) -> None:
        kind = record[0]
        if kind in NODE_RECORDS:
            head = node_head(record, 0)
            self.nodes.apply(head, self.session_of(head, kind), record, 0, self.decisions.existing)
        elif kind in (CONVERT, CONVERT_2):
            convert_tree(self.target, page_head(record, 0), record, 0, self.decisions.existing)
        elif kind == PAGE_MOVE:
            redo_page_move(self.target, PageMove.of(record), self.decisions.existing)
        else:
            raise Contradiction(f"a record of type {kind} cannot be part of a macro")


def _operation_of(leaf: Split, records: Sequence[bytes]) -> tuple[OperationOfSplit | None, list[bytes]]:
    """The change that a split makes room for, and the other records of the macro."""
    if leaf.of_leaf and leaf.operation:
        able = [index for index, record in enumerate(records) if record[0] in _OPERATIONS]
        halves = (leaf.head.page, leaf.new)
        named = [index for index in able if page_head(records[index], 0).page in halves]
        if named or len(able) == 1:
            index = (named or able)[0]
            operation = OperationOfSplit(node_head(records[index], 0), records[index])
            return operation, [*records[:index], *records[index + 1 :]]
    return None, list(records)


def _check_done(target: ReplayTarget, macro: Macro) -> None:
    """A macro whose beginning lies before the logs must be on all of its pages, or those were given up since."""
    for number in {number for record in macro.records for number in _pages_of(record)}:
        page = target.cache.page(number)
        if page.dbtime < macro.dbtime and number not in target.pending:
            target.lacks(
                number,
                f"it is of dbtime {page.dbtime:#x} and lacks the change at {macro.dbtime:#x}, which began in a log "
                "before those at hand",
            )


def _pages_of(record: bytes) -> list[int]:
    """The pages that a record of a macro changes."""
    if record[0] == _ROOT_MOVE:
        return []
    pages = [page_head(record, 0).page]
    if record[0] in SPLITS:
        split = Split.of(record)
        pages += [split.new, split.right]
    elif record[0] in MERGES:
        merge = Merge.of(record)
        pages += [merge.left, merge.right]
    elif record[0] == PAGE_MOVE:
        move = PageMove.of(record)
        pages += [move.destination, move.left, move.right, move.parent]
    return [page for page in pages if page]
