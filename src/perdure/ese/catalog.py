"""The catalog: which tables a database has, and their columns, indexes and trees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property

from perdure.ese.checksums import LARGE_PAGE
from perdure.ese.columns import FIRST_VARIABLE, Column, ColumnType, fixed_size
from perdure.ese.database import Database
from perdure.ese.errors import EseDamaged, TableNotFound
from perdure.ese.records import Record, RecordLayout
from perdure.ese.trees import Tree

__all__ = ["CATALOG", "CATALOG_SHADOW", "Catalog", "Index", "Table", "read_catalog"]

CATALOG = (2, 4)
"""Object number and root page of ``MSysObjects``."""

CATALOG_SHADOW = (3, 24)
"""Object number and root page of ``MSysObjectsShadow``, which holds the same records."""

_FIRST_FIXED_OFFSET = 4


class _EntryType(IntEnum):
    TABLE = 1
    COLUMN = 2
    INDEX = 3
    LONG_VALUES = 4
    CALLBACK = 5


@dataclass(frozen=True, slots=True)
class Index:
    """An index.

    Args:
        name: Its name.
        objid: Object number of its tree.
        root: Page number of its root; the primary index is the table's own tree.
        flags: As stored.
    """

    name: str
    objid: int
    root: int
    flags: int

    @property
    def primary(self) -> bool:
        """Whether it orders the table itself."""
        return bool(self.flags & 2)

    @property
    def unique(self) -> bool:
        return bool(self.flags & 1)


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        name: Its name.
        objid: Object number of its tree.
        root: Page number of its root.
        columns: In order of their identifiers, those of its template first.
        indexes: In order of their object numbers.
        long_values: Object number and root page of its long values, ``None`` if it has none.
        template: Name of the template table that it derives from, empty for none.
        flags: As stored.
    """

    name: str
    objid: int
    root: int
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...]
    long_values: tuple[int, int] | None
    template: str
    flags: int

    @property
    def system(self) -> bool:
        """Whether it belongs to the engine."""
        return self.name.startswith("MSys")

    def column(self, name: str) -> Column:
        """A column by its name.

        Raises:
            TableNotFound: There is none.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise TableNotFound(f"table {self.name} has no column {name!r}", code="column-not-found") from None

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}


@dataclass(frozen=True, slots=True)
class Catalog:
    """All tables of a database.

    Args:
        file: The database's name, for messages.
        tables: In order of their object numbers.
    """

    file: str
    tables: tuple[Table, ...]

    def table(self, name: str) -> Table:
        """A table by its name, which is compared without regard to case as the engine does.

        Raises:
            TableNotFound: There is none.
        """
        for table in self.tables:
            if table.name.lower() == name.lower():
                return table
        raise TableNotFound(
            f"{self.file} has no table {name!r}", hint=f"list its tables with: perdure ese tables {self.file}"
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record of the catalog."""

    table: int
    type: int
    id: int
    coltype_or_root: int
    space: int
    flags: int
    pages_or_locale: int
    offset: int | None
    name: str
    template: str
    default: bytes | None


def read_catalog(database: Database, place: tuple[int, int] = CATALOG) -> Catalog:
    """Read a database's catalog.

    Args:
        database: The database.
        place: Which of the two copies, :data:`CATALOG` or :data:`CATALOG_SHADOW`.

    Raises:
        EseDamaged: It is damaged or contradicts itself.
    """
    found: dict[int, list[_Entry]] = {}
    for entry in _entries(database, place):
        found.setdefault(entry.table, []).append(entry)
    tables: dict[str, Table] = {}
    # A template is made before the tables that derive from it, so it has a lower object number.
    for objid in sorted(found):
        table = _table(database, objid, found[objid], tables)
        tables[table.name] = table
    return Catalog(database.file, tuple(sorted(tables.values(), key=lambda table: table.objid)))


def _entries(database: Database, place: tuple[int, int]) -> Iterator[_Entry]:
    layout = RecordLayout.without_long_values(_COLUMNS, large_pages=database.page_size > LARGE_PAGE)
    objid, root = place
    for node in Tree(database, root, objid).nodes():
        try:
            yield _entry(Record(layout, node.data))
        except ValueError as error:
            raise EseDamaged(
                f"{database.file}: the catalog's record with key {node.key.hex()} is damaged: {error}",
                code="ese-catalog-damaged",
                hint="recover the database from a recovery point",
            ) from None


def _entry(record: Record) -> _Entry:
    offset, name, template = (record.value(_BY_NAME[key]) for key in ("RecordOffset", "Name", "TemplateTable"))
    return _Entry(
        table=_number(record, "ObjidTable"),
        type=_number(record, "Type"),
        id=_number(record, "Id"),
        coltype_or_root=_number(record, "ColtypOrPgnoFDP"),
        space=_number(record, "SpaceUsage"),
        flags=_number(record, "Flags"),
        pages_or_locale=_number(record, "PagesOrLocale"),
        offset=offset if isinstance(offset, int) else None,
        name=name if isinstance(name, str) else "",
        template=template if isinstance(template, str) else "",
        default=record.raw(_BY_NAME["DefaultValue"]),
    )


