"""A drill of a recovered database: opened like an application opens it, checked whole, asked the user's questions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import apsw

from perdure.model.drills import DrillStep

__all__ = ["drill_database"]


def drill_database(path: Path, checks: Sequence[str]) -> Iterator[DrillStep]:
    """The steps of a drill; none follows one without which the database is of no use.

    Args:
        path: The recovered database, a scratch copy.
        checks: SQL statements. One passes if it runs and the first value of its first row is true in SQL's sense.
    """
    began = time.monotonic()
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        # A write lock is what an application that starts asks for; nothing is written.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        connection.execute("ROLLBACK")
    except apsw.Error as error:
        yield DrillStep("open", passed=False, seconds=time.monotonic() - began, details=(str(error),), recovers=True)
        return
    try:
        yield DrillStep("open", passed=True, seconds=time.monotonic() - began, recovers=True)
        yield _pragma(connection, "integrity_check", passes=[("ok",)])
        yield _pragma(connection, "foreign_key_check", passes=[])
        # What is looked at is not changed by looking.
        connection.pragma("query_only", True)
        for check in checks:
            yield _check(connection, check)
    finally:
        connection.close()


def _pragma(connection: apsw.Connection, name: str, passes: list[tuple[str, ...]]) -> DrillStep:
    began = time.monotonic()
    try:
        found = connection.execute(f"PRAGMA {name}").fetchall()
    except apsw.Error as error:
        return DrillStep(name, passed=False, seconds=time.monotonic() - began, details=(str(error),))
    lines = () if found == passes else tuple(" ".join(str(value) for value in row) for row in found)
    return DrillStep(name, found == passes, time.monotonic() - began, lines)


def _check(connection: apsw.Connection, statement: str) -> DrillStep:
    began = time.monotonic()
    try:
        row = connection.execute(statement).fetchone()
        answer = None if row is None else row[0]
        (true,) = connection.execute("SELECT ? IS TRUE", (answer,)).fetchall()[0]
    except apsw.Error as error:
        return DrillStep(statement, passed=False, seconds=time.monotonic() - began, details=(str(error),))
    seen = "it gave no row" if row is None else f"it gave {answer!r}"
    return DrillStep(statement, bool(true), time.monotonic() - began, () if true else (seen,))
