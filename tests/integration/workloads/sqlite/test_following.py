"""Following a live database: every commit can be restored, whatever the application does meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from protected_database import ProtectedDatabase

from perdure.model.errors import PerdureError, Refused, SourceUnusable, TrackingLost
from perdure.model.positions import Position
from perdure.testing.sqlite_writer import SqliteWriter
from perdure.workloads.sqlite import SqliteSession, SqliteWorkload

INSERT = "INSERT INTO t(v) VALUES (randomblob(3000))"


def ids(count: int) -> list[tuple[object, ...]]:
    return [(n,) for n in range(1, count + 1)]


def test_every_commit_restores(path: Path, writer: SqliteWriter) -> None:
    """Each commit after the image is a mark, and restoring to it gives exactly the rows of that moment."""
    with ProtectedDatabase(path) as protected:
        writer.run(INSERT)
        protected.full()
        for _ in range(3):
            writer.run(*[INSERT] * 4)
            protected.sync()
        marks = protected.log.marks_after(protected.base_position)
        assert len(marks) == 12
        assert protected.rows(protected.base_position) == ids(1)
        for number, (position, _time) in enumerate(marks):
            assert protected.rows(position) == ids(number + 2)


def test_marks_carry_the_time_they_were_first_seen(path: Path, writer: SqliteWriter) -> None:
    """Commits between two polls share the later poll's time."""
    with ProtectedDatabase(path) as protected:
        protected.full()
        writer.run(INSERT, INSERT)
        protected.session.poll()
        between = protected.clock()
        writer.run(INSERT)
        protected.sync()
        times = [time for _position, time in protected.log.marks_after(protected.base_position)]
        assert times[0] == times[1] < between < times[2]


def test_generations_join_across_our_checkpoints(path: Path, writer: SqliteWriter) -> None:
    """The WAL is recycled again and again, and the log goes on without a gap through every restart."""
    with ProtectedDatabase(path) as protected:
        protected.full()
        for _ in range(6):
            writer.run(*[INSERT] * 3)
            protected.maintain()
        writer.run(INSERT)
        end = protected.sync()
        assert end.generation >= 5
        marks = protected.log.marks_after(protected.base_position)
        assert [position.generation for position, _ in marks] == sorted(position.generation for position, _ in marks)
        for number in (0, 5, 11, 18):
            assert protected.rows(marks[number][0]) == ids(number + 1)
        protected.full()
        assert protected.rows(end) == ids(19)


