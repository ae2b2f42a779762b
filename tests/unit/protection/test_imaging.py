"""Storing images and comparing them with the pool."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perdure.model.extents import HOLE, ExtentMap, overlay
from perdure.protection import imaging
from perdure.protection.comparing import changed_by_comparing
from perdure.protection.imaging import CHUNK, MAX_DELTAS, next_file, store_changes, store_whole
from perdure.testing.memory_vault import MemoryVault

PAGE = 4096


class Reader:
    """A frozen file in memory."""

    name = "pages"

    def __init__(self, content: bytes, page_size: int = PAGE) -> None:
        self.content, self.page_size = content, page_size
        self.size, self.changed = len(content), None

    def read(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]


def content_of(vault: MemoryVault, extents: ExtentMap) -> bytes:
    out = bytearray(extents.size)
    ids = extents.ids()
    for row in extents.extents:
        if row["chunk"] != HOLE:
            at, length, start = int(row["offset"]), int(row["length"]), int(row["start"])
            out[at : at + length] = vault.chunks[ids[row["chunk"]]][start : start + length]
    return bytes(out)


def file_of(pages: list[int], tail: int = 0) -> bytes:
    """One page for every number, filled with it (0: zeros), and a tail of some bytes."""
    return b"".join(bytes([page]) * PAGE for page in pages) + b"t" * tail


FILES = st.builds(file_of, st.lists(st.integers(0, 4), max_size=40), st.sampled_from([0, 0, 1, 100]))


def differing(before: bytes, after: bytes, page: int = PAGE) -> list[int]:
    numbers = range(-(-len(after) // page))
    pages = [n for n in numbers if before[n * page : (n + 1) * page] != after[n * page : (n + 1) * page]]
    grown = set(range(len(before) // page, len(numbers))) if len(after) > len(before) else set()
    # A page cut short by a smaller size has not changed in the part that is left.
    cut = {n for n in pages if len(after) < len(before) and before[n * page : len(after)] == after[n * page :]}
    return sorted((set(pages) | grown) - (cut if len(after) % page else set()))


def test_a_whole_file_is_stored_and_zeros_are_holes() -> None:
    """Every byte comes back, and a block of zeros costs nothing."""
    vault = MemoryVault()
    content = b"a" * CHUNK + bytes(2 * CHUNK) + b"b" * (3 * CHUNK) + b"tail"

    capture = vault.capture("s")
    extents = store_whole(Reader(content), capture)
    capture.make_durable()

    assert content_of(vault, extents) == content
    assert extents.stored_length() == 4 * CHUNK + 4


@settings(deadline=None, max_examples=150)
@given(st.lists(FILES, min_size=1, max_size=6), st.sampled_from([PAGE, 1024, 3000]))
def test_comparing_finds_exactly_the_differing_pages(versions: list[bytes], page_size: int) -> None:
    """Through any sequence of versions, comparing finds what differs, and storing that gives the version."""
    vault = MemoryVault()
    capture = vault.capture("s")
    resolved = store_whole(Reader(versions[0]), capture)
    capture.make_durable()
    before = versions[0]
    for after in versions[1:]:
        reader = Reader(after, page_size)

        pages, read = changed_by_comparing(reader, resolved, vault)

        resolved = overlay(resolved, store_changes(reader, pages, capture))
        capture.make_durable()
        assert pages.tolist() == differing(before, after, page_size)
        assert read >= 0
        assert content_of(vault, resolved) == after
        before = after


@settings(deadline=None, max_examples=50)
@given(FILES, st.sets(st.integers(0, 45)))
def test_changed_pages_are_packed_and_zeros_are_explicit_holes(content: bytes, numbers: set[int]) -> None:
    """A delta holds exactly the asked pages; over noise it gives the file's pages, zeros among them."""
    vault = MemoryVault()
    pages: NDArray[np.int64] = np.array(sorted(numbers), dtype=np.int64)
    noise = bytes([255]) * len(content)

    capture = vault.capture("s")
    below = store_whole(Reader(noise), capture)
    stored = capture.stored
    delta = store_changes(Reader(content), pages, capture)
    capture.make_durable()

    expected = bytearray(noise)
    for page in numbers:
        expected[page * PAGE : (page + 1) * PAGE] = content[page * PAGE : (page + 1) * PAGE]
    assert content_of(vault, overlay(below, delta)) == bytes(expected)
    assert capture.stored - stored <= len(numbers) * PAGE


def test_unchanged_chunks_are_not_decoded() -> None:
    """A chunk that lies whole in the file is compared by its id."""
    vault = MemoryVault()
    content = np.random.default_rng(1).bytes(3 * CHUNK)
    capture = vault.capture("s")
    resolved = store_whole(Reader(content), capture)
    capture.make_durable()
    changed = bytearray(content)
    changed[CHUNK + 5000] ^= 1

    pages, read = changed_by_comparing(Reader(bytes(changed)), resolved, vault)

    assert pages.tolist() == [(CHUNK + 5000) // PAGE]
    assert (vault.decoded, read) == (1, 3 * CHUNK)


def test_a_file_gets_a_new_base_map_after_many_deltas(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file has more than 32 deltas, a new base stores no data, and every version stays readable."""
    monkeypatch.setattr(imaging, "SMALL_MAPS", 1 << 30)
    vault = MemoryVault()
    capture = vault.capture("s")
    content = bytearray(file_of([1] * 20))
    file = next_file(None, store_whole(Reader(bytes(content)), capture), capture, vault, name="pages", page_size=PAGE)
    capture.make_durable()
    for number in range(2, MAX_DELTAS + 5):
        content[0:PAGE] = bytes([number]) * PAGE
        delta = store_changes(Reader(bytes(content)), np.array([0]), capture)

        file = next_file(file, delta, capture, vault)
        capture.make_durable()

        assert len(file.deltas) <= MAX_DELTAS
        assert content_of(vault, vault.image_map(file)) == bytes(content)
        assert file.extents == len(vault.image_map(file).extents)
    assert len(file.deltas) == 2


def test_a_failing_reader_ends_the_storing() -> None:
    """An error in a worker thread reaches the caller."""

    class Short(Reader):
        def read(self, offset: int, length: int) -> bytes:
            return super().read(offset, length - 1)

    with pytest.raises(EOFError, match="not frozen"):
        store_whole(Short(b"x" * 10 * CHUNK), MemoryVault().capture("s"))
