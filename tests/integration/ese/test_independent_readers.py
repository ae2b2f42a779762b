"""Real databases: everything verifies, and every value is what two independent readers see."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from perdure.ese.catalog import CATALOG_SHADOW, Table, read_catalog
from perdure.ese.columns import Column, ColumnFlag, ColumnType
from perdure.ese.database import Database
from perdure.ese.folders import verify_files
from perdure.ese.rows import rows_of
from perdure.testing.ese_samples import SAMPLES_MISSING, sample_files, unpacked

SAMPLES = sample_files()
LARGE = "large"
"""One sample has 65 thousand columns: the first rows of its catalogs are compared, or this would take minutes."""
FIRST = 1000
_NOT_GIVEN = object()
"""What libesedb has and its Python interface does not give: several values, and compressed binary ones."""

pytestmark = pytest.mark.skipif(not SAMPLES, reason=SAMPLES_MISSING)


def _parameters() -> list[object]:
    return [
        pytest.param(path, id=path.name.removesuffix(".edb.gz"), marks=[pytest.mark.slow] if LARGE in path.name else [])
        for path in SAMPLES
    ]


@pytest.fixture(params=_parameters())
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return unpacked(request.param, tmp_path)


@pytest.fixture
def small_sample(sample: Path) -> Path:
    if LARGE in sample.name:
        pytest.skip("libesedb does not read the large sample")
    return sample


def test_a_real_database_verifies(sample: Path) -> None:
    """Both headers and every page are sound."""
    report = verify_files([sample])

    assert report.findings == ()
    assert report.databases[0].written > 20
    assert report.databases[0].old_checksums == 0


def test_the_structure_of_a_real_database_is_sound(small_sample: Path) -> None:
    """Every tree is whole and in order, and catalog and shadow hold the same."""
    assert verify_files([small_sample], trees=True).findings == ()


def test_catalog_and_shadow_describe_the_same(sample: Path) -> None:
    """Both copies of the catalog give the same tables."""
    with Database(sample) as database:
        assert read_catalog(database) == read_catalog(database, CATALOG_SHADOW)


@pytest.mark.timeout(400)
def test_dissect_reads_the_same_values(sample: Path) -> None:
    """Every column of every row of every table is what dissect.database reads."""
    ese = pytest.importorskip("dissect.database.ese", reason="dissect.database is not installed")
    with sample.open("rb") as file, Database(sample) as database:
        theirs = ese.ESE(file)
        catalog = read_catalog(database)
        assert [table.name for table in theirs.tables()] == [table.name for table in catalog.tables]
        for other in theirs.tables():
            table = catalog.table(other.name)
            assert [column.name for column in other.columns] == [column.name for column in table.columns]
            most = FIRST if LARGE in sample.name else None
            ours = list(islice(rows_of(database, table), most))
            others = list(islice(other.records(), most))
            assert len(ours) == len(others)
            for row, record in zip(ours, others, strict=True):
                values = row.values()
                for column in _some(table.columns):
                    expected = _plain(record.get(column.name))
                    assert _as_dissect(column, values.get(column.name)) == expected, (table.name, column.name)


def _some(columns: tuple[Column, ...]) -> Iterator[Column]:
    """All columns, but of a table with thousands the first and last hundreds and every hundredth between."""
    last = len(columns) - 200
    return (column for at, column in enumerate(columns) if at < 4200 or at > last or at % 100 == 0)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value] if len(value) != 1 else _plain(value[0])
    return bytes(value) if isinstance(value, memoryview) else value


def _as_dissect(column: Column, value: Any) -> Any:
    """A value as dissect gives it: dates as their bits, text without closing NULs, GUIDs as text."""
    if isinstance(value, list):
        return [_as_dissect(column, item) for item in value]
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, str):
        return value.rstrip("\0")
    if column.type is ColumnType.DATETIME and value is not None:
        return struct.unpack("<q", struct.pack("<d", value))[0]
    return value


def test_libesedb_reads_the_same_values(small_sample: Path) -> None:
    """Every stored value of every row of every table is what libesedb reads."""
    pyesedb = pytest.importorskip("pyesedb", reason="libesedb-python is not installed")
    theirs = pyesedb.open(str(small_sample))
    compared = 0
    try:
        with Database(small_sample) as database:
            catalog = read_catalog(database)
            assert [theirs.get_table(at).name for at in range(theirs.number_of_tables)] == [
                table.name for table in catalog.tables
            ]
            for at, table in enumerate(catalog.tables):
                other = theirs.get_table(at)
                ours = list(rows_of(database, table))
                assert len(ours) == other.number_of_records
                for number, row in enumerate(ours):
                    compared += _compare_row(table, dict(row.values()), other.get_record(number))
    finally:
        theirs.close()
    assert compared > 500


def _compare_row(table: Table, values: dict[str, Any], record: Any) -> int:
    """Compare what libesedb has. It knows no defaults, and gives the unused bytes of fixed columns that are null."""
    compared = 0
    for at in range(record.number_of_values):
        column = table.columns[at]
        assert record.get_column_name(at) == column.name
        ours = values.get(column.name)
        stored = _libesedb(record, at)
        if stored is None:
            assert ours is None or column.default is not None or column.flags & ColumnFlag.MULTIVALUED
            continue
        if stored is _NOT_GIVEN or (ours is None and column.fixed):
            continue
        if isinstance(stored, str):
            # It reads compressed text as UTF-16 also where the column holds single bytes.
            stored = stored.encode("utf-16-le")
        as_stored = _as_bytes(column, ours)
        if isinstance(ours, str) and len(stored) % 2:
            as_stored = as_stored[: len(stored)]  # a column of an odd fixed size cuts its last character in half
        assert as_stored == stored, (table.name, column.name)
        compared += 1
    return compared


def _libesedb(record: Any, at: int) -> Any:
    flags = record.get_value_data_flags(at)
    several, separate, compressed = 0x08, 0x04, 0x02
    if flags & several:
        return _NOT_GIVEN
    if flags & separate:
        return record.get_value_data_as_long_value(at).get_data()
    if flags & compressed:
        return (
            _NOT_GIVEN if record.get_column_type(at) == ColumnType.LONG_BINARY else record.get_value_data_as_string(at)
        )
    return record.get_value_data(at)


_CODES = {
    ColumnType.UNSIGNED_BYTE: "<B",
    ColumnType.SHORT: "<h",
    ColumnType.LONG: "<i",
    ColumnType.CURRENCY: "<q",
    ColumnType.SINGLE: "<f",
    ColumnType.DOUBLE: "<d",
    ColumnType.DATETIME: "<d",
    ColumnType.UNSIGNED_LONG: "<I",
    ColumnType.LONG_LONG: "<q",
    ColumnType.UNSIGNED_SHORT: "<H",
}


def _as_bytes(column: Column, value: Any) -> Any:
    """A value as it is stored."""
    if isinstance(value, bool):
        return b"\xff" if value else b"\0"
    if column.type in _CODES:
        return struct.pack(_CODES[column.type], value)
    if isinstance(value, UUID):
        return value.bytes_le
    if isinstance(value, str):
        return value.encode("utf-16-le" if column.codepage == 1200 else "cp1252")
    return value
