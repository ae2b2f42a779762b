"""Where a replay ends: as people write it, and which records lie before it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from perdure.ese.logs.files import read_log
from perdure.ese.replay.stops import StopAt, parse_stop, record_end, records_before
from perdure.ese.structures import LogPosition
from perdure.model.errors import BadInput
from perdure.testing.ese_logs import LogMaker, example_times, node_record


@pytest.mark.parametrize(
    ("text", "stop"),
    [
        ("1A", StopAt(LogPosition(0x1B, 0, 0))),
        ("1a:30", StopAt(LogPosition(0x1A, 0x30, 0))),
        ("1A:30:5C", StopAt(LogPosition(0x1A, 0x30, 0x5C))),
        ("1A,30,5C", StopAt(LogPosition(0x1A, 0x30, 0x5C))),
        ("2024-05-06T07:08:09", StopAt(time=datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC))),
        ("2024-05-06 09:08+02:00", StopAt(time=datetime(2024, 5, 6, 9, 8, tzinfo=timezone(timedelta(hours=2))))),
    ],
)
def test_what_people_write(text: str, stop: StopAt) -> None:
    """A generation counts whole, a position does not count itself, a time without zone is UTC."""
    assert parse_stop(text) == stop


@pytest.mark.parametrize("text", ["", "yesterday", "1A:", "1A:30:5C:7", "12345:99999", "-1"])
def test_what_is_no_end(text: str) -> None:
    """Anything else is refused with examples."""
    with pytest.raises(BadInput) as refused:
        parse_stop(text)
    assert refused.value.code == "ese-replay-position"
    assert "1A:30" in refused.value.hint


@pytest.fixture
def log_path(maker: LogMaker, tmp_path: Path) -> Path:
    """A log of small records with two large ones between, each over several segments."""
    records = [node_record(35, 1, number) for number in range(40)]
    large = node_record(29, 1, 7, b"\2\0\0\0" + (9000).to_bytes(2, "little") + b"kk" + bytes([1]) * 9000)
    content = maker.log([*records, large, *records, large, *records], 5, example_times(1)[0], shadow=True)
    path = tmp_path / "E0000000005.log"
    path.write_bytes(content)
    return path


def test_records_before_a_position(log_path: Path) -> None:
    """Only records that end before the position count: those whose next one begins there, in fragments or not."""
    records = read_log(log_path).records
    assert records is not None
    ends = [record_end(int(place), int(size)) for place, size in zip(records.places, records.sizes, strict=True)]
    for index in range(len(records) - 1):
        following = records.position(index + 1)
        assert records_before(records, following) == index + 1
        assert ends[index] <= int(records.places[index + 1])
        last = LogPosition(5, (ends[index] - 1) // 4096, (ends[index] - 1) % 4096)
        assert records_before(records, last) == index
    in_the_middle = records.position(40)
    behind = LogPosition(5, in_the_middle.sector + 1, 0)
    assert records_before(records, behind) == 40


def test_times_end_between_segments(log_path: Path) -> None:
    """A time ends before the first segment that was begun after it."""
    log = read_log(log_path)
    assert log.segments is not None
    moment = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)
    assert StopAt(time=moment).position_in(log.segments) is None
    assert StopAt(time=moment - timedelta(milliseconds=1)).position_in(log.segments) == LogPosition(5, 1, 0)
    assert StopAt(LogPosition(6, 0, 0)).position_in(log.segments) is None
    assert StopAt(LogPosition(5, 2, 0)).position_in(log.segments) == LogPosition(5, 2, 0)
    assert StopAt(LogPosition(4, 2, 0)).position_in(log.segments) == LogPosition(5, 0, 0)
