"""The WAL format code against SQLite itself and against the reference loop."""

from __future__ import annotations

import struct
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.model.errors import Damaged
from perdure.workloads.sqlite.payload import SegmentIndex, decode_index, encode_index
from perdure.workloads.sqlite.wal import checksum, parse_frames, parse_header
from perdure.workloads.sqlite.walindex import read_index_header


def make_frames(page_size: int, pages: list[bytes], salts: bytes, start: tuple[int, int], *, big_endian: bool) -> bytes:
    made = bytearray()
    state = start
    for number, page in enumerate(pages):
        head = struct.pack(">2I", number + 1, number % 3)
        state = checksum(head + page, state, big_endian=big_endian)
        made += head + salts + struct.pack(">2I", *state) + page
    return bytes(made)


@settings(max_examples=60, deadline=None)
@given(
    page_size=st.sampled_from([512, 1024, 4096]),
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 5),
    start=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    big_endian=st.booleans(),
    salts=st.binary(min_size=8, max_size=8),
    flip=st.none() | st.integers(0, 10**6),
)
def test_vectorised_checksum_equals_the_loop(
    *,
    page_size: int,
    seed: int,
    count: int,
    start: tuple[int, int],
    big_endian: bool,
    salts: bytes,
    flip: int | None,
) -> None:
    """Frames made by the reference loop pass; one flipped bit fails exactly from its frame on."""
    random = np.random.default_rng(seed)
    pages = [random.bytes(page_size) for _ in range(count)]
    data = bytearray(make_frames(page_size, pages, salts, start, big_endian=big_endian))
    bad = count
    if flip is not None:
        at = flip % len(data)
        data[at] ^= 1 << (flip % 8)
        bad = at // (24 + page_size)
    frames = parse_frames(data, page_size, salts, start, big_endian=big_endian)
    assert frames.good == bad
    if flip is None:
        assert [bytes(image) for image in frames.images] == pages
        assert frames.pages.tolist() == list(range(1, count + 1))
        assert frames.sizes.tolist() == [n % 3 for n in range(count)]


@settings(max_examples=15, deadline=None)
@given(page_size=st.sampled_from([512, 4096, 65536]), sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=8))
def test_sqlite_writes_what_is_read(tmp_path_factory: pytest.TempPathFactory, page_size: int, sizes: list[int]) -> None:
    """Every frame that SQLite wrote checks, and the WAL-index names the last one with its checksum."""
    path = Path(tmp_path_factory.mktemp("wal")) / "a.db"
    connection = apsw.Connection(str(path))
    try:
        connection.pragma("page_size", page_size)
        connection.pragma("journal_mode", "wal")
        connection.wal_autocheckpoint(0)
        connection.execute("CREATE TABLE t(v)")
        for size in sizes:
            connection.execute("INSERT INTO t VALUES (randomblob(?))", (size,))
        wal = path.with_name("a.db-wal").read_bytes()
        index = read_index_header(path.with_name("a.db-shm").read_bytes())
        header = parse_header(wal)
        assert header is not None
        assert index is not None
        assert (header.page_size, header.salts) == (page_size, index.salts) == (index.page_size, header.salts)
        frames = parse_frames(wal[32:], page_size, header.salts, header.checksum, big_endian=header.big_endian)
        assert frames.good == len(frames.pages) == index.last_frame
        assert tuple(frames.checksums[-1].tolist()) == index.checksum
        assert int(frames.sizes[-1]) == index.pages
        assert int(np.count_nonzero(frames.sizes)) == len(sizes) + 1
    finally:
        connection.close()


def test_torn_headers_are_not_believed() -> None:
    """Short, torn and foreign headers are no headers."""
    assert parse_header(b"") is None
    assert parse_header(bytes(32)) is None
    assert read_index_header(bytes(136)) is None
    assert read_index_header(bytes(range(136))) is None


@given(
    pages=st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=50),
    commits=st.sets(st.integers(0, 49)),
)
def test_index_round_trip(pages: list[int], commits: set[int]) -> None:
    """An index reads back as it was written."""
    ends = sorted({c for c in commits if c < len(pages)} | {len(pages) - 1})
    index = SegmentIndex(4096, np.array(pages, np.uint32), np.array(ends, np.uint32), np.array(ends, np.uint32) + 1)
    again = decode_index(encode_index(index))
    assert again.page_size == 4096
    assert again.pages.tolist() == pages
    assert again.commits.tolist() == ends
    assert again.changed().tolist() == sorted({page - 1 for page in pages})


@pytest.mark.parametrize("cut", [0, 8, 16, 20])
def test_a_cut_index_is_damage(cut: int) -> None:
    """A cut-off index is reported as damage."""
    one = np.array([1], np.uint32)
    data = encode_index(SegmentIndex(4096, one, one - 1, one))
    with pytest.raises(Damaged):
        decode_index(data[:cut])
