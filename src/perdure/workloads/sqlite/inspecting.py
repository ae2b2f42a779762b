"""Looking into a restored database: SQLite's own checks, its tables and their columns. Never touches the file."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import apsw

from perdure.model.errors import NotFound, SourceUnusable
from perdure.workloads.contract import RestoredItem, Verification
from perdure.workloads.sqlite.header import read_database_header

__all__ = ["list_columns", "list_tables", "verify_database"]


def verify_database(path: Path, *, thorough: bool) -> Verification:
    """Check the whole file: with ``thorough`` every index against its table too."""
    check = "integrity_check" if thorough else "quick_check"
    means = f"PRAGMA {check}"
    try:
        header = read_database_header(path, wal_required=False)
    except SourceUnusable as error:
        return Verification(passed=False, means=means, details=(error.message,))
    if header.pages * header.page_size != path.stat().st_size:
        stated = (
            f"its header states {header.pages} pages of {header.page_size}, the file has {path.stat().st_size} bytes"
        )
        return Verification(passed=False, means=means, details=(stated,))
    try:
        with _reading(path) as connection:
            found = tuple(str(row[0]) for row in connection.execute(f"PRAGMA {check}"))
    except apsw.Error as error:
        return Verification(passed=False, means=means, details=(str(error),))
    return Verification(passed=found == ("ok",), means=means, details=() if found == ("ok",) else found)


def list_tables(path: Path) -> list[RestoredItem]:
    """Every table and view with its number of rows in ``details``, tables with ``size`` rows."""
    items = []
    with _reading(path) as connection:
        query = "SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view') ORDER BY name"
        for name, kind in [(str(name), str(kind)) for name, kind in connection.execute(query).fetchall()]:
            if kind == "view":
                items.append(RestoredItem(name=name, kind="view", size=0))
                continue
            try:
                ((rows,),) = connection.execute(f"SELECT count(*) FROM {_quoted(name)}").fetchall()  # noqa: S608
            except apsw.SQLError as error:
                # A virtual table whose module is not here cannot be counted.
                items.append(RestoredItem(name=name, kind="table", size=0, details=str(error)))
                continue
            items.append(RestoredItem(name=name, kind="table", size=int(str(rows)), details=f"{rows} rows"))
    return items


def list_columns(path: Path, table: str) -> list[RestoredItem]:
    """The columns of a table.

    Raises:
        NotFound: There is no such table.
    """
    with _reading(path) as connection:
        rows = connection.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
    if not rows:
        raise NotFound(
            f"there is no table {table!r} in this recovery point",
            code="item-not-found",
            hint="browse without a table name lists them",
        )
    return [
        RestoredItem(
            name=str(name), kind="column", size=0, details=f"{kind or 'any type'}{', primary key' if key else ''}"
        )
        for _number, name, kind, _required, _default, key in rows
    ]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class _reading:  # noqa: N801 - reads as a word in a with statement
    """A connection that takes no locks and makes no files beside the database."""

    def __init__(self, path: Path) -> None:
        uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        self._connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)

    def __enter__(self) -> apsw.Connection:
        return self._connection

    def __exit__(self, *exc: object) -> None:
        self._connection.close()
