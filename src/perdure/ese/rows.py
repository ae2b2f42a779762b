"""Rows of a table, in the order of its primary key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from perdure.ese.catalog import Table
from perdure.ese.checksums import LARGE_PAGE
from perdure.ese.columns import Value
from perdure.ese.database import Database
from perdure.ese.errors import EseDamaged
from perdure.ese.long_values import LongValues
from perdure.ese.records import Record, RecordLayout
from perdure.ese.trees import Tree

__all__ = ["Row", "rows_of"]


class Row:
    """One row of a table.

    Args:
        file: The database's name, for messages.
        table: The table.
        key: Its primary key, as stored.
        record: What it holds.
    """

    __slots__ = ("_file", "key", "record", "table")

    def __init__(self, file: str, table: Table, key: bytes, record: Record) -> None:
        self._file = file
        self.table = table
        self.key = key
        self.record = record

    def __getitem__(self, name: str) -> Value:
        """What a column holds, ``None`` for null.

        Raises:
            TableNotFound: The table has no such column.
            EseDamaged: What the record holds does not suit the column.
        """
        try:
            return self.record.value(self.table.column(name))
        except ValueError as error:
            raise _damaged(self._file, self.table, self.key, f"column {name}: {error}") from None

    def values(self) -> Mapping[str, Value]:
        """All columns that are not null, by name.

        Raises:
            EseDamaged: What the record holds does not suit a column, or a long value is damaged.
        """
        try:
            return self.record.values()
        except ValueError as error:
            raise _damaged(self._file, self.table, self.key, str(error)) from None


def rows_of(database: Database, table: Table) -> Iterator[Row]:
    """Every row of a table that is not deleted.

    In a dirty database these are the rows as the pages show them: what is only in the log is not there yet, and rows of
    transactions that never committed may be there.

    Raises:
        EseDamaged: A page, a record or the tree is damaged.
    """
    large = database.page_size > LARGE_PAGE
    if table.long_values is None:
        layout = RecordLayout.without_long_values(table.columns, large_pages=large)
    else:
        objid, root = table.long_values
        layout = RecordLayout(table.columns, large, LongValues(Tree(database, root, objid)))
    for node in Tree(database, table.root, table.objid).nodes():
        try:
            record = Record(layout, node.data)
        except ValueError as error:
            raise _damaged(database.file, table, node.key, str(error)) from None
        yield Row(database.file, table, node.key, record)


def _damaged(file: str, table: Table, key: bytes, what: str) -> EseDamaged:
    return EseDamaged(
        f"{file}: table {table.name}: the record with key {key.hex()} is damaged: {what}",
        code="ese-record-damaged",
        hint="recover the database from a recovery point",
    )