def _number(record: Record, name: str) -> int:
    value = record.value(_BY_NAME[name])
    if not isinstance(value, int):
        raise ValueError(f"{name} is missing")  # noqa: TRY004 - it is a damaged record, not a wrong call
    return value


def _table(database: Database, objid: int, entries: list[_Entry], known: dict[str, Table]) -> Table:
    of: dict[int, list[_Entry]] = {kind: [] for kind in _EntryType}
    for entry in entries:
        of.setdefault(entry.type, []).append(entry)
    if len(of[_EntryType.TABLE]) != 1:
        raise EseDamaged(
            f"{database.file}: the catalog describes object {objid} without saying which table it is",
            code="ese-catalog-damaged",
            hint="recover the database from a recovery point",
        )
    (this,) = of[_EntryType.TABLE]
    inherited: tuple[Column, ...] = ()
    if this.template:
        if this.template not in known:
            raise EseDamaged(
                f"{database.file}: table {this.name} derives from {this.template}, which the catalog does not have",
                code="ese-catalog-damaged",
            )
        inherited = tuple(replace(column, derived=True) for column in known[this.template].columns)
    long_values = [(entry.id, entry.coltype_or_root) for entry in of[_EntryType.LONG_VALUES]]
    indexes = [Index(entry.name, entry.id, entry.coltype_or_root, entry.flags) for entry in of[_EntryType.INDEX]]
    own = sorted(of[_EntryType.COLUMN], key=lambda entry: entry.id)
    return Table(
        name=this.name,
        objid=objid,
        root=this.coltype_or_root,
        columns=inherited + _columns(own, inherited),
        indexes=tuple(sorted(indexes, key=lambda index: index.objid)),
        long_values=long_values[0] if long_values else None,
        template=this.template,
        flags=this.flags,
    )


def _columns(entries: list[_Entry], inherited: tuple[Column, ...]) -> tuple[Column, ...]:
    """Own columns of a table; the fixed ones lie behind each other, the deleted ones still in their places."""
    ends = [column.offset + column.size for column in inherited if column.offset is not None]
    end = max(ends, default=_FIRST_FIXED_OFFSET)
    columns = []
    for entry in entries:
        kind = _COLUMN_TYPES.get(entry.coltype_or_root, ColumnType.NIL)
        offset = None
        size = entry.space
        if entry.id < FIRST_VARIABLE:
            size = entry.space or fixed_size(kind)
            # For its own tables the engine notes the same offset for all columns.
            offset = max(entry.offset or 0, end)
            end = offset + size
        if kind is not ColumnType.NIL:
            columns.append(
                Column(entry.id, entry.name, kind, size, entry.flags, entry.pages_or_locale, entry.default, offset)
            )
    return tuple(columns)


def _own_columns() -> tuple[Column, ...]:
    """The catalog's own columns, which no catalog describes."""
    long, short = ColumnType.LONG, ColumnType.SHORT
    fixed = [
        ("ObjidTable", long),
        ("Type", short),
        ("Id", long),
        ("ColtypOrPgnoFDP", long),
        ("SpaceUsage", long),
        ("Flags", long),
        ("PagesOrLocale", long),
        ("RootFlag", ColumnType.BIT),
        ("RecordOffset", short),
        ("LCMapFlags", long),
        ("KeyMost", ColumnType.UNSIGNED_SHORT),
        ("LVChunkMax", long),
    ]
    text, binary = ColumnType.TEXT, ColumnType.BINARY
    variable = [
        ("Name", text),
        ("Stats", binary),
        ("TemplateTable", text),
        ("DefaultValue", binary),
        ("KeyFldIDs", binary),
        ("VarSegMac", binary),
        ("ConditionalColumns", binary),
        ("TupleLimits", binary),
        ("Version", binary),
        ("SortID", binary),
    ]
    columns, offset = [], _FIRST_FIXED_OFFSET
    for number, (name, kind) in enumerate(fixed, 1):
        size = fixed_size(kind)
        columns.append(Column(number, name, kind, size, offset=offset))
        offset += size
    western = 1252
    columns += [
        Column(number, name, kind, 255, codepage=western)
        for number, (name, kind) in enumerate(variable, FIRST_VARIABLE)
    ]
    return tuple(columns)


_COLUMN_TYPES = {int(kind): kind for kind in ColumnType}
_COLUMNS = _own_columns()
_BY_NAME = {column.name: column for column in _COLUMNS}
