"""Log files: names, headers, segments and records of one or of many."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from perdure.ese.errors import EseDamaged, EseUnsupported
from perdure.ese.findings import Finding, Severity
from perdure.ese.headers.log import LogHeader, read_log_header
from perdure.ese.logs.records import Records, find_records
from perdure.ese.logs.sectors import SectorLog, examine_sectors
from perdure.ese.logs.segments import Segments, examine_segments

__all__ = ["Log", "LogName", "examine_logs", "log_name", "read_log", "read_logs"]

_NUMBERED = re.compile(r"(?P<base>[a-z0-9]{3})(?P<number>[0-9a-f]{5}|[0-9a-f]{8})\.(?:log|jtx)", re.IGNORECASE)
_CURRENT = re.compile(r"(?P<base>[a-z0-9]{3})\.(?:log|jtx)", re.IGNORECASE)
_BATCH = 16


@dataclass(frozen=True, slots=True)
class LogName:
    """What the name of a log file says.

    Args:
        base: The stream's three characters, upper case; empty if the name is not of this form.
        generation: The number of a log that is complete, ``None`` of the one that is being written.
    """

    base: str
    generation: int | None

    @property
    def current(self) -> bool:
        """Whether the name is that of the log being written."""
        return bool(self.base) and self.generation is None


def log_name(name: str) -> LogName:
    """Read the name of a log file: ``E00.log``, ``E0000001A2B.log``, ``E00000001A2B.log`` is base and number."""
    numbered = _NUMBERED.fullmatch(name)
    if numbered:
        return LogName(numbered["base"].upper(), int(numbered["number"], 16))
    current = _CURRENT.fullmatch(name)
    return LogName(current["base"].upper() if current else "", None)


@dataclass(frozen=True, slots=True)
class Log:
    """A log file that was read whole.

    Args:
        path: Where it lies.
        name: What its name says.
        header: Its header, ``None`` if that is damaged.
        segments: Its segments (version 8), else ``None``.
        records: Its records (version 8), else ``None``.
        sectors: The checksum records of a version 7 log, else ``None``.
        size: Bytes of the file.
        readable: Whether every record up to its end is known.
        findings: What is wrong with it taken alone.
    """

    path: Path
    name: LogName
    header: LogHeader | None
    segments: Segments | None
    records: Records | None
    sectors: SectorLog | None
    size: int
    readable: bool
    findings: tuple[Finding, ...]

    @property
    def file(self) -> str:
        return self.path.name

    @property
    def generation(self) -> int | None:
        """Its number: from its header, or from its name if the header is damaged."""
        return self.header.generation if self.header is not None else self.name.generation

    def without_content(self) -> Log:
        """The same log without the bytes of its segments and records: enough to check a chain of thousands."""
        segments = None if self.segments is None else self.segments.without_content()
        return replace(self, segments=segments, records=None)


def read_log(path: Path) -> Log:
    """Read and check one log."""
    return next(read_logs([path]))


def read_logs(paths: Iterable[Path]) -> Iterator[Log]:
    """Read and check logs, in the order given. It holds sixteen at a time."""
    waiting: list[Path] = []
    for path in paths:
        waiting.append(path)
        if len(waiting) == _BATCH:
            yield from _read(waiting)
            waiting = []
    if waiting:
        yield from _read(waiting)


def examine_logs(contents: Sequence[tuple[Path, bytes]]) -> list[Log]:
    """Check logs that were read already, each given with the path whose name it has. Best sixteen at a time."""
    return list(_examined([_Opened.with_content(path, content) for path, content in contents]))


def _read(paths: list[Path]) -> Iterator[Log]:
    return _examined([_Opened.with_content(path, path.read_bytes()) for path in paths])


def _examined(opened: list[_Opened]) -> Iterator[Log]:
    found = iter(find_records([one.segments for one in opened if one.segments is not None]))
    for one in opened:
        yield one.log(None if one.segments is None else next(found))


@dataclass(frozen=True, slots=True)
class _Opened:
    """A log of which everything but its records was looked at."""

    path: Path
    name: LogName
    header: LogHeader | None
    segments: Segments | None
    sectors: SectorLog | None
    size: int
    findings: tuple[Finding, ...]

    @staticmethod
    def with_content(path: Path, content: bytes) -> _Opened:
        name = log_name(path.name)
        try:
            header = read_log_header(content, path.name)
        except (EseDamaged, EseUnsupported) as error:
            what = error.message.removeprefix(f"{path.name}: ")
            finding = Finding(error.code, path.name, "header", what)
            return _Opened(path, name, None, None, None, len(content), (finding,))
        findings = list(_about_file(path.name, name, header, len(content)))
        start = header.header_sectors * header.sector_size
        if not header.segmented:
            sectors = examine_sectors(content, header.generation, header.sector_size, start, path.name)
            return _Opened(path, name, header, None, sectors, len(content), (*findings, *sectors.findings))
        segments = examine_segments(
            content, header.generation, header.header_sectors, path.name, closed=name.generation is not None
        )
        return _Opened(path, name, header, segments, None, len(content), (*findings, *segments.findings))

    def log(self, records: Records | None) -> Log:
        findings = list(self.findings)
        if records is not None:
            findings += records.findings
            findings += _about_end(self.path.name, self.name, records)
        whole = self.segments is None or self.segments.whole
        broken = bool(records and records.findings) or bool(self.sectors and self.sectors.findings)
        return Log(
            path=self.path,
            name=self.name,
            header=self.header,
            segments=self.segments,
            records=records,
            sectors=self.sectors,
            size=self.size,
            readable=self.header is not None and whole and not broken,
            findings=tuple(findings),
        )


def _about_file(file: str, name: LogName, header: LogHeader, size: int) -> Iterator[Finding]:
    if name.generation is not None and name.generation != header.generation:
        yield Finding(
            code="ese-log-misnamed",
            file=file,
            place="header",
            what=f"its name says generation {name.generation:X} and its header {header.generation:X}: it was renamed, "
            "or one log was copied over another",
        )
    if size < header.file_size:
        yield Finding(
            code="ese-log-short",
            file=file,
            place="",
            what=f"it has {size} of {header.file_size} bytes: it was cut short",
        )
    elif size > header.file_size:
        yield Finding(
            code="ese-log-long",
            file=file,
            place="",
            what=f"it has {size - header.file_size} bytes more than its header says",
            severity=Severity.NOTE,
        )


def _about_end(file: str, name: LogName, records: Records) -> Iterator[Finding]:
    """A record whose end is missing: normal only in the log that was being written."""
    if records.unfinished is not None:
        yield Finding(
            code="ese-log-record-unfinished",
            file=file,
            place=f"record {records.unfinished}",
            what="the log ends within it",
            severity=Severity.NOTE if name.generation is None else Severity.DAMAGE,
        )
