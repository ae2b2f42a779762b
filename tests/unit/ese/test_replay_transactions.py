"""Transactions in the log: what of an unfinished one is taken back, and what must have been by the log itself."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.ese.pages import PageFlag
from perdure.ese.replay.errors import Contradiction, Incapable
from perdure.ese.replay.undo import roll_back as take_back
from perdure.testing.ese_replay import BRANCH, LEAF, ReplayScene, begin, commit, macro, node_record, roll_back

DELETED = 2
ROOT = int(PageFlag.ROOT)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[ReplayScene]:
    """A tree whose only page, 4, has three nodes."""
    made = ReplayScene(tmp_path)
    made.put(4, [(b"aa", b"1"), (b"cc", b"3"), (b"dd", (5).to_bytes(4, "little"))], flags=LEAF | ROOT)
    yield made
    made.close()


def insert(times: tuple[int, int], key: bytes, line: int, version: int = 0, **fields: int) -> bytes:
    body = struct.pack("<HHH", len(key), 0, 1) + key + b"x"
    return node_record(29, 4, times, body, line=line, version=version, **fields)  # type: ignore[arg-type]


def replace(times: tuple[int, int], old: int, data: bytes, line: int, version: int = 0, **fields: int) -> bytes:
    body = struct.pack("<HHH", len(data), old, len(data)) + data
    return node_record(33, 4, times, body, line=line, version=version, **fields)  # type: ignore[arg-type]


def undo(times: tuple[int, int], kind: int, key: bytes, line: int, version: int) -> bytes:
    head = node_record(39, 4, times, line=line, version=version)
    return head + struct.pack("<HHHB", len(key), 0, kind, 1) + key


def information(kind: int, key: bytes, before: bytes, version: int, data: bytes = b"", *, unique: bool = True) -> bytes:
    head = node_record(36, 4, (0, 0), version=version, unique=unique)
    return head + struct.pack("<HHHhhH", len(key), len(data), kind, 0, 0, len(before)) + key + data + before


def rolled_back(scene: ReplayScene) -> int:
    """Take back what all sessions have not ended, and say how many changes that were."""
    return sum(take_back(scene.target, session) for session in scene.interpreter.sessions)


START = [(b"aa", b"1", 0), (b"cc", b"3", 0), (b"dd", b"\5\0\0\0", 0)]


def test_everything_unfinished_is_taken_back(scene: ReplayScene) -> None:
    """Inserts stay as deleted nodes, as the engine leaves them; all else is as it was, and dbtimes go on."""
    delta = node_record(37, 4, (13, 14), struct.pack("<HHiH", 2, 0, 7, 0) + b"dd", line=3, version=4)
    scene.redo(begin(), insert((10, 11), b"bb", 1, 1), replace((11, 12), 1, b"long", 2, 2))
    scene.redo(node_record(32, 4, (12, 13), line=0, version=3), delta)
    assert [node.data for node in scene.target.cache.page(4).nodes] == [b"1", b"x", b"long", b"\x0c\0\0\0"]
    assert rolled_back(scene) == 4
    assert scene.rows(4) == [START[0], (b"bb", b"x", DELETED), *START[1:]]
    assert scene.page(4).dbtime == scene.target.dbtime == 18


def test_what_ended_stays(scene: ReplayScene) -> None:
    """A commit makes changes stay, whatever other sessions do."""
    scene.redo(begin(), begin(2), insert((10, 11), b"bb", 1, 1), insert((11, 12), b"ee", 4, 2, process=2), commit())
    assert rolled_back(scene) == 1
    assert [(key, flags) for key, _data, flags in scene.rows(4)] == [
        *((b"aa", 0), (b"bb", 0), (b"cc", 0), (b"dd", 0)),
        (b"ee", DELETED),
    ]


def test_the_newest_change_is_taken_back_first(scene: ReplayScene) -> None:
    """Several changes of one node, some of them known only from UndoInfo, end at the data before all."""
    scene.redo(begin(), replace((10, 11), 1, b"22", 1, 1), replace((11, 12), 2, b"333", 1, 2))
    scene.redo(node_record(32, 4, (12, 13), line=1, version=3))
    again = struct.pack("<HHI", 2, 1, 5) + b"ccz"
    scene.redo(node_record(31, 4, (13, 14), again, line=1, version=4))
    assert scene.rows(4)[1] == (b"cc", b"z", 0)
    rolled_back(scene)
    assert scene.rows(4) == START


def test_what_the_image_holds_already(scene: ReplayScene) -> None:
    """Changes that the page holds already are taken back by what UndoInfo says, in their own order."""
    scene.put(4, [(b"aa", b"1", DELETED), (b"cc", b"new"), (b"dd", b"\5\0\0\0")], flags=LEAF | ROOT, dbtime=20)
    scene.redo(begin(), node_record(32, 4, (10, 11), line=0, version=1), replace((11, 12), 1, b"333", 1, 2))
    scene.redo(replace((12, 13), 3, b"new", 1, 3))
    scene.redo(information(2, b"cc", b"333", 3), information(2, b"cc", b"3", 2), information(3, b"aa", b"", 1))
    assert rolled_back(scene) == 3
    assert scene.rows(4) == START


@pytest.mark.parametrize("ends", [True, False])
def test_the_data_before_are_missing(scene: ReplayScene, ends: bool) -> None:
    """Without UndoInfo an unfinished change that the image holds cannot be taken back; an ended one need not be."""
    scene.put(4, [(b"cc", b"new")], flags=LEAF | ROOT, dbtime=20)
    scene.redo(begin(), replace((10, 11), 1, b"new", 0, 7))
    if ends:
        scene.redo(commit())
        assert rolled_back(scene) == 0
        return
    with pytest.raises(Contradiction, match=r"what was before its a record \(version 0x7\) is not in the log"):
        rolled_back(scene)


def test_the_log_says_what_was_taken_back(scene: ReplayScene) -> None:
    """Undo records take changes back, and after them and a Rollback nothing is left to do."""
    scene.redo(begin(), insert((10, 11), b"bb", 1, 1), replace((11, 12), 1, b"33", 2, 2))
    scene.redo(undo((12, 13), 2, b"cc", 2, 2), undo((13, 14), 1, b"bb", 1, 1), roll_back())
    assert scene.rows(4) == [START[0], (b"bb", b"x", DELETED), *START[1:]]
    assert list(scene.interpreter.sessions) == []


def test_half_of_a_rollback(scene: ReplayScene) -> None:
    """A log that ends within a rollback leaves only the rest to be taken back."""
    scene.redo(begin(), insert((10, 11), b"bb", 1, 1), replace((11, 12), 1, b"33", 2, 2))
    scene.redo(undo((12, 13), 2, b"cc", 2, 2))
    assert rolled_back(scene) == 1
    assert scene.rows(4) == [START[0], (b"bb", b"x", DELETED), *START[1:]]


def test_a_rollback_whose_undo_is_missing(scene: ReplayScene) -> None:
    """A Rollback behind changes that no record took back means that records are missing."""
    scene.redo(begin(), insert((10, 11), b"bb", 1, 1))
    with pytest.raises(Contradiction, match=r"1 of its changes were never undone.*0x1"):
        scene.redo(roll_back())


def test_a_replace_of_nothing_leaves_no_undo(scene: ReplayScene) -> None:
    """The engine takes back a replace that changed nothing without a record."""
    scene.redo(begin(), replace((10, 11), 1, b"3", 1, 1), roll_back())
    assert scene.rows(4) == START


@pytest.mark.parametrize(("kind", "key", "version"), [(1, b"bb", 9), (2, b"bb", 1), (1, b"xx", 1)])
def test_an_undo_of_what_was_never_done(scene: ReplayScene, kind: int, key: bytes, version: int) -> None:
    """An Undo record that names no unfinished change is an error."""
    scene.redo(begin(), insert((10, 11), b"bb", 1, 1))
    with pytest.raises(Contradiction, match="no unfinished change has that number"):
        scene.redo(undo((11, 12), kind, key, 1, version))


def test_inner_transactions(scene: ReplayScene) -> None:
    """An inner transaction that ends well belongs to the outer one; one that was rolled back is gone."""
    inner, ended = struct.pack("<BHB", 5, 1, 0x11), struct.pack("<BHB", 6, 1, 1)
    scene.redo(begin(), inner, insert((10, 11), b"bb", 1, 1, level=2), ended, inner)
    scene.redo(insert((11, 12), b"ee", 4, 2, level=2), undo((12, 13), 1, b"ee", 4, 2), roll_back())
    session = scene.interpreter.sessions.get(1)
    assert session is not None
    assert session.level == 1
    assert rolled_back(scene) == 1
    assert [(key, flags) for key, _data, flags in scene.rows(4) if flags] == [(b"bb", DELETED), (b"ee", DELETED)]


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ([begin(), begin()], "its end is missing"),
        ([commit()], "began no transaction"),
        ([roll_back()], "began no transaction"),
        ([insert((10, 11), b"bb", 1, 1)], "began no transaction"),
        ([begin(), insert((10, 11), b"bb", 1, 1, level=2)], "beginning or end of a transaction is missing"),
        ([begin(), insert((10, 11), b"bb", 1, 1, level=0)], "outside of any transaction"),
        ([begin(), insert((10, 11), b"bb", 1, 1), bytes([49]) + bytes(575)], "never undone"),
    ],
)
def test_records_of_transactions_that_are_missing(scene: ReplayScene, records: list[bytes], what: str) -> None:
    """Transactions that begin or end where they cannot mean that records are missing."""
    with pytest.raises(Contradiction, match=what):
        scene.redo(*records)


def test_a_node_that_moved_is_found(scene: ReplayScene) -> None:
    """What is taken back is looked for from the root, wherever splits have moved it, also among equal keys."""
    scene.put(5, [(b"kk", b"1"), (b"kk", b"2")], dbtime=11)
    scene.put(6, [(b"kk", b"3"), (b"kk", b"5")], dbtime=12)
    pointers = [(b"kk3", (5).to_bytes(4, "little")), (b"", (6).to_bytes(4, "little"))]
    scene.put(4, [*pointers], flags=BRANCH | ROOT)
    body = struct.pack("<HHH", 2, 0, 1) + b"kk4"
    scene.redo(begin(), node_record(29, 6, (12, 13), body, line=1, version=1, unique=False))
    scene.redo(node_record(32, 5, (11, 14), line=1, version=2, unique=False))
    assert rolled_back(scene) == 2
    assert scene.rows(5) == [(b"kk", b"1", 0), (b"kk", b"2", 0)]
    assert scene.rows(6) == [(b"kk", b"3", 0), (b"kk", b"4", DELETED), (b"kk", b"5", 0)]


def test_what_is_not_in_the_tree_any_more(scene: ReplayScene) -> None:
    """A node that has to be taken back and is not there is an error that names its tree."""
    scene.redo(begin(), insert((10, 11), b"bb", 1, 1), node_record(35, 4, (11, 12), line=1))
    with pytest.raises(Contradiction, match="page 4: the key 6262, a change of which has to be taken back"):
        rolled_back(scene)


def test_what_somebody_else_changed_is_not_taken_back(scene: ReplayScene) -> None:
    """A commit that is missing shows when what it committed was changed since: nobody else may while it is open."""
    scene.redo(begin(), begin(2), replace((10, 11), 1, b"mine", 0, 1))
    scene.redo(replace((11, 12), 4, b"theirs", 0, 2, process=2), commit(2))
    with pytest.raises(Contradiction, match="changed by somebody else"):
        rolled_back(scene)


@pytest.mark.parametrize("kind", [53, 54, 55])
def test_distributed_transactions_are_refused(scene: ReplayScene, kind: int) -> None:
    """Whether a transaction that several stores commit together was committed is not in the log of one of them."""
    with pytest.raises(Incapable, match="several stores"):
        scene.redo(struct.pack("<BHBI", kind, 1, 0, 0))


def test_a_macro_with_a_record_twice(scene: ReplayScene) -> None:
    """Records of a macro share one dbtime, so that one is there twice shows only when they are compared."""
    scene.redo(begin())
    with pytest.raises(Contradiction, match="same record twice"):
        scene.redo(*macro(11, *[node_record(35, 4, (10, 11), line=0)] * 2))
