"""Which copy an image is taken from, and what that backup is to the engine."""

from __future__ import annotations

from perdure.model.errors import ImageFailed
from perdure.model.truncation import TruncationLedger
from perdure.snapshots.writer import BackupKind, CopyRole, DatabaseState
from perdure.workloads.exchange.copies import StoreCopy, Survey
from perdure.workloads.exchange.options import SourceOptions
from perdure.workloads.exchange.tokens import StreamToken

__all__ = ["backup_kind", "copies_for_image", "why_not_full"]


def copies_for_image(found: Survey, options: SourceOptions, token: StreamToken | None) -> list[StoreCopy]:
    """The copies that an image may be taken from, the best first.

    The copy whose backups are full comes first, since only they truncate log; then passive copies, which burden nobody;
    then the active one; lagged ones last, as they are old.

    Args:
        found: All copies.
        options: Of the source.
        token: Where the pool's log ends, ``None`` if there is none.

    Raises:
        ImageFailed: There is none.
    """
    usable = [copy for copy in found.copies if copy.status is None or copy.status.state is not DatabaseState.FAILED]
    if token is not None:
        usable = [copy for copy in usable if copy.header.signature.raw == token.database]
    if not usable:
        raise ImageFailed(
            f"no copy of {found.copies[0].name!r} is in a state in which an image can be taken: "
            + "; ".join(f"{copy.node}: {copy.state_text}" for copy in found.copies),
            code="no-healthy-copy",
            hint="mount the database, or reseed a copy; the recovery points that there are stay",
        )
    order = {CopyRole.PASSIVE: 1, CopyRole.ACTIVE: 2, CopyRole.LAGGED: 3}
    return sorted(usable, key=lambda copy: 0 if copy.node == options.full_copy else order[copy.role])


def why_not_full(copy: StoreCopy, options: SourceOptions, ledger: TruncationLedger) -> str:
    """Why a backup of a copy must not let the engine truncate log; empty if it may."""
    if options.never_truncate:
        return "perdure was told never to truncate (--truncate-every never)"
    if options.full_copy and copy.node != options.full_copy:
        return f"only backups on {options.full_copy} truncate log, and this one was on {copy.node}"
    mark = str(copy.header.previous_full_backup)
    if ledger.foreign_full and ledger.foreign_full == mark:
        return f"another product made a full backup ({mark}); only one product may truncate log"
    return ""


def backup_kind(copy: StoreCopy, options: SourceOptions, ledger: TruncationLedger) -> BackupKind:
    """Exactly one copy's backups are full, all others are copies."""
    return BackupKind.COPY if why_not_full(copy, options, ledger) else BackupKind.FULL
