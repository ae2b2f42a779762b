"""The installed program as a new user meets it: protect, lose, bring back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# A program of its own: perdure's SQLite and the application's are never in one process.
# It keeps its connection open, as applications do, and says when a statement is committed.
WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.stdin:
    connection.execute(statement)
    print("committed", flush=True)
"""

READER = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(json.dumps([connection.execute("PRAGMA integrity_check").fetchall(), connection.execute(sys.argv[2]).fetchall()]))
"""

Perdure = Callable[..., Any]


class Application:
    """A program that has a database open and commits what it is told."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def write(self, *statements: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for statement in statements:
            self.process.stdin.write(statement + "\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == "committed\n"

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def rows(database: Path, query: str = "SELECT text FROM notes ORDER BY id") -> list[Any]:
    result = subprocess.run([sys.executable, "-c", READER, str(database), query], check=True, stdout=subprocess.PIPE)
    integrity, found = json.loads(result.stdout)
    assert integrity == [["ok"]]
    return [row[0] for row in found]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("open sesame\n")
    passphrase.chmod(0o600)
    return {
        **os.environ,
        "PERDURE_HOME": str(tmp_path / "home"),
        "PERDURE_PASSPHRASE_FILE": str(passphrase),
        "PERDURE_DEBUG": "1",
    }


@pytest.fixture
def perdure(environment: dict[str, str]) -> Perdure:
    """Run the program with ``--json`` and give back its document."""

    def run(*arguments: object, status: int = 0) -> Any:
        command = [sys.executable, "-m", "perdure", *map(str, arguments), "--json"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == status, f"{command}: {result.stdout}{result.stderr}"
        return json.loads(result.stdout)

    return run


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    running = Application(tmp_path / "app.db")
    running.write(
        "PRAGMA journal_mode=WAL",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)",
        "INSERT INTO notes (text) VALUES ('first')",
    )
    yield running
    running.end()


def test_a_database_is_protected_lost_and_brought_back(
    perdure: Perdure, environment: dict[str, str], application: Application, tmp_path: Path
) -> None:
    """Every committed transaction can be recovered by its position, also on a machine that knows only the pool."""
    pool, database = tmp_path / "pool", application.database
    perdure("pool", "create", pool)
    protected = perdure("protect", f"sqlite:{database}", "--pool", pool, "--as", "app")
    assert protected["point"]["number"] == 1

    application.write("INSERT INTO notes (text) VALUES ('second')")
    shipped = perdure("sync", "app")
    assert (shipped["commits"], shipped["cause"]) == (1, "")
    before_the_mistake = shipped["last"]
    application.write("DELETE FROM notes")
    full = perdure("express-full", "app")
    assert full["point"]["number"] == 2
    assert perdure("check", "app")["repaired_by"] is None

    kinds = [row["kind"] for row in perdure("points", "app")["points"]]
    assert kinds.count("express full") == 2
    assert "incremental" in kinds
    state = perdure("status")["sources"][0]
    assert (state["source"]["name"], state["state"], state["points"]) == ("app", "ok", 2)
    assert [item["name"] for item in perdure("browse", "app")["items"]] == ["notes"]
    assert perdure("verify", pool, "--data")["sound"] is True

    application.end()
    database.write_bytes(os.urandom(8192))
    report = perdure("recover", "app", "--to", before_the_mistake, "--target", tmp_path / "before.db")
    assert report["verification"]["passed"] is True
    perdure("recover", "app", "--to", "latest", "--target", tmp_path / "latest.db")
    perdure("recover", "app", "--to", "#1", "--target", tmp_path / "one.db")
    assert rows(tmp_path / "before.db") == ["first", "second"]
    assert rows(tmp_path / "latest.db") == []
    assert rows(tmp_path / "one.db") == ["first"]

    environment["PERDURE_HOME"] = str(tmp_path / "another machine")
    assert [source["name"] for source in perdure("pool", "open", pool)["sources"]] == ["app"]
    perdure("recover", "app", "--to", before_the_mistake, "--target", tmp_path / "elsewhere.db")
    assert rows(tmp_path / "elsewhere.db") == ["first", "second"]


def test_a_folder_is_protected_and_one_file_brought_back(perdure: Perdure, tmp_path: Path) -> None:
    """A folder's points keep what was there, without what was excluded, and single items come back."""
    pool, share = tmp_path / "pool", tmp_path / "share"
    (share / "reports").mkdir(parents=True)
    (share / "reports" / "a.txt").write_text("one")
    (share / "junk.tmp").write_text("junk")
    perdure("pool", "create", pool)
    perdure("protect", f"files:{share}", "--pool", pool, "--exclude", "*.tmp")
    (share / "reports" / "a.txt").write_text("changed")
    (share / "reports" / "b.txt").write_text("new")
    assert perdure("sync", "share")["point"]["number"] == 2

    listed = perdure("browse", "share", "reports", "--to", "2")["items"]
    assert [item["name"] for item in listed] == ["a.txt", "b.txt"]
    perdure("recover", "share", "--to", "1", "--target", tmp_path / "whole")
    perdure("recover", "share", "--to", "latest", "--target", tmp_path / "item", "--item", "reports/b.txt")
    assert sorted(str(p.relative_to(tmp_path / "whole")) for p in (tmp_path / "whole").rglob("*")) == [
        "reports",
        "reports/a.txt",
    ]
    assert (tmp_path / "whole" / "reports" / "a.txt").read_text() == "one"
    assert (tmp_path / "item" / "reports" / "b.txt").read_text() == "new"
    assert not (tmp_path / "item" / "reports" / "a.txt").exists()
    assert perdure("verify", pool, "--data")["sound"] is True


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_watch_ships_what_is_written_and_ends_cleanly(
    perdure: Perdure, environment: dict[str, str], application: Application, tmp_path: Path, how: signal.Signals
) -> None:
    """``watch`` reports every commit durable, ends with 0 on SIGINT and SIGTERM, and what it reported recovers."""
    pool = tmp_path / "pool"
    perdure("pool", "create", pool)
    perdure("protect", f"sqlite:{application.database}", "--pool", pool)
    watching = subprocess.Popen(
        [sys.executable, "-m", "perdure", "watch", "app", "--json"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert watching.stdout is not None
    try:
        application.write("INSERT INTO notes (text) VALUES ('while watched')")
        event = next(e for e in map(json.loads, watching.stdout) if e["kind"] == "log" and e["commits"])
        watching.send_signal(how)
        assert watching.wait(timeout=60) == 0
    finally:
        watching.kill()
        watching.wait()

    perdure("recover", "app", "--to", event["position"], "--target", tmp_path / "recovered.db")
    assert rows(tmp_path / "recovered.db") == ["first", "while watched"]


def test_mistakes_are_answered_with_stable_codes(perdure: Perdure, application: Application, tmp_path: Path) -> None:
    """Wrong input gives its documented exit status and code, and damages nothing."""
    pool, database = tmp_path / "pool", application.database
    not_a_database = tmp_path / "text.db"
    not_a_database.write_text("this is no database, but long enough to hold a header of one hundred bytes" * 4)

    def code(*arguments: object, status: int) -> str:
        return str(perdure(*arguments, status=status)["error"]["code"])

    assert code("pool", "info", pool, status=3) == "pool-missing"
    perdure("pool", "create", pool)
    assert code("protect", f"sqlite:{tmp_path}/missing.db", "--pool", pool, status=5) == "source-missing"
    assert code("protect", f"sqlite:{not_a_database}", "--pool", pool, status=5) == "not-a-database"
    assert code("protect", f"postgres:{database}", "--pool", pool, status=2) == "unknown-workload"
    assert code("protect", str(database), "--pool", pool, status=2) == "bad-location"
    assert code("status", "surplus", status=2) == "bad-usage"
    assert code("watch", status=3) == "nothing-protected"
    perdure("protect", f"sqlite:{database}", "--pool", pool)
    assert code("recover", "app", "--to", "99", "--target", tmp_path / "x", status=3) == "point-not-found"
    assert code("recover", "app", "--to", "1999-01-01", "--target", tmp_path / "x", status=3) == "before-first-point"
    assert code("recover", "app", "--to", "latest", "--target", not_a_database, status=4) == "target-exists"
    assert code("recover", "app", "--to", "latest", "--target", database, status=4) == "would-overwrite-source"
    assert rows(database) == ["first"]
