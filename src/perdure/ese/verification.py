"""Verification of whole databases: both headers and every page, many at once; and, if asked, every tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.ese.checksums import PageState, verify_pages
from perdure.ese.database import HEADER_PAGES
from perdure.ese.errors import EseDamaged
from perdure.ese.findings import Finding, Severity
from perdure.ese.headers.copies import CopiesState
from perdure.ese.headers.database import DatabaseHeader, newer_than_known, read_database_header
from perdure.ese.repair import correct_page

__all__ = ["DatabaseReport", "copies_findings", "verify_database"]

_HEAD = 1 << 16
_BATCH = 32 << 20
_MOST_NAMED = 1000
_DBTIME = slice(8, 16)
_THROWN_AWAY = 0xFFFFFFFFFFFFFF00
"""From here on a dbtime says that the page was thrown away."""


@dataclass(frozen=True, slots=True)
class DatabaseReport:
    """What the verification of a database found.

    Args:
        file: Its name.
        header: Its header, ``None`` if neither copy is sound.
        pages: Pages of the file.
        written: Of them, those that were ever written.
        old_checksums: Of those, those that carry the old checksum, which misses some damage.
        bytes: Bytes read.
        findings: What is wrong.
    """

    file: str
    header: DatabaseHeader | None
    pages: int
    written: int
    old_checksums: int
    bytes: int
    findings: tuple[Finding, ...]


def verify_database(path: Path, progress: Callable[[int], None] = lambda _done: None) -> DatabaseReport:
    """Check the checksums of both headers and of every page, and that no page of a clean database is newer than it.

    Args:
        path: The file.
        progress: Is called with the bytes read since it was called last.

    Raises:
        NotAnEseFile: It is no database.
        EseUnsupported: It has another major format version.
    """
    file = path.name
    with path.open("rb") as opened:
        head = opened.read(_HEAD)
    try:
        header, copies = read_database_header(head, file)
    except EseDamaged as error:
        finding = Finding(error.code, file, "header", error.message.removeprefix(f"{file}: "))
        return DatabaseReport(file, None, 0, 0, 0, len(head), (finding,))
    findings = [*copies_findings(copies, file), *_about_header(header, file, path.stat().st_size)]
    size = header.page_size
    count = max(0, path.stat().st_size // size - HEADER_PAGES)
    states = np.zeros(len(PageState), np.int64)
    damaged = 0
    content = np.memmap(path, np.uint8, "r") if count else np.empty(0, np.uint8)
    for first in range(1, count + 1, _BATCH // size):
        last = min(count, first + _BATCH // size - 1)
        span = content[(first + 1) * size : (last + 2) * size]
        pages = np.array(span).reshape(-1, size)
        found = verify_pages(pages, np.arange(first, last + 1, dtype=np.uint32))
        states += np.bincount(found, minlength=len(PageState))
        for index in np.flatnonzero(found == PageState.DAMAGED).tolist():
            damaged += 1
            if damaged <= _MOST_NAMED:
                findings.append(_about_page(file, first + index, pages[index].tobytes()))
        if header.clean:
            findings += _newer_pages(header, file, first, pages, found)
        progress(len(span))
    if damaged > _MOST_NAMED:
        findings.append(
            Finding(
                code="ese-page-damaged",
                file=file,
                place="",
                what=f"{damaged - _MOST_NAMED} more pages are damaged and not named here",
            )
        )
    written = int(count - states[PageState.NEVER_WRITTEN])
    old = int(states[PageState.SOUND_XOR])
    return DatabaseReport(file, header, count, written, old, (count + HEADER_PAGES) * size, tuple(findings))


def _newer_pages(
    header: DatabaseHeader, file: str, first: int, pages: NDArray[np.uint8], states: NDArray[np.uint8]
) -> Iterator[Finding]:
    """Sound pages whose dbtime lies above that of the database, which is exact when it was shut down."""
    dbtimes = np.ascontiguousarray(pages[:, _DBTIME]).view("<u8")[:, 0]
    newer = (dbtimes > np.uint64(header.dbtime)) & (dbtimes < np.uint64(_THROWN_AWAY)) & (states != PageState.DAMAGED)
    for index in np.flatnonzero(newer)[:_MOST_NAMED].tolist():
        yield Finding(
            code="ese-page-newer",
            file=file,
            place=f"page {first + index}",
            what=f"it is of dbtime {int(dbtimes[index]):#x}, and the database was shut down at {header.dbtime:#x}: the "
            "page is of another time than the rest",
        )


def copies_findings(copies: CopiesState, file: str) -> Iterator[Finding]:
    """What is wrong with the two copies of a header."""
    if copies.primary_sound and copies.shadow_sound:
        if not copies.equal:
            yield Finding(
                code="ese-header-copies-differ",
                file=file,
                place="header",
                what="both copies are sound and they differ, as after a crash between two writes; the first counts",
                severity=Severity.NOTE,
            )
        return
    bad, good = ("second", "first") if copies.primary_sound else ("first", "second")
    yield Finding(
        code="ese-header-damaged",
        file=file,
        place="header",
        what=f"the {bad} copy of the header is damaged; the {good} is sound and counts",
    )


def _about_header(header: DatabaseHeader, file: str, size: int) -> Iterator[Finding]:
    if size % header.page_size:
        yield Finding(
            code="ese-database-short",
            file=file,
            place="",
            what=f"it does not end with a whole page of {header.page_size} bytes: it was cut short",
        )
    if newer_than_known(header):
        yield Finding(
            code="ese-format-newer",
            file=file,
            place="header",
            what=f"format {header.format_text} is newer than what this version of perdure was written for",
            severity=Severity.NOTE,
        )


def _about_page(file: str, number: int, page: bytes) -> Finding:
    corrected = correct_page(page, number)
    if corrected is None:
        what = "its checksum does not hold"
    else:
        bits = " and ".join(f"bit {bit & 7} of byte {bit >> 3}" for bit in corrected.bits)
        what = f"{bits} flipped; its checksum can correct that, and the engine does when it reads the page"
    return Finding(code="ese-page-damaged", file=file, place=f"page {number}", what=what)
