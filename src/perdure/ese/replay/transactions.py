"""Sessions and their transactions: what of an unfinished one has to be taken back, and how the log says it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from perdure.ese.replay.errors import Contradiction
from perdure.ese.structures import LogPosition

__all__ = ["Change", "ChangeKind", "Session", "Sessions"]


class ChangeKind(IntEnum):
    """What a change did, and so what takes it back; the numbers are those of Undo and UndoInfo records.

    UNKNOWN stands for a change that a page held already: what takes it back must still come in an UndoInfo record.
    """

    INSERT = 1
    REPLACE = 2
    FLAG_DELETE = 3
    DELTA = 4
    DELTA_64 = 9
    UNKNOWN = 0


class Change(NamedTuple):
    """A change of a node that its transaction may take back (RCE).

    Args:
        kind: What it did.
        version: Number by which Undo and UndoInfo records name it.
        root: Root page of the tree.
        unique: Whether the tree's keys are unique; in others the node's data count too.
        key: The node's key.
        data: The node's data in trees whose keys are not unique.
        before: The data before a replace.
        offset: Where in the data a delta was added.
        delta: What was added.
        excusable: Whether a rollback may leave no trace of it in the log.
        after: The data that it left, ``None`` if they are not known. Nobody else may have changed them since.
    """

    kind: ChangeKind
    version: int
    root: int
    unique: bool
    key: bytes
    data: bytes = b""
    before: bytes = b""
    offset: int = 0
    delta: int = 0
    excusable: bool = False
    after: bytes | None = None


@dataclass(slots=True)
class Session:
    """One session of the engine.

    Args:
        process: Its number.
        whole: Whether the log at hand holds the beginning of its transaction.
        begun: Where its transaction began, ``None`` if that lies before the logs.
        levels: For every level of its nested transactions its changes, oldest first. Empty outside of transactions.
    """

    process: int
    whole: bool = True
    begun: LogPosition | None = None
    levels: list[list[Change]] = field(default_factory=list)

    @property
    def level(self) -> int:
        """How deep it is in transactions."""
        return len(self.levels)

    def remember(self, level: int, change: Change) -> None:
        """Keep a change until its transaction ends."""
        levels = self.levels
        levels[level - 1 if level < len(levels) else -1].append(change)

    def lacks(self, level: int, version: int, record: str) -> None:
        """A change must be taken back if the transaction fails, and how is not known yet."""
        self.remember(level, Change(ChangeKind.UNKNOWN, version, 0, True, record.encode(), excusable=True))

    def learn(self, change: Change) -> None:
        """What takes a change back is known now; it keeps its place among the others."""
        for changes in reversed(self.levels):
            for index in range(len(changes) - 1, -1, -1):
                if changes[index].version == change.version:
                    if changes[index].kind is ChangeKind.UNKNOWN:
                        changes[index] = change
                    return

    def find(self, version: int) -> Change | None:
        """An unfinished change by its number, the newest first."""
        for changes in reversed(self.levels):
            for change in reversed(changes):
                if change.version == version:
                    return change
        return None

    def drop(self, change: Change) -> None:
        """A change was taken back."""
        for changes in reversed(self.levels):
            for index in range(len(changes) - 1, -1, -1):
                if changes[index] is change:
                    del changes[index]
                    return

    def newest_first(self) -> Iterator[Change]:
        """All unfinished changes in the order in which they are taken back."""
        for changes in reversed(self.levels):
            yield from reversed(changes)

    def commit_to(self, level: int) -> None:
        """Transactions above a level end well: their changes belong to the one around them."""
        while len(self.levels) > level:
            changes = self.levels.pop()
            if self.levels:
                self.levels[-1] += changes

    def roll_back(self, count: int) -> None:
        """The innermost transactions were taken back; every change of theirs was undone by a record of its own.

        Raises:
            Contradiction: One was not.
        """
        if count > len(self.levels) and self.whole:
            raise Contradiction(f"it rolls back {count} levels of a transaction that has {len(self.levels)}")
        for _ in range(min(count, len(self.levels))):
            left = [change for change in self.levels.pop() if not change.excusable]
            if left:
                raise Contradiction(
                    f"the transaction begun at {self.begun or 'a position before the logs'} is rolled back, and "
                    f"{len(left)} of its changes were never undone, the first of them version {left[0].version:#x} in "
                    f"the tree with root page {left[0].root}: records between are missing"
                )


class Sessions:
    """All sessions that are in a transaction.

    Args:
        may_begin_before: Whether transactions can have begun before the first log: then a session can be met in the
            middle of one.
    """

    def __init__(self, *, may_begin_before: bool) -> None:
        self._open: dict[int, Session] = {}
        self._may_begin_before = may_begin_before

    def __iter__(self) -> Iterator[Session]:
        return iter(sorted(self._open.values(), key=lambda session: session.process))

    def get(self, process: int) -> Session | None:
        """A session if it is in a transaction."""
        return self._open.get(process)

    def at_level(self, process: int, level: int, *, exact: bool) -> Session:
        """The session of a record that was written at a level.

        Args:
            process: Its number.
            level: How deep in transactions the record says it is.
            exact: Whether it must be just so deep, not deeper.

        Raises:
            Contradiction: Its transactions, as the log told so far, are not so deep.
        """
        session = self._open.get(process)
        if session is not None and len(session.levels) == level:
            return session
        if session is None or (session.level < level and not session.whole):
            if not self._may_begin_before:
                raise Contradiction(f"session {process:#x} changes a page at level {level}, and began no transaction")
            session = session or self._open.setdefault(process, Session(process, whole=False))
            session.levels += [[] for _ in range(level - session.level)]
        elif level > session.level or (exact and session.level > level and session.whole):
            raise Contradiction(
                f"session {process:#x} is at level {session.level} of its transaction begun at {session.begun}, "
                f"and the record is of level {level}: the beginning or end of a transaction is missing"
            )
        return session

    def begin(self, process: int, level: int, count: int, where: LogPosition | None) -> None:
        """A transaction begins at a level, with so many levels.

        Raises:
            Contradiction: The session is at another level.
        """
        session = self._open.get(process)
        if session is None:
            if level and not self._may_begin_before:
                raise Contradiction(f"session {process:#x} goes on from level {level}, and began no transaction")
            session = Session(process, whole=level == 0, begun=where if level == 0 else None)
            session.levels = [[] for _ in range(level)]
            self._open[process] = session
        elif session.level != level and (session.whole or level == 0):
            raise Contradiction(
                f"session {process:#x} begins a transaction at level {level}, and is at level {session.level} of one "
                f"begun at {session.begun or 'a position before the logs'}: its end is missing"
            )
        session.levels += [[] for _ in range(level + count - session.level)]

    def commit(self, process: int, level: int) -> None:
        """A session commits down to a level, 0 for all of its transaction.

        Raises:
            Contradiction: It is in no transaction, or not so deep.
        """
        session = self._open.get(process)
        if session is None:
            if not self._may_begin_before:
                raise Contradiction(f"session {process:#x} commits, and began no transaction")
            return
        if session.level <= level and session.whole:
            raise Contradiction(f"session {process:#x} commits to level {level}, and is at level {session.level}")
        if level == 0:
            del self._open[process]
        else:
            session.commit_to(level)

    def roll_back(self, process: int, count: int) -> None:
        """A session rolls back so many levels.

        Raises:
            Contradiction: Changes of theirs were not undone before.
        """
        session = self._open.get(process)
        if session is None:
            if not self._may_begin_before:
                raise Contradiction(f"session {process:#x} rolls back, and began no transaction")
            return
        session.roll_back(count)
        if not session.level or (not session.whole and count >= session.level):
            del self._open[process]

    def refresh(self, process: int, where: LogPosition | None) -> None:
        """A read transaction begins anew at level 1."""
        session = self._open.setdefault(process, Session(process, begun=where))
        if session.level == 0:
            session.levels.append([])

    def forget_changes(self) -> None:
        """Nothing that was changed until here has to be taken back."""
        for session in self._open.values():
            session.levels = [[] for _ in session.levels]

    def end_all(self) -> None:
        """The engine starts or stops: every transaction is over.

        Raises:
            Contradiction: One has changes that were never undone.
        """
        for session in list(self._open.values()):
            session.roll_back(session.level)
        self._open.clear()
        self._may_begin_before = False
