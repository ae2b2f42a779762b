from __future__ import annotations

import random
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from perdure.testing.mailstore import (
    Ledger,
    clock_of,
    fill,
    make_mistake,
    start_writer,
    stop_writer,
)


@pytest.fixture
def store(tmp_path: Path) -> tuple[Path, Path]:
    database, book = tmp_path / "mail.db", tmp_path / "ledger"
    fill(database, book, size=3 << 20, seed=5)
    return database, book


def change(database: Path, statement: str) -> None:
    connection = sqlite3.connect(database)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_the_filler_makes_what_its_ledger_says(store: tuple[Path, Path]) -> None:
    """A filled store has the size that was asked for, is in WAL mode, and equals the ledger."""
    database, book = store
    ledger = Ledger.load(book)

    assert database.stat().st_size >= 3 << 20
    assert database.read_bytes()[18:20] == b"\x02\x02", "write and read version 2: WAL"
    assert ledger.last == clock_of(database)
    assert ledger.compare(database, ledger.last) == []


def test_concurrent_writers_leave_what_their_ledgers_say(store: tuple[Path, Path]) -> None:
    """Four processes write at once, the mistake among them; every row is as the merged ledger says."""
    database, book = store
    writers = [start_writer(database, book, f"writer-{i}", seed=i, commits=40, small=i == 3) for i in range(4)]
    make_mistake(database, book)
    for writer in writers:
        assert writer.wait(60) == 0
    ledger = Ledger.load(book)

    assert 161 <= ledger.last == ledger.last_sure == clock_of(database)
    assert ledger.compare(database, ledger.last) == []
    assert ledger.compare(database, ledger.last - 1) != []
    assert {"fill", "mistake", "writer-0", "writer-1", "writer-2", "writer-3"} == {c.writer for c in ledger.commits}


def test_every_kind_of_operation_is_made(store: tuple[Path, Path]) -> None:
    """A writer delivers, flags, moves, deletes and makes folders."""
    database, book = store
    assert start_writer(database, book, "writer", seed=1, commits=150).wait(60) == 0
    words = {operation.word for commit in Ledger.load(book).commits for operation in commit.operations}

    assert {"mailbox", "folder", "deliver", "flags", "move", "delete"} == words


@pytest.mark.slow
def test_killed_writers_leave_a_ledger_that_still_tells_the_truth(store: tuple[Path, Path]) -> None:
    """Writers are killed at random moments, again and again; what SQLite kept is what the ledger can explain."""
    database, book = store
    source = random.Random(11)
    for round_ in range(12):
        writers = [
            start_writer(database, book, f"writer-{round_}-{i}", seed=100 * round_ + i, small=i == 0) for i in range(3)
        ]
        target = clock_of_live(database) + source.randint(1, 60)
        while clock_of_live(database) < target:
            assert all(writer.poll() is None for writer in writers)
        for writer in writers:
            stop_writer(writer, kill=True)
        ledger = Ledger.load(book)
        n = clock_of(database)

        assert n in {ledger.last_sure, ledger.last}
        assert ledger.compare(database, n) == []


def clock_of_live(database: Path) -> int:
    """The counter, read as an application does, by the library that the writers use."""
    connection = sqlite3.connect(database, timeout=60)
    ((n,),) = connection.execute("SELECT n FROM clock")
    connection.close()
    return int(n)


def test_a_ledger_can_be_read_while_it_is_written(store: tuple[Path, Path]) -> None:
    """What a live ledger holds so far is a whole history."""
    database, book = store
    writer = start_writer(database, book, "writer", seed=1)
    try:
        while Ledger.load(book, live=True).last < 20:
            assert writer.poll() is None
    finally:
        stop_writer(writer)

    assert Ledger.load(book).last == clock_of(database)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a body byte": lambda database: change(
        database, "UPDATE messages SET body = zeroblob(size) WHERE id = (SELECT max(id) FROM messages)"
    ),
    "a lost row": lambda database: change(database, "DELETE FROM messages WHERE id = 3"),
    "a row too many": lambda database: change(database, "INSERT INTO mailboxes VALUES (999, 'x')"),
    "a counter": lambda database: change(database, "UPDATE folders SET unseen = unseen + 1 WHERE id = 2"),
    "the clock": lambda database: change(database, "UPDATE clock SET n = n + 1"),
    "a table too many": lambda database: change(database, "CREATE TABLE surprise (x)"),
    "a missing table": lambda database: change(database, "DROP TABLE messages"),
    "noise": lambda database: overwrite(database, 0, random.Random(1).randbytes(database.stat().st_size)),
    "a page of noise": lambda database: overwrite(database, 4096 * 30, random.Random(1).randbytes(4096)),
}


def overwrite(database: Path, offset: int, content: bytes) -> None:
    with database.open("r+b") as file:
        file.seek(offset)
        file.write(content)


@pytest.mark.parametrize("what", list(DAMAGE))
def test_a_difference_is_found(store: tuple[Path, Path], what: str) -> None:
    """The comparison with the ledger notices every kind of difference."""
    database, book = store
    DAMAGE[what](database)
    ledger = Ledger.load(book)

    assert ledger.compare(database, ledger.last) != []


def test_a_writer_that_cannot_write_fails_loudly(tmp_path: Path) -> None:
    """A writer without a database ends with a status that is not taken for a clean end."""
    writer = start_writer(tmp_path / "none.db", tmp_path / "ledger", "writer")
    writer.wait(60)

    with pytest.raises(subprocess.CalledProcessError):
        stop_writer(writer)