@pytest.mark.parametrize("mode", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
def test_foreign_checkpoints_lose_nothing(path: Path, writer: SqliteWriter, mode: str) -> None:
    """An application that checkpoints in any mode between our polls cannot take a frame away from us."""
    with ProtectedDatabase(path) as protected:
        writer.run("PRAGMA busy_timeout=0")
        protected.full()
        count = 0
        for round_ in range(8):
            writer.run(INSERT, INSERT, f"PRAGMA wal_checkpoint({mode})", INSERT, f"PRAGMA wal_checkpoint({mode})")
            count += 3
            if round_ % 2:
                protected.maintain()
                writer.run(f"PRAGMA wal_checkpoint({mode})", f"PRAGMA wal_checkpoint({mode})")
            if round_ % 3 == 2:
                protected.full()
        end = protected.sync()
        assert protected.rows(end) == ids(count)


def test_commit_during_our_checkpoint(path: Path, writer: SqliteWriter) -> None:
    """A writer that wants to commit while we checkpoint waits, and its commit is in the log afterwards."""
    with ProtectedDatabase(path) as protected:
        protected.full()
        writer.run(INSERT)
        waiting: list[bool] = []
        protected.sync()
        checkpoint = protected.session._connections.checkpoint

        def checkpoint_with_writer() -> bool:
            waiting.append(True)
            if len(waiting) == 2:  # the one under the write lock
                writer.begin(INSERT, INSERT)
            return checkpoint()

        protected.session._connections.checkpoint = checkpoint_with_writer  # type: ignore[method-assign]
        protected.session.maintain(protected.ship)
        writer.finish()
        assert protected.rows(protected.sync()) == ids(3)


def test_long_reader_lets_the_wal_grow_and_says_so(path: Path, writer: SqliteWriter) -> None:
    """While another process reads in one transaction nothing is lost, we back off, and a warning is there."""
    with ProtectedDatabase(path) as protected, SqliteWriter(path) as reader:
        writer.run(INSERT)
        protected.full()
        reader.run("BEGIN", "SELECT count(*) FROM t")
        for _ in range(5):
            writer.run(*[INSERT] * 4)
            protected.maintain()
        assert "another process has been reading" in protected.session.warning
        assert protected.session.wal_bytes > 20 * 3000
        reader.run("COMMIT")
        protected.clock.now += 120_000_000_000
        protected.maintain()
        assert protected.session.warning == ""
        writer.run(INSERT)
        end = protected.sync()
        assert end.generation == 2
        assert protected.rows(end) == ids(22)


def test_image_stays_frozen(path: Path, writer: SqliteWriter) -> None:
    """While an image is open, commits and checkpoints of the application do not change what it reads."""
    with ProtectedDatabase(path) as protected:
        writer.run(*[INSERT] * 10)
        protected.sync()
        with protected.session.image(None) as image:
            (reader,) = image.files
            before = bytes(reader.read(0, reader.size))
            writer.run("UPDATE t SET v = randomblob(2000)", *[INSERT] * 10, "PRAGMA wal_checkpoint(PASSIVE)")
            protected.maintain()
            assert bytes(reader.read(0, reader.size)) == before


def test_an_image_holds_its_commit_though_a_checkpoint_left_pages_out(path: Path, writer: SqliteWriter) -> None:
    """A checkpoint that stops at the hold skips pages with newer frames; the image shows them as of its position."""
    with ProtectedDatabase(path) as protected:
        writer.run("UPDATE t SET v = randomblob(3000)", *[INSERT] * 10)
        protected.full()
        writer.run("UPDATE t SET v = zeroblob(2900)")
        position = protected.sync()
        protected.session.close()
        # Opened anew, the hold is a read mark at exactly this position, and nothing is checkpointed yet.
        protected.open(protected.end())
        writer.run("UPDATE t SET v = randomblob(3000) WHERE id > 5", "PRAGMA wal_checkpoint(PASSIVE)")
        expected = protected.restore(position).read_bytes()
        with protected.session.image(None) as image:
            (reader,) = image.files
            assert image.position == position
            assert bytes(reader.read(0, reader.size)) == expected


def test_a_hold_does_not_move_to_a_commit_that_cannot_be_seen(
    path: Path, writer: SqliteWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the WAL-index is being written nobody knows how far a new hold reaches, so the old one stays."""
    with ProtectedDatabase(path) as protected:
        writer.run(*[INSERT] * 10)
        protected.full()
        protected.maintain()
        take = protected.session._connections.take_next_hold

        def take_while_a_commit_is_written() -> None:
            monkeypatch.undo()
            writer.run("UPDATE t SET v = randomblob(2900)")
            take()
            monkeypatch.setattr(protected.session._files, "index", lambda: None)

        writer.run(INSERT)
        protected.sync()
        monkeypatch.setattr(protected.session._connections, "take_next_hold", take_while_a_commit_is_written)
        protected.session._give_way(protected.ship)
        monkeypatch.undo()
        position = protected.session.position
        with protected.session.image(None) as image:
            (reader,) = image.files
            writer.run("PRAGMA wal_checkpoint(PASSIVE)")
            content = bytes(reader.read(0, reader.size))
            assert image.position == position
        assert content == protected.restore(position).read_bytes()


def test_image_stays_frozen_while_the_wal_restarts(path: Path, writer: SqliteWriter) -> None:
    """An image taken when everything was checkpointed does not change when the next commits overwrite the WAL."""
    with ProtectedDatabase(path) as protected:
        writer.run(*[INSERT] * 20)
        protected.full()
        writer.run("UPDATE t SET v = randomblob(3000)")
        protected.maintain()
        with protected.session.image(None) as image:
            (reader,) = image.files
            before = bytes(reader.read(0, reader.size))
            writer.run("UPDATE t SET v = randomblob(2900)")
            assert bytes(reader.read(0, reader.size)) == before
        # Between the last poll and the image the WAL may have been restarted already.
        protected.maintain()
        writer.run("UPDATE t SET v = randomblob(2800)")
        protected.maintain()
        writer.run("UPDATE t SET v = randomblob(2700) WHERE id < 5")
        with protected.session.image(None) as image:
            (reader,) = image.files
            before = bytes(reader.read(0, reader.size))
            writer.run("UPDATE t SET v = randomblob(2600) WHERE id > 5")
            assert bytes(reader.read(0, reader.size)) == before
            assert image.position == protected.session.position


def test_vacuum_and_schema_changes(path: Path, writer: SqliteWriter) -> None:
    """VACUUM, dropped and altered tables and auto_vacuum shrink and move pages; every state restores."""
    with ProtectedDatabase(path) as protected:
        writer.run(*[INSERT] * 40)
        protected.full()
        size = len(protected.base)
        for statements, expected in (
            (("DELETE FROM t WHERE id > 5", "VACUUM"), ids(5)),
            (("CREATE TABLE u(a)", "INSERT INTO u VALUES (1)", "ALTER TABLE t ADD COLUMN w", "DROP TABLE u"), ids(5)),
            (("PRAGMA auto_vacuum=FULL", "VACUUM", INSERT, "DELETE FROM t WHERE id=6"), ids(5)),
        ):
            writer.run(*statements)
            assert protected.rows(protected.sync()) == expected
            protected.maintain()
        protected.full()
        assert len(protected.base) < size


def test_transaction_larger_than_a_segment(path: Path, writer: SqliteWriter) -> None:
    """One huge transaction becomes one segment whose blocks are read when they are asked for."""
    with ProtectedDatabase(path) as protected:
        protected.full()
        writer.run("PRAGMA cache_size=100", "INSERT INTO t(v) VALUES (zeroblob(20000000))", INSERT)
        protected.session.poll()
        first = next(protected.session.log())
        assert len(first.marks) == 1
        assert not isinstance(first.blocks, list)
        end = protected.sync()
        assert protected.rows(end, "SELECT id, length(v) FROM t") == [(1, 20000000), (2, 3000)]


def test_rolled_back_spill_is_not_shipped(path: Path, writer: SqliteWriter) -> None:
    """Frames that a large transaction wrote before it was rolled back never reach the pool."""
    with ProtectedDatabase(path) as protected:
        protected.full()
        writer.run("PRAGMA cache_size=10", "BEGIN", *[INSERT] * 60)
        assert not protected.session.poll()
        writer.run("ROLLBACK", INSERT)
        assert protected.rows(protected.sync()) == ids(1)


def test_page_sizes(tmp_path: Path) -> None:
    """The smallest and the largest page size restore alike."""
    for page_size in (512, 65536):
        path = tmp_path / f"{page_size}.db"
        with SqliteWriter(path, f"page_size={page_size}", "journal_mode=WAL") as writer:
            writer.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
            with ProtectedDatabase(path) as protected:
                protected.full()
                writer.run(*[INSERT] * 20)
                protected.maintain()
                writer.run(INSERT)
                assert protected.rows(protected.sync()) == ids(21)


def test_second_session_is_refused(path: Path, writer: SqliteWriter) -> None:
    """Two sessions on one source are refused, and the refusal does not end the first one's locks."""
    with ProtectedDatabase(path) as protected:
        writer.run(INSERT)
        protected.full()
        with pytest.raises(Refused) as refusal:
            SqliteSession(str(path))
        assert refusal.value.code == "source-busy"
        SqliteWorkload().discover(str(path))
        writer.run(INSERT, "PRAGMA wal_checkpoint(TRUNCATE)", INSERT)
        assert protected.rows(protected.sync()) == ids(3)


def test_image_before_shipping_is_refused(path: Path, writer: SqliteWriter) -> None:
    """An image at a place that the database file may have left behind is refused instead of being wrong."""
    protected = ProtectedDatabase(path)
    with protected:
        protected.full()
        end = protected.end()
    writer.run(INSERT)
    protected.open(end)
    with (
        protected.session as session,
        pytest.raises(PerdureError, match="before its log was shipped"),
        session.image(None),
    ):
        pass


@pytest.mark.slow
def test_over_a_gibibyte(tmp_path: Path) -> None:
    """The page that holds SQLite's lock bytes, which is never written, is no obstacle."""
    path = tmp_path / "big.db"
    with SqliteWriter(path, "page_size=65536", "journal_mode=WAL") as writer:
        writer.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
        writer.run(*["INSERT INTO t(v) VALUES (zeroblob(200000000))"] * 5, "PRAGMA wal_checkpoint(TRUNCATE)")
        with ProtectedDatabase(path) as protected:
            protected.full()
            before = len(protected.base)
            writer.run("INSERT INTO t(v) VALUES (zeroblob(150000000))")
            end = protected.sync()
            assert before < 1 << 30
            target = protected.restore(end)
            assert target.stat().st_size > 1 << 30


def test_missing_database(path: Path, writer: SqliteWriter) -> None:
    """A deleted database is reported as gone, not as unchanged."""
    with ProtectedDatabase(path) as protected:
        protected.full()
        path.unlink()
        protected.clock.now += 2_000_000_000
        with pytest.raises(SourceUnusable) as gone:
            protected.session.poll()
        assert gone.value.code == "source-missing"


def test_removed_index(path: Path, writer: SqliteWriter) -> None:
    """A removed -shm is noticed and named; the session goes on in a new generation."""
    with ProtectedDatabase(path) as protected:
        protected.full()
        path.with_name(path.name + "-shm").unlink()
        protected.clock.now += 2_000_000_000
        with pytest.raises(TrackingLost, match="-shm"):
            protected.session.poll()
        protected.session.poll()
        assert protected.session.position.generation == 3


def test_removed_wal(path: Path, writer: SqliteWriter) -> None:
    """A removed -wal is noticed; while applications still use it SQLite cannot read the database, and that is said."""
    with ProtectedDatabase(path) as protected:
        protected.full()
        writer.run(INSERT)
        protected.maintain()
        writer.run(INSERT)
        protected.sync()
        path.with_name(path.name + "-wal").unlink()
        protected.clock.now += 2_000_000_000
        with pytest.raises(TrackingLost, match="-wal"):
            protected.session.poll()
        with pytest.raises(SourceUnusable) as unreadable:
            protected.session.poll()
        assert unreadable.value.code == "companions-damaged"
        writer.kill()
        protected.session.poll()
        protected.base = b""
        protected.full()
        assert protected.base_position.generation == 4
        assert protected.rows(protected.base_position) == [(1,)]


def test_replaced_database(path: Path, writer: SqliteWriter, tmp_path: Path) -> None:
    """A database that another file took the place of is noticed; the next image shows the new one."""
    other = tmp_path / "other.db"
    with SqliteWriter(other, "journal_mode=WAL") as replacement:
        replacement.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)", *[INSERT] * 7)
    with ProtectedDatabase(path) as protected:
        protected.full()
        writer.kill()
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()
        other.replace(path)
        protected.clock.now += 2_000_000_000
        with pytest.raises(TrackingLost, match="replaced"):
            protected.session.poll()
        protected.base = b""
        protected.full()
        assert protected.base_position == Position(3, 0)
        assert protected.rows(protected.base_position) == ids(7)
