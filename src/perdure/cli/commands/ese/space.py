"""``perdure ese space``."""

from __future__ import annotations

from pathlib import Path

from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.wording import size, table

__all__ = ["space"]


def space(file: Path, /, *, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Show how many pages of a database each table and index owns, and how many of those it does not use.

    Pages that a table owns count for the database and for the table; an index inside a table counts for both too.

    For example:

        perdure ese space mailbox.edb

    Args:
        file: The database.
    """
    from perdure.cli.commands.ese.documents import document, readable
    from perdure.cli.commands.ese.reading import closing_remarks, opening_remarks
    from perdure.ese.catalog import read_catalog
    from perdure.ese.database import Database
    from perdure.ese.space import database_space

    with readable(file), Database(file) as database:
        opening_remarks(database)
        found = database_space(database, read_catalog(database))
        if common.json:
            trees = [
                {**document(each), "owned_pages": each.owned_pages, "available_pages": each.available_pages}
                for each in found
            ]
            print_json(
                {"file": str(file), "page_size": database.page_size, "pages": database.page_count, "trees": trees}
            )
        else:
            rows = [
                (
                    each.name,
                    str(each.objid),
                    str(each.root),
                    f"{each.owned_pages:,}",
                    f"{each.available_pages:,}",
                    size(each.owned_pages * database.page_size),
                )
                for each in found
            ]
            print_lines(table(("TREE", "OBJECT", "ROOT", "OWNED", "AVAILABLE", "SIZE"), rows, right=(1, 2, 3, 4, 5)))
        return closing_remarks(database)
