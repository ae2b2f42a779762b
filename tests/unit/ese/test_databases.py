"""Databases with pages of every size: what is written comes back, and damage is never taken for data."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.ese.catalog import CATALOG_SHADOW, read_catalog
from perdure.ese.checksums import LARGE_PAGE
from perdure.ese.columns import Column, ColumnFlag, ColumnType, Undecoded, ole_moment
from perdure.ese.compression import Incompressible, decompressed
from perdure.ese.database import Database
from perdure.ese.errors import EseDamaged, NotAnEseFile, TableNotFound
from perdure.ese.repair import sealed_page
from perdure.ese.rows import rows_of
from perdure.ese.space import database_space
from perdure.ese.structure import verify_structure
from perdure.ese.verification import verify_database
from perdure.model.errors import PerdureError
from perdure.testing.ese_databases import TableContent, database_bytes, record_bytes

SIZES = (4096, 8192, 16384, 32768)
TAGGED, LONG, MANY = 256, 257, 258
COLUMNS = (
    Column(1, "number", ColumnType.LONG, 4, offset=4),
    Column(2, "yes", ColumnType.BIT, 1, offset=8),
    Column(3, "real", ColumnType.DOUBLE, 8, offset=9),
    Column(128, "name", ColumnType.TEXT, 255, codepage=1252),
    Column(129, "code", ColumnType.BINARY, 255),
    Column(TAGGED, "note", ColumnType.LONG_TEXT, 0, codepage=1200),
    Column(LONG, "body", ColumnType.LONG_BINARY, 0),
    Column(MANY, "many", ColumnType.LONG, 0, flags=int(ColumnFlag.MULTIVALUED)),
)
SEPARATED, MULTI_VALUES = 0x05, 0x08


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, object]]:
    """Rows of the columns above; long values are at most a few thousand bytes."""
    return draw(
        st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "number": st.integers(-(2**31), 2**31 - 1),
                    "yes": st.booleans(),
                    "real": st.floats(allow_nan=False),
                    "name": st.text(st.characters(codec="cp1252"), max_size=20),
                    "code": st.binary(max_size=20),
                    "note": st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
                    "body": st.binary(max_size=3000),
                    "many": st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=5),
                },
            ),
            min_size=1,
            max_size=8,
        )
    )


def stored(wanted: list[dict[str, object]], *, large: bool) -> TableContent:
    """The table that holds these rows; every body is a separate long value in parts of 1000 bytes."""
    records, long_values = [], []
    encode = {"number": "<i", "real": "<d"}
    for index, row in enumerate(wanted):
        plain = {
            column.identifier: struct.pack(encode[column.name], row[column.name])
            for column in COLUMNS
            if column.name in encode and column.name in row
        }
        if "yes" in row:
            plain[2] = b"\xff" if row["yes"] else b"\0"
        if "name" in row:
            plain[128] = str(row["name"]).encode("cp1252")
        if "code" in row:
            plain[129] = row["code"]
        tagged = []
        if "note" in row:
            tagged.append((TAGGED, 0, str(row["note"]).encode("utf-16-le")))
        if "body" in row:
            body = row["body"]
            identifier = index + 1
            parts = [(at, body[at : at + 1000]) for at in range(0, len(body), 1000)]
            long_values.append((identifier, len(body), parts))
            tagged.append((LONG, SEPARATED, struct.pack("<I", identifier)))
        if "many" in row:
            values = row["many"]
            head = [2 * len(values) + 4 * at for at in range(len(values))]
            content = struct.pack(f"<{len(values)}H{len(values)}i", *head, *values)
            tagged.append((MANY, MULTI_VALUES, content))
        key = b"\x7f" + struct.pack(">I", 0x80000000 + index)
        records.append((key, record_bytes(COLUMNS, plain, tagged, large=large)))
    return TableContent("things", COLUMNS, records, long_values)


def made(folder: Path, size: int, wanted: list[dict[str, object]]) -> Path:
    path = folder / "things.edb"
    path.write_bytes(database_bytes(size, stored(wanted, large=size > LARGE_PAGE)))
    return path


EXAMPLE: list[dict[str, object]] = [
    {"number": index, "name": f"row {index}", "note": "ü", "body": bytes([index]) * 1500, "many": [1, 2, 3]}
    for index in range(2)
]


@given(size=st.sampled_from(SIZES), wanted=rows())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_rows_come_back(tmp_path_factory: pytest.TempPathFactory, size: int, wanted: list[dict[str, object]]) -> None:
    """Every value of every row comes back as it was written, in pages of every size."""
    total = sum(len(row.get("body", b"")) for row in wanted)  # type: ignore[arg-type]
    kept = wanted if total < size - 600 else [{**row, "body": b"short"} for row in wanted]
    with Database(made(tmp_path_factory.mktemp("db"), size, kept)) as database:
        table = read_catalog(database).table("THINGS")
        found = [dict(row.values()) for row in rows_of(database, table)]
        problems = verify_structure(database)

    assert found == kept
    assert problems == []


@pytest.mark.parametrize("size", SIZES)
def test_every_page_of_a_database_verifies(tmp_path: Path, size: int) -> None:
    """Pages that were written and pages that were not are counted, and none is damaged."""
    report = verify_database(made(tmp_path, size, EXAMPLE))

    assert report.findings == ()
    assert report.pages == 64
    assert report.written == 9
    assert report.header is not None
    assert report.header.page_size == size


@pytest.mark.parametrize("size", SIZES)
def test_catalog_and_shadow_and_space_are_read(tmp_path: Path, size: int) -> None:
    """The shadow catalog describes the same tables, and the space of each tree is known."""
    with Database(made(tmp_path, size, EXAMPLE)) as database:
        catalog = read_catalog(database)
        spaces = {space.name: space for space in database_space(database, catalog)}

        assert read_catalog(database, CATALOG_SHADOW) == catalog
        assert spaces["the database"].owned_pages == 64
        assert spaces["the database"].available_pages == 36
        assert spaces["things"].owned_pages == 3


def test_a_flipped_bit_in_a_page_is_corrected_for_reading(tmp_path: Path) -> None:
    """A page with one flipped bit is read as it was written, remembered, and reported by verification."""
    path = made(tmp_path, 8192, EXAMPLE)
    content = bytearray(path.read_bytes())
    content[(26 + 1) * 8192 + 200] ^= 1
    path.write_bytes(content)
    with Database(path) as database:
        found = [dict(row.values()) for row in rows_of(database, read_catalog(database).table("things"))]

        assert found == EXAMPLE
        assert list(database.corrected) == [26]
    assert [(finding.code, finding.place) for finding in verify_database(path).findings] == [
        ("ese-page-damaged", "page 26")
    ]


def test_a_damaged_page_is_named_and_never_read(tmp_path: Path) -> None:
    """A page beyond correction stops whoever reads it, and verification names it."""
    path = made(tmp_path, 8192, EXAMPLE)
    content = bytearray(path.read_bytes())
    content[(26 + 1) * 8192 + 200 : (26 + 1) * 8192 + 220] = b"\xee" * 20
    path.write_bytes(content)
    with Database(path) as database, pytest.raises(EseDamaged, match="page 26"):
        list(rows_of(database, read_catalog(database).table("things")))
    assert [finding.place for finding in verify_database(path).findings] == ["page 26"]


@pytest.mark.parametrize("size", SIZES)
def test_a_page_of_another_time_is_named(tmp_path: Path, size: int) -> None:
    """A sound page that is newer than its clean database is from another state of it; one thrown away is not."""
    path = made(tmp_path, size, EXAMPLE)
    content = bytearray(path.read_bytes())
    with Database(path) as database:
        known = database.header.dbtime
    for number, dbtime in ((4, known), (24, 0xFFFFFFFFFFFFFFFD), (26, known + 1)):
        start = (number + 1) * size
        page = content[start : start + 8] + dbtime.to_bytes(8, "little") + content[start + 16 : start + size]
        content[start : start + size] = sealed_page(bytes(page), number)
    path.write_bytes(content)
    found = verify_database(path).findings
    assert [(finding.code, finding.place) for finding in found] == [("ese-page-newer", "page 26")]


@given(size=st.sampled_from(SIZES), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_page_with_a_valid_checksum_and_nonsense_inside_is_an_error_not_a_crash(
    tmp_path_factory: pytest.TempPathFactory, size: int, data: st.DataObject
) -> None:
    """Whatever a sound page claims, reading ends with values or with an error for people, and never with another."""
    path = made(tmp_path_factory.mktemp("db"), size, EXAMPLE)
    content = bytearray(path.read_bytes())
    number = data.draw(st.sampled_from([1, 2, 3, 4, 24, 25, 26, 27, 28]))
    start = (number + 1) * size
    page = bytearray(content[start : start + size])
    for _ in range(data.draw(st.integers(1, 6))):
        inside = st.one_of(st.integers(8, 260), st.integers(size - 60, size - 1))
        page[data.draw(inside)] = data.draw(st.integers(0, 255))
    page[37] |= 0x20
    content[start : start + size] = sealed_page(bytes(page), number)
    path.write_bytes(content)
    with Database(path) as database:
        verify_structure(database)
        try:
            catalog = read_catalog(database)
            for table in catalog.tables:
                for row in rows_of(database, table):
                    row.values()
            database_space(database, catalog)
        except PerdureError:
            pass


def test_both_headers_damaged_is_damage_and_a_text_file_is_no_database(tmp_path: Path) -> None:
    """A database without a sound header is damaged; a file that never was one is something else."""
    path = made(tmp_path, 4096, EXAMPLE)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    content[4096 + 100] ^= 1
    path.write_bytes(content)
    text = tmp_path / "text.edb"
    text.write_text("nothing of the kind\n" * 1000)

    with pytest.raises(EseDamaged, match="both copies"):
        Database(path)
    with pytest.raises(NotAnEseFile):
        Database(text)


def test_an_unknown_table_is_an_error_with_a_hint(tmp_path: Path) -> None:
    """Asking for a table that is not there names the command that lists them."""
    with Database(made(tmp_path, 4096, EXAMPLE)) as database, pytest.raises(TableNotFound) as error:
        read_catalog(database).table("nothing")
    assert "perdure ese tables" in error.value.hint


@given(text=st.text(st.characters(codec="ascii"), min_size=1, max_size=200))
def test_seven_bit_text_comes_back(text: str) -> None:
    """Seven bits for every character, in one byte or two, are unpacked to what they were."""
    bits = "".join(f"{byte:07b}"[::-1] for byte in text.encode("ascii"))
    packed = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    last = (len(bits) - 1) % 8

    assert decompressed(bytes([1 << 3 | last]) + packed) == text.encode("ascii")
    assert decompressed(bytes([2 << 3 | last]) + packed) == text.encode("utf-16-le")


def test_xpress_and_lz4_repeat_what_they_should() -> None:
    """Matches that overlap what they make, with every way of writing their length."""
    flags, match, long_length = struct.pack("<I", 1 << 30), struct.pack("<H", 7), b"\x0f\xff" + struct.pack("<H", 996)
    xpress = flags + b"a" + match + long_length
    last_length = 1000 - 1 - 5 - 19 - 3 * 255
    lz4 = b"\x1fa" + struct.pack("<H", 1) + b"\xff\xff\xff" + bytes([last_length]) + b"\x50aaaaa"

    assert decompressed(bytes([3 << 3]) + struct.pack("<H", 1000) + xpress) == b"a" * 1000
    assert decompressed(bytes([7 << 3]) + struct.pack("<H", 1000) + lz4) == b"a" * 1000


@given(content=st.binary(max_size=200))
def test_damaged_compressed_values_are_refused(content: bytes) -> None:
    """Whatever bytes claim to be compressed, the answer is a value or a refusal."""
    with contextlib.suppress(Incompressible):
        decompressed(content)


def test_what_cannot_be_decoded_is_said(tmp_path: Path) -> None:
    """A value that is compressed in a way that is not read is given as it is stored, with the reason."""
    column = COLUMNS[5]
    record = record_bytes(COLUMNS, {}, [(column.identifier, 0x03, bytes([5 << 3]) + b"xyz")], large=False)
    path = tmp_path / "things.edb"
    path.write_bytes(database_bytes(4096, TableContent("things", COLUMNS, [(b"\x7f\0\0\0\1", record)])))
    with Database(path) as database:
        (row,) = rows_of(database, read_catalog(database).table("things"))

        assert row["note"] == Undecoded("it is compressed with XPRESS9", bytes([5 << 3]) + b"xyz")


def test_dates_count_days_since_1899() -> None:
    """A DATETIME is a number of days, and one that is no moment is told so."""
    moment = ole_moment(44838.5)

    assert f"{moment:%Y-%m-%d %H:%M}" == "2022-10-04 12:00"
    assert ole_moment(1e300) is None
    assert ole_moment(float("nan")) is None
