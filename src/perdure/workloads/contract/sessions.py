"""A session on a running source: it ships log and takes images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from perdure.model.logs import LogEnd, LogSegment
from perdure.model.positions import Position
from perdure.model.truncation import TruncationLedger
from perdure.workloads.contract.images import BaseImage, Image

__all__ = ["BackupSession", "LayoutSession", "RunningSession", "Session"]


class Session(Protocol):
    """A hold on a live data source: while it is open the source keeps all log not yet acknowledged.

    Not for use by several threads at once, except :attr:`ImageReader.read`. Use it as a context manager.
    """

    def __enter__(self) -> Session: ...

    def __exit__(self, *exc: object) -> None: ...

    def resume(self, end: LogEnd | None) -> None:
        """Continue after ``end``, the last durable position (``None``: nothing is kept yet).

        Raises:
            TrackingLost: The log between ``end`` and now is not all here; the message is the cause. The
                session stays usable: it starts a new, unconnected generation, and the next image must be compared.
        """
        ...

    def poll(self) -> bool:
        """Note what was committed since the last call, with the present time. Cheap; call it often.

        Returns:
            Whether there is log to ship.

        Raises:
            TrackingLost: The source was replaced, or its log was cut off, under the session.
            SourceUnusable: The source is gone.
        """
        ...

    def log(self) -> Iterator[LogSegment]:
        """Segments not yet yielded, up to the last poll. Each must be durable before the next is asked for."""
        ...

    def acknowledge(self, position: Position) -> None:
        """Everything up to ``position`` is durable in the pool: the source may recycle its log up to there."""
        ...

    def maintain(self, ship: Callable[[LogSegment], None]) -> None:
        """Let the source recycle its log when that is due (SQLite: checkpoint). ``ship`` makes a segment durable."""
        ...

    def image(self, base: BaseImage | None) -> AbstractContextManager[Image]:
        """Freeze a consistent image of now. Its position equals the end of the log shipped so far: ship first.

        With ``base`` the readers' ``changed`` says which pages may differ from it, or ``None`` if that is unknown.
        """
        ...


@runtime_checkable
class RunningSession(Protocol):
    """A session that yields its log in runs of segments, which are made durable together."""

    def log_runs(self) -> Iterator[Sequence[LogSegment]]:
        """As ``log``: a run must be durable before the next is asked for."""
        ...


@runtime_checkable
class BackupSession(Protocol):
    """A session with an engine that wants to know when a backup is complete, and deletes its log by itself then.

    The position of its images may lie before or behind the end of the log shipped so far: what lies before the
    position must be shipped before the image is committed.

    Attributes:
        ledger: What the engine did to its log; the caller sets it after opening and keeps what it is afterwards.
    """

    ledger: TruncationLedger

    def start_anew(self) -> None:
        """What was shipped cannot be continued: yield no log until an image, unconnected to it, is complete."""
        ...

    def complete_image(self, image: Image) -> None:
        """Report the backup as complete. Only while the image is open, and after its position was acknowledged and the
        log shipped that was complete by then.
        """
        ...


@runtime_checkable
class LayoutSession(Protocol):
    """A session whose images keep the layout of the one before, even when the log was lost.

    Attributes:
        keeps_layout: Always true; ``image`` is then given the image before with ``tracked`` false.
    """

    keeps_layout: bool

    def start_anew(self) -> None:
        """As in :class:`BackupSession`: yield no log until an image, unconnected to it, is complete."""
        ...
