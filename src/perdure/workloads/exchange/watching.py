"""What happened to a database while it was followed: what breaks its log, and what an administrator should know."""

from __future__ import annotations

from collections.abc import Iterator

from perdure.ese.headers.log import LogHeader
from perdure.ese.structures import Signature
from perdure.model.truncation import TruncationLedger
from perdure.snapshots.writer import CopyRole, DatabaseState
from perdure.workloads.exchange.copies import StoreCopy, Survey
from perdure.workloads.exchange.options import SourceOptions
from perdure.workloads.exchange.shipping import Break
from perdure.workloads.exchange.tokens import StreamToken

__all__ = ["circular_now", "things_to_know", "why_broken"]


def why_broken(found: Survey, token: StreamToken) -> Break | None:
    """Why the log of a database does not lead on from a place; ``None`` if it does, as far as headers tell."""
    active = found.active
    if active is None:
        return None
    return _other_database(active, token) or _other_log(active, found, token)


def circular_now(copy: StoreCopy) -> bool:
    """Whether the engine deletes log of this copy by itself."""
    header = copy.logs.current_header() if copy.logs is not None else None
    said = copy.status is not None and copy.status.circular_logging
    return said or (header is not None and header.circular_now)


def things_to_know(found: Survey, options: SourceOptions, ledger: TruncationLedger) -> Iterator[str]:
    """What needs a person, a sentence each."""
    yield from found.problems
    active = found.active
    if active is None:
        nodes = ", ".join(copy.node for copy in found.copies)
        yield f"no copy is active (there are copies on {nodes}): log is shipped as far as a passive copy has it"
        return
    yield from _about_state(active)
    if ledger.node and active.node != ledger.node:
        yield (
            f"the active copy is on {active.node} now and was on {ledger.node} at the last express full (failover); "
            "the log stream continues, so nothing has to be done"
        )
    if circular_now(active):
        yield (
            "circular logging is on, so there are recovery points at express fulls only; switch it off "
            "(Set-MailboxDatabase -CircularLoggingEnabled $false, then remount) to recover any point in time"
        )
    yield from _about_neighbours(found, active)
    yield from _about_copies(found, options)
    header = active.logs.current_header() if active.logs is not None else None
    if header is not None and header.reserve_used:
        yield "the log disk ran full: the engine used its reserve logs; free some space there before it dismounts"
    if ledger.foreign_full:
        yield (
            f"another product made a full backup ({ledger.foreign_full}): two products must not both truncate log, so "
            "perdure makes copy backups until 'perdure exchange truncation NAME --take-over'"
        )


def _other_database(active: StoreCopy, token: StreamToken) -> Break | None:
    header = active.header
    if header.signature != Signature(token.database):
        return Break(
            f"{active.database} is another database now ({header.signature}) than the one that is protected "
            f"({Signature(token.database)})",
            code="database-replaced",
        )
    if header.repairs.count + header.repairs.before > token.repairs:
        return Break(
            f"{active.database} was repaired by force (eseutil /p, {header.repairs.count} times, last "
            f"{header.repairs.time}): its pages were changed outside of the log, and data may be lost",
            code="database-repaired",
        )
    if header.log_signature != Signature(token.stream):
        return Break(
            f"the log stream of {active.database} was reset: it is {header.log_signature or 'none'} now and was "
            f"{Signature(token.stream)}; its generations begin anew",
            code="stream-reset",
        )
    return None


def _other_log(active: StoreCopy, found: Survey, token: StreamToken) -> Break | None:
    if circular_now(active):
        if token.images_only:
            return None
        return Break(
            f"circular logging was switched on for {active.name!r}: the engine deletes log by itself, so only express "
            "fulls make recovery points from here on; switch it off (Set-MailboxDatabase -CircularLoggingEnabled "
            "$false, then remount) to recover any point in time",
            code="circular-logging",
        )
    wanted = token.next_generation
    holders = [copy.logs for copy in found.for_log() if copy.logs is not None]
    if any(logs.holds(wanted) for logs in holders):
        return None
    current = _newest_current(found)
    if current is None:
        # The engine is just renaming it: there is no current log for an instant, and then the next one.
        newest = max((max(logs.generations(), default=0) for logs in holders), default=0)
        arrived = any(logs.holds(wanted) for logs in holders)
        return None if newest < wanted or arrived else _missing(active, wanted, newest)
    if current.signature != Signature(token.stream):
        return Break(
            f"the log that is being written belongs to another stream ({current.signature}) than the database",
            code="log-foreign",
        )
    if current.generation > wanted:
        # It may have been completed between the two looks.
        arrived = any(logs.holds(wanted) for logs in holders)
        return None if arrived else _missing(active, wanted, current.generation)
    if current.generation == wanted:
        same = current.previous_created if token.closed else current.created
        return None if same.raw == token.created else _diverged(wanted, token)
    return _diverged(wanted, token)


def _newest_current(found: Survey) -> LogHeader | None:
    """The header of the log that the active copy writes; passive copies may hold one from when they were active."""
    active = found.active
    return active.logs.current_header() if active is not None and active.logs is not None else None


def _missing(active: StoreCopy, wanted: int, newest: int) -> Break:
    name = active.logs.closed(wanted).name if active.logs is not None else f"{wanted:X}"
    return Break(
        f"log {name} is missing on every node, and the stream is at {newest:X}: it was deleted before it was shipped, "
        "by another backup product, by circular logging or by hand",
        code="log-missing",
    )


def _diverged(wanted: int, token: StreamToken) -> Break:
    return Break(
        f"the log stream went on from another log {token.generation:X} than the pool has, at {wanted:X}: a failover "
        "lost the end of the log, and what the pool has of it is not part of the database any more",
        code="log-diverged",
    )


def _about_state(active: StoreCopy) -> Iterator[str]:
    if active.status is None:
        if not active.header.clean:
            yield (
                f"no writer answers in {active.folder} and the database is in {active.header.state_text}: its log is "
                "shipped, but no image can be taken and no log truncated"
            )
        return
    if active.status.state is DatabaseState.DISMOUNTED:
        yield f"the database is dismounted ({active.header.state_text}): there is no new log until it is mounted"
    elif active.status.state is DatabaseState.FAILED:
        yield "the database has failed: mount it, or recover it with 'perdure recover'"


def _about_neighbours(found: Survey, active: StoreCopy) -> Iterator[str]:
    for other in found.others:
        assert other.header is not None
        if other.header.log_signature == active.header.log_signature and other.path != active.database:
            yield (
                f"the database {other.path} writes to the same log stream and is not part of this source; protect it "
                "as well, since log is truncated only when every database of the stream was backed up"
            )


def _about_copies(found: Survey, options: SourceOptions) -> Iterator[str]:
    for copy in found.copies:
        if copy.status is not None and copy.role is not CopyRole.ACTIVE and copy.status.state is DatabaseState.FAILED:
            yield f"the copy on {copy.node} has failed; reseed it (Update-MailboxDatabaseCopy)"
    nodes = {copy.node for copy in found.copies}
    if options.full_copy and options.full_copy not in nodes:
        yield (
            f"the copy on {options.full_copy}, whose backups truncate log, is not there: log stays until it is back, "
            "or the source is protected with another --full-copy"
        )
