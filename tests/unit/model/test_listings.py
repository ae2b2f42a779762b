import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.model.entries import Entry, EntryKind, Piece
from perdure.model.errors import Damaged
from perdure.model.listings import (
    content_pieces,
    ends_part,
    load_root,
    put_index,
    put_listing,
    put_pieces,
    read_listing,
    store_root,
)
from perdure.model.points import StreamRef
from perdure.testing.memory_content import MemoryContent


def _directory(ref: StreamRef) -> Entry:
    return Entry(b"", EntryKind.DIRECTORY, listing=ref)


_names = st.binary(min_size=1, max_size=20).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
_entries = st.builds(
    Entry,
    name=_names,
    kind=st.sampled_from(EntryKind),
    mode=st.integers(0, 0o7777),
    mtime_ns=st.integers(-(1 << 62), 1 << 62),
    inode=st.integers(0, (1 << 64) - 1),
    xattrs=st.dictionaries(st.binary(min_size=1, max_size=9), st.binary(max_size=9), max_size=3),
    content=st.lists(st.builds(Piece, st.binary(min_size=32, max_size=32), st.just(0), st.integers(1, 99))).map(tuple),
)


@given(st.lists(_entries, unique_by=lambda entry: entry.name))
def test_listing_round_trip(entries: list[Entry]) -> None:
    """Any entries read back exactly as they were stored."""
    pool = MemoryContent()
    entries.sort(key=lambda entry: entry.name)
    assert list(read_listing(_directory(put_listing(entries, pool)), pool)) == entries


def test_listing_in_parts() -> None:
    """A directory stored in parts reads like one listing."""
    pool = MemoryContent()
    entries = [Entry(b"%03d" % number, EntryKind.FILE) for number in range(10)]
    parts = [put_listing(entries[:4], pool), put_listing(entries[4:], pool)]
    assert list(read_listing(_directory(put_index(parts, pool)), pool)) == entries


def test_parts_end_by_name() -> None:
    """One more name in a huge directory moves the end of at most the part it is in."""
    names = [b"file-%07d" % number for number in range(60000)]

    def cut(names: list[bytes]) -> set[bytes]:
        ends, count = set(), 0
        for name in names:
            count += 1
            if ends_part(count, name):
                ends.add(name)
                count = 0
        return ends

    before, after = cut(names), cut(sorted([*names, b"file-0000100x"]))
    assert len(before) >= 3
    assert len(before ^ after) <= 2


@given(st.binary(max_size=200))
def test_garbage_is_damage(data: bytes) -> None:
    """Bytes that are no listing are reported as damage and as nothing else."""
    pool = MemoryContent()
    ref = pool.put_stream(data)
    try:
        list(read_listing(_directory(ref), pool))
        load_root(ref, pool)
    except Damaged:
        pass


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/etc", b"../x", b"a\0b"])
def test_impossible_names_are_damage(name: bytes) -> None:
    """A name that could lead a restore elsewhere never leaves the decoder."""
    pool = MemoryContent()
    with pytest.raises(Damaged):
        list(read_listing(_directory(put_listing([Entry(name, EntryKind.FILE)], pool)), pool))


def test_names_twice_or_out_of_order_are_damage() -> None:
    """Two entries of one name, or in the wrong order, are damage."""
    pool = MemoryContent()
    for names in ([b"a", b"a"], [b"b", b"a"]):
        ref = put_listing([Entry(name, EntryKind.FILE) for name in names], pool)
        with pytest.raises(Damaged):
            list(read_listing(_directory(ref), pool))


def test_pieces_must_add_up() -> None:
    """A map whose pieces are not the file's size is damage, inline or in a stream."""
    pool = MemoryContent()
    pieces = (Piece(b"x" * 32, 0, 5),)
    with pytest.raises(Damaged):
        content_pieces(Entry(b"f", EntryKind.FILE, size=6, content=pieces), pool)
    with pytest.raises(Damaged):
        content_pieces(Entry(b"f", EntryKind.FILE, size=6, content_map=put_pieces(pieces, pool)), pool)
    with pytest.raises(Damaged):
        content_pieces(
            Entry(b"f", EntryKind.FILE, size=6, content_map=pool.put_stream(msgspec.msgpack.encode(7))), pool
        )
    assert (
        tuple(content_pieces(Entry(b"f", EntryKind.FILE, size=5, content_map=put_pieces(pieces, pool)), pool)) == pieces
    )


def test_root_round_trip() -> None:
    """A whole tree is named by the one stream of its root's entry."""
    pool = MemoryContent()
    root = Entry(b"", EntryKind.DIRECTORY, mode=0o755, listing=put_listing([], pool))
    assert load_root(store_root(root, pool), pool) == root
