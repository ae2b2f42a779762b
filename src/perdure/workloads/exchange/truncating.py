"""Reporting backups to the engine, which then deletes log by its own rules; and the ledger of what it did."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from perdure.ese.errors import EseDamaged, NotAnEseFile
from perdure.ese.structures import BackupMark
from perdure.model.truncation import TruncationEvent, TruncationLedger
from perdure.snapshots.writer import BackupKind, Blocker, BlockerKind, CompletedDatabase, WriterError
from perdure.workloads.exchange.backup_set import begin_backup
from perdure.workloads.exchange.choosing import copies_for_image, why_not_full
from perdure.workloads.exchange.copies import StoreCopy, Survey
from perdure.workloads.exchange.folders import read_header
from perdure.workloads.exchange.imaging import TakenImage
from perdure.workloads.exchange.options import SourceOptions
from perdure.workloads.exchange.times import time_ns
from perdure.workloads.exchange.tokens import StreamToken
from perdure.workloads.exchange.watching import circular_now

__all__ = ["Truncation"]

_RETRY_S = 60.0

_WHY = {
    BlockerKind.CHECKPOINT: "the checkpoint is at {generation:X}: the engine has not written all older changes to the "
    "database yet",
    BlockerKind.LAGGED_COPY: "the lagged copy on {who} has not replayed {generation:X} yet",
    BlockerKind.COPY_NOT_REPLAYED: "the copy on {who} has not replayed {generation:X} yet",
    BlockerKind.CIRCULAR_LOGGING: "circular logging is on: the engine deletes log by itself",
    BlockerKind.OTHER_DATABASE: "the database {who} on the same stream was backed up to {generation:X} only",
    BlockerKind.NO_FULL_BACKUP: "there was no full backup yet that truncates log",
}


class Truncation:
    """Keeps the ledger, and makes the incremental backups between images.

    Args:
        options: Of the source.
        clock: Nanoseconds since 1970 UTC.
    """

    def __init__(self, options: SourceOptions, clock: Callable[[], int]) -> None:
        self.ledger = TruncationLedger()
        self._options, self._clock = options, clock
        self._not_before = 0.0

    def durable(self, token: StreamToken) -> None:
        """The pool's log of the source reaches a place."""
        generation = token.generation if token.closed else token.generation - 1
        if generation > self.ledger.durable:
            self.ledger = replace(self.ledger, durable=generation)

    def image_is_durable(self, taken: TakenImage, token: StreamToken) -> None:
        """Report the backup of an image as complete, and note what the engine did."""
        self.durable(token)
        if taken.backup is None:
            self._note(BackupKind.COPY, None, ("the database was not in use: no backup was reported to any engine",))
            return
        try:
            done = taken.backup.complete()
        except WriterError as error:
            self._note(taken.backup.kind, None, (f"the writer did not take the backup as complete: {error.message}",))
            return
        why = why_not_full(taken.copy, self._options, self.ledger)
        self._completed(taken.backup.kind, done, taken.copy, why)

    def active_was(self, node: str) -> None:
        """Note where the active copy was at an image."""
        self.ledger = replace(self.ledger, node=node)

    def awaits(self, taken: TakenImage) -> None:
        """A backup will be reported as complete; should this process not live to hear the answer, the next one knows.

        The ledger is to be kept before that.
        """
        if taken.backup is not None and taken.backup.kind is BackupKind.FULL:
            self.ledger = replace(self.ledger, awaited=_moment(taken.snapshot))

    def look_at(self, found: Survey) -> None:
        """Note a full backup that another product made, or one of perdure's own whose answer was lost."""
        for copy in found.copies:
            mark = copy.header.previous_full_backup
            newer = bool(mark) and str(mark) != self.ledger.own_full and time_ns(mark.time) > self.ledger.own_full_ns
            if newer and self.ledger.awaited and self.ledger.awaited == _moment(mark):
                # What the engine truncated then is not known any more; it was durable.
                self._note(BackupKind.FULL, None, ())
                self._own(mark)
            elif newer and self.ledger.own_full:
                self.ledger = replace(self.ledger, foreign_full=str(mark))

    def _own(self, mark: BackupMark) -> None:
        self.ledger = replace(
            self.ledger, own_full=str(mark), own_full_ns=time_ns(mark.time), foreign_full="", awaited=""
        )

    def maintain(self, found: Survey, token: StreamToken, ship_all: Callable[[], StreamToken | None]) -> None:
        """Let the engine truncate between two images, when it is time: an incremental backup of what is shipped."""
        copy = self._copy_to_truncate(found, token)
        if copy is None:
            return
        self._not_before = time.monotonic() + _RETRY_S
        try:
            with begin_backup(copy.folder, copy.name, BackupKind.INCREMENTAL) as backup:
                backup.freeze()
                backup.thaw()
                # Everything that was complete at the freeze counts as backed up: it has to be durable first.
                shipped = ship_all()
                if shipped is None:
                    return
                self.durable(shipped)
                done = backup.complete()
        except WriterError as error:
            self._note(BackupKind.INCREMENTAL, None, (f"the writer refused an incremental backup: {error.message}",))
            return
        self._completed(BackupKind.INCREMENTAL, done, copy, "")

    def _copy_to_truncate(self, found: Survey, token: StreamToken) -> StoreCopy | None:
        every = self._options.truncate_every_s
        if every is None or not self.ledger.own_full or time.monotonic() < self._not_before:
            return None
        last = self.ledger.events[-1] if self.ledger.events else None
        if last is not None and 0 <= self._clock() - last.time_ns < every * 1e9:
            return None
        if last is not None and last.durable >= self.ledger.durable:
            return None
        copy = copies_for_image(found, self._options, token)[0]
        if copy.status is None or circular_now(copy) or why_not_full(copy, self._options, self.ledger):
            return None
        return copy

    def _completed(self, kind: BackupKind, done: CompletedDatabase, copy: StoreCopy, why: str) -> None:
        blockers = tuple(_sentence(blocker) for blocker in done.blockers)
        self._note(kind, done.truncated, ((why,) if why else ()) + blockers)
        if kind is BackupKind.FULL and done.stamped:
            mark = _full_mark(copy)
            if mark:
                self._own(mark)

    def _note(self, kind: BackupKind, truncated: tuple[int, int] | None, blockers: tuple[str, ...]) -> None:
        event = TruncationEvent(self._clock(), kind.value, self.ledger.durable, truncated, blockers)
        self.ledger = self.ledger.with_event(event)


def _sentence(blocker: Blocker) -> str:
    return _WHY[blocker.kind].format(generation=blocker.generation, who=blocker.who or "another node")


def _moment(mark: BackupMark) -> str:
    """When and where a backup was frozen: what its mark has in common with that of its snapshot."""
    return f"{mark.time} at {mark.position}" if mark else ""


def _full_mark(copy: StoreCopy) -> BackupMark | None:
    try:
        return read_header(copy.database).previous_full_backup
    except (EseDamaged, NotAnEseFile, OSError):
        return None
