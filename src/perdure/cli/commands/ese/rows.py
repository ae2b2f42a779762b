"""``perdure ese rows``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.model.errors import BadInput

if TYPE_CHECKING:
    from perdure.ese.columns import Column, Value

__all__ = ["rows"]

_SHOWN = 200
"""Characters of a value that people are shown."""


def rows(file: Path, table: str, /, *, limit: int | None = None, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Show the rows of a table, without those columns of a row that are null.

    Nothing is written to the database, which may be clean or dirty. Of a dirty one this shows what its pages hold: what
    is only in its logs is missing.

    For example:

        perdure ese rows mailbox.edb Message
        perdure ese rows mailbox.edb Message --limit 10 --json

    Args:
        file: The database.
        table: Name of the table.
        limit: Stop after this many rows.
    """
    from perdure.cli.commands.ese.documents import document, readable
    from perdure.cli.commands.ese.reading import closing_remarks, opening_remarks
    from perdure.ese.catalog import read_catalog
    from perdure.ese.database import Database
    from perdure.ese.rows import rows_of

    if limit is not None and limit < 0:
        raise BadInput(
            f"a limit of {limit} rows makes no sense", code="bad-limit", hint="give a number of rows from 0 on"
        )
    with readable(file), Database(file) as database:
        opening_remarks(database)
        found = read_catalog(database).table(table)
        for row in islice(rows_of(database, found), limit):
            values = row.values()
            if common.json:
                print_json({"key": row.key.hex(), "values": document(values)})
            else:
                print_lines([f"{name}: {_shown(found.column(name), value)}" for name, value in values.items()])
                print_lines([""])
        return closing_remarks(database)


def _shown(column: Column, value: Value) -> str:
    from perdure.cli.commands.ese.documents import text
    from perdure.ese.columns import ColumnType, ole_moment

    said = text(value)
    if column.type is ColumnType.DATETIME and isinstance(value, float):
        moment = ole_moment(value)
        said += f" ({moment:%Y-%m-%d %H:%M:%S})" if moment is not None else ""
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}… ({len(said)} characters)"
