"""``perdure ese tables``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.wording import table

if TYPE_CHECKING:
    from perdure.ese.catalog import Catalog, Table

__all__ = ["tables"]


def tables(file: Path, /, *, columns: bool = False, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """List the tables of a database.

    For example:

        perdure ese tables mailbox.edb
        perdure ese tables mailbox.edb --columns

    Args:
        file: The database, clean or dirty.
        columns: Also list the columns of every table.
    """
    from perdure.cli.commands.ese.documents import readable
    from perdure.cli.commands.ese.reading import closing_remarks, opening_remarks
    from perdure.ese.catalog import read_catalog
    from perdure.ese.database import Database

    with readable(file), Database(file) as database:
        opening_remarks(database)
        catalog = read_catalog(database)
        if common.json:
            print_json({"file": str(file), "tables": [_document(each, columns) for each in catalog.tables]})
        else:
            print_lines(_lines(catalog, columns=columns))
        return closing_remarks(database)


def _document(each: Table, columns: bool) -> dict[str, Any]:
    from perdure.cli.commands.ese.documents import document

    found = {
        "name": each.name,
        "object": each.objid,
        "root": each.root,
        "system": each.system,
        "template": each.template or None,
        "long_values": each.long_values[1] if each.long_values is not None else None,
        "indexes": [{**document(index), "primary": index.primary} for index in each.indexes],
        "columns": len(each.columns),
    }
    if columns:
        found["columns"] = [
            {
                "id": column.identifier,
                "name": column.name,
                "type": column.type.text,
                "size": column.size,
                "flags": column.flags,
                "codepage": column.codepage or None,
            }
            for column in each.columns
        ]
    return found


def _lines(catalog: Catalog, *, columns: bool) -> Iterator[str]:
    if not columns:
        overview = [
            (each.name, str(each.objid), str(each.root), str(len(each.columns)), str(len(each.indexes)))
            for each in catalog.tables
        ]
        yield from table(("TABLE", "OBJECT", "ROOT", "COLUMNS", "INDEXES"), overview, right=(1, 2, 3, 4))
        return
    for each in catalog.tables:
        yield f"{each.name}:"
        rows = [(f"  {one.name}", str(one.identifier), one.type.text, str(one.size or "")) for one in each.columns]
        yield from table(("  COLUMN", "ID", "TYPE", "SIZE"), rows, right=(1, 3))
        yield ""
