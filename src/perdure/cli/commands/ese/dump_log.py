"""``perdure ese dump-log``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.wording import count, size, table

if TYPE_CHECKING:
    from perdure.ese.changes import DatabaseChanges
    from perdure.ese.logs.files import Log
    from perdure.ese.logs.records import LogRecord

__all__ = ["dump_log"]


def dump_log(file: Path, /, *, records: bool = False, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Show what a transaction log holds: its records by type, and the pages that they change.

    It exits with status 7 if the log is damaged, after showing what can be read. Logs of version 7 (Exchange 2000 to
    2010) are checked, but their records are not decoded.

    For example:

        perdure ese dump-log E0000001A2B.log
        perdure ese dump-log E00.log --records

    Args:
        file: The log.
        records: Show every record with its fields. With --json each is a document on a line of its own.
    """
    from perdure.cli.commands.ese.documents import document, exit_status, finding_lines, readable
    from perdure.ese.findings import Severity
    from perdure.ese.logs.files import read_log

    with readable(file):
        log = read_log(file)
    if records and log.records is not None:
        for record in log.records:
            _show(record, common)
    changes = _changes(log)
    if common.json:
        print_json(
            {
                **_document(log),
                "changes": [_changes_document(each) for each in changes],
                "findings": document(log.findings),
            }
        )
    else:
        print_lines(_lines(log))
        print_lines(_changes_line(each) for each in changes)
        print_lines(finding_lines(log.findings))
    return exit_status(max((each.severity for each in log.findings), default=Severity.NOTE, key=list(Severity).index))


def _changes(log: Log) -> list[DatabaseChanges]:
    """Empty for a log that is not whole, since its changes are not all known."""
    from perdure.ese.changes import changed_pages

    return changed_pages([log]) if log.readable and log.records is not None else []


def _show(record: LogRecord, common: CommonOptions) -> None:
    from perdure.cli.commands.ese.documents import document, text
    from perdure.ese.logs.details import details

    found = details(record)
    if common.json:
        head = {"position": str(record.position), "type": record.name, "size": len(record.content)}
        print_json({**head, "fields": document(found)})
    else:
        said = "  ".join(f"{name}={text(value)}" for name, value in found.items())
        print_lines([f"{record.position!s:>14}  {record.name:26} {len(record.content):6}  {said}"])


def _types(log: Log) -> list[tuple[str, int, int]]:
    """Name, number and bytes of every type of record that the log holds."""
    from perdure.ese.logs.record_types import name_of

    assert log.records is not None
    numbers: Counter[int] = Counter()
    octets: Counter[int] = Counter()
    for kind, length in zip(log.records.types.tolist(), log.records.sizes.tolist(), strict=True):
        numbers[kind] += 1
        octets[kind] += length
    return [(name_of(kind), numbers[kind], octets[kind]) for kind in sorted(numbers)]


def _document(log: Log) -> dict[str, Any]:
    from perdure.cli.commands.ese.documents import document

    found: dict[str, Any] = {"file": log.file, "header": document(log.header)}
    if log.segments is not None and log.records is not None:
        found["segments"] = log.segments.count
        found["shadow"] = log.segments.has_shadow
        found["records"] = len(log.records)
        found["types"] = [{"type": name, "records": number, "bytes": octets} for name, number, octets in _types(log)]
    if log.sectors is not None:
        found["ranges"] = document(log.sectors.ranges)
    return found


def _changes_document(changes: DatabaseChanges) -> dict[str, Any]:
    from perdure.cli.commands.ese.documents import document

    return {
        "database": document(changes.signature),
        "dbid": changes.dbid,
        "path": changes.path,
        "created": changes.created,
        "last_page": changes.last_page,
        "pages": changes.pages.tolist(),
    }


def _lines(log: Log) -> Iterator[str]:
    header = log.header
    if header is None:
        yield f"{log.file}: not readable."
        return
    yield f"{log.file}: generation {header.generation:X}, format {header.format_text}, made {header.created}."
    if log.segments is not None and log.records is not None:
        shadow = ", the last one twice" if log.segments.has_shadow else ""
        yield f"{count(log.segments.count, 'segment')}{shadow}, {count(len(log.records), 'record')}."
        rows = [(name, f"{number:,}", size(octets)) for name, number, octets in _types(log)]
        if rows:
            yield from table(("RECORD", "NUMBER", "SIZE"), rows, right=(1, 2))
    if log.sectors is not None:
        yield f"{count(len(log.sectors.ranges), 'range')} checked; the records of version 7 logs are not decoded."


def _changes_line(changes: DatabaseChanges) -> str:
    name = changes.path or str(changes.signature) or f"database {changes.dbid}"
    made = "made, " if changes.created else ""
    return f"{name}: {made}{count(len(changes.pages), 'page')} changed."
