"""kill -9 of perdure at every step of an Exchange backup: the next run goes on by itself, and no log is lost."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration" / "workloads" / "exchange"))

from protected_store import is_whole

from perdure.model.targets import Latest
from perdure.protection.home import Home
from perdure.protection.image_verbs import protect
from perdure.protection.points import timeline_of
from perdure.protection.protected import Protected
from perdure.protection.recovery import recover
from perdure.repository.keys import RecoveryKey
from perdure.repository.opening import create_pool
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.snapshots.writer import SOCKET_NAME, BackupKind
from perdure.snapshots.writer_server import serve_writer
from perdure.storage.local import LocalStorage
from perdure.testing.killed_backup import VERBS, Scene, run_backup
from perdure.testing.small_store import SmallStore

_KILLED = -9


class Store:
    """A small store that is protected in a real pool, and all the log that it ever completed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.engine = SmallStore(root / "store")
        self.written: set[int] = set()
        pool, key = create_pool(LocalStorage(root / "pool", create=True), b"kill nine", root / "made")
        self.scene = Scene(root / "pool", root / "home", RecoveryKey.parse(key))
        self.work()
        with serve_writer(self.engine, self.engine.folder / SOCKET_NAME):
            options = {"truncate-every": ["0.001s"]}
            protect(Home(self.scene.home), pool, "exchange", str(self.engine.folder), options=options)
        self.first = self.engine.generation

    def work(self) -> None:
        """Clients work; the engine writes what they changed, so that log may go as soon as it is backed up."""
        self.engine.work(2)
        self.engine.flush()

    def complete(self) -> set[int]:
        """The generations whose complete log is here."""
        return {int(path.stem[3:], 16) for path in self.engine.folder.glob("E00????????.log")}

    def wait_for_abort(self) -> None:
        """The engine has noticed that its requester is gone."""
        until = time.monotonic() + 20
        while self.engine.sets:
            assert time.monotonic() < until, "the writer still has the backup set of a dead requester"
            time.sleep(0.005)

    def lost_log(self, protected: Protected) -> set[int]:
        """Generations since the first image that are neither here nor in the pool."""
        held = {span.generation for span in protected.vault.spans(protected.source.id)}
        return set(range(self.first, self.engine.generation)) - self.complete() - held


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store whose writer is served."""
    store = Store(tmp_path)
    with serve_writer(store.engine, store.engine.folder / SOCKET_NAME):
        yield store


@pytest.mark.slow
@pytest.mark.parametrize("verb", sorted(VERBS))
def test_killed_at_every_step(store: Store, verb: str) -> None:
    """After a kill at any step no log is missing and no set is open; the same verb then works, without a break."""
    store.work()
    status, steps = run_backup(store.scene, verb)
    assert status == 0
    assert {"call prepare", "call freeze", "call thaw", "call complete", "answer of complete"} <= set(steps)
    assert any(step.startswith(("publish logs", "commit logs")) for step in steps)
    for step in steps:
        store.work()
        status, begun = run_backup(store.scene, verb, step)
        assert status == _KILLED, f"never came to {step!r}, only to {begun}"
        store.wait_for_abort()
        protected = store.scene.opened()
        assert store.lost_log(protected) == set(), f"killed at {step!r}"
        VERBS[verb](protected)
        source = protected.source.id
        assert timeline_of(protected.vault, source).gaps() == [], f"killed at {step!r}"
        assert protected.replica.state.value == "ok"
        assert protected.home.attention(source) == "", f"killed at {step!r}"
        assert store.engine.completed[-1][0] is (BackupKind.INCREMENTAL if verb == "sync" else BackupKind.FULL)
    assert isinstance(protected.vault, Pool)
    assert verify_pool(protected.vault, data=True).sound
    recover(protected, to=Latest(), target=store.root / "recovered")
    assert is_whole(store.root / "recovered")
    assert not list(store.engine.folder.glob(".perdure-snapshot*"))
