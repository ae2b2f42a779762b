"""Whether logs continue each other, and whether they are the logs that a database or a checkpoint needs.

The rules are those by which the engine recovers: contiguous generations of one stream, each naming the moment at which
the one before was made and, in newer formats, the checksum of all of its segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from perdure.ese.findings import Finding, Severity
from perdure.ese.headers.checkpoint import CheckpointHeader
from perdure.ese.headers.database import DatabaseHeader, DatabaseState
from perdure.ese.logs.files import Log
from perdure.ese.structures import LogTime, Signature

__all__ = ["Chain", "check_checkpoint", "check_database", "join_logs"]


@dataclass(frozen=True, slots=True)
class Chain:
    """The logs of one stream, in order.

    Args:
        signature: Identity of the stream; unset if no header of any log could be read.
        logs: Those that belong to it, by generation; one a generation.
        findings: What keeps them from being one unbroken chain.
    """

    signature: Signature
    logs: tuple[Log, ...]
    findings: tuple[Finding, ...]

    def log(self, generation: int) -> Log | None:
        """The log of a generation."""
        return next((log for log in self.logs if log.generation == generation), None)

    def last_from(self, generation: int) -> int:
        """The last generation that can be replayed if recovery starts with this one; one less than it if none can.

        Replay passes from a log to the next only if every record of it is known and the next one joins it.
        """
        before: Log | None = None
        for log in self.logs:
            wanted = generation if before is None else (before.generation or 0) + 1
            if log.generation != wanted:
                continue
            if log.header is None or (before is not None and not _joins(before, log)):
                break
            before = log
            if not log.readable:
                break
        return generation - 1 if before is None else before.generation or 0


def join_logs(logs: Sequence[Log], signature: Signature | None = None) -> Chain:
    """Put the logs of a stream in order and check that each continues the one before.

    Args:
        logs: In any order. The log that is being written, which has no number in its name, counts by its header.
        signature: The stream that they should belong to, for example because a database names it. Without it the
            stream of the newest log counts.
    """
    findings: list[Finding] = []
    known = sorted((log for log in logs if log.generation is not None), key=lambda log: log.generation or 0)
    whose = signature or next((log.header.signature for log in reversed(known) if log.header), Signature(bytes(28)))
    own: list[Log] = []
    for log in known:
        if log.header is not None and log.header.signature != whose:
            findings.append(_foreign(log, whose))
        elif own and own[-1].generation == log.generation:
            findings.append(_duplicate(log, own[-1]))
        else:
            own.append(log)
    for before, after in pairwise(own):
        findings += _between(before, after)
    findings += _about_circular_logging(own)
    return Chain(whose, tuple(own), tuple(findings))


def check_database(header: DatabaseHeader, file: str, chain: Chain | None, *, logs_expected: bool) -> list[Finding]:
    """Whether a database is in order, and whether a chain holds the logs that it needs.

    Args:
        header: The database's header.
        file: Its name.
        chain: The logs of its stream, ``None`` if there are none.
        logs_expected: Whether logs that are missing are damage; else they are only noted.
    """
    findings = list(_about_state(header, file))
    required, committed = header.required_generations, header.committed_generations
    if not required:
        return findings
    missing = Severity.DAMAGE if logs_expected else Severity.NOTE
    last = required.start - 1 if chain is None else chain.last_from(required.start)
    if last < required.stop - 1:
        findings.append(
            Finding(
                code="ese-required-log-missing",
                file=file,
                place="header",
                what=f"{header.state_text}: it needs logs {_generations(required)}, and "
                f"{_held(required.start, last)}; without all of them it cannot be used",
                severity=missing,
            )
        )
    elif committed and last < committed.stop - 1:
        findings.append(
            Finding(
                code="ese-committed-log-missing",
                file=file,
                place="header",
                what=f"logs {_generations(committed)} hold committed transactions, and "
                f"{_held(required.start, last)}; without them it can be made consistent only by losing those",
                severity=missing,
            )
        )
    if chain is not None:
        findings += _about_times(header, file, chain)
    return findings


def check_checkpoint(header: CheckpointHeader, file: str, chain: Chain | None) -> list[Finding]:
    """Whether a checkpoint belongs to a chain and points into it. It only saves recovery time, so nothing is lost."""
    if chain is None or not chain.logs:
        return []
    if header.signature != chain.signature:
        return [
            Finding(
                code="ese-checkpoint-foreign",
                file=file,
                place="header",
                what=f"it belongs to stream {header.signature}, and the logs beside it to {chain.signature}; "
                "remove it before recovery",
            )
        ]
    if chain.log(header.checkpoint.generation) is None:
        return [
            Finding(
                code="ese-checkpoint-outside",
                file=file,
                place="header",
                what=f"it points to log {header.checkpoint.generation:X}, which is not here",
                severity=Severity.NOTE,
            )
        ]
    return []


def _between(before: Log, after: Log) -> Iterator[Finding]:
    first, second = before.generation or 0, after.generation or 0
    if second > first + 1:
        gap = range(first + 1, second)
        yield Finding(
            code="ese-log-missing",
            file=after.file,
            place=f"generation {_generations(gap)}",
            what=f"log {_generations(gap)} is missing before it: recovery ends with generation {first:X}",
        )
        return
    if before.header is None or after.header is None:
        return
    if after.header.previous_created != before.header.created:
        yield _unlinked(
            after,
            f"it was made after a log of {after.header.previous_created or 'no time'}, and generation {first:X} here "
            f"is of {before.header.created}: one of them is from another recovery of the stream",
            code="ese-log-time-mismatch",
        )
    if not _checksums_match(before, after):
        yield _unlinked(
            after,
            f"it repeats another checksum of all segments of generation {first:X} than they have: "
            "that log was changed, or lacks its end",
            code="ese-log-segments-mismatch",
        )
    geometry = [(log.header.sector_size, log.header.page_size) for log in (before, after) if log.header]
    if geometry[0] != geometry[1]:
        yield _unlinked(after, "it has another sector or page size than the log before", code="ese-log-geometry")
    if after.header.version < before.header.version:
        yield Finding(
            code="ese-log-version-fell",
            file=after.file,
            place="header",
            what=f"its format {after.header.format_text} is older than {before.header.format_text} of the log before",
            severity=Severity.NOTE,
        )


def _unlinked(log: Log, what: str, *, code: str) -> Finding:
    return Finding(code, log.file, f"generation {log.generation or 0:X}", f"{what}; recovery ends before it")


def _joins(before: Log, after: Log) -> bool:
    """Whether the engine would go on from one log to the next."""
    if before.header is None or after.header is None:
        return False
    return after.header.previous_created == before.header.created and _checksums_match(before, after)


def _checksums_match(before: Log, after: Log) -> bool:
    """Whether the newer log repeats the checksum of the older one's segments; true if it cannot be told."""
    if before.segments is None or not before.segments.whole or after.header is None:
        return True
    if not after.header.holds_previous_segments or not after.header.previous_segments:
        return True
    return after.header.previous_segments == before.segments.checksums


