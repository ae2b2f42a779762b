"""The next complete logs of a stream, from whichever copy has them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from perdure.ese.headers.log import LogHeader
from perdure.ese.structures import Signature
from perdure.workloads.exchange.copies import StoreCopy
from perdure.workloads.exchange.folders import log_header
from perdure.workloads.exchange.shipping import LogFile, read_for_shipping
from perdure.workloads.exchange.times import time_ns

__all__ = ["BATCH", "header_after", "next_logs", "when_ended", "why_altered"]

BATCH = 24
"""Logs that are read, checked and made durable together: much less work, and fewer waits for the disk, than one by one.
Twice so many are in memory while a backlog is shipped."""

_ARRIVING_S = 10.0


def next_logs(
    copies: Sequence[StoreCopy], first: int, database: Signature, most: int = BATCH
) -> list[tuple[LogFile, StoreCopy]]:
    """Read the logs from ``first`` on, as far as they are there without a gap.

    Args:
        copies: Copies with log, the one that decides first.
        first: Generation of the first.
        database: The database that they are read for.
        most: How many at most.

    Returns:
        Logs and the copies that they are from. A log that is still being copied to its place is left out.
    """
    chosen: list[StoreCopy] = []
    paths = []
    for generation in range(first, first + most):
        holder = next((copy for copy in copies if copy.logs is not None and copy.logs.holds(generation)), None)
        if holder is None or holder.logs is None:
            break
        chosen.append(holder)
        paths.append(holder.logs.closed(generation))
    try:
        files = read_for_shipping(paths, database)
    except FileNotFoundError:
        # Truncated between the two looks; what is really missing shows at the next look.
        return []
    found: list[tuple[LogFile, StoreCopy]] = []
    for file, copy in zip(files, chosen, strict=True):
        if file.problem and _is_arriving(file):
            break
        found.append((file, copy))
    return found


def header_after(file: LogFile, following: LogFile | None, copy: StoreCopy) -> LogHeader | None:
    """The header of the log that continues a complete one, ``None`` if there is none yet."""
    header = following.log.header if following is not None else None
    if header is None and copy.logs is not None:
        next_generation = file.header.generation + 1
        header = log_header(copy.logs.closed(next_generation)) or copy.logs.current_header()
    return header if header is not None and header.previous_created == file.header.created else None


def when_ended(file: LogFile, after: LogHeader | None) -> int:
    """A moment by which everything in a complete log had been done, nanoseconds since 1970 UTC."""
    return (0 if after is None else time_ns(after.created)) or file.changed_ns


def why_altered(file: LogFile, after: LogHeader | None) -> str:
    """Why a log is not what the one after it says that it was; empty if it is, or that log does not say."""
    if after is None or file.log.segments is None or not after.holds_previous_segments:
        return ""
    if after.previous_segments in (0, file.log.segments.checksums):
        return ""
    return (
        f"{file.log.file}: the log after it states another checksum of its segments: it was changed, or lacks its end"
    )


def _is_arriving(file: LogFile) -> bool:
    """Whether a log that is not whole was written so lately that it may still be on its way here."""
    return 0 <= time.time() - file.changed_ns / 1e9 < _ARRIVING_S
