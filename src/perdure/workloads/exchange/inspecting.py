"""Looking at restored files: everything that can be verified without Exchange, and the tables that they hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from perdure.ese.catalog import Catalog, Table, read_catalog
from perdure.ese.database import Database
from perdure.ese.findings import damage_in
from perdure.ese.folders import verify_files
from perdure.ese.rows import Row, rows_of
from perdure.model.errors import NotFound
from perdure.workloads.contract import RestoredItem, Verification

__all__ = ["items_of", "verify_restored"]

_MOST_ROWS = 1000
_SHOWN, _SHOWN_COLUMNS = 60, 8
_MAILBOX_TABLES = ("mailbox", "mailboxes")
_MAILBOX_NAMES = ("displayname", "display_name", "ownerdisplayname", "mailboxname", "name")


def verify_restored(database: Path, *, thorough: bool) -> Verification:
    """Check the checksum of every page, every log, the chain, and that all logs are there that the database needs.

    Args:
        database: The restored ``.edb``; all in its folder and below is looked at.
        thorough: Also check the trees of a clean database.
    """
    report = verify_files([database.parent], trees=thorough)
    wrong = tuple(str(finding) for finding in damage_in(report.findings))
    pages = sum(found.pages for found in report.databases)
    logs = sum(stream.logs for stream in report.streams)
    means = f"checksums of {pages} pages and {logs} logs, the chain of the logs, and the logs that the database needs"
    return Verification(not wrong and bool(report.databases), means, wrong)


def items_of(path: Path, within: str) -> list[RestoredItem]:
    """The tables of a database, or the rows of one.

    Args:
        path: The ``.edb``.
        within: Name of a table, ``mailboxes`` for the mailboxes; empty: list the tables.

    Raises:
        NotFound: There is no such table.
    """
    with Database(path) as database:
        catalog = read_catalog(database)
        if not within:
            return [*_tables(catalog)]
        if within.lower() == "mailboxes":
            return [*_mailboxes(database, catalog)]
        table = next((one for one in catalog.tables if one.name.lower() == within.lower()), None)
        if table is None:
            raise NotFound(
                f"the database has no table {within!r}",
                code="table-not-found",
                hint="list them with: perdure browse NAME",
            )
        return [*_rows(database, table)]


def _tables(catalog: Catalog) -> Iterator[RestoredItem]:
    if _mailbox_table(catalog) is not None:
        yield RestoredItem("mailboxes", "mailboxes", 0, "list them with: perdure browse NAME mailboxes")
    for table in catalog.tables:
        kind = "system table" if table.system else "table"
        yield RestoredItem(table.name, kind, 0, f"{len(table.columns)} columns, {len(table.indexes)} indexes")


def _mailbox_table(catalog: Catalog) -> Table | None:
    return next((table for table in catalog.tables if table.name.lower() in _MAILBOX_TABLES), None)


def _mailboxes(database: Database, catalog: Catalog) -> Iterator[RestoredItem]:
    table = _mailbox_table(catalog)
    if table is None:
        raise NotFound(
            "the catalog of this database names no table of mailboxes",
            code="table-not-found",
            hint="list them with: perdure browse NAME",
        )
    names = [column.name for column in table.columns if column.name.lower() in _MAILBOX_NAMES]
    for number, row in enumerate(rows_of(database, table)):
        shown = next((str(row[name]) for name in names if row[name]), f"mailbox {number + 1}")
        yield RestoredItem(shown, "mailbox", 0, f"key {row.key.hex()}")


def _rows(database: Database, table: Table) -> Iterator[RestoredItem]:
    for number, row in enumerate(rows_of(database, table)):
        if number == _MOST_ROWS:
            yield RestoredItem("…", "row", 0, f"only the first {_MOST_ROWS} rows are shown; recover it to see all")
            return
        yield RestoredItem(row.key.hex(), "row", 0, _shown(row))


def _shown(row: Row) -> str:
    """The first columns of a row, cut short."""
    parts = []
    for name, value in list(row.values().items())[:_SHOWN_COLUMNS]:
        text = value.hex() if isinstance(value, bytes) else str(value)
        parts.append(f"{name}={text[:_SHOWN]}{'…' if len(text) > _SHOWN else ''}")
    return ", ".join(parts)
