"""What a replay needs: which logs, from where on the image may lack changes, and where it must end at the earliest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.ese.headers.database import DatabaseHeader, DatabaseState, read_database_header
from perdure.ese.replay.errors import NoSuchDatabase, PositionNotReached, ReplayImpossible, ReplayRefused
from perdure.ese.replay.log_stream import LogStream, StreamLog, find_streams
from perdure.ese.replay.stops import StopAt
from perdure.ese.structures import LogPosition
from perdure.model.errors import BadInput

__all__ = ["ReplayPlan", "before_image", "plan_replay"]

_HEAD = 1 << 16
_USABLE = (DatabaseState.CLEAN_SHUTDOWN, DatabaseState.DIRTY_SHUTDOWN, DatabaseState.DIRTY_AND_PATCHED)


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """A replay that can be tried.

    Args:
        image: The header of the image, ``None`` if the database is to be made from nothing.
        stream: All logs of the stream that are there.
        logs: What is read, ascending, without a gap; may be empty for a clean image.
        page_size: Of the database, bytes.
        newer_until: The image may hold changes of records before this position, and holds none of those behind.
        stop: Where to end.
    """

    image: DatabaseHeader | None
    stream: LogStream
    logs: tuple[StreamLog, ...]
    page_size: int
    newer_until: LogPosition
    stop: StopAt

    @property
    def begins_within_stream(self) -> bool:
        """Whether there were logs before the first that is read."""
        return bool(self.logs) and bool(self.logs[0].header.previous_created)


def plan_replay(paths: Sequence[Path], database: Path | None, stop: StopAt) -> ReplayPlan:
    """Decide which logs are read.

    Raises:
        ReplayImpossible: Logs are missing, or are not those that the image needs.
        ReplayRefused: The image is in a state that no log can bring to an end.
        NoSuchDatabase: No log belongs to the image.
        PositionNotReached: The wanted position lies before the logs.
    """
    streams = find_streams(paths)
    if database is None:
        return _from_nothing(streams, stop)
    with database.open("rb") as opened:
        header, _copies = read_database_header(opened.read(_HEAD), database.name)
    if header.state not in _USABLE:
        raise ReplayRefused(
            f"{database.name} is in state {header.state_text}: what was done to it was not finished, and no log can "
            "bring it to an end",
            code="ese-database-state",
            hint="replay onto another image",
        )
    stream = next((stream for stream in streams if stream.signature == header.log_signature), None)
    if stream is None:
        raise NoSuchDatabase(
            f"{database.name} belongs to log stream {header.log_signature}, and none of these logs does",
            code="ese-replay-no-logs",
            hint="name the folder that holds the logs of this database",
        )
    if header.clean:
        return _onto_clean(header, stream, stop)
    return _onto_dirty(header, database.name, stream, stop)


def _from_nothing(streams: Sequence[LogStream], stop: StopAt) -> ReplayPlan:
    if len(streams) > 1:
        found = ", ".join(str(stream.signature) for stream in streams)
        raise BadInput(
            f"the logs belong to {len(streams)} streams: {found}",
            code="ese-replay-ambiguous",
            hint="name the logs of one stream, or the image with --database",
        )
    stream = streams[0]
    first, last = stream.generations()
    logs = _until(stream.from_generation(first, first, stop), stop)
    _check_reachable(stop, first, logs, last)
    return ReplayPlan(
        image=None,
        stream=stream,
        logs=logs,
        page_size=stream.logs[0].header.page_size,
        newer_until=LogPosition(0, 0, 0),
        stop=stop,
    )


def _onto_clean(header: DatabaseHeader, stream: LogStream, stop: StopAt) -> ReplayPlan:
    first, last = header.consistent.generation, stream.generations()[1]
    if last < first:
        logs: tuple[StreamLog, ...] = ()
    else:
        logs = _until(stream.from_generation(first, first, stop), stop)
    if stop.position is not None and stop.position < header.consistent:
        raise before_image(stop, header.consistent)
    if not logs and stop.ends_before(header.consistent_time):
        raise before_image(stop, header.consistent)
    return ReplayPlan(header, stream, logs, header.page_size, header.consistent, stop)


def _onto_dirty(header: DatabaseHeader, file: str, stream: LogStream, stop: StopAt) -> ReplayPlan:
    first, needed = header.min_required, header.max_required
    committed = max(needed, header.max_committed)
    logs = _until(stream.from_generation(first, needed if stop.anywhere else committed, stop), stop, at_least=needed)
    for generation, time in ((committed, header.max_required_log_time), (needed, header.newest_max_required_log_time)):
        created = stream.created(generation)
        if time and created is not None and created != time:
            raise ReplayImpossible(
                f"{file} needs the log {generation:X} of {time}, and the one here is of {created}: it is from another "
                "recovery of the stream",
                code="ese-log-time-mismatch",
                hint="take the logs that were stored with this image",
            )
    # Whatever lies before the first log that it needs is in the image, and no log at hand tells what that is.
    earliest = LogPosition(first, 0, 0)
    too_early = stop.position is not None and stop.position < earliest
    if not logs or too_early or stop.ends_before(logs[0].header.created):
        raise before_image(stop, earliest)
    return ReplayPlan(header, stream, logs, header.page_size, LogPosition(needed + 1, 0, 0), stop)


def _until(logs: tuple[StreamLog, ...], stop: StopAt, at_least: int = 0) -> tuple[StreamLog, ...]:
    """The logs up to the one in which replay ends, and those that the image needs."""
    if stop.position is None:
        return logs
    last = stop.position.generation
    return tuple(log for log in logs if log.header.generation <= max(last, at_least))


def _check_reachable(stop: StopAt, first: int, logs: Sequence[StreamLog], last: int) -> None:
    if stop.position is not None and (not logs or stop.position.generation < first):
        raise PositionNotReached(
            f"{stop} lies before the logs, which begin with generation {first:X}",
            code="ese-replay-position",
            hint=f"name a position from {first:X} to {last:X}",
        )


def before_image(stop: StopAt, earliest: LogPosition) -> ReplayRefused:
    """The error that says that an image holds too much for a position."""
    return ReplayRefused(
        f"{stop} lies before {earliest}, which the image already holds: it cannot be taken back there",
        code="ese-replay-before-image",
        hint="replay onto an older image, or name a later position",
    )
