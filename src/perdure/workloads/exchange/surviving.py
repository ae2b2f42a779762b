"""What is left of a source's log after a disaster, for a roll-forward."""

from __future__ import annotations

from pathlib import Path

from perdure.ese.structures import Signature
from perdure.model.errors import Refused, SourceUnusable
from perdure.model.positions import Position
from perdure.workloads.contract import Arranged
from perdure.workloads.exchange.copies import Survey, survey
from perdure.workloads.exchange.folders import LogFolder, find_stream, read_header
from perdure.workloads.exchange.layouts import restored_database
from perdure.workloads.exchange.options import SourceOptions
from perdure.workloads.exchange.restoring import logs_in
from perdure.workloads.exchange.rolling_on import roll_on
from perdure.workloads.exchange.shipping import read_log_files
from perdure.workloads.exchange.tokens import StreamToken, segment_of

__all__ = ["roll_forward"]


def roll_forward(options: SourceOptions, folder: Path, upto: Position | None) -> Arranged:
    """Add the surviving logs to a restored database.

    Args:
        options: Of the source; tells where its logs were.
        folder: The restored files.
        upto: The position that they show.

    Raises:
        Refused: There are no logs to continue, or those that survived do not.
    """
    header = read_header(restored_database(folder))
    logs = logs_in(folder)
    if not logs:
        raise Refused(
            "this recovery point is of a dismounted database and has no log to continue",
            code="no-log",
            hint="recover it without --roll-forward, or recover a later point",
        )
    last = read_log_files([logs[max(logs)]])[0]
    place = int(last.places[-1])
    # What was restored may end within its last log; whether more of that log survived is for the place to tell.
    token = StreamToken(
        database=header.signature.raw,
        stream=header.log_signature.raw,
        offset=upto.generation - last.header.generation if upto is not None else 0,
        generation=last.header.generation,
        created=last.header.created.raw,
        place=place,
        closed=False,
        checksums=last.checksums_before(segment_of(place)[0]),
    )
    found, survivors = _survivors(options, Signature(token.stream))
    done = roll_on(folder, token, found, survivors)
    position = done.token.position if done.time_ns else None
    return Arranged(position, done.time_ns, (done.note,))


def _survivors(options: SourceOptions, stream: Signature) -> tuple[Survey | None, list[LogFolder]]:
    try:
        found: Survey | None = survey(options.folders, options.database)
    except SourceUnusable:
        found = None
    folders = [find_stream(folder, stream) for folder in options.folders if folder.is_dir()]
    return found, [logs for logs in folders if logs is not None]
