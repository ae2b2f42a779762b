"""What every type of record about a node does to its page, and that it is done once, in order, or not at all."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.ese.errors import EseDamaged
from perdure.ese.pages import PageFlag
from perdure.ese.replay.differences import apply_difference
from perdure.ese.replay.errors import Contradiction, Incapable
from perdure.testing.ese_replay import BRANCH, LEAF, NEW, ReplayScene, begin, commit, node_record

DELETED = 2
ROOT_LEAF = LEAF | int(PageFlag.ROOT)


@pytest.fixture(params=[4096, 32768])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReplayScene]:
    """A database in whose transaction session 1 is."""
    made = ReplayScene(tmp_path, request.param)
    made.redo(begin())
    yield made
    made.close()


def lengths(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}H", *numbers)


def insert(page: int, times: tuple[int, int], key: bytes, data: bytes, line: int, *, unique: bool = True) -> bytes:
    body = lengths(len(key) - 1, 1, len(data)) + key + data
    return node_record(29, page, times, body, line=line, unique=unique)


def test_insert(scene: ReplayScene) -> None:
    """Insert puts a node at its line, and the page is of the record's dbtime."""
    scene.put(5, [(b"aa", b"1"), (b"cc", b"3")])
    scene.redo(insert(5, (10, 11), b"bb", b"2", 1))
    assert scene.rows(5) == [(b"aa", b"1", 0), (b"bb", b"2", 0), (b"cc", b"3", 0)]
    assert scene.page(5).dbtime == 11


def test_a_change_is_made_once(scene: ReplayScene) -> None:
    """A page that is of the record's dbtime or newer keeps what it holds."""
    scene.put(5, [(b"aa", b"1")], dbtime=11)
    scene.redo(insert(5, (10, 11), b"bb", b"2", 1), insert(5, (9, 10), b"cc", b"3", 0))
    assert scene.rows(5) == [(b"aa", b"1", 0)]
    assert scene.target.counters.skipped == 2


@pytest.mark.parametrize(("times", "what"), [((9, 12), "not in the log"), ((11, 12), "")])
def test_a_page_of_another_time(scene: ReplayScene, times: tuple[int, int], what: str) -> None:
    """A page that holds an unknown change is an error; one that lacks a change is noted until the image ends."""
    scene.put(5, [(b"aa", b"1")])
    if what:
        with pytest.raises(Contradiction, match=f"page 5: it is of dbtime 0xa.*{what}"):
            scene.redo(insert(5, times, b"bb", b"2", 1))
        return
    scene.redo(insert(5, times, b"bb", b"2", 1))
    assert "page 5: it is of dbtime 0xa, and the record expects 0xb" in scene.target.pending[5]
    assert scene.rows(5) == [(b"aa", b"1", 0)]


def test_behind_the_image_every_change_is_needed(scene: ReplayScene) -> None:
    """Where the image cannot hold a change, one that is there was replayed twice, one that lacks is lost."""
    scene.put(5, [(b"aa", b"1")])
    scene.target.may_be_newer = False
    scene.redo(insert(5, (10, 11), b"bb", b"2", 1))
    with pytest.raises(Contradiction, match="replayed before"):
        scene.redo(insert(5, (10, 11), b"bb", b"2", 1))
    with pytest.raises(Contradiction, match="a change before it is missing"):
        scene.redo(insert(5, (12, 13), b"dd", b"2", 2))
    with pytest.raises(Contradiction, match="page 6: it was never written"):
        scene.redo(insert(6, (12, 13), b"dd", b"2", 0))


@pytest.mark.parametrize(
    ("key", "data", "line", "unique"),
    [
        (b"aa", b"9", 1, True),
        (b"a", b"", 1, True),
        (b"d", b"", 1, True),
        (b"aa", b"0", 1, False),
        (b"aa", b"9", 9, True),
    ],
)
def test_a_node_that_is_out_of_order(scene: ReplayScene, key: bytes, data: bytes, line: int, unique: bool) -> None:
    """A key that is not between its neighbours, or a line that is not there, is an error that names the page."""
    scene.put(5, [(b"aa", b"1"), (b"cc", b"3")])
    with pytest.raises((Contradiction, EseDamaged), match="page 5"):
        scene.redo(insert(5, (10, 11), key, data, line, unique=unique))


