"""The logs that a replay needs, in order: found by their headers, read one after the other, each joined to the last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.ese.chain import join_logs
from perdure.ese.errors import EseDamaged, EseUnsupported
from perdure.ese.findings import damage_in
from perdure.ese.headers.kinds import FileKind, kind_by_name
from perdure.ese.headers.log import LOG_HEADER_SIZE, LogHeader, read_log_header
from perdure.ese.logs.files import Log, log_name, read_logs
from perdure.ese.replay.errors import NoSuchDatabase, ReplayImpossible
from perdure.ese.replay.stops import StopAt
from perdure.ese.structures import LogTime, Signature

__all__ = ["LogStream", "StreamLog", "find_streams", "joined_logs"]


@dataclass(frozen=True, slots=True)
class StreamLog:
    """A log file of which only the header was read.

    Args:
        path: Where it lies.
        header: Its header.
    """

    path: Path
    header: LogHeader


@dataclass(frozen=True, slots=True)
class LogStream:
    """The logs of one stream, by generation.

    Args:
        signature: Identity of the stream.
        logs: One for every generation that is there, ascending.
    """

    signature: Signature
    logs: tuple[StreamLog, ...]

    def generations(self) -> tuple[int, int]:
        """The first and the last."""
        return self.logs[0].header.generation, self.logs[-1].header.generation

    def from_generation(self, first: int, needed: int, stop: StopAt) -> tuple[StreamLog, ...]:
        """The logs from a generation on, up to the first gap.

        Args:
            first: Where replay begins.
            needed: The last generation that must be there.
            stop: Where it ends.

        Raises:
            ReplayImpossible: A generation up to ``needed`` is missing, or one before the end.
        """
        found: list[StreamLog] = []
        for log in self.logs:
            if log.header.generation == first + len(found):
                found.append(log)
        last = first + len(found) - 1
        if last < needed:
            raise self.missing(last + 1, f"logs {first:X}-{needed:X} are needed", code="ese-required-log-missing")
        ends_before = stop.time is not None or (stop.position is not None and stop.position.generation <= last + 1)
        if found and self.goes_on_behind(last) and not ends_before:
            raise self.missing(last + 1, "later ones are there")
        return tuple(found)

    def goes_on_behind(self, generation: int) -> bool:
        """Whether there are logs behind a generation."""
        return self.logs[-1].header.generation > generation

    def missing(self, generation: int, why: str, *, code: str = "ese-log-missing") -> ReplayImpossible:
        """The error that says that a log is missing."""
        return ReplayImpossible(
            f"log {generation:X} of stream {self.signature} is missing, and {why}",
            code=code,
            hint="find the log, or end the replay before it with --to",
        )

    def created(self, generation: int) -> LogTime | None:
        """When a log was made."""
        return next((log.header.created for log in self.logs if log.header.generation == generation), None)


def find_streams(paths: Iterable[Path]) -> list[LogStream]:
    """The streams whose logs lie in folders and among files.

    Args:
        paths: Folders, not searched below, and log files.

    Raises:
        EseDamaged: The header of a log is damaged, or two files are the same generation of one stream.
        EseUnsupported: A log has another major version of the format.
    """
    streams: dict[Signature, dict[int, StreamLog]] = {}
    for path in _log_files(paths):
        with path.open("rb") as opened:
            head = opened.read(LOG_HEADER_SIZE)
        header = read_log_header(head, path.name)
        own = streams.setdefault(header.signature, {})
        other = own.get(header.generation)
        if other is not None:
            raise ReplayImpossible(
                f"{path.name} and {other.path.name} are the same generation {header.generation:X} of one stream: "
                "replay can use only one of them",
                code="ese-log-duplicate",
                hint="remove the one that does not belong there",
            )
        own[header.generation] = StreamLog(path, header)
    return [
        LogStream(signature, tuple(own[generation] for generation in sorted(own))) for signature, own in streams.items()
    ]


def joined_logs(logs: Sequence[StreamLog], last_whole: int | None) -> Iterator[Log]:
    """Read logs one after the other, each checked and joined to the one before.

    Args:
        logs: Ascending, without a gap.
        last_whole: Logs from this generation on may end early, since replay ends in it; ``None`` if all must be whole.

    Raises:
        ReplayImpossible: A log cannot be read to its end, or does not continue the one before.
        EseUnsupported: A log is of version 7, whose records are not known.
    """
    before: Log | None = None
    for log in read_logs(stream_log.path for stream_log in logs):
        if log.header is None or log.segments is None or log.records is None:
            if log.header is not None and log.sectors is not None:
                raise EseUnsupported(
                    f"{log.file} is a log of version 7 (Exchange 2000 to 2010), whose records perdure cannot replay",
                    code="ese-version-unsupported",
                    hint="let Exchange replay the logs of this recovery point",
                )
            raise _first_of(log)
        excused = last_whole is not None and log.header.generation >= last_whole
        if not excused and (not log.readable or damage_in(log.findings)):
            raise _first_of(log)
        if before is not None:
            chain = join_logs([before, log.without_content()], log.header.signature)
            problems = damage_in(chain.findings)
            if problems:
                raise ReplayImpossible(str(problems[0]), code=problems[0].code, hint=_OTHER_COPY)
        yield log
        before = log.without_content()


_OTHER_COPY = "take the log from another copy or recovery point, or end the replay before it with --to"


def _first_of(log: Log) -> EseDamaged:
    found = damage_in(log.findings)
    if not found:
        return ReplayImpossible(f"{log.file}: it cannot be read", code="ese-log-incomplete", hint=_OTHER_COPY)
    return ReplayImpossible(str(found[0]), code=found[0].code, hint=_OTHER_COPY)


def _log_files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        found += [
            below
            for below in sorted(path.iterdir())
            if below.is_file() and kind_by_name(below.name) is FileKind.LOG and log_name(below.name).base
        ]
    if not found:
        raise NoSuchDatabase(
            "there are no logs to replay in " + ", ".join(str(path) for path in paths),
            code="ese-replay-no-logs",
            hint="name the folder that holds the E00*.log files",
        )
    return found
