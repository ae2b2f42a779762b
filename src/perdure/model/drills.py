"""Recovery drills: a recovery carried out to see whether, and how fast, a point really comes back."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.model.positions import Position

__all__ = ["Drill", "DrillStep"]


@dataclass(frozen=True, slots=True)
class DrillStep:
    """One step of a drill.

    Args:
        name: What was done, for example ``recover`` or ``integrity_check``.
        passed: Whether it succeeded.
        seconds: How long it took.
        details: What was found; the first line says why it failed.
        recovers: It is part of getting the source back into service; other steps only look at the result.
        bytes: What it wrote or replayed; 0 if that says nothing.
    """

    name: str
    passed: bool
    seconds: float
    details: tuple[str, ...] = ()
    recovers: bool = False
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Drill:
    """The verdict of one drill.

    Args:
        source: Id of the data source.
        number: The record that the recovered moment stands on.
        position: The log position that was recovered; ``None`` for folders.
        time_ns: The moment that it shows, nanoseconds since 1970 UTC.
        began_ns: When the drill began, nanoseconds since 1970 UTC.
        size: Bytes recovered.
        steps: What was done, in order; after a step that failed to recover there is none.
    """

    source: str
    number: int
    position: Position | None
    time_ns: int
    began_ns: int
    size: int
    steps: tuple[DrillStep, ...]

    @property
    def passed(self) -> bool:
        """Whether every step did; a drill without steps proves nothing."""
        return bool(self.steps) and all(step.passed for step in self.steps)

    @property
    def recovery_seconds(self) -> float:
        """The recovery time that was measured: every step up to the source being usable."""
        return sum(step.seconds for step in self.steps if step.recovers)

    @property
    def failure(self) -> str:
        """Which step failed and why; empty if none did."""
        for step in self.steps:
            if not step.passed:
                return f"{step.name}: {step.details[0]}" if step.details else f"{step.name} failed"
        return "" if self.steps else "nothing was checked"
