"""A replay from beginning to end: plan, redo, undo, clean header, verification."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from perdure.ese.database import HEADER_PAGES, Database
from perdure.ese.errors import EseDamaged
from perdure.ese.findings import Finding, Severity
from perdure.ese.folders import verify_files
from perdure.ese.headers.copies import chosen_copy
from perdure.ese.replay.clean_header import CleanHeader, blank_header, write_header
from perdure.ese.replay.copying import copy_image, new_file
from perdure.ese.replay.errors import ReplayInconsistent
from perdure.ese.replay.plans import ReplayPlan, plan_replay
from perdure.ese.replay.redo import OpenTransaction, Redo
from perdure.ese.replay.stops import END_OF_LOGS, StopAt
from perdure.ese.space import DATABASE_ROOT, space_of
from perdure.ese.structures import LogPosition, Signature

__all__ = ["DEFAULT_MEMORY", "ReplayReport", "replay"]

DEFAULT_MEMORY = 256 << 20
"""Bytes that pages under replay may take."""

Progress = Callable[[str, int, int], None]
"""Is called with what is done, the bytes done, and all bytes of that."""


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What a replay made.

    Args:
        output: The database.
        signature: Its identity.
        original: Where it lay when the logs were written, empty if they do not tell.
        from_nothing: Whether it was built from the log alone.
        generations: First and last log that was read, ``None`` if the image needed none.
        position: Up to where the log was replayed.
        time: When the segment at that position was begun, ``None`` if the log does not tell.
        records: Log records read.
        changed: Changes of pages made.
        skipped: Changes that the image held already.
        undone: Changes taken back because their transaction does not end before the position.
        open_transactions: The transactions that were rolled back.
        corrected: Pages of the image in which a flipped bit was corrected.
        pages: Pages of the database.
        dbtime: Its modification counter.
        shared: Whether the copy shares unchanged blocks with the image.
        findings: What verification of the result found, and what should be known about the logs.
    """

    output: Path
    signature: Signature
    original: str
    from_nothing: bool
    generations: tuple[int, int] | None
    position: LogPosition
    time: datetime | None
    records: int
    changed: int
    skipped: int
    undone: int
    open_transactions: tuple[OpenTransaction, ...]
    corrected: tuple[int, ...]
    pages: int
    dbtime: int
    shared: bool
    findings: tuple[Finding, ...]


def replay(
    logs: Sequence[Path],
    output: Path,
    *,
    database: Path | None = None,
    stop: StopAt = END_OF_LOGS,
    name: str = "",
    memory: int = DEFAULT_MEMORY,
    progress: Progress = lambda _what, _done, _total: None,
) -> ReplayReport:
    """Make a consistent database from an image and its logs, or from logs that begin with its creation.

    Nothing but ``output`` is written. Every change of the log is made where the image lacks it, in order, after it was
    checked that the page is just as it was before; then what unfinished transactions changed is taken back, and the
    header is brought to clean shutdown. At last the result is verified: every page, every tree, every row.

    Args:
        logs: The folder of the logs, or folders and log files.
        output: The new database; it must not exist.
        database: The image, clean or dirty. Without it the database must be made by the logs.
        stop: Where to end. It must not lie before what the image holds.
        name: Which database to build, by the end of its path, where the logs make several.
        memory: Bytes that pages may take, roughly.
        progress: Is told how far it is.

    Raises:
        ReplayInconsistent: Image and logs contradict each other; the message names record and page.
        ReplayImpossible: Logs are missing, damaged, or do not continue each other.
        ReplayUnsupported: A record changes pages in a way that is not known.
        ReplayRefused: ``output`` exists, or the position lies before what the image holds.
        PositionNotReached: The position lies behind the logs.
        NoSuchDatabase: The logs know nothing of the database, or do not make it.
    """
    plan = plan_replay(logs, database, stop)
    descriptor = new_file(output)
    try:
        shared = copy_image(database, descriptor) if database is not None else False
        redo = Redo(plan, descriptor, output.name, name=name, memory=memory)
        redo.run(lambda done, total: progress("replaying", done, total))
        redo.undo()
        _finish(plan, redo, descriptor)
    except BaseException:
        os.close(descriptor)
        output.unlink()
        raise
    os.close(descriptor)
    verified = verify_files(
        [output], trees=True, progress=lambda _file, done, total: progress("verifying", done, total)
    )
    reached = redo.reached()
    target = redo.interpreter.target
    return ReplayReport(
        output=output,
        signature=redo.signature,
        original=redo.original,
        from_nothing=plan.image is None,
        generations=redo.generations,
        position=reached.position,
        time=reached.time.moment,
        records=redo.records,
        changed=target.counters.changed,
        skipped=target.counters.skipped,
        undone=target.counters.undone,
        open_transactions=tuple(redo.open_transactions),
        corrected=tuple(sorted(target.cache.corrected)),
        pages=target.cache.page_count,
        dbtime=target.dbtime,
        shared=shared,
        findings=(*_remarks(redo, output.name), *verified.findings),
    )


def _remarks(redo: Redo, file: str) -> Iterator[Finding]:
    """What nothing contradicts, and what should be known all the same."""
    missing, first = redo.dbtimes.missing()
    if missing and redo.every_change_has_a_record:
        yield Finding(
            code="ese-replay-dbtime-gap",
            file=file,
            place="",
            what=f"{missing} numbers of the database's modification counter, the first of them {first:#x}, appear in "
            "no record. The engine gives up a number when a change fails; if none did, changes are missing",
            severity=Severity.NOTE,
        )
    for process, dbtime in redo.interpreter.macros:
        yield Finding(
            code="ese-replay-unfinished",
            file=file,
            place="",
            what=f"changes that session {process:#x} began to make together (dbtime {dbtime:#x}) do not end before the "
            "position, so none of them was made",
            severity=Severity.NOTE,
        )


def _finish(plan: ReplayPlan, redo: Redo, descriptor: int) -> None:
    """Write what is left, the header last: until then nobody takes the file for a whole database."""
    cache = redo.interpreter.target.cache
    cache.write()
    page_size = plan.page_size
    reached = redo.reached()
    header = CleanHeader(
        position=reached.position,
        time=reached.time,
        dbtime=redo.interpreter.target.dbtime,
        last_objid=redo.interpreter.target.last_objid,
        version=redo.interpreter.sizes.version,
    )
    if plan.image is None:
        base = blank_header(page_size, redo.signature, plan.stream.signature, redo.interpreter.dbid or redo.last_dbid)
    else:
        head = os.pread(descriptor, HEADER_PAGES * page_size, 0)
        chosen, _copies = chosen_copy(head[:page_size], head[page_size:])
        assert chosen is not None
        base = chosen
    os.fsync(descriptor)
    write_header(descriptor, header.applied_to(base))
    if plan.image is None:
        _extend_to_owned(descriptor, redo)


def _extend_to_owned(descriptor: int, redo: Redo) -> None:
    """A database built from nothing is as long as its own account of its space says."""
    objid, root = DATABASE_ROOT
    try:
        with Database(Path(f"/proc/self/fd/{descriptor}")) as database:
            owned = space_of(database, "the database", objid, root).owned
    except EseDamaged as error:
        raise ReplayInconsistent(
            f"the database that the logs make is not whole: {error.message}",
            code="ese-replay-inconsistent",
            hint="the stream must begin with CreateDB and hold all logs after it; name an image with --database",
        ) from error
    redo.interpreter.target.cache.extend(max((extent.last for extent in owned), default=0))
    os.fsync(descriptor)
