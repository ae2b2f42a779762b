"""The rules by which logs continue each other and belong to databases and checkpoints, and the pages they change."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from perdure.ese.changes import changed_pages
from perdure.ese.errors import EseDamaged
from perdure.ese.findings import Finding, damage_in
from perdure.ese.folders import VerificationReport, verify_files
from perdure.ese.logs.files import read_logs
from perdure.ese.structures import LogPosition
from perdure.testing.ese_databases import header_bytes
from perdure.testing.ese_logs import (
    EXAMPLE_BEGINNING,
    LogMaker,
    checkpoint_bytes,
    example_records,
    example_times,
    node_record,
    page_record,
    sector_log_bytes,
    stream_signature,
)

TIMES = example_times(6)


def stream(folder: Path, maker: LogMaker, *, first: int = 1, count: int = 5) -> list[Path]:
    """A chain of closed logs and the one being written."""
    logs = maker.chain([example_records(20 + index) for index in range(count)], first, TIMES[:count])
    paths = []
    for index, content in enumerate(logs):
        name = "E00.log" if index == count - 1 else f"E00{first + index:08X}.log"
        (folder / name).write_bytes(content)
        paths.append(folder / name)
    return paths


def database(
    folder: Path, maker: LogMaker, *, required: tuple[int, int], committed: int = 0, time: bytes = bytes(8)
) -> Path:
    header = header_bytes(
        4096, state=2, required=required, committed=committed, log_signature=maker.signature, log_time=time
    )
    path = folder / "mailbox.edb"
    path.write_bytes(header * 2)
    return path


def codes(findings: Sequence[Finding]) -> list[str]:
    return [finding.code for finding in damage_in(findings)]


def verified(folder: Path) -> VerificationReport:
    return verify_files([folder])


def test_an_unbroken_chain_with_its_database_is_sound(maker: LogMaker, tmp_path: Path) -> None:
    """Logs that continue each other and hold what a dirty database needs give no finding at all."""
    stream(tmp_path, maker)
    database(tmp_path, maker, required=(2, 4), committed=5, time=TIMES[4])
    (tmp_path / "E00.chk").write_bytes(checkpoint_bytes(maker.signature, 2, 3, 40))
    report = verified(tmp_path)

    assert report.findings == ()
    assert report.streams[0].generations == (1, 5)


def test_a_missing_log_is_named_and_breaks_recovery(maker: LogMaker, tmp_path: Path) -> None:
    """A gap is damage, and so is that the database needs what is behind it."""
    stream(tmp_path, maker)[2].unlink()
    database(tmp_path, maker, required=(2, 4))
    report = verified(tmp_path)

    assert codes(report.findings) == ["ese-log-missing", "ese-required-log-missing"]
    assert "log 3 is missing" in report.findings[0].what
    assert "only 2 can be replayed" in report.findings[1].what


def test_only_committed_logs_missing_is_told_apart(maker: LogMaker, tmp_path: Path) -> None:
    """Without the logs behind the required ones a database can be used, but loses what was committed."""
    stream(tmp_path, maker)[4].unlink()
    database(tmp_path, maker, required=(2, 4), committed=5)

    assert codes(verified(tmp_path).findings) == ["ese-committed-log-missing"]


def test_a_log_made_at_another_time_does_not_join(maker: LogMaker, tmp_path: Path) -> None:
    """A log that names another time for the one before is from another recovery of the stream."""
    paths = stream(tmp_path, maker)
    other = maker.log(example_records(22), 3, example_times(9)[8], previous_created=TIMES[1], previous_segments=0)
    paths[2].write_bytes(other)
    found = codes(verified(tmp_path).findings)

    assert "ese-log-time-mismatch" in found
    assert "ese-log-segments-mismatch" in found


def test_a_log_of_another_stream_is_named(maker: LogMaker, tmp_path: Path) -> None:
    """A log with another signature is reported as foreign, and its place as missing."""
    paths = stream(tmp_path, maker)
    other = LogMaker(stream_signature(0xBAD, EXAMPLE_BEGINNING))
    paths[2].write_bytes(other.log(example_records(20), 3, TIMES[2], previous_created=TIMES[1]))

    assert codes(verified(tmp_path).findings) == ["ese-log-foreign", "ese-log-missing"]


def test_a_closed_log_that_lost_its_end_is_found_by_the_next(maker: LogMaker, tmp_path: Path) -> None:
    """The checksum of all segments in the next header finds a log whose last segments were blanked without a trace."""
    paths = stream(tmp_path, maker)
    content = bytearray(paths[1].read_bytes())
    used = len(bytes(content).rstrip(b"\0")) // 4096
    content[used * 4096 :] = bytes(len(content) - used * 4096)
    paths[1].write_bytes(content)

    assert codes(verified(tmp_path).findings)[-1] == "ese-log-segments-mismatch"


def test_the_newest_required_log_must_be_of_the_time_that_the_database_notes(maker: LogMaker, tmp_path: Path) -> None:
    """A log of the right number from another time is not the one that the database needs."""
    stream(tmp_path, maker)
    database(tmp_path, maker, required=(2, 4), committed=4, time=TIMES[5])

    assert codes(verified(tmp_path).findings) == ["ese-log-time-mismatch"]


def test_two_logs_of_one_generation_are_damage(maker: LogMaker, tmp_path: Path) -> None:
    """Recovery cannot know which of two logs of one number it should use."""
    paths = stream(tmp_path, maker)
    (tmp_path / "E0000000005.log").write_bytes(paths[4].read_bytes())

    assert "ese-log-duplicate" in codes(verified(tmp_path).findings)


def test_a_database_alone_only_notes_the_logs_it_needs(maker: LogMaker, tmp_path: Path) -> None:
    """Where only a database is named nobody promised its logs, so that they are missing is no damage."""
    path = database(tmp_path, maker, required=(2, 4))
    report = verify_files([path])

    assert codes(report.findings) == []
    assert [finding.code for finding in report.findings] == ["ese-required-log-missing"]


def test_reserve_logs_and_logs_being_made_are_not_reported(maker: LogMaker, tmp_path: Path) -> None:
    """Files that hold no records by their nature are listed, and are no damage."""
    stream(tmp_path, maker)
    for name in ("E00res00001.jrs", "E00tmp.log", "readme.txt", "setup.log"):
        (tmp_path / name).write_bytes(b"\xda" * 8192)
    report = verified(tmp_path)

    assert report.findings == ()
    assert len(report.others) == 4


def test_a_checkpoint_of_another_stream_is_damage(maker: LogMaker, tmp_path: Path) -> None:
    """A foreign checkpoint would send recovery to the wrong place."""
    stream(tmp_path, maker)
    (tmp_path / "E00.chk").write_bytes(checkpoint_bytes(stream_signature(9, EXAMPLE_BEGINNING), 2, 3, 40))

    assert codes(verified(tmp_path).findings) == ["ese-checkpoint-foreign"]


@pytest.mark.parametrize("place", [0, 20, 667, 4096, 4096 + 20])
def test_one_damaged_copy_of_a_checkpoint_is_reported(maker: LogMaker, tmp_path: Path, place: int) -> None:
    """Either copy of a checkpoint may be damaged; the other counts."""
    content = bytearray(checkpoint_bytes(maker.signature, 2, 3, 40))
    content[place] ^= 1
    (tmp_path / "E00.chk").write_bytes(content)

    assert codes(verified(tmp_path).findings) == ["ese-header-damaged"]


@pytest.mark.parametrize("place", [0, 4, 52, 236, 667, 4000])
@pytest.mark.parametrize("copy", [0, 4096])
def test_one_damaged_copy_of_a_database_header_is_reported(tmp_path: Path, place: int, copy: int) -> None:
    """Whatever flips in one copy of a header, the file is known, the other copy counts, and damage is reported."""
    content = bytearray(header_bytes(4096) * 2)
    content[copy + place] ^= 4
    (tmp_path / "database.dat").write_bytes(content)
    report = verified(tmp_path)

    assert codes(report.findings) == ["ese-header-damaged"]
    assert report.databases[0].header is not None


def test_version_7_logs_are_checked_range_by_range(tmp_path: Path) -> None:
    """Logs of version 7 hold checksum records; a flipped bit in any range is found."""
    maker = LogMaker(stream_signature(7, EXAMPLE_BEGINNING), version=(7, 3704, 16, 0))
    bodies = [bytes([index + 1]) * (512 * (index + 1) - 22) for index in range(5)]
    content = bytearray(sector_log_bytes(maker, bodies, 1, TIMES[0]))
    path = tmp_path / "E00.log"
    path.write_bytes(content)
    sound = verify_files([path])
    content[5000] ^= 16
    path.write_bytes(content)
    damaged = verify_files([path])

    assert sound.findings == ()
    assert codes(damaged.findings) == ["ese-log-record-damaged"]


def test_changed_pages_are_those_of_the_records(maker: LogMaker, tmp_path: Path) -> None:
    """The map of a range of logs holds the pages of every record, with what a split touches."""
    paths = stream(tmp_path, maker, count=3)
    (changes,) = changed_pages(read_logs(paths))

    assert changes.path == "D:\\mail\\mailbox.edb"
    assert changes.pages.tolist() == [*range(100, 122), 299, 300, 301, 302]
    assert not changes.created


def test_changed_pages_from_a_position_leave_out_what_is_before(maker: LogMaker, tmp_path: Path) -> None:
    """Records before the start do not count."""
    paths = stream(tmp_path, maker, count=3)
    log = list(read_logs(paths))[2]
    assert log.records is not None
    last_insert = next(record for record in reversed(list(log.records)) if record.name == "Insert")
    (changes,) = changed_pages(read_logs(paths), start=last_insert.position)
    (all_of_last,) = changed_pages(read_logs(paths), start=LogPosition(3, 0, 0))

    assert changes.pages.tolist() == [121, 299, 300, 301, 302]
    assert all_of_last.pages.tolist() == [*range(100, 122), 299, 300, 301, 302]


def test_changed_pages_know_every_type_that_names_pages(tmp_path: Path) -> None:
    """Pages beside the first one, lists and ranges are all in the map; what changes no page is not."""
    maker = LogMaker(stream_signature(1, EXAMPLE_BEGINNING))
    records = [
        page_record(24, 2, 10, struct.pack("<IIIIII", 9, 11, 12, 1, 4, 0)),
        page_record(63, 2, 20, struct.pack("<IQIQI", 21, 0, 22, 0, 23).ljust(64, b"\0")),
        page_record(65, 2, 30, struct.pack("<IIII", 31, 32, 0, 34).ljust(64, b"\0")),
        node_record(48, 2, 40, struct.pack("<HQIIQII", 32, 0, 41, 0, 0, 42, 0)),
        node_record(36, 2, 99, bytes(12)),
        struct.pack("<BHBIIQ", 95, 1, 2, 50, 9, 1),
        struct.pack("<BBII", 81, 2, 60, 3),
        struct.pack("<BBIIB", 100, 2, 70, 2, 0),
        struct.pack("<BIBI", 68, 5, 2, 4711),
    ]
    path = tmp_path / "E00.log"
    path.write_bytes(maker.log(records, 1, TIMES[0]))
    (changes,) = changed_pages(read_logs([path]))

    assert changes.dbid == 2
    assert changes.pages.tolist() == [10, 11, 12, 20, 21, 22, 23, 30, 31, 32, 34, 40, 41, 42, 50, 60, 61, 62, 70, 71]
    assert changes.last_page == 4711


def test_a_database_made_in_the_logs_starts_anew(tmp_path: Path) -> None:
    """CreateDB forgets the pages of an earlier database of the same number, and names the new one."""
    maker = LogMaker(stream_signature(1, EXAMPLE_BEGINNING))
    signature = stream_signature(5, EXAMPLE_BEGINNING)
    path_name = "new.edb\0".encode("utf-16-le")
    create = (
        struct.pack("<BHBII", 14, 1, 1, 0, 0)
        + signature
        + struct.pack("<HB", len(path_name), 12)
        + bytes(4)
        + path_name
    )
    records = [node_record(35, 1, 8), create, node_record(35, 1, 9)]
    path = tmp_path / "E00.log"
    path.write_bytes(maker.log(records, 1, TIMES[0]))
    changes = {each.path: each for each in changed_pages(read_logs([path]))}

    assert changes["new.edb"].pages.tolist() == [9]
    assert changes["new.edb"].created
    assert changes["new.edb"].signature.raw == signature


def test_no_map_is_made_from_a_broken_range(maker: LogMaker, tmp_path: Path) -> None:
    """A damaged log, or a gap, would leave pages out, so it is refused."""
    paths = stream(tmp_path, maker, count=3)
    with pytest.raises(EseDamaged, match="does not follow"):
        changed_pages(read_logs([paths[0], paths[2]]))
    content = bytearray(paths[1].read_bytes())
    content[5000:5100] = bytes(100)
    paths[1].write_bytes(content)
    with pytest.raises(EseDamaged, match="cannot be read"):
        changed_pages(read_logs(paths))
