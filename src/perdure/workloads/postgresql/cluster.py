"""What a running server tells about its cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psycopg

from perdure.workloads.postgresql.connecting import Sql

__all__ = ["Cluster", "Tablespace", "look_at_cluster", "size_of", "visible_data_directory"]

_SETTINGS = (
    "server_version_num",
    "server_version",
    "wal_level",
    "block_size",
    "wal_block_size",
    "wal_segment_size",
    "data_checksums",
    "full_page_writes",
    "max_wal_senders",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "cluster_name",
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "port",
)


@dataclass(frozen=True, slots=True)
class Tablespace:
    """A tablespace: its name, OID and directory."""

    name: str
    oid: int
    directory: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster as its server describes it.

    Args:
        system: The system identifier.
        version: As a number, for example 180006.
        settings: By name; those that the role may not see are missing.
        user: The role that perdure connects as.
        superuser: Whether it is one.
        replication: Whether it may replicate.
        in_recovery: Whether the server is a standby.
        tablespaces: Those besides the two that are always there.
        started: When the server was started, seconds since 1970 UTC.
        owner: The role that owns the cluster.
    """

    system: str
    version: int
    settings: dict[str, str]
    user: str
    superuser: bool
    replication: bool
    in_recovery: bool
    tablespaces: tuple[Tablespace, ...]
    started: int
    owner: str

    @property
    def major(self) -> int:
        return self.version // 10000

    def number(self, setting: str) -> int:
        """A numeric setting in its own unit; 0 if it is not known."""
        value = self.settings.get(setting, "0")
        return int(value) if value.lstrip("-").isdecimal() else 0


def look_at_cluster(connection: Sql) -> Cluster:
    """Ask a server about itself; changes nothing.

    Raises:
        psycopg.Error: It does not answer.
    """
    rows = connection.execute(
        "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (list(_SETTINGS),)
    ).fetchall()
    user, superuser, replication, recovering, started, owner = connection.execute(
        "SELECT rolname, rolsuper, rolreplication, pg_is_in_recovery(),"
        " extract(epoch from pg_postmaster_start_time())::bigint, (SELECT rolname FROM pg_roles WHERE oid = 10)"
        " FROM pg_roles WHERE rolname = current_user"
    ).fetchall()[0]
    spaces = connection.execute(
        "SELECT spcname, oid::bigint, pg_tablespace_location(oid) FROM pg_tablespace"
        " WHERE pg_tablespace_location(oid) <> '' ORDER BY oid"
    ).fetchall()
    settings: dict[str, str] = dict(rows)
    return Cluster(
        _system_identifier(connection),
        int(settings["server_version_num"]),
        settings,
        user,
        superuser,
        replication,
        recovering,
        tuple(Tablespace(*row) for row in spaces),
        int(started),
        owner,
    )


def _system_identifier(connection: Sql) -> str:
    return str(connection.execute("SELECT system_identifier FROM pg_control_system()").fetchall()[0][0])


def size_of(connection: Sql) -> int:
    """Bytes of all databases; 0 if the role may not know."""
    try:
        row = connection.execute("SELECT sum(pg_database_size(oid))::bigint FROM pg_database").fetchall()[0]
        return int(row[0] or 0)
    except psycopg.errors.InsufficientPrivilege:
        return 0


def visible_data_directory(cluster: Cluster) -> Path | None:
    """The server's data directory, if this process sees and may read the very one; else ``None``.

    Another machine may have a directory of that name, even one of the same cluster (a standby's). So the start time
    in ``postmaster.pid`` has to be this server's.
    """
    named = cluster.settings.get("data_directory")
    if not named:
        return None
    directory = Path(named)
    try:
        lines = (directory / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        readable = os.access(directory / "global" / "pg_control", os.R_OK)
        # Within a second: the file has the time that the server was told, the function a rounded one.
        same = len(lines) > 3 and abs(int(lines[2]) - cluster.started) <= 1 and lines[3] == cluster.settings["port"]
    except (OSError, ValueError):
        return None
    return directory if same and readable else None
