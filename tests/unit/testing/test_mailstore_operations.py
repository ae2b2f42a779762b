from __future__ import annotations

import json
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.testing.mailstore_content import BodyKind, digest
from perdure.testing.mailstore_operations import (
    OPERATIONS,
    SCHEMA,
    TABLES,
    AddFolder,
    AddMailbox,
    Delete,
    DeleteEverything,
    Deliver,
    Move,
    Operation,
    SetFlags,
    State,
    decode,
    encode,
)


def contents(database: sqlite3.Connection) -> dict[str, dict[int, tuple[object, ...]]]:
    found: dict[str, dict[int, tuple[object, ...]]] = {}
    for table in TABLES:
        rows = database.execute(f"SELECT * FROM {table}").fetchall()
        found[table] = {row[0]: (*row[1:-1], digest(row[-1]) if table == "messages" else row[-1]) for row in rows}
    return found


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    operations: list[Operation] = [AddMailbox(1, "a@example.com"), AddFolder(1, 1, "Inbox"), AddFolder(2, 1, "Trash")]
    present: list[int] = []
    folders = 2
    for key in range(1, draw(st.integers(1, 25)) + 1):
        choice = draw(st.sampled_from(["deliver", "flags", "move", "delete", "folder", "all"]))
        folder = draw(st.integers(1, folders))
        if choice == "folder":
            folders += 1
            operations.append(AddFolder(folders, 1, f"F{folders}"))
        elif choice == "deliver" or not present:
            made, _ = Deliver.make(key, folder=folder, received=key, kind=BodyKind.TEXT, seed=key, size=100)
            operations.append(made)
            present.append(key)
        elif choice == "flags":
            operations.append(SetFlags(draw(st.sampled_from(present)), draw(st.integers(0, 7))))
        elif choice == "move":
            operations.append(Move(draw(st.sampled_from(present)), folder))
        elif choice == "delete":
            operations.append(Delete(present.pop()))
        else:
            operations.append(DeleteEverything())
            present.clear()
    return operations


@given(histories())
@settings(max_examples=60, deadline=None)
def test_the_model_and_the_database_agree(history: list[Operation]) -> None:
    """After any operations, replayed from what the ledger keeps, the model holds what SQLite holds."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.executescript(SCHEMA)
    state = State()
    for operation in history:
        again = decode(json.loads(json.dumps(encode(operation))))
        assert operation == again
        again.execute(database)
        again.replay(state)

    assert contents(database) == state.tables()


@pytest.mark.parametrize("word", list(OPERATIONS))
def test_every_operation_is_found_by_its_word(word: str) -> None:
    """The word in the ledger leads to the operation that wrote it."""
    assert word == OPERATIONS[word].word


def test_a_copy_of_the_state_stays_as_it_was() -> None:
    """Replaying on does not change what was handed out before."""
    state = State()
    AddMailbox(1, "a@example.com").replay(state)
    before = state.tables()
    AddMailbox(2, "b@example.com").replay(state)

    assert list(before["mailboxes"]) == [1]
