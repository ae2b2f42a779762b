"""Two perdure processes on one source: the second is refused, the first goes on unharmed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from perdure.testing.command_line import CommandLine, query, wait_until_said, write


@pytest.mark.parametrize("own_home", [True, False], ids=["same-home", "another-home"])
def test_the_second_process_is_refused(tmp_path: Path, own_home: bool) -> None:
    """Whatever its home, a second process on a watched database is refused by name, and nothing is lost by it."""
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("one at a time\n")
    passphrase.chmod(0o600)
    database, pool, events = tmp_path / "app.db", tmp_path / "pool", tmp_path / "events"
    write(database, "PRAGMA journal_mode=WAL", "CREATE TABLE t(v)", "INSERT INTO t VALUES(1)")
    first = CommandLine(tmp_path / "home", passphrase)
    second = first if own_home else CommandLine(tmp_path / "other-home", passphrase)
    first.document("pool", "create", pool)
    with events.open("wb") as output:
        watch = subprocess.Popen(
            first.command("protect", f"sqlite:{database}", "--pool", pool, "--as", "app", "--watch", "--json"),
            env=first.environment(),
            stdout=output,
        )
    try:
        wait_until_said(events, '"express full"')
        if not own_home:
            second.document("pool", "open", pool)
        for command in (("sync", "app"), ("express-full", "app"), ("check", "app")):
            refusal = second.refusal(*command, status=4)
            assert refusal.code == "source-busy"
            assert refusal.hint
        write(database, "INSERT INTO t VALUES(2)")
        wait_until_said(events, '"kind":"log"')
    finally:
        watch.terminate()
        assert watch.wait(60) == 0
    first.document("recover", "app", "--to", "latest", "--target", tmp_path / "out.db")
    assert query(tmp_path / "out.db", "SELECT v FROM t ORDER BY v") == [[1], [2]]
