"""Splits, merges and moves: all of their pages together, whichever of them the image already has."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.ese.compression import Compression
from perdure.ese.editing import EditablePage
from perdure.ese.pages import PageFlag
from perdure.ese.replay.errors import Contradiction, Incapable
from perdure.testing.ese_replay import BRANCH, LEAF, NEW, ReplayScene, begin, macro, node_record, page_record

ROOT = int(PageFlag.ROOT)
KEYS = [b"key%02d" % number for number in range(10, 40, 4)]


@pytest.fixture(params=[4096, 32768])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReplayScene]:
    """A database in whose transaction session 1 is."""
    made = ReplayScene(tmp_path, request.param)
    made.redo(begin())
    yield made
    made.close()


def pointer(page: int) -> bytes:
    return page.to_bytes(4, "little")


def split_record(page: int, times: tuple[int, int], *, kind: int = 62, **fields: Any) -> bytes:
    """A Split2 record; fields that are not given are zero."""
    given = {"new": 0, "right": 0, "right_before": NEW, "type": 1, "oper": 0, "oper_line": 0, "line": 0, "lines": 0}
    given |= {"flags": LEAF, "split_flags": LEAF, "prefix_line": -1, "key": b"", "old": b"", "new_prefix": b""}
    given |= {"image": b"", "image_flags": 0} | fields
    body = struct.pack(
        "<IIQIQIIBBHHHIIhhiiHHH",
        *(given["new"], given["right"], given["right_before"], 0, 0, 4, 9, given["type"], given["oper"]),
        *(given["oper_line"], given["line"], given["lines"], given["flags"], given["split_flags"], 0, 0),
        *(-1, given["prefix_line"], len(given["old"]), len(given["new_prefix"]), len(given["key"])),
    )
    if kind == 62:
        body += struct.pack("<II", given["image_flags"], len(given["image"]))
    return page_record(kind, page, times, body + given["key"] + given["old"] + given["new_prefix"] + given["image"])


def merge_record(page: int, times: tuple[int, int], *, line: int = 0, kind: int = 63, **fields: Any) -> bytes:
    """A Merge2 record; fields that are not given are zero."""
    given: dict[str, Any] = {"right": 0, "right_before": NEW, "left": 0, "left_before": NEW, "merge_line": 0}
    given |= {"flags": 0, "type": 0, "key": b"", "image": b"", "image_flags": 0} | fields
    body = struct.pack(
        "<IQIQIQIIHHHHBBH",
        *(given["right"], given["right_before"], given["left"], given["left_before"]),
        *(0 if page == 4 else 4, 0, 4, 9, 0, 0, 0, given["merge_line"], given["flags"], given["type"]),
        len(given["key"]),
    )
    if kind == 63:
        body += struct.pack("<II", given["image_flags"], len(given["image"]))
    return page_record(kind, page, times, body + given["key"] + given["image"], line=line)


def keys(scene: ReplayScene, number: int) -> list[bytes]:
    return [node.key for node in scene.page(number).nodes]


def insert(page: int, after: int, key: bytes, data: bytes, line: int) -> bytes:
    return node_record(29, page, (NEW, after), struct.pack("<HHH", len(key), 0, len(data)) + key + data, line=line)


def image_of(page: EditablePage, how: str) -> tuple[bytes, int]:
    """A page as a record repeats it, and the flags that say how."""
    content = page.encode()
    if how == "whole":
        return content, 0
    tags = 4 * (int.from_bytes(content[34:36], "little") & 0xFFF)
    used = (80 if page.size > 8192 else 40) + int.from_bytes(content[32:34], "little")
    compact = bytearray(content[:used] + content[len(content) - tags :])
    compact[28:30] = (page.free - (page.size - len(compact))).to_bytes(2, "little")
    if how == "dehydrated":
        return bytes(compact), 1
    return xpress(bytes(compact)), 3


def xpress(content: bytes) -> bytes:
    """Bytes as XPRESS stores them when it finds nothing to shorten: 32 flags, all literal, before every 32 bytes."""
    parts = [bytes([Compression.XPRESS << 3]), struct.pack("<H", len(content))]
    for at in range(0, len(content), 32):
        piece = content[at : at + 32]
        flags = 0 if len(piece) == 32 else (1 << (32 - len(piece))) - 1
        parts += [struct.pack("<I", flags), piece]
    return b"".join(parts)


def right_split(scene: ReplayScene, how: str = "whole", kind: int = 62) -> list[bytes]:
    """A leaf 5 below the root 4 and before the leaf 7, and the records that split it with an insert, at dbtime 20."""
    scene.put(4, [(b"key50", pointer(5)), (b"", pointer(7))], flags=BRANCH | ROOT, external=bytes(16))
    page = scene.put(5, [(key, b"data") for key in KEYS], external=b"key", links=(0, 7), dbtime=11)
    scene.put(7, [(b"key60", b"")], links=(5, 0), dbtime=12)
    image, image_flags = image_of(page, how)
    fields = {"new": 6, "right": 7, "right_before": 12, "oper": 1, "oper_line": 1, "line": 4, "lines": 9}
    fields |= {"prefix_line": 0, "key": b"key25", "old": b"key", "new_prefix": b"key1"}
    fields |= {"image": image, "image_flags": image_flags}
    above = split_record(4, (10, 20), new=0, kind=kind)
    return macro(20, above, split_record(5, (11, 20), kind=kind, **fields), insert(5, 20, b"key11", b"new", 1))


@pytest.mark.parametrize("how", ["whole", "dehydrated", "xpress"])
@pytest.mark.parametrize("newer", [set(some) for n in range(5) for some in itertools.combinations((4, 5, 6, 7), n)])
def test_a_split_whatever_is_newer(scene: ReplayScene, how: str, newer: set[int]) -> None:
    """Each page of a split ends as it should, whichever of the others the image already has from after it."""
    records = right_split(scene, how)
    for number in newer:
        scene.put(number, [(b"newer", b"")], dbtime=30)
    scene.redo(*records)
    together = [KEYS[0], b"key11", *KEYS[1:]]
    expected = {4: [b"key25", b"key50", b""], 5: together[:4], 6: together[4:], 7: [b"key60"]}
    for number, should in expected.items():
        assert keys(scene, number) == ([b"newer"] if number in newer else should), number
    if 4 not in newer:
        assert [node.child for node in scene.page(4).nodes] == [5, 6, 7]
    links = {5: (0, 6), 6: (5, 7), 7: (6, 0)}
    for number, should_be in links.items():
        if number not in newer:
            assert (scene.page(number).previous, scene.page(number).next) == should_be
    assert scene.page(6).external_header == (b"" if 6 in newer else together[4])
    assert scene.page(5).external_header == (b"" if 5 in newer else b"key1")


def test_an_old_split_without_image(scene: ReplayScene) -> None:
    """The record without an image works while its page is there, and says what is missing when it is newer."""
    records = right_split(scene, kind=27)
    scene.put(5, [(b"newer", b"")], dbtime=30)
    with pytest.raises(Contradiction, match=r"page 5: it was split.*the log does not hold what moved"):
        scene.redo(*records)


def test_an_append_needs_no_image(scene: ReplayScene) -> None:
    """A split that only puts a new node on a new page is redone though the old page is newer."""
    scene.put(4, [(b"", pointer(5))], flags=BRANCH | ROOT, external=bytes(16))
    scene.put(5, [(b"newer", b"")], dbtime=30)
    fields = {"new": 6, "type": 2, "oper": 1, "oper_line": 3, "line": 3, "lines": 4, "key": b"key90", "prefix_line": 0}
    above, below = split_record(4, (10, 20)), split_record(5, (11, 20), **fields)
    scene.redo(*macro(20, above, below, insert(5, 20, b"key99", b"new", 3)))
    assert scene.rows(6) == [(b"key99", b"new", 0)]
    assert scene.page(6).external_header == b"key99"
    assert keys(scene, 4) == [b"key90", b""]


def test_a_root_splits_downwards_over_two_levels(scene: ReplayScene) -> None:
    """All nodes of a root move below it, and in the same macro the new level gets the pointer of a split below that."""
    scene.put(4, [(b"key50", pointer(5)), (b"", pointer(7))], flags=BRANCH | ROOT, external=bytes(16))
    scene.put(5, [(key, b"data") for key in KEYS], dbtime=11)
    vertical = {"new": 8, "type": 0, "oper": 1, "oper_line": 0, "line": 0, "lines": 3, "flags": BRANCH}
    top = split_record(4, (10, 20), **vertical, split_flags=BRANCH & ~int(PageFlag.PARENT_OF_LEAF) | ROOT)
    leaf = split_record(5, (11, 20), new=6, line=4, lines=8, key=b"key25")
    scene.redo(*macro(20, top, leaf))
    assert [(node.key, node.child) for node in scene.page(4).nodes] == [(b"", 8)]
    assert [(node.key, node.child) for node in scene.page(8).nodes] == [(b"key25", 5), (b"key50", 6), (b"", 7)]
    assert keys(scene, 5) == KEYS[:4]
    assert keys(scene, 6) == KEYS[4:]


@pytest.mark.parametrize("what", ["lines", "prefix", "pointer", "operation", "order", "below"])
def test_a_split_that_does_not_fit(scene: ReplayScene, what: str) -> None:
    """Another number of lines, prefix, pointer or change than the record states is an error and no half split."""
    records = right_split(scene)
    if what == "lines":
        scene.put(5, [(key, b"") for key in KEYS[:-1]], external=b"key", dbtime=11)
    elif what == "prefix":
        scene.put(5, [(key, b"") for key in KEYS], external=b"other", dbtime=11)
    elif what == "pointer":
        scene.put(4, [(b"key50", pointer(9)), (b"", pointer(7))], flags=BRANCH | ROOT, external=bytes(16))
    elif what == "operation":
        records.pop(3)
    elif what == "order":
        records[3] = insert(5, 20, b"key99", b"new", 1)
    else:
        records.pop(2)
    with pytest.raises(Contradiction):
        scene.redo(*records)


def test_a_macro_that_does_not_end_has_no_effect(scene: ReplayScene) -> None:
    """Records of a macro wait for its end, and an abort drops them."""
    records = right_split(scene)
    scene.redo(*records[:-1])
    assert keys(scene, 5) == KEYS
    scene.redo(struct.pack("<BHQ", 13, 1, 20))
    assert keys(scene, 5) == KEYS
    with pytest.raises(Contradiction, match="begins a macro twice"):
        scene.redo(records[0], records[0])


def test_macros_of_one_session_are_told_apart_by_their_dbtime(scene: ReplayScene) -> None:
    """While a macro is open, changes of the same session at other dbtimes happen at once."""
    records = right_split(scene)
    scene.put(9, [(b"aa", b"1")])
    outside = node_record(32, 9, (10, 19))
    scene.redo(records[0], records[1], outside, *records[2:])
    assert scene.rows(9) == [(b"aa", b"1", 2)]
    assert keys(scene, 5) == [KEYS[0], b"key11", *KEYS[1:3]]


@pytest.mark.parametrize("kind", [28, 63])
@pytest.mark.parametrize("merge", [1, 2, 3, 5, 6])
def test_merges(scene: ReplayScene, merge: int, kind: int) -> None:
    """Nodes move to the neighbour, all or in part, without those that are deleted, and the parent follows."""
    scene.put(
        4, [(b"k20", pointer(5)), (b"k40", pointer(6)), (b"", pointer(7))], flags=BRANCH | ROOT, external=bytes(16)
    )
    scene.put(5, [(b"k10", b"")], links=(0, 6), dbtime=11)
    middle = scene.put(6, [(b"k30", b"a"), (b"k31", b"b", 2), (b"k32", b"c")], links=(5, 7), dbtime=12)
    scene.put(7, [(b"k50", b"")], links=(6, 0), dbtime=13)
    image, image_flags = image_of(middle, "whole") if kind == 63 else (b"", 0)
    neighbours = {
        "right": 7,
        "right_before": 13,
        "left": 5,
        "left_before": 11,
        "image": image,
        "image_flags": image_flags,
    }
    above: dict[str, Any] = {"line": 1, "flags": 2}
    leaf: dict[str, Any] = neighbours | {"type": merge, "flags": 4}
    if merge == 5:
        above["flags"], leaf["merge_line"] = 3, 2
    elif merge == 3:
        above["flags"] = 1
        leaf |= {"flags": 0, "merge_line": 2, "key": b"k32", "left": 0}
    elif merge == 6:
        above["flags"] = 1
        leaf |= {"flags": 0, "merge_line": 0, "key": b"k31", "right": 0}
    scene.redo(*macro(20, merge_record(4, (10, 20), kind=kind, **above), merge_record(6, (12, 20), kind=kind, **leaf)))
    parent = [(node.key, node.child) for node in scene.page(4).nodes]
    held = {number: keys(scene, number) for number in (5, 6, 7)}
    if merge in (1, 2, 5):
        assert scene.page(6).flags & PageFlag.EMPTY
        assert (scene.page(5).next, scene.page(7).previous) == (7, 5)
    expected = {
        1: ([(b"k20", 5), (b"", 7)], {5: [b"k10"], 6: [], 7: [b"k50"]}),
        2: ([(b"k20", 5), (b"", 7)], {5: [b"k10"], 6: [], 7: [b"k30", b"k32", b"k50"]}),
        5: ([(b"k40", 5), (b"", 7)], {5: [b"k10", b"k30", b"k32"], 6: [], 7: [b"k50"]}),
        3: ([(b"k20", 5), (b"k32", 6), (b"", 7)], {5: [b"k10"], 6: [b"k30", b"k31"], 7: [b"k32", b"k50"]}),
        6: ([(b"k31", 5), (b"k40", 6), (b"", 7)], {5: [b"k10", b"k30"], 6: [b"k31", b"k32"], 7: [b"k50"]}),
    }
    assert (parent, held) == expected[merge]


@pytest.mark.parametrize("newer", [set(some) for n in range(5) for some in itertools.combinations((4, 5, 6, 7), n)])
def test_a_merge_whatever_is_newer(scene: ReplayScene, newer: set[int]) -> None:
    """Each page of a merge ends as it should, whichever of the others the image already has from after it."""
    scene.put(
        4, [(b"k20", pointer(5)), (b"k40", pointer(6)), (b"", pointer(7))], flags=BRANCH | ROOT, external=bytes(16)
    )
    scene.put(5, [(b"k10", b"")], links=(0, 6), dbtime=11)
    middle = scene.put(6, [(b"k30", b"a")], links=(5, 7), dbtime=12)
    scene.put(7, [(b"k50", b"")], links=(6, 0), dbtime=13)
    for number in newer:
        scene.put(number, [(b"newer", b"")], dbtime=30)
    image, image_flags = image_of(middle, "dehydrated")
    fields = {"right": 7, "right_before": 13, "left": 5, "left_before": 11, "type": 2, "flags": 4}
    leaf = merge_record(6, (12, 20), **fields, image=image, image_flags=image_flags)
    scene.redo(*macro(20, merge_record(4, (10, 20), line=1, flags=2), leaf))
    expected = {4: [b"k20", b""], 5: [b"k10"], 6: [], 7: [b"k30", b"k50"]}
    for number, should in expected.items():
        assert keys(scene, number) == ([b"newer"] if number in newer else should), number


def test_the_last_page_of_a_tree_is_emptied(scene: ReplayScene) -> None:
    """When the last pointer goes, the one before it stands for everything behind."""
    scene.put(4, [(b"k20", pointer(5)), (b"", pointer(6))], flags=BRANCH | ROOT, external=bytes(16))
    scene.put(5, [(b"k10", b"")], links=(0, 6), dbtime=11)
    scene.put(6, [], links=(5, 0), dbtime=12)
    leaf = merge_record(6, (12, 20), left=5, left_before=11, type=1, flags=4)
    scene.redo(*macro(20, merge_record(4, (10, 20), line=1, flags=2), leaf))
    assert [(node.key, node.child) for node in scene.page(4).nodes] == [(b"", 5)]
    assert scene.page(5).next == 0


@pytest.mark.parametrize("kind", [0, 4, 7, 9])
def test_merges_of_unknown_kinds_are_refused(scene: ReplayScene, kind: int) -> None:
    """A way of merging that is not known is never guessed."""
    scene.put(6, [], dbtime=12)
    with pytest.raises(Incapable):
        scene.redo(*macro(20, merge_record(6, (12, 20), type=kind, flags=4)))


def move_record(page: int, times: tuple[int, int], to: int, image: bytes, **fields: int) -> bytes:
    given = {"left": 0, "right": 0, "parent": 4, "left_before": 11, "right_before": 13, "parent_before": 10} | fields
    half = len(image) // 2
    body = struct.pack(
        "<IIIIQQQIIiIII",
        *(to, given["left"], given["right"], given["parent"]),
        *(given["left_before"], given["right_before"], given["parent_before"], 4, 9),
        *(given.get("line", 1), given.get("flags", 0), half, len(image) - half),
    )
    return page_record(65, page, times, body + image)


@pytest.mark.parametrize("newer", [set(some) for n in range(4) for some in itertools.combinations((4, 6, 9), n)])
def test_a_page_moves_whatever_is_newer(scene: ReplayScene, newer: set[int]) -> None:
    """A moved page, its neighbours and its parent end as they should, whichever of them is newer."""
    scene.put(4, [(b"k20", pointer(5)), (b"", pointer(6))], flags=BRANCH | ROOT, external=bytes(16))
    scene.put(5, [(b"k10", b"")], links=(0, 6), dbtime=11)
    source = scene.put(6, [(b"k30", b"a")], links=(5, 0), dbtime=12)
    for number in newer:
        scene.put(number, [(b"newer", b"")], dbtime=30)
    scene.redo(move_record(6, (12, 20), 9, source.encode(), left=5))
    expected = {4: [b"k20", b""], 6: [], 9: [b"k30"]}
    for number, should in expected.items():
        assert keys(scene, number) == ([b"newer"] if number in newer else should), number
    assert scene.page(5).next == 9
    if 9 not in newer:
        assert (scene.page(9).previous, scene.page(9).number, scene.page(9).dbtime) == (5, 9, 20)
    if 4 not in newer:
        assert [node.child for node in scene.page(4).nodes] == [5, 9]


def test_a_root_moves(scene: ReplayScene) -> None:
    """A root and its space trees move together, and what names them follows: trees below, and the catalog."""
    leaf = LEAF | ROOT
    old = {40: struct.pack("<iIII", 8, 1, 1, 41), 41: bytes(16), 42: bytes(16)}
    pages = {
        number: scene.put(number, [(b"k", b"v")], flags=leaf, external=external) for number, external in old.items()
    }
    scene.put(43, [], flags=leaf, external=b"\x11" + struct.pack("<iIII", 1, 40, 0, 0) + bytes(8), dbtime=14)
    scene.put(44, [(b"row", b"root 40")], dbtime=15)
    moves = [
        move_record(number, (10, 20), number + 10, pages[number].encode(), flags=flag)
        for number, flag in ((40, 1), (41, 2), (42, 4))
    ]
    header = struct.pack("<iIII", 1, 50, 0, 0)
    child = node_record(38, 43, (14, 20), struct.pack("<H", len(header)) + header)
    catalog = node_record(33, 44, (15, 20), struct.pack("<HHH", 7, 7, 7) + b"root 50")
    scene.redo(*macro(20, struct.pack("<BQBIH", 96, 20, 1, 9, 1), *moves, child, catalog))
    assert scene.page(50).external_header == struct.pack("<iIII", 8, 1, 1, 51)
    assert [keys(scene, number) for number in (50, 51, 52)] == [[b"k"]] * 3
    assert [scene.page(number).flags & PageFlag.EMPTY for number in (40, 41, 42)] == [PageFlag.EMPTY] * 3
    assert scene.page(43).external_header == b"\x11" + header + bytes(8)
    assert scene.rows(44) == [(b"row", b"root 50", 0)]
    lonely = macro(30, struct.pack("<BQBIH", 96, 30, 1, 9, 1), move_record(50, (20, 30), 60, b"", flags=1))
    with pytest.raises(Contradiction, match="without those of its space trees"):
        scene.redo(*lonely)


def test_what_began_before_the_logs(scene: ReplayScene) -> None:
    """A macro whose beginning is in an earlier log must be on all of its pages, unless those are given up later."""
    records = right_split(scene)
    for number in (4, 5, 6, 7):
        scene.put(number, [(b"newer", b"")], dbtime=30)
    scene.redo(*records[1:])
    assert keys(scene, 5) == [b"newer"]
    later = split_record(5, (30, 40), new=8)
    scene.redo(later, struct.pack("<BHQ", 12, 1, 40))
    assert sorted(scene.target.pending) == [5, 8]
    assert all("began in a log before" in why for why in scene.target.pending.values())
    scene.target.may_be_newer = False
    with pytest.raises(Contradiction, match="outside of a macro"):
        scene.redo(split_record(5, (30, 50), new=8))
