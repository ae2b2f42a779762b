from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import cast

import pytest

from perdure.testing.demo.failing import DemoFailed
from perdure.testing.demo.program import Answer, Program
from perdure.testing.demo.recovering import RESOLUTION_NS, Wanted, recover
from perdure.testing.mailstore import Ledger, clock_of, fill, start_writer


class Copier:
    """Stands in for perdure: "recovers" a prepared copy."""

    def __init__(self, copy: Path) -> None:
        self._copy = copy

    def run(self, *arguments: str | Path) -> Answer:
        shutil.copyfile(self._copy, arguments[-1])
        return Answer({"position": "1:7"}, 0.5)


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[Path, Ledger]:
    """A copy of a mail store after ten transactions, and the ledger of twenty."""
    database, book, copy = tmp_path / "mail.db", tmp_path / "ledger", tmp_path / "copy.db"
    fill(database, book, size=1 << 20)
    assert start_writer(database, book, "one", commits=10, seed=1).wait(60) == 0
    shutil.copyfile(database, copy)
    assert start_writer(database, book, "two", commits=10, seed=2).wait(60) == 0
    return copy, Ledger.load(book)


def recovered(prepared: tuple[Path, Ledger], wanted: Wanted) -> int:
    copy, ledger = prepared
    program = cast("Program", Copier(copy))
    return recover(program, "mail", wanted, copy.with_name("target.db"), ledger).anchor.n


def moment(ledger: Ledger, n: int) -> int:
    after = ledger.commit(n).after_ns
    assert after is not None
    return after


def test_a_right_copy_passes(prepared: tuple[Path, Ledger]) -> None:
    """A copy that shows the moment that was asked for, with every row right, is accepted."""
    copy, ledger = prepared
    n = clock_of(copy)

    assert n == recovered(prepared, Wanted.at_time("right", moment(ledger, n), n))


def test_a_wrong_row_fails(prepared: tuple[Path, Ledger]) -> None:
    """One changed row in the copy fails the demo, naming the row."""
    copy, ledger = prepared
    connection = sqlite3.connect(copy)
    connection.execute("UPDATE messages SET flags = flags + 64 WHERE id = 2")
    connection.commit()
    connection.close()

    with pytest.raises(DemoFailed, match="messages 2:"):
        recovered(prepared, Wanted.at_time("wrong", moment(ledger, ledger.last_sure)))


def test_a_copy_from_the_future_fails(prepared: tuple[Path, Ledger]) -> None:
    """A copy must not show a transaction that had not begun by the moment that was asked for."""
    copy, ledger = prepared
    early = ledger.commit(clock_of(copy)).before_ns - 1

    with pytest.raises(DemoFailed, match="had not begun"):
        recovered(prepared, Wanted.at_time("future", early))


def test_a_copy_that_stays_behind_fails(prepared: tuple[Path, Ledger]) -> None:
    """A copy may not leave out what was committed well before the moment."""
    _, ledger = prepared

    with pytest.raises(DemoFailed, match="had returned"):
        recovered(prepared, Wanted.at_time("behind", moment(ledger, ledger.last_sure) + 2 * RESOLUTION_NS))


def test_another_commit_than_the_one_asked_for_fails(prepared: tuple[Path, Ledger]) -> None:
    """A position names one commit and no other."""
    copy, _ = prepared

    with pytest.raises(DemoFailed, match="was asked for"):
        recovered(prepared, Wanted("position", "1:7", "1:7", n=clock_of(copy) + 1))


def test_a_database_that_is_not_the_mail_store_fails(prepared: tuple[Path, Ledger]) -> None:
    """A copy that cannot be read fails the demo with a reason."""
    copy, _ = prepared
    copy.write_bytes(b"noise" * 1000)

    with pytest.raises(DemoFailed, match="cannot be read"):
        recovered(prepared, Wanted("position", "1:7", "1:7", n=1))
