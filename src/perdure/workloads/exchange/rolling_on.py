"""Roll-forward: the logs that survived in production and are newer than the pool's, joined to a restored database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perdure.model.errors import Refused
from perdure.workloads.exchange.copies import Survey
from perdure.workloads.exchange.folders import LogFolder, log_header
from perdure.workloads.exchange.restoring import logs_in
from perdure.workloads.exchange.shipping import Break, LogFile, read_log_files, why_not_next
from perdure.workloads.exchange.times import time_ns
from perdure.workloads.exchange.tokens import StreamToken

__all__ = ["RolledOn", "roll_on"]


@dataclass(frozen=True, slots=True)
class RolledOn:
    """What roll-forward added.

    Args:
        token: The place that the restored logs reach now.
        time_ns: The moment of that place, as far as the log tells; 0 if nothing was added.
        note: For people.
    """

    token: StreamToken
    time_ns: int
    note: str


def roll_on(folder: Path, token: StreamToken, found: Survey | None, survivors: list[LogFolder]) -> RolledOn:
    """Copy every log that continues the restored ones from production to beside them.

    Args:
        folder: The restored files, logs still under their numbers.
        token: The place that they reach, which is the end of the pool's log.
        found: The copies of the database that are still there, if any.
        survivors: Folders with logs of the stream, the one that decides first.

    Raises:
        Refused: A log survived that does not continue what was restored.
    """
    folders = [*(copy.logs for copy in found.for_log() if copy.logs is not None)] if found is not None else []
    folders += [logs for logs in survivors if logs not in folders]
    moment, added = 0, 0
    while True:
        file, why, is_current = _next(folders, token)
        if file is None:
            break
        if why is not None:
            raise Refused(
                f"the surviving log cannot be used: {why.cause}",
                code="log-diverged",
                hint="recover without --roll-forward: that gives everything that is in the pool",
            )
        target = folder / folders[0].closed(file.header.generation).name
        target.write_bytes(file.content)
        reached, token = token.position, _after(token, file, closed=not is_current)
        if token.position > reached:
            moment = max(time_ns(file.header.created), file.changed_ns)
            added += 1
        if is_current or file.problem:
            break
    if not added:
        return RolledOn(token, 0, "no log newer than the pool's survived in production")
    last = max(logs_in(folder))
    return RolledOn(token, moment, f"{added} logs that survived in production were added, up to generation {last:X}")


def _next(folders: list[LogFolder], token: StreamToken) -> tuple[LogFile | None, Break | None, bool]:
    """The next log, why it does not continue the place, and whether it is the one that was being written."""
    refused: tuple[LogFile, Break] | None = None
    for logs in folders:
        header = log_header(logs.current)
        is_current = header is not None and header.generation == token.next_generation
        path = logs.closed(token.next_generation)
        if not path.exists():
            if not is_current:
                continue
            path = logs.current
        file = read_log_files([path])[0]
        why = why_not_next(token, file)
        if why is None:
            return file, None, path == logs.current
        refused = refused or (file, why)
    return (refused[0], refused[1], False) if refused is not None else (None, None, False)


def _after(token: StreamToken, file: LogFile, *, closed: bool) -> StreamToken:
    segments = file.log.segments
    return StreamToken(
        database=token.database,
        stream=token.stream,
        offset=token.offset,
        generation=file.header.generation,
        created=file.header.created.raw,
        place=int(file.places[-1]),
        closed=closed,
        checksums=segments.checksums if segments is not None else 0,
        repairs=token.repairs,
    )
