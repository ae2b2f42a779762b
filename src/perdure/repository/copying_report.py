"""What a copy did."""

from __future__ import annotations

from dataclasses import dataclass, field

from perdure.model.points import DataSource

__all__ = ["CopyFailure", "CopyReport", "SourceCopy"]


@dataclass(frozen=True, slots=True)
class CopyFailure:
    """Something that was not copied although it should have been.

    Args:
        what: What it is: a recovery point, a piece of log, or the whole source.
        code: The error's code.
        message: What is wrong with it.
        hint: What to do.
    """

    what: str
    code: str
    message: str
    hint: str = ""


@dataclass(slots=True)
class SourceCopy:
    """What became of one source.

    Args:
        source: The data source.
        copied: Numbers of the points that were copied.
        present: Number of points that the other pool had already.
        left_out: Numbers of points that the other pool's retention policy would not keep.
        log_segments: Log segments that were copied.
        log_bytes: Their bytes.
        shipped: Bytes written into the other pool, log among them.
        skipped: Bytes that the other pool had already, as stored in the pool that was copied from.
        failures: What was not copied although it should have been.
        notes: What a person should know.
    """

    source: DataSource
    copied: list[int] = field(default_factory=list)
    present: int = 0
    left_out: list[int] = field(default_factory=list)
    log_segments: int = 0
    log_bytes: int = 0
    shipped: int = 0
    skipped: int = 0
    failures: list[CopyFailure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did.

    Args:
        sources: Every source that was to be copied.
        seconds: How long it took.
    """

    sources: tuple[SourceCopy, ...]
    seconds: float

    @property
    def shipped(self) -> int:
        """Bytes written into the other pool."""
        return sum(each.shipped for each in self.sources)

    @property
    def skipped(self) -> int:
        """Bytes that the other pool had already."""
        return sum(each.skipped for each in self.sources)

    @property
    def complete(self) -> bool:
        """Whether everything that was to be copied is in the other pool."""
        return not any(each.failures for each in self.sources)
