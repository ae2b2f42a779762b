"""A clock that jumps: nothing crashes, and a recovery by time never shows a later commit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from perdure.model.errors import NotFound
from perdure.model.points import DataSource
from perdure.model.targets import AtTime
from perdure.protection.home import Home
from perdure.protection.live import LiveSource
from perdure.protection.protected import Protected
from perdure.protection.recovery import recover
from perdure.repository import keys
from perdure.repository.opening import create_pool
from perdure.storage.local import LocalStorage
from perdure.testing.command_line import query
from perdure.testing.sqlite_writer import SqliteWriter
from perdure.workloads.sqlite import SqliteSession, SqliteWorkload

SECOND = 10**9


@pytest.mark.parametrize("seed", range(3))
def test_recovery_by_time_under_a_jumping_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Commits are never stamped earlier than the clock said, and a time shows exactly those stamped by then."""
    monkeypatch.setattr(keys, "_SCRYPT", (1 << 4, 8, 1))
    rng = random.Random(seed)
    now = [1_700_000_000 * SECOND]
    database = tmp_path / "app.db"
    clock_at_commit: list[int] = []
    with SqliteWriter(database, "journal_mode=WAL") as writer:
        writer.run("CREATE TABLE t(n INTEGER)", "INSERT INTO t VALUES(0)")
        pool, _ = create_pool(LocalStorage(tmp_path / "pool", create=True), b"tick", tmp_path / "cache")
        source = DataSource("c" * 32, "app", "sqlite", str(database))
        pool.register(source)
        protected = Protected(Home(tmp_path / "home"), pool, source, SqliteWorkload())
        with SqliteSession(str(database), clock=lambda: now[0]) as session:
            live = LiveSource(protected, session)
            live.begin()
            live.express_full("first replica")
            for n in range(1, 30):
                now[0] += rng.choice([1, 5, 3600, -1800, 86_400, -86_400, 0]) * SECOND
                writer.run(f"INSERT INTO t VALUES({n})")
                live.ship()
                clock_at_commit.append(now[0])
                if rng.random() < 0.2:
                    live.express_full("schedule")
                live.maintain()
    marks = [mark for span in pool.spans(source.id) for mark in pool.segment(source.id, span).marks]
    recorded = [int(mark["time_ns"]) for mark in marks]
    assert len(recorded) == len(clock_at_commit)
    assert all(seen >= clock for seen, clock in zip(recorded, clock_at_commit, strict=True))
    for number, moment in enumerate(sorted(set(clock_at_commit + recorded))):
        expected = sum(seen <= moment for seen in recorded)
        target = tmp_path / f"at-{number}.db"
        if moment < pool.points(source.id)[0].time_ns:
            with pytest.raises(NotFound) as caught:
                recover(protected, to=AtTime(moment), target=target, verify="none")
            assert caught.value.code == "before-first-point"
            continue
        recover(protected, to=AtTime(moment), target=target, verify="none")
        assert query(target, "SELECT max(n) FROM t") == [[expected]]
