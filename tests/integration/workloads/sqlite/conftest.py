"""Fixtures: a database in WAL mode with a writer process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from perdure.testing.sqlite_writer import SqliteWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def writer(path: Path) -> Iterator[SqliteWriter]:
    with SqliteWriter(path, "journal_mode=WAL") as writer:
        writer.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
        yield writer
