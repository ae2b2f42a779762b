"""Standbys of a protected cluster."""

from __future__ import annotations

import time
from collections.abc import Callable

from protected_cluster import ProtectedCluster

from perdure.testing.postgres_server import PostgresServer


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def standby_of(scene: ProtectedCluster) -> PostgresServer:
    data = scene.root / "standby"
    scene.server.program("pg_basebackup", "-D", str(data), "-R", "-c", "fast", "-d", scene.server.conninfo)
    return PostgresServer(scene.server.major, data)


def either(*servers: PostgresServer) -> str:
    """A location that names them all."""
    hosts, ports = ",".join("127.0.0.1" for _ in servers), ",".join(str(server.port) for server in servers)
    return f"host={hosts} port={ports} user=postgres dbname=postgres"


def caught_up(standby: PostgresServer, server: PostgresServer) -> None:
    end = server.execute("SELECT pg_current_wal_flush_lsn()")[0][0]
    until(lambda: standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{end}'")[0][0])
