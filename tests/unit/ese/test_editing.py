"""Pages that can be changed hold what the engine's pages hold, and their bytes say it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.ese.checksums import PageState
from perdure.ese.database import HEADER_PAGES, Database
from perdure.ese.editing import EditablePage, PageNode
from perdure.ese.errors import EseDamaged
from perdure.ese.pages import NodeFlag, Page, PageFlag
from perdure.ese.repair import page_state, sealed_page
from perdure.testing.ese_samples import SAMPLES_MISSING, sample_files, unpacked

SIZES = [2048, 4096, 8192, 16384, 32768]
LEAF = PageFlag.LEAF | PageFlag.NEW_RECORD_FORMAT | PageFlag.ECC_CHECKSUM


def sample_pages(sample: Path, folder: Path) -> Iterator[tuple[int, bytes]]:
    """Every page of a real database that was written."""
    path = unpacked(sample, folder)
    with Database(path) as database:
        size, count = database.page_size, database.page_count
    content = path.read_bytes()
    for number in range(1, count + 1):
        start = (number + HEADER_PAGES - 1) * size
        page = content[start : start + size]
        if any(page):
            yield number, page


def seen_by_reader(content: bytes, number: int) -> tuple[object, ...]:
    """All that the reader of pages sees, but for where the bytes lie."""
    page = Page(content, number, "database")
    header = page.header
    assert page.first_damage() == ""
    nodes = [(node.key, node.data, node.flags) for node in page.nodes()]
    links = (header.dbtime, header.previous, header.next, header.objid, header.flags, header.reserved_tags)
    return (*links, header.free, header.uncommitted_free, page.external_header, nodes)


@pytest.mark.skipif(not sample_files(), reason=SAMPLES_MISSING)
@pytest.mark.parametrize("sample", sample_files(), ids=lambda path: path.name)
def test_real_pages_come_back(sample: Path, tmp_path: Path) -> None:
    """Every page of a real database that is taken apart and put together again says the same and is sound."""
    looked_at = 0
    for number, content in sample_pages(sample, tmp_path):
        page = EditablePage.parse(content, number)
        assert page.encode() == content  # not a node was asked for, so not a byte may move
        page.set_nodes(page.nodes)
        again = page.encode()
        assert page_state(again, number) is PageState.SOUND_ECC
        assert seen_by_reader(again, number) == seen_by_reader(content, number)
        looked_at += 1
    assert looked_at > 10


def test_a_page_never_written_stays_blank() -> None:
    """A page of zeroes is known as never written, and encodes to zeroes."""
    page = EditablePage.parse(bytes(4096), 9)
    assert not page.written
    assert page.nodes == []
    assert page.encode() == bytes(4096)


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """Changes of a page: what, where, and with which bytes."""
    key = st.binary(max_size=6).map(lambda end: b"prefix"[: draw(st.integers(0, 6))] + end)
    change = st.one_of(
        st.tuples(st.just("insert"), st.integers(0, 99), key, st.binary(max_size=60), st.integers(0, 3)),
        st.tuples(st.just("replace"), st.integers(0, 99), st.binary(max_size=60)),
        st.tuples(st.just("flags"), st.integers(0, 99), st.integers(0, 3)),
        st.tuples(st.just("delete"), st.integers(0, 99)),
        st.tuples(st.just("external"), st.integers(0, 0), key),
        st.tuples(st.just("reparse"), st.integers(0, 0)),
    )
    return draw(st.lists(change, max_size=25))


@settings(max_examples=150, deadline=None)
@given(size=st.sampled_from(SIZES), root=st.booleans(), changes=edits())
def test_any_edits_are_what_the_reader_sees(size: int, root: bool, changes: list[tuple[Any, ...]]) -> None:
    """After any changes the encoded page is sound, counts its free bytes rightly, and holds what a list would."""
    page = EditablePage(size, 77, 5, int(LEAF | PageFlag.ROOT if root else LEAF))
    page.dbtime, page.previous, page.next = 8, 3, 4
    model: list[tuple[bytes, bytes, int]] = []
    external = b""
    for what, place, *rest in changes:
        line = place % (len(model) + 1)
        if what == "insert":
            page.insert(line, *rest)
            model.insert(line, tuple(rest))  # type: ignore[arg-type]
        elif what == "external":
            page.external_header = external = rest[0]
        elif what == "reparse":
            page = EditablePage.parse(page.encode(), 77)
        elif line < len(model):
            key, data, flags = model[line]
            if what == "replace":
                page.replace(line, rest[0])
                model[line] = key, rest[0], flags
            elif what == "flags":
                page.set_flags(line, rest[0])
                model[line] = key, data, rest[0]
            else:
                page.delete(line)
                del model[line]
    content = page.encode()
    assert page_state(content, 77) is PageState.SOUND_ECC
    seen = Page(content, 77, "database")
    assert seen.first_damage() == ""
    assert [(node.key, node.data, node.flags & ~NodeFlag.COMPRESSED) for node in seen.nodes()] == model
    assert seen.external_header == external
    assert seen.header.free == page.free
    assert (seen.header.dbtime, seen.header.previous, seen.header.next, seen.header.objid) == (8, 3, 4, 5)


@pytest.mark.parametrize("size", SIZES)
def test_keys_share_the_prefix_of_the_page(size: int) -> None:
    """A key that begins as the external header does takes only the rest of its bytes; on a root it takes all."""
    page = EditablePage(size, 7, 5, int(LEAF))
    page.external_header = b"mailbox-17/"
    before = page.free
    page.insert(0, b"mailbox-17/inbox", b"data")
    assert before - page.free == 4 + 4 + len(b"inbox") + len(b"data")
    root = EditablePage(size, 7, 5, int(LEAF | PageFlag.ROOT))
    root.external_header = b"mailbox-17/"
    before = root.free
    root.insert(0, b"mailbox-17/inbox", b"data")
    assert before - root.free == 4 + 2 + len(b"mailbox-17/inbox") + len(b"data")


def test_another_prefix_changes_what_keys_store() -> None:
    """Changing the external header of a page keeps all keys whole."""
    page = EditablePage(4096, 7, 5, int(LEAF))
    page.external_header = b"abcdef"
    for line, end in enumerate((b"1", b"2", b"3")):
        page.insert(line, b"abcdef" + end, b"x")
    page.external_header = b"abcxyz"
    again = EditablePage.parse(page.encode(), 7)
    assert [node.key for node in again.nodes] == [b"abcdef1", b"abcdef2", b"abcdef3"]
    assert {node.shared for node in again.nodes} == {3}


def test_a_page_that_holds_too_much_is_not_encoded() -> None:
    """More than fits is an error that names the page, never a page that lost something."""
    page = EditablePage(2048, 7, 5, int(LEAF), "mail.edb")
    page.insert(0, b"key", bytes(2000))
    assert page.free < 0
    with pytest.raises(EseDamaged, match=r"mail\.edb: page 7: it holds \d+ bytes more than fit"):
        page.encode()


def test_lines_that_are_not_there() -> None:
    """A line behind the last one is an error that names the page."""
    page = EditablePage(4096, 7, 5, int(LEAF))
    for wrong in (
        lambda: page.node(0),
        lambda: page.delete(-1),
        lambda: page.replace(3, b""),
        lambda: page.set_flags(0, 1),
        lambda: page.insert(2, b"", b""),
    ):
        with pytest.raises(EseDamaged, match="page 7"):
            wrong()


def test_finding_a_key() -> None:
    """A key is found at the first node that is not below it; an empty key ends a branch above all others."""
    leaf = EditablePage(4096, 7, 5, int(LEAF))
    branch = EditablePage(4096, 7, 5, int(PageFlag.PARENT_OF_LEAF | PageFlag.ECC_CHECKSUM))
    leaf.set_nodes([PageNode(key, b"") for key in (b"b", b"d", b"f")])
    branch.set_nodes([PageNode(key, b"\1\0\0\0") for key in (b"b", b"d", b"")])
    assert [leaf.find(key) for key in (b"a", b"b", b"c", b"f", b"g")] == [0, 0, 1, 2, 3]
    assert [branch.find(key) for key in (b"a", b"d", b"e")] == [0, 1, 2]
    assert all(leaf.is_in_order(line) for line in range(3))
    assert all(branch.is_in_order(line) for line in range(3))
    leaf.insert(1, b"x", b"")
    assert not leaf.is_in_order(1)


@pytest.mark.parametrize("size", [4096, 32768])
@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_damaged_page_raises_or_is_whole(size: int, place: int, bit: int) -> None:
    """A page whose bytes were changed and sealed again never makes anything but an error that names it, or a page."""
    page = EditablePage(size, 7, 5, int(LEAF))
    page.external_header = b"prefix"
    for line in range(20):
        page.insert(line, b"prefix%d" % (10 + line), b"d" * line)
    content = bytearray(page.encode())
    content[place % size] ^= 1 << bit
    if size > 8192 and not content[37] & 0x20:
        return  # the flag that large pages always have
    problem = ""
    try:
        again = EditablePage.parse(sealed_page(bytes(content), 7), 7)
        again.set_nodes(again.nodes)
        assert len(again.encode()) == size
    except EseDamaged as error:
        problem = error.message
    assert not problem or "page 7" in problem
