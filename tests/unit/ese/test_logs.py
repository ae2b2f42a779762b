"""Version 8 logs: segments, shadows, fragments, records, and what damage to them does."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.ese.findings import Severity, damage_in
from perdure.ese.logs.details import details
from perdure.ese.logs.files import log_name, read_log, read_logs
from perdure.ese.logs.record_types import RECORD_TYPES, SizeTable
from perdure.ese.logs.segments import SEGMENT_SIZE
from perdure.testing.ese_logs import (
    EXAMPLE_BEGINNING,
    LogMaker,
    example_records,
    example_times,
    log_time,
    node_record,
    stream_signature,
)

UNUSED = b"".join(bytes([(0xDA + place) & 0xFF]) + b"\xda" * 15 for place in range(0, 512, 16))


def written(folder: Path, content: bytes, name: str = "E0000000005.log") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@given(sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=8), shadow=st.booleans())
@settings(max_examples=60, deadline=None)
def test_records_of_any_size_come_back(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], shadow: bool
) -> None:
    """Records are read as they were written, whether they fit into a segment or go through several in fragments."""
    maker = LogMaker(stream_signature(1, EXAMPLE_BEGINNING))
    records = [node_record(29, 1, 9, struct.pack("<HHH", 0, 0, size) + b"\x07" * size) for size in sizes]
    log = read_log(written(tmp_path_factory.mktemp("log"), maker.log(records, 5, example_times(1)[0], shadow=shadow)))

    assert log.findings == ()
    assert log.readable
    assert log.records is not None
    assert [record.content for record in log.records] == records


def test_every_record_type_has_its_size(maker: LogMaker, tmp_path: Path) -> None:
    """A record of every type, of its smallest size, is found with its name and its bytes."""
    records = []
    for kind in RECORD_TYPES.values():
        if kind.number in (0, 76, 77):
            continue
        records.append(bytes([kind.number]) + bytes(kind.base - 1))
    log = read_log(written(tmp_path, maker.log(records, 5, example_times(1)[0])))

    assert log.findings == ()
    assert log.records is not None
    assert [record.content for record in log.records] == records
    assert {record.name for record in log.records} == {RECORD_TYPES[record[0]].name for record in records}
    for record in log.records:
        details(record)


@given(number=st.sampled_from(sorted(set(RECORD_TYPES) - {0})), data=st.data())
@settings(max_examples=150, deadline=None)
def test_sizes_are_the_sum_of_their_rules(number: int, data: st.DataObject) -> None:
    """The size of a record is its fixed part and the lengths that it states."""
    kind = RECORD_TYPES[number]
    content = bytearray(kind.base + SizeTable.MARGIN)
    content[0] = number
    expected = kind.base
    for offset, mask in kind.words:
        length = data.draw(st.integers(0, 0xFFFF))
        content[offset : offset + 2] = struct.pack("<H", length)
        expected += length & mask
    for offset in kind.longs:
        length = data.draw(st.integers(0, 0xFFFFF))
        content[offset : offset + 4] = struct.pack("<I", length)
        expected += length
    if kind.version_flags:
        content[kind.version_flags] = 4
        expected += 4
    table = SizeTable(np.frombuffer(bytes(content), np.uint8))

    assert table.sizes(np.zeros(1, np.int64), np.array([number], np.uint8)).tolist() == [expected]


@pytest.mark.parametrize("fill", [b"\0", UNUSED], ids=["zero", "pattern"])
def test_segments_that_were_never_used_end_the_log(maker: LogMaker, tmp_path: Path, fill: bytes) -> None:
    """Both ways in which the engine leaves segments unused are the end of a log, not damage."""
    log = read_log(written(tmp_path, maker.log(example_records(), 5, example_times(1)[0], fill=fill)))

    assert log.findings == ()
    assert log.readable


def test_an_older_log_behind_the_end_is_no_damage(maker: LogMaker, tmp_path: Path) -> None:
    """A log file that the engine reused still holds segments of an older generation behind its end."""
    older = maker.log(example_records(60), 3, example_times(1)[0])
    content = maker.log(example_records(10), 5, example_times(1)[0], shadow=True)
    used = len(content.rstrip(b"\0")) // SEGMENT_SIZE * SEGMENT_SIZE + SEGMENT_SIZE
    log = read_log(written(tmp_path, content[:used] + older[used:]))

    assert log.findings == ()
    assert log.records is not None
    assert len(log.records) == len(example_records(10))


def test_a_torn_last_segment_is_read_from_its_shadow(maker: LogMaker, tmp_path: Path) -> None:
    """The shadow brings every record back; that is normal in the log being written, and damage in a closed one."""
    records = example_records()
    whole = maker.log(records, 5, example_times(1)[0], shadow=True)
    last = len(whole.rstrip(b"\0")) // SEGMENT_SIZE - 1
    torn = bytearray(whole)
    torn[last * SEGMENT_SIZE + 100 : last * SEGMENT_SIZE + 140] = bytes(40)
    current = read_log(written(tmp_path, bytes(torn), "E00.log"))
    closed = read_log(written(tmp_path, bytes(torn)))

    for log in (current, closed):
        assert log.readable
        assert log.records is not None
        assert [record.content for record in log.records] == records
        assert [finding.code for finding in log.findings] == ["ese-segment-torn"]
    assert damage_in(current.findings) == []
    assert len(damage_in(closed.findings)) == 1


def test_a_flipped_bit_in_a_segment_is_named_and_its_records_are_read(maker: LogMaker, tmp_path: Path) -> None:
    """The checksum of a segment names a flipped bit: it is reported, and no record is lost."""
    records = example_records()
    damaged = bytearray(maker.log(records, 5, example_times(1)[0]))
    damaged[3 * SEGMENT_SIZE + 1000] ^= 8
    log = read_log(written(tmp_path, bytes(damaged)))

    assert [(finding.code, finding.place) for finding in log.findings] == [("ese-segment-damaged", "segment 3 (5,3,0)")]
    assert log.records is not None
    assert [record.content for record in log.records] == records


def test_damage_inside_a_log_ends_it_and_says_what_is_cut_off(maker: LogMaker, tmp_path: Path) -> None:
    """A segment that cannot be corrected ends the log, and the segments behind it are counted."""
    damaged = bytearray(maker.log(example_records(), 5, example_times(1)[0]))
    damaged[3 * SEGMENT_SIZE + 1000 : 3 * SEGMENT_SIZE + 1010] = bytes(10)
    log = read_log(written(tmp_path, bytes(damaged)))

    assert not log.readable
    assert "segment 3 (5,3,0)" in log.findings[0].place
    assert "later segments" in log.findings[0].what


def test_a_segment_that_was_blanked_is_damage(maker: LogMaker, tmp_path: Path) -> None:
    """A segment of zeros is the end of a log only if none of its own follow."""
    damaged = bytearray(maker.log(example_records(), 5, example_times(1)[0]))
    damaged[3 * SEGMENT_SIZE : 4 * SEGMENT_SIZE] = bytes(SEGMENT_SIZE)
    log = read_log(written(tmp_path, bytes(damaged)))

    assert not log.readable
    assert log.findings[0].code == "ese-segment-missing"


@given(data=st.data())
@settings(max_examples=250, deadline=None)
def test_any_changed_byte_is_detected_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """No byte of a log can change without either a finding or exactly the same header and records."""
    maker = LogMaker(stream_signature(1, EXAMPLE_BEGINNING), sectors=12)
    records = example_records(20, 900)
    whole = maker.log(records, 5, example_times(1)[0], shadow=True)
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= data.draw(st.integers(1, 255))
    log = read_log(written(tmp_path_factory.mktemp("log"), bytes(damaged)))

    if not damage_in(log.findings):
        assert log.header is not None
        assert log.records is not None
        assert dataclasses.asdict(log.header) == dataclasses.asdict(read_header(whole))
        assert [record.content for record in log.records] == records


def read_header(content: bytes) -> object:
    from perdure.ese.headers.log import read_log_header

    return read_log_header(content, "whole")


def test_a_record_of_an_unknown_type_is_damage(maker: LogMaker, tmp_path: Path) -> None:
    """What follows a record of an unknown type is not taken for records."""
    known = struct.pack("<BHBI", 8, 1, 0x10, 1)
    log = read_log(written(tmp_path, maker.log([known, bytes([250]) + bytes(9), known], 5, example_times(1)[0])))

    assert not log.readable
    assert log.findings[0].code == "ese-log-record-damaged"
    assert log.findings[0].place == "record 5,1,30"
    assert log.records is not None
    assert len(log.records) == 1


@pytest.mark.parametrize(
    "pieces",
    [
        [struct.pack("<BH", 77, 5) + bytes(5)],
        [struct.pack("<BIH", 76, 50, 5) + bytes(5), struct.pack("<BIH", 76, 50, 5) + bytes(5)],
        [struct.pack("<BIH", 76, 50, 5) + bytes(5), struct.pack("<BHBI", 8, 1, 0x10, 1)],
        [struct.pack("<BIH", 76, 6, 5) + bytes(5), struct.pack("<BH", 77, 5) + bytes(5)],
        [struct.pack("<BIH", 76, 9, 5) + b"\x20" * 5, struct.pack("<BH", 77, 4) + bytes(4)],
    ],
    ids=["no-beginning", "begun-twice", "interrupted", "too-long", "of-another-size"],
)
def test_broken_fragments_are_damage(maker: LogMaker, tmp_path: Path, pieces: list[bytes]) -> None:
    """Fragments that make no record are reported, and what is before them is still read."""
    known = struct.pack("<BHBI", 8, 1, 0x10, 1)
    log = read_log(written(tmp_path, maker.log([known, *pieces, known], 5, example_times(1)[0])))

    assert not log.readable
    assert [finding.code for finding in damage_in(log.findings)] == ["ese-log-record-damaged"]
    assert log.records is not None
    assert [record.content for record in log.records][:1] == [known]
    assert all(record.content == known for record in log.records)


def test_a_log_that_ends_in_a_record_is_damage_only_if_it_is_closed(maker: LogMaker, tmp_path: Path) -> None:
    """The log being written may end within a record, a closed one may not."""
    content = bytearray(
        maker.log([node_record(29, 1, 9, struct.pack("<HHH", 0, 0, 6000) + bytes(6000))], 5, example_times(1)[0])
    )
    content[2 * SEGMENT_SIZE :] = bytes(len(content) - 2 * SEGMENT_SIZE)
    current = read_log(written(tmp_path, bytes(content), "E00.log"))
    closed = read_log(written(tmp_path, bytes(content)))

    assert [finding.severity for finding in current.findings] == [Severity.NOTE]
    assert [finding.code for finding in damage_in(closed.findings)] == ["ese-log-record-unfinished"]


def test_a_log_cut_short_is_damage(maker: LogMaker, tmp_path: Path) -> None:
    """A file that is shorter than its header says is reported, also when all records are there."""
    log = read_log(written(tmp_path, maker.log(example_records(), 5, example_times(1)[0])[: -4 * SEGMENT_SIZE]))

    assert [finding.code for finding in log.findings] == ["ese-log-short"]


def test_a_renamed_log_is_damage(maker: LogMaker, tmp_path: Path) -> None:
    """The number in the name of a log must be that of its header."""
    log = read_log(written(tmp_path, maker.log(example_records(), 5, example_times(1)[0]), "E0000000006.log"))

    assert [finding.code for finding in log.findings] == ["ese-log-misnamed"]


def test_many_logs_read_together_are_as_each_alone(maker: LogMaker, tmp_path: Path) -> None:
    """Reading logs in one go gives the same records as reading them one by one."""
    paths = [
        written(
            tmp_path,
            maker.log(example_records(5 + generation), generation, example_times(1)[0]),
            f"E00{generation:08X}.log",
        )
        for generation in range(1, 21)
    ]
    paths.insert(3, written(tmp_path, b"\xff" * 8192, "E0000000077.log"))

    together = [list(log.records or ()) for log in read_logs(paths)]

    assert together == [list(read_log(path).records or ()) for path in paths]


@pytest.mark.parametrize(
    ("name", "base", "generation"),
    [
        ("E00.log", "E00", None),
        ("e0012345.log", "E00", 0x12345),
        ("E000001A2B3.jtx", "E00", 0x1A2B3),
        ("edb00001.log", "EDB", 1),
        ("setup.log", "", None),
    ],
)
def test_names_of_logs_are_read(name: str, base: str, generation: int | None) -> None:
    """Base and number of a log are in its name, in five or eight digits."""
    found = log_name(name)

    assert (found.base, found.generation) == (base, generation)


def test_times_keep_their_milliseconds() -> None:
    """A time that was written comes back with its milliseconds and in UTC."""
    from perdure.ese.structures import LogTime

    assert LogTime(log_time(EXAMPLE_BEGINNING)).moment == EXAMPLE_BEGINNING
    assert str(LogTime(log_time(EXAMPLE_BEGINNING))) == "2024-05-06 07:08:09.123Z"
