"""What a workload may offer beyond the contract when it is recovered.

Each protocol is one thing that an engine makes possible: fetching its log by itself, being written onto what is there,
handing out single items, telling how long it replays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from perdure.model.logs import LogSpan, StoredSegment
from perdure.model.points import RecoveryPoint
from perdure.model.positions import Position
from perdure.workloads.contract import RestoredItem, Verification

__all__ = [
    "FetchingWorkload",
    "ItemServer",
    "LogChain",
    "OptionCheckingWorkload",
    "OverwritingWorkload",
    "OverwrittenFile",
    "ReplayingWorkload",
    "ServedFile",
    "ServingWorkload",
]


@runtime_checkable
class OptionCheckingWorkload(Protocol):
    """A directory workload that can tell from the options of a recovery alone that they make no sense."""

    def check_recovery_options(self, options: Mapping[str, str]) -> None:
        """Look at the options before anything is written.

        Raises:
            BadInput: They make no sense.
        """
        ...


class LogChain(Protocol):
    """An image and all the log that continues it without a gap, as far as it is to be replayed."""

    @property
    def start(self) -> Position:
        """The image's position."""
        ...

    @property
    def upto(self) -> Position | None:
        """Where replay is to end; ``None``: wherever the log ends."""
        ...

    @property
    def spans(self) -> Sequence[LogSpan]:
        """The segments after ``start``, in order; they may overlap."""
        ...

    @property
    def openers(self) -> Iterable[LogSpan]:
        """The segments that open a generation, of the whole source, newest first."""
        ...

    def segment(self, span: LogSpan) -> StoredSegment: ...

    def blocks(self, segment: StoredSegment) -> Iterable[bytes]: ...

    def image_file(self, name: str) -> bytes:
        """Reads one of the image's files whole; for small ones."""
        ...


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A log file as the engine asks for it.

    Args:
        name: Its name.
        content: Its bytes.
        known: Bytes of it that the log has; zeros follow.
    """

    name: str
    content: bytes | bytearray
    known: int

    @property
    def whole(self) -> bool:
        """It will not change any more; the last one of a log that goes on will."""
        return self.known == len(self.content)


@runtime_checkable
class FetchingWorkload(Protocol):
    """A directory workload whose engine can fetch the log by itself, file by file, while it recovers."""

    def fetches_log(self, options: Mapping[str, str]) -> bool:
        """Whether a recovery with these options leaves the log to the engine."""
        ...

    def leave_log(self, segments: Sequence[StoredSegment]) -> None:
        """Called instead of ``apply_log``, with the segments that the engine will need."""
        ...

    def log_files(self, name: str, chain: LogChain) -> Iterator[ServedFile]:
        """The file of a name, and those that follow it.

        Raises:
            NotFound: There is no such file; the engine may end its recovery there (code ``wal-not-found``).
        """
        ...


class OverwrittenFile(Protocol):
    """A large file of an image that is written onto what is there. Several threads may use it."""

    def present(self, offset: int, length: int) -> bytes | bytearray | None:
        """What is there instead of these bytes; ``None``: nothing that could be compared."""
        ...

    def take(self, offset: int, content: memoryview) -> int:
        """Write the pages that differ; returns their bytes."""
        ...


@runtime_checkable
class OverwritingWorkload(Protocol):
    """A spreading workload that can be recovered onto a directory that has an earlier or later state of its source."""

    def refuse_unfit(self, content: Callable[[str], bytes], directory: Path, *, confirmed: bool) -> None:
        """Refuse a directory that must not be overwritten; changes nothing.

        Args:
            content: Reads one file of the image whole; for small ones.
            directory: What would be overwritten.
            confirmed: A person confirmed what the refusal asks to confirm.

        Raises:
            Refused: It is of another source, or in use.
        """
        ...

    def overwrite(
        self, content: Callable[[str], bytes], directory: Path
    ) -> AbstractContextManager[Mapping[str, OverwrittenFile]]:
        """As :meth:`SpreadingWorkload.spread`, into a directory that is not empty: what does not belong is removed."""
        ...


class ItemServer(Protocol):
    """An engine that runs on a scratch copy, to have single things taken out of it."""

    def items(self) -> list[RestoredItem]:
        """Everything that can be taken out, what contains before what is contained."""
        ...

    def dump(self, items: Sequence[str], target: Path) -> tuple[Verification, tuple[str, ...]]:
        """Write items to a file that does not exist; returns how that was checked, and what a person should know."""
        ...

    def load(
        self, items: Sequence[str], destination: str, options: Mapping[str, str]
    ) -> tuple[Verification, tuple[str, ...]]:
        """Load items into a running engine, all or nothing; returns as ``dump`` does.

        Raises:
            Refused: Something of their names is there, and the options do not say that it may be replaced.
        """
        ...


@runtime_checkable
class ServingWorkload(Protocol):
    """A directory workload whose items are found by its engine, which runs on a scratch copy meanwhile."""

    def serving(self, directory: Path) -> AbstractContextManager[ItemServer]:
        """Run the engine on a recovered copy, which may be changed."""
        ...

    def check_items(self, items: Sequence[str], options: Mapping[str, str]) -> None:
        """Refuse names that can be none, before anything is recovered.

        Raises:
            BadInput: One is.
        """
        ...

    def items_within(self, items: Sequence[RestoredItem], within: str) -> list[RestoredItem]:
        """Those items that lie directly in one of them, or at the top."""
        ...


@runtime_checkable
class ReplayingWorkload(Protocol):
    """A workload whose engine replays the log when it starts on what was recovered. Its drills have a step ``replay``.

    Attributes:
        assumed_replay_rate: Bytes a second, where no drill has measured any.
    """

    assumed_replay_rate: int

    def replayed_bytes(self, point: RecoveryPoint, upto: Position) -> int:
        """Bytes of log from an image to a position, in about."""
        ...
