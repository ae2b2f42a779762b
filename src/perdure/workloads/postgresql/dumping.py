"""Taking single databases, schemas and tables out of a scratch server: into a file, or into another server."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from perdure.model.errors import BadInput, Partial, Refused
from perdure.workloads.contract import RestoredItem, Verification
from perdure.workloads.postgresql.connecting import Sql, connect, conninfo, server_sentence, shown
from perdure.workloads.postgresql.item_names import ItemName, parse_item, shown_name
from perdure.workloads.postgresql.items import Relation, count_rows, list_items, relations_of, require_items
from perdure.workloads.postgresql.programs import owner_of
from perdure.workloads.postgresql.scratch_server import ScratchServer

__all__ = ["ClusterItems", "parsed_items"]

_SHOWN = 400


class ClusterItems:
    """What a scratch server has; implements :class:`perdure.workloads.recovery_contract.ItemServer`."""

    def __init__(self, server: ScratchServer) -> None:
        self._server = server

    def items(self) -> list[RestoredItem]:
        return list_items(self._server)

    def dump(self, items: Sequence[str], target: Path) -> tuple[Verification, tuple[str, ...]]:
        return dump_items(self._server, items, target)

    def load(
        self, items: Sequence[str], destination: str, options: Mapping[str, str]
    ) -> tuple[Verification, tuple[str, ...]]:
        schema, overwrite = options.get("into-schema", ""), "overwrite" in options
        return load_items(self._server, items, destination, schema=schema, overwrite=overwrite)


def dump_items(server: ScratchServer, items: Sequence[str], target: Path) -> tuple[Verification, tuple[str, ...]]:
    """Write items of one database to a file in pg_dump's custom format.

    Args:
        server: Has them.
        items: Their names.
        target: The file; it does not exist.

    Raises:
        BadInput, NotFound: A name is none, or of nothing, or they lie in several databases.
        Partial: pg_dump fails.
    """
    names = _checked(server, items)
    with target.open("xb") as file:
        _run_dump(server, names, file)
    listed = server.programs.run("pg_restore", ["--list", str(target)], owner={})
    count = sum(1 for line in listed.stdout.splitlines() if line and not line.startswith(";"))
    verified = Verification(listed.returncode == 0, "pg_restore --list", tuple(listed.stderr.splitlines()))
    use = f"load it with: pg_restore -d DATABASE {target.name.removesuffix('.perdure-partial')}"
    return verified, ((f"{count:,} objects of database {names[0].database}; {use}",))


def load_items(
    server: ScratchServer, items: Sequence[str], destination: str, *, schema: str = "", overwrite: bool = False
) -> tuple[Verification, tuple[str, ...]]:
    """Load items of one database into another server, all or nothing.

    Args:
        server: Has them.
        items: Their names.
        destination: Where that server is, and the database in it.
        schema: Tables go into this schema there instead of their own, without their foreign keys.
        overwrite: What is there under the same names is replaced.

    Raises:
        BadInput, NotFound: As :func:`dump_items`.
        SourceUnusable: The server cannot be reached.
        Refused: Something of the same name is there; nothing was changed.
        Partial: It does not take them; nothing was changed.
    """
    names = _checked(server, items)
    database = names[0].database
    moved = [each for each in relations_of(server, database) if _has(names, each)]
    with connect(destination) as there, _explained(f"{shown(destination)} does not take {names[0]}"):
        loaded = [Relation(schema or each.schema, each.name, each.kind, each.size, each.rows) for each in moved]
        _refuse_existing(there, loaded, destination, overwrite=overwrite)
        if schema:
            _move(server, database, moved, schema)
            names = [ItemName(database, schema, name.relation) for name in names]
        # A dump of tables does not bring their schema.
        with _schemas(there, {each.schema for each in loaded} if all(name.relation for name in names) else set()):
            _pipe(server, names, destination, ["--no-owner"] if schema else [], overwrite=overwrite)
        wrong = [
            f"{shown_name(each.schema, each.name)} has {found:,} rows instead of {wanted:,}"
            for each in loaded
            if each.is_table and (found := _count(there, each)) != (wanted := count_rows(server, database, each))
        ]
    verified = Verification(not wrong, "row counts at both ends", tuple(wrong))
    return verified, (tuple(f"loaded {shown_name(each.schema, each.name)}" for each in loaded))


def parsed_items(items: Sequence[str], schema: str = "") -> list[ItemName]:
    """Names of items, as far as they can be judged without looking.

    Raises:
        BadInput: One is none, they lie in several databases, or they cannot go into a schema.
    """
    names = [parse_item(each) for each in items]
    if schema and not all(name.relation for name in names):
        raise BadInput("only tables go into another schema", code="bad-item", hint="name them one by one with --item")
    if len({name.database for name in names}) > 1:
        raise BadInput(
            "the items lie in several databases, and a dump is of one",
            code="bad-item",
            hint="recover them one database after the other",
        )
    return names


def _checked(server: ScratchServer, items: Sequence[str]) -> list[ItemName]:
    names = parsed_items(items)
    require_items(list_items(server), names)
    return names


def _has(names: Sequence[ItemName], relation: Relation) -> bool:
    return any(
        (not name.schema or name.schema == relation.schema) and (not name.relation or name.relation == relation.name)
        for name in names
    )


def _selection(names: Sequence[ItemName]) -> list[str]:
    """What pg_dump is told to take. Its patterns take what is quoted as it is."""
    if any(not name.schema for name in names):
        return []
    words = ["--strict-names"]
    for name in names:
        schema = _pattern(name.schema)
        words += ["-t", f"{schema}.{_pattern(name.relation)}"] if name.relation else ["-n", schema]
    return words


def _pattern(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _dump_words(server: ScratchServer, names: Sequence[ItemName]) -> list[str]:
    database = conninfo_of(names[0].database)
    return [server.programs.path("pg_dump"), *server.address, "-Fc", *_selection(names), "-d", database]


def conninfo_of(database: str) -> str:
    """A database by its name, whatever characters that has."""
    return make_conninfo(dbname=database)


def _run_dump(server: ScratchServer, names: Sequence[ItemName], file: IO[bytes]) -> None:
    words = _dump_words(server, names)
    owner = owner_of(server.directory)
    result = subprocess.run(words, stdout=file, stderr=subprocess.PIPE, check=False, cwd="/", **owner)
    if result.returncode:
        raise Partial(f"pg_dump of {names[0].database} failed: {_words(result.stderr)}", code="dump-failed")


def _pipe(
    server: ScratchServer, names: Sequence[ItemName], destination: str, more: Sequence[str], *, overwrite: bool
) -> None:
    """pg_dump into pg_restore, in one transaction."""
    words = [server.programs.path("pg_restore"), "--single-transaction", "-d", conninfo(destination), *more]
    words += ["--clean", "--if-exists"] if overwrite else []
    owner = owner_of(server.directory)
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            _dump_words(server, names), stdout=subprocess.PIPE, stderr=errors, cwd="/", **owner
        ) as dump:
            restored = subprocess.run(words, stdin=dump.stdout, capture_output=True, check=False, cwd="/")
            assert dump.stdout is not None
            dump.stdout.close()
        errors.seek(0)
        said = errors.read()
    # One that was ended because nobody read on has a negative status.
    if dump.returncode > 0:
        raise Partial(f"pg_dump of {names[0].database} failed: {_words(said)}", code="dump-failed")
    if restored.returncode:
        raise Partial(
            f"{shown(destination)} did not take {names[0]}: {_words(restored.stderr)}; nothing was changed there",
            code="load-failed",
            hint="--into-schema NAME loads tables beside the others, without owners and foreign keys; "
            "or recover to a file with --target",
        )


@contextlib.contextmanager
def _schemas(there: Sql, names: set[str]) -> Iterator[None]:
    """Make the schemas that are missing; they go again if what follows fails."""
    known = {row[0] for row in there.execute("SELECT nspname FROM pg_namespace").fetchall()}
    made = sorted(names - known)
    try:
        for name in made:
            there.execute(SQL("CREATE SCHEMA {}").format(Identifier(name)))
        yield
    except BaseException:
        for name in made:
            there.execute(SQL("DROP SCHEMA IF EXISTS {}").format(Identifier(name)))
        raise


def _refuse_existing(there: Sql, loaded: Sequence[Relation], destination: str, *, overwrite: bool) -> None:
    if overwrite:
        return
    known = {
        tuple(row)
        for row in there.execute(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        ).fetchall()
    }
    found = [shown_name(each.schema, each.name) for each in loaded if (each.schema, each.name) in known]
    if found:
        raise Refused(
            f"{shown(destination)} has {', '.join(found[:5])} already; nothing was changed there",
            code="item-exists",
            hint="load beside it with --into-schema NAME, or replace it with --overwrite",
        )


def _move(server: ScratchServer, database: str, relations: Sequence[Relation], schema: str) -> None:
    """Give the tables their new schema, on the scratch server, which nobody else uses."""
    with server.connect(database) as connection, _explained("the tables cannot be put into one schema"):
        connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(schema)))
        for each in relations:
            table = Identifier(each.schema, each.name)
            keys = connection.execute(
                "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = %s::regclass",
                (table.as_string(connection),),
            ).fetchall()
            # A key to a table that is used would keep rows of that from being deleted.
            for (key,) in keys:
                connection.execute(SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, Identifier(key)))
            kind = SQL({"v": "VIEW", "m": "MATERIALIZED VIEW", "f": "FOREIGN TABLE"}.get(each.kind, "TABLE"))
            if each.schema != schema:
                connection.execute(SQL("ALTER {} {} SET SCHEMA {}").format(kind, table, Identifier(schema)))


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise Partial(f"{what}: {server_sentence(error)}", code="load-failed") from error


def _count(there: Sql, relation: Relation) -> int:
    query = SQL("SELECT count(*) FROM {}").format(Identifier(relation.schema, relation.name))
    return int(there.execute(query).fetchall()[0][0])


def _words(said: bytes) -> str:
    return " ".join(said.decode("utf-8", "replace").split())[:_SHOWN]
