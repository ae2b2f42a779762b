"""Joining the log of a real database."""

from __future__ import annotations

from pathlib import Path

from perdure.model.targets import AtPosition
from perdure.protection.home import Home
from perdure.protection.image_verbs import open_session, protect
from perdure.protection.log_joining import delete_covered, join_log
from perdure.protection.points import timeline_rows
from perdure.protection.recovery import recover
from perdure.repository.opening import create_pool
from perdure.repository.verify import verify_pool
from perdure.storage.local import LocalStorage
from perdure.testing.command_line import query
from perdure.testing.eager_sqlite import EagerSqliteWorkload
from perdure.testing.sqlite_writer import SqliteWriter


def test_every_transaction_of_joined_log_recovers(path: Path, writer: SqliteWriter, tmp_path: Path) -> None:
    """Across WAL restarts, joined log brings back every transaction after the segments it was made of are gone."""
    pool, _ = create_pool(LocalStorage(tmp_path / "pool", create=True), b"x", tmp_path / "cache")
    workload = EagerSqliteWorkload()
    protected, _ = protect(Home(tmp_path / "home"), pool, "sqlite", str(path), workload=workload)
    with open_session(protected) as live:
        for number in range(60):
            writer.run(f"INSERT INTO t VALUES ({number}, randomblob(9000))")
            live.ship()
            if number % 15 == 14:
                live.maintain()
        live.express_full("test")
    source = protected.source
    before = pool.spans(source.id)
    places = [row for row in timeline_rows(pool, source.id, commits=True) if row.number is None]
    assert len({span.generation for span in before}) > 1

    joined = join_log(pool, source, workload, most=2)
    deleted = delete_covered(pool, source, grace_s=0)

    assert joined.segments == deleted > 40
    assert len(pool.spans(source.id)) == len(before) - deleted + joined.into
    assert [row.position for row in places] == [
        row.position for row in timeline_rows(pool, source.id, commits=True) if row.number is None
    ]
    for row in places[::7]:
        assert row.position is not None
        target = tmp_path / f"r-{row.position.generation}-{row.position.place}.db"
        recover(protected, to=AtPosition(row.position), target=target)
        expected = sum(place.position <= row.position for place in places if place.position is not None)
        assert query(target, "SELECT count(*), max(id) FROM t") == [[expected, expected - 1]]
    assert verify_pool(pool, data=True).sound
