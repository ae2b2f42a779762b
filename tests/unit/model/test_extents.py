"""Extent maps against a byte-for-byte model."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from perdure.model.extents import HOLE, ExtentMap, build, overlay

_CHUNKS = {bytes([n]) * 32: bytes((n * 7 + i) % 251 + 1 for i in range(64)) for n in range(6)}


def read(extents: ExtentMap) -> bytes:
    """What a file with this map holds."""
    content = bytearray(extents.size)
    ids = extents.ids()
    for offset, length, chunk, start in extents.extents.tolist():
        if chunk != HOLE:
            content[offset : offset + length] = _CHUNKS[ids[chunk]][start : start + length]
    return bytes(content)


@st.composite
def maps(draw: st.DrawFn, size: int | None = None) -> ExtentMap:
    """A random map of at most 96 bytes over the chunks above."""
    size = draw(st.integers(0, 96)) if size is None else size
    cuts = sorted(draw(st.sets(st.integers(0, size), max_size=12)) | {0, size})
    pieces = []
    for begin, end in pairwise(cuts):
        what = draw(st.sampled_from([*_CHUNKS, None, "nothing"]))
        if what == "nothing" or end - begin > 64:
            continue
        start = draw(st.integers(0, 64 - (end - begin)))
        pieces.append((begin, end - begin, what, start))
    return build(size, draw(st.permutations(pieces)))


@given(maps(), st.lists(maps(), max_size=4))
def test_overlay_reads_like_writing_one_file_over_the_other(base: ExtentMap, deltas: list[ExtentMap]) -> None:
    """A resolved map reads as the base overwritten by every delta in turn, cut or grown to its size."""
    expected = bytearray(read(base))
    for delta in deltas:
        expected = expected[: delta.size].ljust(delta.size, b"\0")
        content = read(delta)
        for offset, length, _, _ in delta.extents.tolist():
            expected[offset : offset + length] = content[offset : offset + length]

    resolved = overlay(base, *deltas)

    assert bytes(expected) == read(resolved)


@given(maps(), st.lists(maps(), max_size=4))
def test_resolved_maps_are_in_normal_form(base: ExtentMap, deltas: list[ExtentMap]) -> None:
    """Extents stay sorted, apart, inside the file; the chunk table names only what is used."""
    resolved = overlay(base, *deltas)
    rows = resolved.extents
    ends = rows["offset"] + rows["length"]

    assert (ends[:-1] <= rows["offset"][1:]).all()
    assert (rows["length"] > 0).all()
    assert not len(rows) or int(ends[-1]) <= resolved.size
    assert set(rows["chunk"][rows["chunk"] != HOLE].tolist()) == set(range(len(resolved.chunks)))


@given(maps(), st.integers(0, 100), st.integers(0, 100))
def test_slice_reads_the_same_bytes(extents: ExtentMap, offset: int, length: int) -> None:
    """A slice covers exactly its range, with the bytes of the whole."""
    part = extents.slice(offset, length)
    whole, cut = read(extents), read(part)

    assert whole[offset : offset + length] == cut[offset : offset + length]
    assert all(offset <= o and o + n <= offset + length for o, n, _, _ in part.extents.tolist())


def test_neighbours_that_continue_each_other_become_one_extent() -> None:
    """A file copied in order needs one extent per chunk, however many pieces it came in."""
    chunk = bytes(32)
    extents = build(30, [(0, 10, chunk, 0), (10, 10, chunk, 10), (20, 10, chunk, 20)])

    assert extents.extents.tolist() == [(0, 30, 0, 0)]


def test_large_offsets_survive() -> None:
    """Offsets beyond 4 GiB are kept exactly."""
    chunk, tib = bytes(32), 1 << 40
    base = build(2 * tib, [(tib, 1 << 20, chunk, 0)])
    delta = build(2 * tib, [(tib + 4096, 4096, b"\1" * 32, 8)])

    resolved = overlay(base, delta)

    assert [(tib, 4096), (tib + 4096, 4096), (tib + 8192, (1 << 20) - 8192)] == [
        (offset, length) for offset, length, _, _ in resolved.extents.tolist()
    ]
    assert np.uint32(8192) == resolved.extents["start"][2]
