"""perdure is killed again and again; nothing that was acknowledged is lost, and nothing is torn."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from protected_cluster import ProtectedCluster

from perdure.model.positions import Position
from perdure.model.replica import ReplicaState
from perdure.model.targets import AtPlace, AtPosition
from perdure.protection.home import Home
from perdure.protection.image_verbs import protect, synchronize
from perdure.protection.points import timeline_of
from perdure.protection.protected import Protected
from perdure.protection.recovery import recover
from perdure.repository.opening import create_pool
from perdure.repository.pool import Pool
from perdure.storage.local import LocalStorage
from perdure.testing.postgres_load import PostgresLoad, commits_of, wal_file
from perdure.testing.postgres_server import PostgresServer
from perdure.workloads.postgresql.lsn import format_lsn

ROWS = "SELECT id FROM ledger"
KILLS = int(os.environ.get("PERDURE_POSTGRES_KILLS", "6"))
VERBS = (
    ("watch", "main", "--json", "--ship-every", "20ms"),
    ("watch", "main", "--json", "--ship-every", "20ms", "--express-full-every", "0.2s"),
    ("express-full", "main", "--json"),
    ("check", "main", "--json"),
    ("sync", "main", "--json"),
)


def recovered_rows(p: Protected, target: Path, server: PostgresServer, to: Position) -> set[int]:
    recover(p, to=AtPosition(to), target=target)
    copy = PostgresServer(server.major, target)
    with copy.start():
        copy.wait_until_primary()
        return {int(row[0]) for row in copy.execute(ROWS)}


@dataclass(frozen=True)
class Installed:
    """A pool on the disk, and how to run the command line on it."""

    home: Home
    pool: Pool
    environment: dict[str, str]

    @classmethod
    def at(cls, place: Path) -> Installed:
        (place / "passphrase").write_bytes(b"kill nine")
        known = {"PERDURE_HOME": str(place / "home"), "PERDURE_PASSPHRASE_FILE": str(place / "passphrase")}
        pool = create_pool(LocalStorage(place / "pool", create=True), b"kill nine", place / "cache")[0]
        return cls(Home(place / "home"), pool, {**os.environ, **known})

    def protect(self, location: str) -> Protected:
        p, _ = protect(self.home, self.pool, "postgresql", location, name="main")
        self.home.remember_pool(self.pool.id, self.pool.storage.url)
        return p

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """The program in a process of its own, killed in the end."""
        with subprocess.Popen(
            [sys.executable, "-m", "perdure", *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def test_a_check_that_is_killed_costs_no_log(scene: ProtectedCluster, tmp_path: Path) -> None:
    """What was committed while a check ran and after it was killed is shipped; the replica is compared once more."""
    scene.server.execute("CREATE TABLE t(id int PRIMARY KEY)")
    installed = Installed.at(tmp_path)
    p = installed.protect(scene.location)
    with installed.running("check", "main") as killed:
        while p.replica.state is not ReplicaState.VERIFYING:
            assert killed.poll() is None, killed.stdout and killed.stdout.read()
            time.sleep(0.002)
        scene.server.execute("INSERT INTO t SELECT generate_series(1, 10)")
    assert p.replica.state is ReplicaState.VERIFYING
    middle = scene.lsn()
    scene.server.execute("INSERT INTO t SELECT generate_series(11, 20)")
    result = synchronize(p)
    assert (result.cause, p.replica.state) == ("consistency check", ReplicaState.OK)
    assert timeline_of(p.vault, p.source.id).gaps() == []
    recover(p, to=AtPlace("lsn", format_lsn(middle)), target=scene.root / "middle")
    with scene.start(scene.root / "middle") as copy:
        assert copy.execute("SELECT count(*) FROM t") == [(10,)]


@pytest.mark.slow
def test_perdure_may_be_killed_at_any_moment(scene: ProtectedCluster, tmp_path: Path) -> None:
    """Killed at random moments of every verb, perdure goes on without a gap, and every place that it lists is exact."""
    first = wal_file(scene.server)
    installed = Installed.at(tmp_path)
    chance = random.Random(int(os.environ.get("PERDURE_TEST_SEED", "9")))
    with PostgresLoad(scene.server, seed=9) as load:
        load.wait_for(10)
        p = installed.protect(scene.location)
        kills, number = 0, chance.randrange(len(VERBS))
        while kills < KILLS:
            number += 1
            with installed.running(*VERBS[number % len(VERBS)]) as process:
                try:
                    output, _ = process.communicate(timeout=chance.uniform(0.6, 2.5))
                    assert process.returncode == 0, output
                except subprocess.TimeoutExpired:
                    kills += 1
        load.wait_for(20)
    synchronize(p)
    timeline = timeline_of(p.vault, p.source.id)
    assert timeline.gaps() == []
    commits = commits_of(scene.server, first)
    end = timeline.end()
    assert end is not None
    everything = recovered_rows(p, scene.root / "end", scene.server, end)
    assert everything == load.rows_before(commits, len(commits))
    row = chance.randrange(len(commits) // 2, len(commits))
    place = Position(end.generation, commits[row].lsn)
    some = recovered_rows(p, scene.root / "some", scene.server, place)
    assert some == load.rows_before(commits, row)
