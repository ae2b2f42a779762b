from __future__ import annotations

import json
from pathlib import Path

import pytest

from perdure.testing.mailstore_ledger import Bounds, Ledger, LedgerBroken, LedgerWriter
from perdure.testing.mailstore_operations import AddMailbox


def intent(n: int, moment: int, before: int, address: str) -> str:
    return json.dumps(["intent", n, moment, before, [["mailbox", n, address]]]) + "\n"


def done(n: int, after: int) -> str:
    return json.dumps(["done", n, after]) + "\n"


def ledger(folder: Path, *, live: bool = False, **writers: str) -> Ledger:
    for name, text in writers.items():
        (folder / f"{name}.ledger").write_text(text)
    return Ledger.load(folder, live=live)


def addresses(book: Ledger, n: int) -> list[str]:
    return [address for (address,) in book.state_at(n)["mailboxes"].values()]


def test_writers_are_merged_in_commit_order(tmp_path: Path) -> None:
    """Commits of several writers come out in the order of the database's counter."""
    book = ledger(
        tmp_path,
        a=intent(1, 1, 10, "one") + done(1, 12) + intent(3, 3, 30, "three") + done(3, 33),
        b=intent(2, 2, 20, "two") + done(2, 22),
    )

    assert [commit.writer for commit in book.commits] == ["a", "b", "a"]
    assert addresses(book, 2) == ["one", "two"]
    assert addresses(book, 3) == ["one", "two", "three"]
    assert addresses(book, 1) == ["one"]
    assert (book.last, book.last_sure) == (3, 3)
    assert book.state_at(3)["clock"][1] == (3,)


def test_what_the_writer_appends_is_read_back(tmp_path: Path) -> None:
    """Intent, completion and rollback survive the round trip through the file."""
    with LedgerWriter(tmp_path, "w") as writer:
        writer.intent(1, [AddMailbox(1, "one")])
        writer.undone(1)
        writer.intent(1, [AddMailbox(1, "again")])
        writer.done(1)
    book = Ledger.load(tmp_path)

    assert addresses(book, 1) == ["again"]
    after = book.commit(1).after_ns
    assert after is not None
    assert book.commit(1).before_ns <= after


def test_a_killed_writers_commit_that_others_saw_is_sure(tmp_path: Path) -> None:
    """A commit without completion happened when a later transaction counted on from it."""
    book = ledger(tmp_path, a=intent(1, 1, 10, "one"), b=intent(2, 2, 20, "two") + done(2, 22))

    assert (book.last, book.last_sure) == (2, 2)
    assert addresses(book, 2) == ["one", "two"]
    assert Bounds(1, 3) == book.bounds_at(20), "the second could begin only after the first"


def test_a_killed_writers_commit_that_was_made_by_another_did_not_happen(tmp_path: Path) -> None:
    """When a later transaction got the same number, the earlier one was never committed."""
    book = ledger(tmp_path, a=intent(1, 5, 10, "lost"), b=intent(1, 6, 20, "kept") + done(1, 22))

    assert addresses(book, 1) == ["kept"]
    assert book.commit(1).writer == "b"


def test_the_last_commit_of_a_killed_writer_is_unknown(tmp_path: Path) -> None:
    """If nothing came after it only the database can tell, but its contents are known."""
    book = ledger(tmp_path, a=intent(1, 1, 10, "one") + done(1, 12) + intent(2, 2, 20, "two"))

    assert (book.last, book.last_sure) == (2, 1)
    assert list(book.unknown) == [2]
    assert addresses(book, 2) == ["one", "two"]
    assert Bounds(1, 3) == book.bounds_at(10**15)


def test_two_killed_writers_leave_the_later_intent(tmp_path: Path) -> None:
    """Of two unfinished transactions with one number only the later one can have been committed."""
    book = ledger(tmp_path, a=intent(1, 9, 90, "later"), b=intent(1, 3, 30, "earlier"))

    assert addresses(book, 1) == ["later"]
    assert book.last_sure == 0


@pytest.mark.parametrize("cut", [1, 7, 20])
def test_a_torn_line_did_not_happen(tmp_path: Path, cut: int) -> None:
    """A writer killed inside a line had not reached its COMMIT."""
    book = ledger(tmp_path, a=intent(1, 1, 10, "one") + done(1, 12) + intent(2, 2, 20, "two")[:-cut])

    assert (book.last, book.last_sure) == (1, 1)


def test_a_missing_commit_is_an_error_unless_the_writers_are_at_work(tmp_path: Path) -> None:
    """A gap means that the ledger cannot be trusted; while it is being written it ends there."""
    text = intent(1, 1, 10, "one") + done(1, 11) + intent(3, 3, 30, "three") + done(3, 31)

    with pytest.raises(LedgerBroken, match="commit 2"):
        ledger(tmp_path, a=text)
    assert Ledger.load(tmp_path, live=True).last == 1


def test_a_commit_that_two_writers_claim_is_an_error(tmp_path: Path) -> None:
    """Two completions of one number contradict each other."""
    with pytest.raises(LedgerBroken, match="by a and by b"):
        ledger(tmp_path, a=intent(1, 1, 10, "x") + done(1, 11), b=intent(1, 2, 10, "y") + done(1, 12))


def test_bounds_separate_what_was_from_what_may_have_been(tmp_path: Path) -> None:
    """At any moment commits that returned are in, commits that had not begun are out, the rest may be either."""
    book = ledger(
        tmp_path,
        a=intent(1, 1, 10, "one") + done(1, 25) + intent(3, 3, 30, "three") + done(3, 35),
        b=intent(2, 2, 20, "two") + done(2, 22),
    )

    assert Bounds(0, 1) == book.bounds_at(9)
    assert Bounds(0, 2) == book.bounds_at(15)
    assert Bounds(0, 3) == book.bounds_at(21), "the first may still be inside its COMMIT"
    assert Bounds(2, 3) == book.bounds_at(22), "the second had returned, so the first was in too"
    assert Bounds(2, 4) == book.bounds_at(34)
    assert Bounds(3, 4) == book.bounds_at(35)
    assert 2 in book.bounds_at(34)
    assert 1 not in book.bounds_at(34)
    assert 4 not in book.bounds_at(34)


def test_asking_beyond_the_ledger_is_an_error(tmp_path: Path) -> None:
    """There is no expectation for a commit that nobody made."""
    book = ledger(tmp_path, a=intent(1, 1, 10, "one") + done(1, 11))

    with pytest.raises(LedgerBroken, match="1 to 1, not 2"):
        book.state_at(2)
