"""The simulated information store as a process: it serves its writer, ends in order, comes back when killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perdure.ese.database import Database
from perdure.ese.folders import verify_files
from perdure.snapshots.writer import SOCKET_NAME, BackupKind, CopyRole, DatabaseState
from perdure.snapshots.writer_client import SocketWriter
from perdure.testing.information_store.journal import Journal


@contextmanager
def store_process(folder: Path, *options: str, clean: bool = True) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "perdure.testing.information_store", str(folder), "--control", *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        yield process
        if clean:
            process.terminate()
            assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def order(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def wait_for_generation(writer: SocketWriter, generation: int) -> None:
    """Until the database's log has come so far."""
    while writer.describe()[0].replayed_generation < generation:
        pass


def test_it_serves_ends_in_order_and_comes_back_when_killed(tmp_path: Path) -> None:
    """Killed at work and started again it has recovered, serves backups, and on SIGTERM its database is clean."""
    folder = tmp_path / "store"
    with store_process(folder, "--rate", "1000", "--page-size", "4096", clean=False) as process:
        with SocketWriter(folder / SOCKET_NAME) as writer:
            wait_for_generation(writer, 4)
        process.kill()
        process.wait()
    with store_process(folder, "--rate", "50") as process, SocketWriter(folder / SOCKET_NAME) as writer:
        (status,) = writer.describe()
        made = writer.prepare([status.name], BackupKind.FULL)
        writer.freeze(made)
        writer.thaw(made)
        (done,) = writer.complete(made, [status.name])
        assert done.stamped
        assert order(process, f"dismount {status.name}") == "done"
        assert writer.describe()[0].state is DatabaseState.DISMOUNTED
        assert order(process, f"mount {status.name}") == "done"
        assert order(process, "add Second") == "done"
        assert order(process, "nonsense").startswith("refused")
    assert [str(finding) for finding in verify_files([folder], trees=True).findings] == []
    path = Path(status.database_path)
    with Database(path) as database:
        assert database.header.clean
        assert database.header.previous_full_backup
    assert Journal.load(folder / "journal" / f"{status.name}.journal").compare(path) == []


@pytest.mark.slow
def test_a_group_switches_fails_over_and_comes_back(tmp_path: Path) -> None:
    """A copy becomes active by a switch and by a failure of its node, a passive one is backed up, rows are right."""
    folder, other = tmp_path / "one", tmp_path / "two"
    options = ("--rate", "60", "--page-size", "4096", "--node", "one", "--copies", f"two={other}")
    with store_process(folder, *options) as process:
        with SocketWriter(other / SOCKET_NAME) as passive:
            (status,) = passive.describe()
            assert status.role is CopyRole.PASSIVE
            made = passive.prepare([status.name], BackupKind.FULL)
            passive.freeze(made)
            passive.thaw(made)
            assert passive.complete(made, [status.name])[0].stamped
        assert order(process, f"switch {status.name} two") == "done"
        assert order(process, f"failover {status.name} one") == "done"
        assert order(process, f"reseed {status.name} two") == "done"
    with store_process(folder, *options) as process, SocketWriter(folder / SOCKET_NAME) as active:
        (status,) = active.describe()
        assert status.role is CopyRole.ACTIVE
        assert [copy.healthy for copy in status.copies] == [True]
    journal = Journal.load(folder / "journal" / f"{status.name}.journal")
    assert journal.compare(Path(status.database_path)) == []