def test_equal_keys_order_by_their_data(scene: ReplayScene) -> None:
    """In a tree whose keys are not unique, nodes of one key order by their data."""
    scene.put(5, [(b"aa", b"1"), (b"aa", b"3")])
    scene.redo(insert(5, (10, 11), b"aa", b"2", 1, unique=False))
    assert [data for _key, data, _flags in scene.rows(5)] == [b"1", b"2", b"3"]


def test_deleting_and_inserting_again(scene: ReplayScene) -> None:
    """A deleted node stays, flagged, until it is inserted again, with or without other data, or removed."""
    scene.put(5, [(b"aa", b"1"), (b"bb", b"2")])
    scene.redo(node_record(32, 5, (10, 11), line=1))
    assert scene.rows(5)[1] == (b"bb", b"2", DELETED)
    scene.redo(node_record(30, 5, (11, 12), lengths(2, 1) + b"bb2", line=1))
    assert scene.rows(5)[1] == (b"bb", b"2", 0)
    scene.redo(node_record(32, 5, (12, 13), line=1))
    scene.redo(node_record(31, 5, (13, 14), lengths(2, 3) + bytes(4) + b"bbnew", line=1))
    assert scene.rows(5)[1] == (b"bb", b"new", 0)
    scene.redo(node_record(32, 5, (14, 15), line=0), node_record(35, 5, (15, 16), line=0))
    assert scene.rows(5) == [(b"bb", b"new", 0)]


def test_what_is_not_as_the_record_says(scene: ReplayScene) -> None:
    """Deleting twice, inserting what is there, and another key on the line are errors."""
    scene.put(5, [(b"aa", b"1"), (b"bb", b"2", DELETED)])
    for record in (
        node_record(32, 5, (10, 11), line=1),
        node_record(30, 5, (10, 11), lengths(2, 1) + b"aa1", line=0),
        node_record(31, 5, (10, 11), lengths(2, 1) + bytes(4) + b"xx1", line=1),
        node_record(33, 5, (10, 11), lengths(1, 1, 1) + b"9", line=1),
        node_record(35, 5, (10, 11), line=2),
    ):
        with pytest.raises((Contradiction, EseDamaged), match="page 5"):
            scene.redo(record)


def test_replace(scene: ReplayScene) -> None:
    """Replace gives all of the new data, ReplaceD what differs; the sizes of both must fit."""
    scene.put(5, [(b"aa", b"hello world")])
    scene.redo(node_record(33, 5, (10, 11), lengths(5, 11, 5) + b"hello"))
    assert scene.rows(5) == [(b"aa", b"hello", 0)]
    difference = struct.pack("<HB", 4 | 0x4000, 2) + b", "
    scene.redo(node_record(34, 5, (11, 12), lengths(len(difference), 5, 7) + difference))
    assert scene.rows(5) == [(b"aa", b"hell, o", 0)]
    for wrong in (lengths(5, 9, 5) + b"hello", lengths(5, 7, 6) + b"hello"):
        with pytest.raises(Contradiction, match="page 5"):
            scene.redo(node_record(33, 5, (12, 13), wrong))


@pytest.mark.parametrize(
    ("old", "edits", "long", "new"),
    [
        (b"abcdef", struct.pack("<HB", 2 | 0x2000, 2) + b"XY", False, b"abXYef"),
        (b"abcdef", struct.pack("<HBB", 2, 1, 3) + b"X", False, b"abXf"),
        (b"abcdef", struct.pack("<HH", 6 | 0xC000, 3) + b"ghi", False, b"abcdefghi"),
        (b"abcdef", struct.pack("<HBH", 0, 0xA0, 1) + b"X" + struct.pack("<HBB", 5, 0x20, 1) + b"Y", True, b"XbcdeY"),
        (b"abc", b"", False, b"abc"),
    ],
)
def test_differences(old: bytes, edits: bytes, long: bool, new: bytes) -> None:
    """Edits replace, insert or remove at their offsets, with short and long heads."""
    assert apply_difference(old, edits, long=long) == new


@pytest.mark.parametrize("edits", [struct.pack("<HB", 9 | 0x2000, 1) + b"X", struct.pack("<HB", 0 | 0x2000, 9), b"\0"])
def test_a_difference_that_does_not_fit(edits: bytes) -> None:
    """An edit beyond the old data or its own bytes is an error."""
    with pytest.raises(Contradiction):
        apply_difference(b"abc", edits, long=False)


