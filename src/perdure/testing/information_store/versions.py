"""Sessions, their transactions, and the versions that take a transaction's changes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from perdure.testing.information_store.log_records import (
    Actor,
    begin,
    begin_transaction,
    commit,
    commit_transaction,
    rollback,
)

__all__ = ["Session", "TransactionLog", "Version", "VersionedTree", "WriteConflict"]


class WriteConflict(Exception):
    """Another transaction has changed the row and not yet ended; the caller has to roll back."""


class VersionedTree(Protocol):
    """A tree as far as the end of a transaction concerns it."""

    def take_back(self, session: Session, version: Version) -> None:
        """Undo one change, and log that."""

    def release(self, session: Session, version: Version) -> None:
        """The change stands, or is taken back: nobody waits for it any more."""

    def clean_up(self, session: Session, bookmark: bytes) -> None:
        """Remove a node that is flagged as deleted, and merge its page if that is worthwhile."""


@dataclass(eq=False, slots=True)
class Version:
    """One change that can be taken back.

    Args:
        number: Unique in the log.
        tree: Where the change is.
        bookmark: What orders the node in its tree.
        key: Of the node.
        key_data: The node's data as far as it belongs to its bookmark.
        operation: What was done, see :class:`~perdure.testing.information_store.log_records.Operation`.
        level: Of the transaction.
        before: The data before a replace.
        after_size: Bytes of the data after a replace.
        change: What a delta added.
        offset: Where in the data.
        logged_before: Whether the log has the data before.
        page: The page that the change was made on: once that is written, redo cannot see the change any more.
    """

    number: int
    tree: VersionedTree
    bookmark: bytes
    key: bytes
    key_data: bytes
    operation: int
    level: int
    before: bytes = b""
    after_size: int = 0
    change: int = 0
    offset: int = 0
    logged_before: bool = False
    page: int = 0


class TransactionLog(Protocol):
    """What sessions need of the log and of each other."""

    def append(self, record: bytes) -> int:
        """Add a record and give its place."""

    def next_transaction(self) -> int:
        """A new transaction number."""


@dataclass(eq=False, repr=False)
class Session:
    """One session of the engine, with at most one transaction at a time, which may be nested.

    Args:
        process: Its number in the log.
        log: Where it logs.
        system: Whether it is the engine's own, for cleaning up.
    """

    process: int
    log: TransactionLog
    system: bool = False
    level: int = 0
    begun_at: int = 0
    """Place of the record with which the transaction began, 0 as long as it has changed nothing."""
    versions: list[Version] = field(default_factory=list)
    to_clean: list[Version] = field(default_factory=list)
    _transaction: int = 0
    _logged_level: int = 0
    _actor: Actor | None = None

    def continue_at(self, actor: Actor, begun_at: int) -> None:
        """Be in the transaction that a crash has cut off."""
        self.level = self._logged_level = actor.level
        self._transaction, self._actor, self.begun_at = actor.transaction, actor, begun_at

    def begin(self) -> None:
        """Go one level deeper. Nothing is logged before the first change."""
        self.level += 1
        self._actor = None

    @property
    def actor(self) -> Actor:
        """Who changes a page; logs the beginning of the transaction if that is still to be done."""
        if self._actor is None or self._logged_level < self.level:
            self._log_begin()
        assert self._actor is not None
        return self._actor

    def commit(self) -> int:
        """End the innermost level.

        Returns:
            Place of the record that makes a whole transaction durable, 0 if there is none.
        """
        assert self.level > 0, "no transaction is open"
        self.level -= 1
        self._actor = None
        if self._logged_level <= self.level:
            return 0
        self._logged_level = self.level
        if self.level:
            self.log.append(commit(self.process, self.level))
            for version in self.versions:
                version.level = min(version.level, self.level)
            return 0
        place = self.log.append(commit_transaction(self.process, self.log.next_transaction()))
        self._end()
        return place

    def roll_back(self) -> None:
        """Take back the innermost level."""
        assert self.level > 0, "no transaction is open"
        while self.versions and self.versions[-1].level >= self.level:
            version = self.versions.pop()
            version.tree.take_back(self, version)
            version.tree.release(self, version)
            self.to_clean.append(version)
        logged = self._logged_level >= self.level
        self.level -= 1
        self._actor = None
        if logged:
            self._logged_level = self.level
            self.log.append(rollback(self.process, 1))
        if not self.level:
            self._end()

    def _log_begin(self) -> None:
        assert self.level > 0, "a page changes outside of a transaction"
        if not self._logged_level:
            self._transaction = self.log.next_transaction()
            self._actor = Actor(self.process, self._transaction, 1)
            self.begun_at = self.log.append(begin_transaction(self._actor))
            self._logged_level = 1
        while self._logged_level < self.level:
            self.log.append(begin(self.process, self._logged_level))
            self._logged_level += 1
        self._actor = Actor(self.process, self._transaction, self.level)

    def _end(self) -> None:
        for version in self.versions:
            version.tree.release(self, version)
            self.to_clean.append(version)
        self.versions = []
        self.begun_at = 0

    def cleaned(self, visit: Callable[[Version], None]) -> None:
        """Hand over the versions of ended transactions."""
        waiting, self.to_clean = self.to_clean, []
        for version in waiting:
            visit(version)
