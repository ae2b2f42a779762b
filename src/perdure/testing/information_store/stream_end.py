"""The end of a log stream that an engine has left behind: found, put in order, closed; the next log follows it."""

from __future__ import annotations

import re
from pathlib import Path

from perdure.ese.headers.log import LOG_HEADER_SIZE, read_log_header
from perdure.ese.logs.files import Log, read_log
from perdure.ese.structures import LogPosition
from perdure.testing.information_store.disk import Disk
from perdure.testing.information_store.log_segments import RECORDS_START, SEGMENT_SIZE, sealed_segments, unused_segments
from perdure.testing.information_store.log_stream import PreviousLog

__all__ = ["StreamEnd", "close_stream_end", "closed_logs", "find_stream_end"]

_NUMBERED = re.compile(r"[A-Z0-9]{3}([0-9A-F]{8})\.log")


class StreamEnd:
    """Where a stream ends.

    Args:
        log: Its last log.
        end: Position behind its last record.
    """

    def __init__(self, log: Log, end: LogPosition) -> None:
        self.log = log
        self.end = end

    @property
    def generation(self) -> int:
        """Number of its last log."""
        assert self.log.header is not None
        return self.log.header.generation

    @property
    def created(self) -> bytes:
        """When its last log was made."""
        assert self.log.header is not None
        return self.log.header.created.raw


def closed_logs(folder: Path, base: str) -> dict[int, Path]:
    """The closed logs of a stream by generation."""
    found: dict[int, Path] = {}
    for path in folder.glob(f"{base}????????.log"):
        number = _NUMBERED.fullmatch(path.name)
        if number:
            found[int(number[1], 16)] = path
    return dict(sorted(found.items()))


def find_stream_end(folder: Path, base: str) -> StreamEnd | None:
    """The last log of a stream, ``None`` if the folder holds none.

    A new log that was made and not yet given its name when the engine died gets it now: the databases may already count
    on it.
    """
    current, formatted = folder / f"{base}.log", folder / f"{base}tmp.log"
    closed = closed_logs(folder, base)
    if not current.exists() and formatted.exists() and closed:
        head = formatted.read_bytes()[:LOG_HEADER_SIZE]
        if any(head) and read_log_header(head, formatted.name).generation == max(closed) + 1:
            formatted.rename(current)
    formatted.unlink(missing_ok=True)
    if current.exists():
        path = current
    elif closed:
        path = closed[max(closed)]
    else:
        return None
    log = read_log(path)
    assert log.header is not None, f"the header of {path} is damaged"
    assert log.segments is not None
    return StreamEnd(log, _end_of(log))


def close_stream_end(disk: Disk, folder: Path, base: str, end: StreamEnd) -> PreviousLog:
    """Give the last log its number, without anything behind its last sound segment."""
    path, generation = end.log.path, end.generation
    file = disk.open(path)
    content = _whole_segments(end.log)
    content += content[-SEGMENT_SIZE:]
    assert end.log.header is not None
    unused = end.log.header.sectors - 1 - len(content) // SEGMENT_SIZE
    file.write(SEGMENT_SIZE, content + unused_segments(unused))
    file.sync()
    if path.name == f"{base}.log":
        disk.rename(file, folder / f"{base}{generation:08X}.log")
    disk.close(file)
    checksums = 0
    for at in range(0, len(content) - SEGMENT_SIZE, SEGMENT_SIZE):
        checksums ^= int.from_bytes(content[at : at + 8], "little")
    return PreviousLog(generation, end.created, checksums)


def _end_of(log: Log) -> LogPosition:
    """Behind the beginning of the last whole record."""
    assert log.records is not None
    assert log.header is not None
    if not len(log.records):
        return LogPosition(log.header.generation, 1, 0)
    last = log.records.position(len(log.records) - 1)
    return LogPosition(last.generation, last.sector, last.offset + 1)


def _whole_segments(log: Log) -> bytes:
    """The segments of a log without a record at its end that a crash has cut short."""
    assert log.segments is not None
    assert log.records is not None
    content = log.segments.content.tobytes()
    cut = log.records.unfinished
    if cut is None:
        return content
    start = (cut.sector - log.segments.first) * SEGMENT_SIZE
    body = bytearray(content[start : start + cut.offset])
    if cut.offset <= RECORDS_START:
        return content[:start]
    sealed, _ = sealed_segments([body], cut.sector)
    return content[:start] + sealed