@pytest.mark.parametrize(("kind", "width"), [(37, 4), (93, 8)])
def test_delta(scene: ReplayScene, kind: int, width: int) -> None:
    """A number in the data changes by the delta, and wraps as the engine's does."""
    scene.put(5, [(b"lv", b"xx" + (1).to_bytes(width, "little"))])
    for step, delta in enumerate((-2, 7)):
        body = lengths(2, 0) + delta.to_bytes(width, "little", signed=True) + lengths(2) + b"lv"
        scene.redo(node_record(kind, 5, (10 + step, 11 + step), body))
        if not step:
            assert scene.rows(5)[0][1][2:] == b"\xff" * width
    assert scene.rows(5) == [(b"lv", b"xx" + (6).to_bytes(width, "little"), 0)]
    body = lengths(2, 0) + bytes(width) + lengths(3) + b"lv"
    with pytest.raises(Contradiction, match="page 5: a number is added at byte 3"):
        scene.redo(node_record(kind, 5, (12, 13), body))


def test_external_header(scene: ReplayScene) -> None:
    """SetExternalHeader changes the prefix of a page and keeps all keys whole."""
    scene.put(5, [(b"prefix1", b"1"), (b"prefix2", b"2")], external=b"prefix")
    scene.redo(node_record(38, 5, (10, 11), lengths(0)))
    assert scene.page(5).external_header == b""
    assert [key for key, _data, _flags in scene.rows(5)] == [b"prefix1", b"prefix2"]


def test_empty_tree(scene: ReplayScene) -> None:
    """The root becomes an empty leaf, and the pages below are given up; those that were are skipped."""
    scene.put(4, [(b"", (5).to_bytes(4, "little"))], flags=BRANCH | int(PageFlag.ROOT), external=bytes(16))
    scene.put(5, [(b"aa", b"1")], dbtime=7)
    scene.put(6, [(b"bb", b"1")], dbtime=20)
    listed = struct.pack("<QIIQII", 7, 5, 0, 8, 6, 0)
    scene.redo(node_record(48, 4, (10, 11), lengths(len(listed)) + listed))
    root = scene.page(4)
    assert (root.leaf, root.nodes, root.external_header) == (True, [], bytes(16))
    assert scene.page(5).flags & PageFlag.EMPTY
    assert scene.page(5).nodes == []
    assert scene.rows(6) == [(b"bb", b"1", 0)]


def test_scrub(scene: ReplayScene) -> None:
    """Scrubbing overwrites data of deleted nodes and of orphaned values, or all of an unused page."""
    scene.put(5, [(b"aa", b"keep"), (b"bb", b"gone", DELETED), (b"cc", b"value")])
    scene.redo(node_record(64, 5, (10, 11), struct.pack("<IIH", 0, 3, 3) + bytes([0, 1, 2])))
    assert [data for _key, data, _flags in scene.rows(5)] == [b"keep", b"DDDD", b" LLLL"]
    assert scene.page(5).flags & PageFlag.SCRUBBED
    scene.redo(node_record(64, 5, (11, 12), struct.pack("<IIH", 1, 0, 0)))
    assert scene.rows(5) == []


def test_a_page_that_was_thrown_away_later(scene: ReplayScene) -> None:
    """An image may lack a page that the engine has thrown away since: shrinking, trimming and freeing settle that."""
    shrink = struct.pack("<BBII", 78, 1, 4, 60)
    trim, freed = struct.pack("<BBII", 81, 1, 5, 1), struct.pack("<BBIIB", 100, 1, 5, 1, 0)
    for settles in (shrink, trim, freed):
        scene.redo(insert(5, (10, 11), b"aa", b"1", 0))
        assert 5 in scene.target.pending
        scene.redo(settles)
        assert not scene.target.pending


def test_shrinking_and_extending_the_file(scene: ReplayScene) -> None:
    """Behind the image the file has the size that the log says, and what was cut off is gone."""
    scene.put(60, [(b"aa", b"1")])
    scene.target.may_be_newer = False
    scene.redo(struct.pack("<BBIIQ", 99, 1, 50, 14, 77))
    assert scene.target.cache.page_count == 50
    scene.redo(struct.pack("<BIBI", 68, 5, 1, 70))
    assert scene.target.cache.page_count == 70
    assert not scene.page(60).written
    assert scene.target.dbtime == 77


