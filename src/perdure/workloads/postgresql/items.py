"""What a cluster holds: its databases, schemas, and everything in them that can be recovered by itself."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Identifier

from perdure.model.errors import NotFound
from perdure.workloads.contract import RestoredItem
from perdure.workloads.postgresql.item_names import ItemName, parse_item
from perdure.workloads.postgresql.scratch_server import ScratchServer

__all__ = ["Relation", "count_rows", "items_within", "list_items", "relations_of"]

_DATABASES = (
    "SELECT datname, pg_database_size(oid)::bigint FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1"
)
_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1"
_RELATIONS = """
SELECT n.nspname, c.relname, c.relkind, pg_total_relation_size(c.oid)::bigint, c.reltuples::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 1, 2
"""
_KINDS = {"r": "table", "p": "partitioned table", "m": "materialized view", "v": "view", "f": "foreign table"}
_WITH_ROWS = ("r", "p", "m")
_TABLES = ("r", "p")


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation of one database.

    Args:
        schema: Its schema.
        name: Its name.
        kind: As in ``pg_class``.
        size: Bytes, with indexes.
        rows: As the server estimates; negative if it does not know.
    """

    schema: str
    name: str
    kind: str
    size: int
    rows: int

    @property
    def has_rows(self) -> bool:
        return self.kind in _WITH_ROWS

    @property
    def is_table(self) -> bool:
        return self.kind in _TABLES


def list_items(server: ScratchServer) -> list[RestoredItem]:
    """Everything, a database before its schemas and a schema before its relations."""
    found: list[RestoredItem] = []
    with server.connect() as connection:
        databases = connection.execute(_DATABASES).fetchall()
    for database, size in databases:
        found.append(RestoredItem(str(ItemName(database)), "database", size, _size(size)))
        with server.connect(database) as connection:
            schemas = [str(row[0]) for row in connection.execute(_SCHEMAS).fetchall()]
        relations = relations_of(server, database)
        for schema in schemas:
            own = [each for each in relations if each.schema == schema]
            total = sum(each.size for each in own)
            found.append(
                RestoredItem(str(ItemName(database, schema)), "schema", total, f"{len(own):,} tables and views")
            )
            found += [_item(database, each) for each in own]
    return found


def _item(database: str, relation: Relation) -> RestoredItem:
    rows = f", about {relation.rows:,} rows" if relation.has_rows and relation.rows >= 0 else ""
    details = f"{_size(relation.size)}{rows}" if relation.has_rows else ""
    name = str(ItemName(database, relation.schema, relation.name))
    return RestoredItem(name, _KINDS[relation.kind], relation.size, details)


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def relations_of(server: ScratchServer, database: str) -> list[Relation]:
    """The relations of a database."""
    with server.connect(database) as connection:
        return [Relation(*row) for row in connection.execute(_RELATIONS).fetchall()]


def count_rows(server: ScratchServer, database: str, relation: Relation) -> int:
    """Rows of a relation, counted."""
    query = SQL("SELECT count(*) FROM {}").format(Identifier(relation.schema, relation.name))
    with server.connect(database) as connection:
        return int(connection.execute(query).fetchall()[0][0])


def items_within(items: Sequence[RestoredItem], within: str) -> list[RestoredItem]:
    """The databases; the schemas of one; the tables of a schema; or one table.

    Args:
        items: All that there are.
        within: Of what; empty for the databases.

    Raises:
        NotFound: There is no such thing.
        BadInput: The name is none.
    """
    if not within:
        return [item for item in items if item.kind == "database"]
    wanted = parse_item(within)
    require_items(items, [wanted])
    if wanted.relation:
        return [item for item in items if item.name == str(wanted)]
    prefix = f"{wanted}."
    depth = 3 if wanted.schema else 2
    return [item for item in items if item.name.startswith(prefix) and _depth(parse_item(item.name)) == depth]


def require_items(items: Sequence[RestoredItem], wanted: Iterable[ItemName]) -> None:
    """Check that things are there.

    Raises:
        NotFound: One is not; the hint has names like it.
    """
    names = [item.name for item in items]
    for each in wanted:
        if str(each) not in names:
            near = difflib.get_close_matches(str(each), names, n=3, cutoff=0.5)
            raise NotFound(
                f"there is no {each} at this moment",
                code="item-not-found",
                hint=f"is it {', '.join(near)}?" if near else "see what there is with: perdure browse NAME --to WHEN",
            )


def _depth(name: ItemName) -> int:
    return 1 + bool(name.schema) + bool(name.relation)
