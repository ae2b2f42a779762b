"""Fixtures: a running server of each version, protected in a vault in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from protected_cluster import ProtectedCluster
from shop import TABLES, Shop

from perdure.testing.postgres_server import PostgresServer, binaries, postgres_room


@pytest.fixture
def room() -> Iterator[Path]:
    with postgres_room() as room:
        yield room


@pytest.fixture(params=[15, 18])
def major(request: pytest.FixtureRequest) -> int:
    version: int = request.param
    return version


@pytest.fixture
def scene(room: Path) -> Iterator[ProtectedCluster]:
    """A cluster of the newest version with a vault in memory."""
    yield from _running(room, 18)


@pytest.fixture
def each_version(room: Path, major: int) -> Iterator[ProtectedCluster]:
    """A cluster of each version with a vault in memory."""
    yield from _running(room, major)


def _running(room: Path, major: int) -> Iterator[ProtectedCluster]:
    if binaries(major) is None:
        pytest.skip(f"PostgreSQL {major} is not installed")
    settings = {"max_prepared_transactions": "10", "wal_keep_size": "2GB", "autovacuum_naptime": "1s"}
    with PostgresServer(major, room / "data").initialize(**settings) as server:
        server.start()
        with ProtectedCluster(server, room) as cluster:
            yield cluster


def _fast(server: PostgresServer) -> PostgresServer:
    """A standby of it asks again soon."""
    return server.initialize(wal_retrieve_retry_interval="100ms")


@pytest.fixture(scope="session")
def shop() -> Iterator[Shop]:
    """One for all tests: none of them changes what another needs."""
    if binaries(18) is None:
        pytest.skip("PostgreSQL 18 is not installed")
    with postgres_room() as room, _fast(PostgresServer(18, room / "data")) as server:
        room.chmod(0o755)
        server.start().execute("CREATE DATABASE shop")
        with server.connect(f"{server.conninfo} dbname=shop") as connection:
            connection.execute(TABLES)
        shop = Shop(server, room)
        with shop.pool:
            yield shop