def test_records_of_other_databases_are_left_out(scene: ReplayScene) -> None:
    """A record of another database number changes nothing."""
    scene.put(5, [(b"aa", b"1")])
    body = lengths(1, 1, 1) + b"bb2"
    scene.redo(node_record(29, 5, (10, 11), body, line=1, dbid=2), struct.pack("<BIBI", 68, 5, 2, 9999))
    assert scene.rows(5) == [(b"aa", b"1", 0)]
    assert scene.target.cache.page_count == 64


@pytest.mark.parametrize("kind", [3, 40, 41, 43, 44, 53, 54, 55, 102, 200])
def test_what_is_not_known_is_refused(scene: ReplayScene, kind: int) -> None:
    """A record type whose effect is not known is never ignored."""
    with pytest.raises(Incapable):
        scene.redo(bytes([kind]) + bytes(60))


def test_a_scan_of_the_engine_tells_of_lost_changes(scene: ReplayScene) -> None:
    """Where the engine noted a page's dbtime, a page in memory that is older lacks a change."""
    scene.put(5, [(b"aa", b"1")])
    scene.redo(insert(5, (10, 11), b"bb", b"2", 1))
    scene.target.may_be_newer = False
    scene.redo(struct.pack("<BBIBQQI", 98, 1, 5, 0, 11, 50, 0))
    with pytest.raises(Contradiction, match="page 5: it is of dbtime 0xb, and the engine saw it with 0xc"):
        scene.redo(struct.pack("<BBIBQQI", 98, 1, 5, 0, 12, 50, 0))


def test_new_page_and_new_trees(scene: ReplayScene) -> None:
    """Pages that records make are blank, whatever lay there, and space trees account for the extents."""
    scene.put(9, [(b"old", b"1")])
    scene.redo(struct.pack("<BHBIIQ", 95, 1, 1, 9, 8, 20))
    assert scene.rows(9) == []
    head = node_record(24, 10, (NEW, 21))[:32]
    scene.redo(head + struct.pack("<IIIIiI", 8, 11, 12, 1, 16, 0x2800))
    root, owned, free = (scene.page(number) for number in (10, 11, 12))
    assert struct.unpack("<iIII", root.external_header) == (16, 1, 1, 11)
    assert [(node.key, node.data) for node in owned.nodes] == [(struct.pack(">I", 25), struct.pack("<i", 16))]
    assert [(node.key, node.data) for node in free.nodes] == [(struct.pack(">I", 25), struct.pack("<i", 13))]
    assert owned.flags & PageFlag.SPACE_TREE
    assert root.leaf
    assert root.root
    scene.redo(node_record(25, 30, (NEW, 22))[:32] + struct.pack("<IIiI", 7, 1, 5, 0x2800))
    assert struct.unpack("<iIII", scene.page(30).external_header) == (5, 1, 0, 0b1111)


@pytest.mark.parametrize("kind", [26, 58])
def test_converting_a_tree(scene: ReplayScene, kind: int) -> None:
    """A tree of one extent gets a second one; the free pages of both are in its tree of available extents."""
    scene.put(40, [], flags=ROOT_LEAF, external=struct.pack("<iIII", 8, 1, 0, 0b1100110))
    body = struct.pack("<IIIIIii", 9, 50, 51, 1, 50, 8, 6)
    body += struct.pack("<II", 0b1100110, 0x2800) if kind == 58 else b""
    scene.redo(node_record(kind, 40, (10, 11))[:32] + body)
    assert struct.unpack("<iIII", scene.page(40).external_header) == (8, 1, 1, 50)
    extents = [[(int.from_bytes(n.key, "big"), n.data[0]) for n in scene.page(number).nodes] for number in (50, 51)]
    assert extents == [[(47, 8), (55, 6)], [(43, 2), (47, 2), (55, 4)]]


def test_more_than_fits_is_an_error(scene: ReplayScene) -> None:
    """A record that would overfill a page is an error that names it."""
    scene.put(5, [(b"aa", b"1")])
    with pytest.raises(Contradiction, match="page 5: it would hold"):
        scene.redo(insert(5, (10, 11), b"bb", bytes(scene.page_size), 1))


def test_a_commit_ends_a_transaction(scene: ReplayScene) -> None:
    """After its commit a session is in no transaction, and a change in none is an error."""
    scene.put(5, [(b"aa", b"1")])
    scene.redo(insert(5, (10, 11), b"bb", b"2", 1), commit())
    assert list(scene.interpreter.sessions) == []
    with pytest.raises(Contradiction, match="began no transaction"):
        scene.redo(insert(5, (11, 12), b"cc", b"2", 2))
