"""The log under load while the server is killed, the network is cut, a standby is promoted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from perdure.model.targets import AtPosition, Latest
from perdure.protection.home import Home
from perdure.protection.image_verbs import express_full, protect, synchronize
from perdure.protection.points import timeline_of
from perdure.protection.protected import Protected
from perdure.protection.recovery import recover
from perdure.protection.watch import watch
from perdure.protection.watch_events import WatchEvent, WatchKind
from perdure.repository.pool import Pool
from perdure.testing.cutting_proxy import CuttingProxy
from perdure.testing.postgres_load import PostgresLoad, opened
from perdure.testing.postgres_server import PostgresServer


@contextmanager
def watching(p: Protected) -> Iterator[list[WatchEvent]]:
    events: list[WatchEvent] = []
    stop = threading.Event()
    arguments = {"stop": stop, "on_event": events.append, "ship_every_ms": 50, "express_full_every_s": 3600}
    with ThreadPoolExecutor(1) as beside:
        watched = beside.submit(watch, [p], **arguments)
        try:
            yield events
        finally:
            stop.set()
        watched.result()


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def recovered_ids(p: Protected, room: Path, major: int, to: Latest | AtPosition) -> set[int]:
    target = room / f"recovered-{time.monotonic_ns()}"
    recover(p, to=to, target=target)
    with opened(PostgresServer(major, target)) as copy:
        return {int(row[0]) for row in copy.execute("SELECT id FROM ledger")}


def no_gap(p: Protected) -> bool:
    timeline = timeline_of(p.vault, p.source.id)
    first, last = timeline.stretches[0].start, timeline.end()
    return last is not None and timeline.continues(first, last)


@pytest.mark.slow
def test_log_continues_over_crashes_of_the_server(
    server: PostgresServer, major: int, room: Path, home: Home, pool: Pool
) -> None:
    """A server that is killed again and again leaves no gap, and what it had acknowledged comes back."""
    load = PostgresLoad(server).prepare()
    with load:
        load.wait_for(20)
        p, _ = protect(home, pool, "postgresql", server.conninfo)
        with watching(p):
            for _ in range(3):
                load.wait_for(60)
                server.kill()
                server.start()
            load.wait_for(60)
    synchronize(p)
    assert no_gap(p)
    assert len(timeline_of(pool, p.source.id).points) == 1
    ids = recovered_ids(p, room, major, Latest())
    assert {each.id for each in load.entries} <= ids <= {each.id for each in load.entries} | load.unsure


@pytest.mark.slow
def test_log_continues_over_cuts_of_the_network(
    server: PostgresServer, major: int, room: Path, home: Home, pool: Pool
) -> None:
    """A connection that is cut again and again leaves no gap."""
    load = PostgresLoad(server).prepare()
    with CuttingProxy(f"tcp://127.0.0.1:{server.port}") as proxy, load:
        port = proxy.endpoint.rpartition(":")[2]
        p, _ = protect(home, pool, "postgresql", f"host=127.0.0.1 port={port} user=postgres dbname=postgres")
        with watching(p):
            for _ in range(3):
                load.wait_for(50)
                proxy.vanish()
                load.wait_for(50)
                proxy.return_()
            load.wait_for(50)
        last = max(each.after for each in load.entries)
        synchronize(p)
    assert no_gap(p)
    ids = recovered_ids(p, room, major, Latest())
    assert {each.id for each in load.entries if each.after <= last} <= ids


def standby_of(server: PostgresServer, room: Path) -> PostgresServer:
    data = room / "standby"
    server.program("pg_basebackup", "-D", str(data), "-R", "-c", "fast", "-d", server.conninfo)
    return PostgresServer(server.major, data)


@pytest.mark.slow
def test_promotion_is_followed_without_a_gap(
    server: PostgresServer, major: int, room: Path, home: Home, pool: Pool
) -> None:
    """After a switch to a standby the log goes on with its new timeline, and either timeline can be recovered."""
    load = PostgresLoad(server).prepare()
    with standby_of(server, room) as standby:
        standby.start()
        location = (
            f"host=127.0.0.1,127.0.0.1 port={server.port},{standby.port} user=postgres dbname=postgres "
            "target_session_attrs=read-write"
        )
        p, _ = protect(home, pool, "postgresql", location)
        with watching(p) as events:
            with load:
                load.wait_for(60)
            before = {each.id for each in load.entries}
            end = server.execute("SELECT pg_current_wal_flush_lsn()")[0][0]
            until(lambda: standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{end}'")[0][0])
            server.stop()
            standby.execute("SELECT pg_promote()")
            after = PostgresLoad(standby, _next=100_000)
            with after:
                after.wait_for(60)
            until(lambda: str(timeline_of(pool, p.source.id).end()).startswith("2:"))
        synchronize(p)
        assert not [event for event in events if event.kind is WatchKind.EXPRESS_FULL]
        assert no_gap(p)
        assert before | {each.id for each in after.entries} <= recovered_ids(p, room, major, Latest())
        point = express_full(p)
        assert point.position is not None
        assert point.position.generation == 2
        with after:
            after.wait_for(30)
        synchronize(p)
        assert {each.id for each in after.entries} <= recovered_ids(p, room, major, Latest())


@pytest.mark.slow
def test_branch_before_the_end_of_the_log_is_compared(
    server: PostgresServer, major: int, room: Path, home: Home, pool: Pool
) -> None:
    """A standby promoted while it was behind is compared anew; what only the old primary had stays recoverable."""
    load = PostgresLoad(server).prepare()
    with standby_of(server, room) as standby:
        standby.start()
        location = (
            f"host=127.0.0.1,127.0.0.1 port={server.port},{standby.port} user=postgres dbname=postgres "
            "target_session_attrs=read-write"
        )
        p, _ = protect(home, pool, "postgresql", location)
        end = server.execute("SELECT pg_current_wal_flush_lsn()")[0][0]
        until(lambda: standby.execute(f"SELECT pg_last_wal_replay_lsn() >= '{end}'")[0][0])
        standby.stop()
        with load:
            load.wait_for(60)
        synchronize(p)
        lost = timeline_of(pool, p.source.id).end()
        assert lost is not None
        server.kill()
        standby.start()
        standby.execute("SELECT pg_promote()")
        after = PostgresLoad(standby, _next=100_000)
        with after:
            after.wait_for(30)
        result = synchronize(p)
        assert result.point is not None
        assert "branched off timeline 1" in result.point.cause
        assert {each.id for each in load.entries} <= recovered_ids(p, room, major, AtPosition(lost))
        with after:
            after.wait_for(30)
        synchronize(p)
        ids = recovered_ids(p, room, major, Latest())
        assert {each.id for each in after.entries} <= ids
        assert not {each.id for each in load.entries} & ids
