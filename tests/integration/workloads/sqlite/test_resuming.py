"""Continuing after perdure was not running: either the log joins exactly, or the break is noticed and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from protected_database import ProtectedDatabase

from perdure.model.errors import SourceUnusable, TrackingLost
from perdure.testing.sqlite_writer import SqliteWriter

INSERT = "INSERT INTO t(v) VALUES (randomblob(3000))"


def protect_once(path: Path, writer: SqliteWriter) -> ProtectedDatabase:
    protected = ProtectedDatabase(path)
    with protected:
        protected.full()
        writer.run(INSERT)
        protected.sync()
    return protected


def test_log_joins_when_nothing_was_recycled(path: Path, writer: SqliteWriter) -> None:
    """Commits made while perdure was down are in the log, in the same generation."""
    protected = protect_once(path, writer)
    writer.run(INSERT, INSERT)
    protected.open(protected.end())
    with protected.session:
        end = protected.sync()
        assert end.generation == 1
        assert protected.rows(end) == [(1,), (2,), (3,)]
        protected.full()


def test_changed_pages_come_from_the_log_after_a_restart(path: Path, writer: SqliteWriter) -> None:
    """A new session that did not see the segments learns the changed pages from the stored log."""
    protected = protect_once(path, writer)
    protected.open(protected.end())
    with protected.session:
        writer.run(INSERT)
        protected.full()
        assert protected.rows(protected.base_position) == [(1,), (2,)]


@pytest.mark.parametrize("mode", ["RESTART", "TRUNCATE"])
def test_foreign_checkpoint_while_down(path: Path, writer: SqliteWriter, mode: str) -> None:
    """A WAL that was restarted while perdure was down is noticed; the next image starts a generation of its own."""
    protected = protect_once(path, writer)
    writer.run(INSERT, f"PRAGMA wal_checkpoint({mode})", INSERT)
    with pytest.raises(TrackingLost, match="another process checkpointed and restarted"):
        protected.session = _reopened(protected)
    with protected.session:
        assert protected.session.position.generation == 3
        protected.full()
        assert protected.rows(protected.base_position) == [(1,), (2,), (3,)]


def test_wal_removed_while_down(path: Path, writer: SqliteWriter) -> None:
    """The last application to close removes the WAL; that is noticed."""
    protected = protect_once(path, writer)
    writer.run(INSERT)
    writer.close()
    with pytest.raises(TrackingLost, match="missing or empty"):
        _reopened(protected)
    protected.session.close()


def test_page_size_changed_while_down(path: Path, writer: SqliteWriter) -> None:
    """A new page size is named as the cause."""
    protected = protect_once(path, writer)
    writer.run("PRAGMA journal_mode=DELETE", "PRAGMA page_size=8192", "VACUUM", "PRAGMA journal_mode=WAL", INSERT)
    with pytest.raises(TrackingLost, match="page size changed from 4096 to 8192"):
        _reopened(protected)
    with protected.session:
        protected.full()
        assert protected.page_size == 8192
        assert protected.rows(protected.base_position) == [(1,), (2,)]


def test_left_wal_mode_while_down(path: Path, writer: SqliteWriter) -> None:
    """A database that left WAL mode cannot be followed, and the hint says how to switch it back."""
    protected = protect_once(path, writer)
    writer.run("PRAGMA journal_mode=DELETE")
    with pytest.raises(SourceUnusable) as refusal:
        _reopened(protected)
    assert refusal.value.code == "not-wal"
    assert "--prepare" in refusal.value.hint


def test_idle_database_stays_continuous(path: Path, writer: SqliteWriter) -> None:
    """A database whose WAL SQLite removed long ago, and that nobody wrote to, joins in the same generation."""
    writer.run(INSERT)
    writer.close()
    protected = ProtectedDatabase(path)
    with protected:
        protected.full()
    with SqliteWriter(path) as later:
        later.run(INSERT)
        protected.open(protected.end())
        with protected.session:
            end = protected.sync()
            assert end.generation == 1
            assert protected.rows(end) == [(1,), (2,)]


def test_fresh_token_of_a_just_written_file_proves_nothing(path: Path, writer: SqliteWriter) -> None:
    """If the file was written in the same instant, its times cannot show a later write: continuity is not claimed."""
    writer.run(INSERT)
    writer.close()
    protected = ProtectedDatabase(path)
    protected.clock.now = path.stat().st_ctime_ns
    with protected:
        protected.full()
    with pytest.raises(TrackingLost):
        _reopened(protected)
    protected.session.close()


def _reopened(protected: ProtectedDatabase) -> object:
    protected.open(protected.end())
    return protected.session
