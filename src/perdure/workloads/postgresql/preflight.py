"""What a server lacks to be protected, each with the statement or line that mends it."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from perdure.model.errors import SourceUnusable
from perdure.workloads.postgresql.cluster import Cluster, visible_data_directory
from perdure.workloads.postgresql.connecting import Sql, is_near, shown
from perdure.workloads.postgresql.replication import Replication

__all__ = ["Lack", "advice", "lacks", "require_nothing_missing"]

OLDEST = 15

_RESTART = "then restart the server"


@dataclass(frozen=True, slots=True)
class Lack:
    """One thing that is missing.

    Args:
        what: What is missing, and why that matters.
        statements: SQL for a superuser; or a line for a file, as an SQL comment.
    """

    what: str
    statements: tuple[str, ...]


def lacks(location: str, connection: Sql, cluster: Cluster) -> list[Lack]:
    """Everything that must be mended before the server can be protected."""
    found = [*_settings(cluster), *_rights(connection, cluster)]
    if not found:
        found += _connections(location, connection, cluster)
    return found


def require_nothing_missing(location: str, missing: list[Lack]) -> None:
    """Refuse a server that lacks something.

    Raises:
        SourceUnusable: It does; the hint says what to do about it.
    """
    if missing:
        statements = "; ".join(statement for lack in missing for statement in lack.statements)
        raise SourceUnusable(
            f"the PostgreSQL server at {shown(location)} cannot be protected yet: "
            + "; ".join(lack.what for lack in missing),
            code="not-prepared",
            hint=f"as a superuser: {statements}. The same with --prepare, to copy",
        )


def advice(cluster: Cluster) -> list[Lack]:
    """What would make protection better or safer, and is not needed."""
    found = []
    if cluster.settings.get("data_checksums") == "off":
        found.append(
            Lack(
                "data checksums are off, so a page that the disk damaged is copied without being noticed",
                ("-- stop the server, then: pg_checksums --enable -D DATADIR",),
            )
        )
    if cluster.settings.get("max_slot_wal_keep_size") == "-1":
        found.append(
            Lack(
                "max_slot_wal_keep_size is not set: while perdure is stopped, WAL that it has not shipped "
                "may fill the server's disk",
                ("ALTER SYSTEM SET max_slot_wal_keep_size = '64GB'", "SELECT pg_reload_conf()"),
            )
        )
    return found


def _settings(cluster: Cluster) -> list[Lack]:
    found = []
    if cluster.major < OLDEST:
        found.append(Lack(f"PostgreSQL {cluster.major} is too old; {OLDEST} is the oldest that perdure knows", ()))
    if cluster.settings.get("wal_level") not in ("replica", "logical"):
        found.append(
            Lack(
                f"wal_level is {cluster.settings.get('wal_level')}, which leaves out what recovery needs",
                ("ALTER SYSTEM SET wal_level = 'replica'", f"-- {_RESTART}"),
            )
        )
    if cluster.settings.get("full_page_writes") == "off":
        found.append(
            Lack(
                "full_page_writes is off: pages that were torn by a crash or read half written could not be mended",
                ("ALTER SYSTEM SET full_page_writes = on", "SELECT pg_reload_conf()"),
            )
        )
    if cluster.settings.get("block_size", "8192") != "8192" or cluster.settings.get("wal_block_size", "8192") != "8192":
        found.append(Lack("the server was built with a block size other than 8192 bytes", ()))
    found += [
        Lack(
            f"{name} is {cluster.number(name)}, and perdure needs one of them",
            (f"ALTER SYSTEM SET {name} = 10", f"-- {_RESTART}"),
        )
        for name in ("max_wal_senders", "max_replication_slots")
        if cluster.number(name) < 1
    ]
    return found


def _rights(connection: Sql, cluster: Cluster) -> list[Lack]:
    if cluster.superuser:
        return []
    role = sql.Identifier(cluster.user)
    found = []
    if not cluster.replication:
        found.append(
            Lack(f"the role {cluster.user} may not replicate", (_text(connection, "ALTER ROLE {} REPLICATION", role),))
        )
    if not is_near(connection):
        # Images come over the replication protocol, which asks for nothing else.
        return found
    if "data_directory" not in cluster.settings:
        found.append(
            Lack(
                f"the role {cluster.user} may not see where the data directory is",
                (_text(connection, "GRANT pg_read_all_settings TO {}", role),),
            )
        )
    for function in ("pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"):
        row = connection.execute("SELECT has_function_privilege(%s, 'EXECUTE')", (function,)).fetchall()[0]
        if not row[0]:
            found.append(
                Lack(
                    f"the role {cluster.user} may not execute {function}",
                    (_text(connection, f"GRANT EXECUTE ON FUNCTION {function} TO {{}}", role),),
                )
            )
    return found


def _connections(location: str, connection: Sql, cluster: Cluster) -> list[Lack]:
    """Try it: only the server knows what pg_hba.conf allows."""
    slots = connection.execute("SELECT count(*) FROM pg_replication_slots").fetchall()[0][0]
    limit = cluster.number("max_replication_slots")
    ours = connection.execute(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'perdure\\_%'"
    ).fetchall()[0][0]
    if slots >= limit and not ours:
        return [
            Lack(
                f"all {limit} replication slots are taken",
                (f"ALTER SYSTEM SET max_replication_slots = {limit + 4}", f"-- {_RESTART}"),
            )
        ]
    try:
        Replication(location).close()
    except SourceUnusable as error:
        file = cluster.settings.get("hba_file", "pg_hba.conf")
        line = f"-- in {file}: host replication {cluster.user} ADDRESS scram-sha-256"
        return [Lack(error.message, (line, "SELECT pg_reload_conf()"))]
    return []


def _text(connection: Sql, template: str, role: sql.Identifier) -> str:
    return sql.SQL(template).format(role).as_string(connection)


def data_directory_sentence(cluster: Cluster) -> str:
    """Whether images are read from the disk, in words."""
    directory = visible_data_directory(cluster)
    return f"data directory {directory}" if directory else "data directory not readable here"