def _about_circular_logging(logs: Sequence[Log]) -> Iterator[Finding]:
    circular = [log for log in logs if log.header is not None and log.header.circular_now]
    if circular:
        yield Finding(
            code="ese-circular-logging",
            file=circular[-1].file,
            place="header",
            what="circular logging is on: the engine deletes logs by itself, so they cannot be backed up one by one",
            severity=Severity.NOTE,
        )


def _foreign(log: Log, signature: Signature) -> Finding:
    assert log.header is not None
    return Finding(
        code="ese-log-foreign",
        file=log.file,
        place=f"generation {log.header.generation:X}",
        what=f"it belongs to stream {log.header.signature}, not to {signature}: it cannot be replayed with the others",
    )


def _duplicate(log: Log, other: Log) -> Finding:
    return Finding(
        code="ese-log-duplicate",
        file=log.file,
        place=f"generation {log.generation or 0:X}",
        what=f"{other.file} is the same generation: recovery can use only one of them",
    )


def _about_state(header: DatabaseHeader, file: str) -> Iterator[Finding]:
    usable = (DatabaseState.CLEAN_SHUTDOWN, DatabaseState.DIRTY_SHUTDOWN, DatabaseState.DIRTY_AND_PATCHED)
    if header.state not in usable:
        yield Finding(
            code="ese-database-state",
            file=file,
            place="header",
            what=f"its state is {header.state_text}: what was done to it was not finished, and logs cannot recover it",
            severity=Severity.NOTE,
        )
    if header.repairs.count:
        yield Finding(
            code="ese-database-repaired",
            file=file,
            place="header",
            what=f"it was repaired by force {header.repairs.count} times (eseutil /p), last {header.repairs.time}: "
            "data may be lost, and logs from before do not belong to it",
            severity=Severity.NOTE,
        )


def _about_times(header: DatabaseHeader, file: str, chain: Chain) -> Iterator[Finding]:
    """The database notes when the newest logs that it needs were made: another log of the same number is not it."""
    newest = max(header.max_committed, header.max_required)
    noted = [(newest, header.max_required_log_time)]
    if header.newest_max_required_log_time:
        noted.append((header.max_required, header.newest_max_required_log_time))
    for generation, time in noted:
        log = chain.log(generation)
        if log is not None and log.header is not None and _differ(time, log.header.created):
            yield Finding(
                code="ese-log-time-mismatch",
                file=file,
                place="header",
                what=f"it needs the log {generation:X} of {time}, and {log.file} is of {log.header.created}: "
                "that log is from another recovery of the stream",
            )


def _differ(noted: LogTime, created: LogTime) -> bool:
    return bool(noted) and noted != created


def _held(start: int, last: int) -> str:
    if last < start:
        return "none of them is here in a usable chain"
    return f"only {_generations(range(start, last + 1))} can be replayed from what is here"


def _generations(some: range) -> str:
    first, last = some.start, some.stop - 1
    return f"{first:X}" if first == last else f"{first:X}-{last:X}"
