"""Fixtures: real servers of both versions, protected in a vault in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from protected_cluster import ProtectedCluster

from perdure.testing.postgres_server import PostgresServer, binaries, postgres_room


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory that servers may reach."""
    with postgres_room() as root:
        yield root


@pytest.fixture
def scene(room: Path) -> Iterator[ProtectedCluster]:
    """A cluster of the newest version."""
    yield from running(room, 18)


@pytest.fixture(params=[18, 15])
def each_version(request: pytest.FixtureRequest, room: Path) -> Iterator[ProtectedCluster]:
    """A cluster of the newest version, and one of the oldest."""
    yield from running(room, request.param)


def running(room: Path, major: int) -> Iterator[ProtectedCluster]:
    """Start one and end it."""
    if binaries(major) is None:
        pytest.skip(f"PostgreSQL {major} is not installed")
    with PostgresServer(major, room / "data").initialize() as server:
        server.start()
        with ProtectedCluster(server, room) as cluster:
            yield cluster
