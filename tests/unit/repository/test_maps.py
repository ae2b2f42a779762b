"""The stored form of extent maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.model.errors import Damaged
from perdure.model.extents import EXTENT, HOLE, ExtentMap
from perdure.repository.maps import decode_map, encode_map


@st.composite
def maps(draw: st.DrawFn) -> ExtentMap:
    """A random valid map."""
    chunks = draw(st.integers(0, 5))
    rows, at = [], 0
    for _ in range(draw(st.integers(0, 8))):
        at += draw(st.integers(0, 1 << 41))
        length = draw(st.integers(1, 1 << 20))
        chunk = draw(st.sampled_from([HOLE, *range(chunks)]))
        rows.append((at, length, chunk, draw(st.integers(0, 1 << 20))))
        at += length
    table = np.arange(chunks * 32, dtype=np.uint8).reshape(-1, 32)
    return ExtentMap(at + draw(st.integers(0, 1 << 41)), np.array(rows, dtype=EXTENT), table)


@given(maps())
def test_a_map_reads_back(extents: ExtentMap) -> None:
    """Decoding gives the map that was encoded."""
    found = decode_map(encode_map(extents))

    assert extents.size == found.size
    assert extents.extents.tolist() == found.extents.tolist()
    assert extents.ids() == found.ids()


@given(maps(), st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8))
def test_a_damaged_map_is_refused_or_still_inside_the_file(extents: ExtentMap, at: int, patch: bytes) -> None:
    """Whatever the bytes, the result is a typed error or a map that keeps its promises."""
    data = bytearray(encode_map(extents))
    at %= len(data)
    data[at : at + len(patch)] = patch
    try:
        found = decode_map(bytes(data))
    except Damaged:
        return
    ends = found.extents["offset"] + found.extents["length"]
    assert not len(ends) or int(ends.max()) <= found.size
    assert (ends[:-1] <= found.extents["offset"][1:]).all()
    assert all(chunk == HOLE or chunk < len(found.chunks) for chunk in found.extents["chunk"].tolist())


@given(st.binary(max_size=200))
def test_garbage_is_damage(data: bytes) -> None:
    """Any other bytes are damage."""
    with pytest.raises(Damaged):
        decode_map(data)
