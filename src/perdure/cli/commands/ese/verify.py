"""``perdure ese verify``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.progress_bar import progress_bar
from perdure.cli.wording import count, size

if TYPE_CHECKING:
    from perdure.ese.folders import StreamReport, VerificationReport
    from perdure.ese.verification import DatabaseReport

__all__ = ["verify"]


def verify(path: Path, /, *more: Path, trees: bool = False, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Verify databases, logs and checkpoints, and that they belong together.

    It checks both headers and every page of databases, every segment and record of logs, and that logs continue each
    other without a gap and are those that the databases need. In a folder it looks at everything, also in the folders
    below. It exits with status 0 only if everything was verified, and with 7 if there is damage; it names the file, the
    page or segment, and the record.

    For example:

        perdure ese verify /restore/mailbox.edb
        perdure ese verify /restore
        perdure ese verify /restore/database /restore/logs --trees

    Args:
        path: A file or a folder.
        more: More of them; together they should hold databases and their logs.
        trees: Also walk every tree of every clean database and decode every row.
    """
    from perdure.cli.commands.ese.documents import document, exit_status, finding_lines, readable
    from perdure.ese.folders import verify_files

    paths = (path, *more)
    with readable(*paths), progress_bar(common) as report_progress:
        report = verify_files(
            paths, trees=trees, progress=lambda _file, done, total: report_progress("verifying", done, total)
        )
    if common.json:
        print_json(
            {
                "verdict": report.worst.value if report.findings else "sound",
                "findings": document(report.findings),
                "databases": [_database_document(database) for database in report.databases],
                "streams": document(report.streams),
                "others": [{"file": str(other), "what": what} for other, what in report.others],
            }
        )
    else:
        print_lines(_summary(report))
        print_lines(finding_lines(report.findings))
        print_lines([_verdict(report)])
    return exit_status(report.worst)


def _database_document(database: DatabaseReport) -> dict[str, object]:
    header = database.header
    return {
        "file": database.file,
        "format": header.format_text if header is not None else None,
        "state": header.state_text if header is not None else None,
        "page_size": header.page_size if header is not None else None,
        "pages": database.pages,
        "written": database.written,
        "old_checksums": database.old_checksums,
        "damaged": [finding.place for finding in database.findings if finding.code == "ese-page-damaged"],
    }


def _summary(report: VerificationReport) -> Iterator[str]:
    for database in report.databases:
        yield _about_database(database)
    for stream in report.streams:
        yield _about_stream(stream)
    for path, what in report.others:
        yield f"{path.name}: {what}."


def _about_database(database: DatabaseReport) -> str:
    if database.header is None:
        return f"{database.file}: not readable."
    old = f", {count(database.old_checksums, 'page')} with the old checksum" if database.old_checksums else ""
    pages = f"{count(database.pages, 'page')} of {size(database.header.page_size)}, {database.written:,} written{old}"
    return f"{database.file}: {database.header.state_text}, format {database.header.format_text}; {pages}."


def _about_stream(stream: StreamReport) -> str:
    if stream.generations is None:
        return f"{stream.base} logs: {count(stream.logs, 'file')}, none readable."
    first, last = stream.generations
    held = f"{count(stream.segments, 'segment')}, {count(stream.records, 'record')}"
    return f"{stream.base} logs {first:X}-{last:X}: {count(stream.logs, 'file')}, {size(stream.bytes)}, {held}."


def _verdict(report: VerificationReport) -> str:
    from perdure.ese.findings import Severity, damage_in

    if report.worst is Severity.DAMAGE:
        return f"DAMAGE in {count(len(damage_in(report.findings)), 'place')}."
    if report.worst is Severity.UNVERIFIED:
        return "No damage was found, but not everything was verified."
    if not report.databases and not report.streams and not report.others:
        return "There is nothing here to verify."
    return "Sound."
