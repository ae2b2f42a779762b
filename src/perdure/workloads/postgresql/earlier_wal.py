"""The WAL of an image before what the session's stream brings, from the file on in which replay starts."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from perdure.model.errors import SourceUnusable
from perdure.workloads.postgresql.blocks import changed_blocks
from perdure.workloads.postgresql.lsn import segment_name, segment_start
from perdure.workloads.postgresql.records import RecordWalker
from perdure.workloads.postgresql.replication import Replication
from perdure.workloads.postgresql.spooling import Spool

__all__ = ["Beginning", "spool_earlier"]

_SILENCE_S = 60.0
_AT_ONCE = 8 << 20


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where an image's WAL begins.

    Args:
        location: The server.
        timeline: On which timeline.
        start: LSN from which replay starts.
        segment_size: Bytes of a WAL file.
        files: The directory of the server's WAL files, if that can be seen.
    """

    location: str
    timeline: int
    start: int
    segment_size: int
    files: Path | None = None


def spool_earlier(beginning: Beginning, reached: int) -> Spool:
    """Begin a spool with the WAL up to where the session's stream goes on.

    On a standby replay may start before that, at its last restartpoint. A page that was changed in between may lie on
    its disk as it was before: so the spool knows the changes from the start of the replay on.

    Args:
        beginning: Where it begins.
        reached: LSN up to which the stream has come.

    Raises:
        SourceUnusable: The server does not give it.
    """
    spool = Spool(segment_start(beginning.start, beginning.segment_size), b"")
    try:
        if beginning.files is not None and reached <= beginning.start:
            _read(beginning, beginning.files, reached, spool)
        if spool.end < reached:
            _stream(beginning, reached, spool)
    except BaseException:
        spool.close()
        raise
    return spool


def _read(beginning: Beginning, files: Path, reached: int, spool: Spool) -> None:
    """From the server's file, as far as it goes."""
    path = files / segment_name(beginning.timeline, beginning.start, beginning.segment_size)
    with contextlib.suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
        spool.write(spool.begin, os.pread(file.fileno(), max(0, reached - spool.begin), 0))


def _stream(beginning: Beginning, reached: int, spool: Spool) -> None:
    """Over a connection of its own."""
    # The file holds records of before too. What they changed was on the disk when the replay's start was chosen, and
    # would be taken for a change of this image's own.
    walker = RecordWalker(beginning.segment_size, beginning.start, synchronized=True)
    with contextlib.closing(Replication(beginning.location)) as replication:
        replication.start("", spool.begin, beginning.timeline)
        deadline = time.monotonic() + _SILENCE_S
        while spool.end < reached:
            for received in replication.receive(_AT_ONCE):
                data = received.data[: max(0, reached - received.start)]
                if data:
                    spool.write(received.start, data)
                    walker.feed(data[max(0, beginning.start - received.start) :])
                deadline = time.monotonic() + _SILENCE_S
            if time.monotonic() > deadline:
                raise SourceUnusable("the server sent no WAL for a minute", code="server-gone")
            replication.wait(0.1)
    records = walker.records()
    if records is not None:
        spool.changes.append(changed_blocks(records))
