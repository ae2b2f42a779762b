"""Two readers of ESE databases that share no code with perdure: libesedb and dissect."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from perdure.ese.catalog import read_catalog
from perdure.ese.database import Database
from perdure.ese.trees import Tree
from perdure.testing.demo.failing import DemoFailed

__all__ = ["Read", "independent_readers"]


@dataclass(frozen=True, slots=True)
class Read:
    """What one reader read.

    Args:
        name: The reader and its version.
        tables: Tables with rows.
        rows: Their rows.
    """

    name: str
    tables: int
    rows: int


def independent_readers(database: Path, expected: Mapping[str, Mapping[str, object]]) -> list[Read]:
    """Count every table's rows with every reader that is installed, and compare with what should be there.

    Raises:
        DemoFailed: One of them sees something else, or none is installed.
    """
    counts = {table: len(rows) for table, rows in expected.items() if rows}
    found = [*_libesedb(database), *_dissect(database)]
    if not found:
        raise DemoFailed("neither libesedb-python nor dissect.database is installed: pip install 'perdure[dev]'")
    marked = _marked_deleted(database, counts)
    for name, seen in found:
        # dissect shows rows that are marked as deleted until the engine cleans them up; libesedb and perdure do not.
        more = marked if name.startswith("dissect") else {}
        ours = {table: seen.get(table, 0) - more.get(table, 0) for table in counts}
        if ours != counts:
            wrong = [f"{table}: {ours[table]}, not {count}" for table, count in counts.items() if ours[table] != count]
            raise DemoFailed(f"{name} reads other rows than the journal has: {'; '.join(wrong[:5])}")
    return [Read(name, len(counts), sum(counts.values())) for name, _ in found]


def _marked_deleted(path: Path, tables: Iterable[str]) -> dict[str, int]:
    with Database(path) as database:
        catalog = read_catalog(database)
        roots = {name: catalog.table(name).root for name in tables}
        return {
            name: sum(node.deleted for leaf in Tree(database, root).leaves() for node in leaf.nodes())
            for name, root in roots.items()
        }


def _libesedb(database: Path) -> list[tuple[str, dict[str, int]]]:
    try:
        pyesedb = importlib.import_module("pyesedb")
    except ImportError:
        return []
    file = pyesedb.file()
    file.open(str(database))
    try:
        counts = {table.name: _readable(table) for table in file.tables}
    finally:
        file.close()
    return [(f"libesedb {pyesedb.get_version()}", counts)]


def _readable(table: Any) -> int:
    """Rows of which every value could be read."""
    count = 0
    for record in table.records:
        for column in range(record.get_number_of_values()):
            if record.is_long_value(column):
                record.get_value_data_as_long_value(column).get_data()
            else:
                record.get_value_data(column)
        count += 1
    return count


def _dissect(database: Path) -> list[tuple[str, dict[str, int]]]:
    try:
        ese = importlib.import_module("dissect.database.ese")
    except ImportError:
        return []
    with database.open("rb") as file:
        counts = {table.name: sum(1 for _ in table.records()) for table in ese.ESE(file).tables()}
    return [(f"dissect.database {version('dissect.database')}", counts)]
