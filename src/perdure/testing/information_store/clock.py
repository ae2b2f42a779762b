"""What time it is for an engine: the machine's clock, or one that tests move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

__all__ = ["Clock", "SteppingClock", "machine_clock"]

Clock: TypeAlias = Callable[[], datetime]
"""Gives the present moment in UTC."""


def machine_clock() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


@dataclass
class SteppingClock:
    """A clock that goes on by a fixed step whenever it is asked.

    Args:
        moment: What it says first.
        step: By how much it goes on.
    """

    moment: datetime = datetime(2024, 3, 1, 8, 0, tzinfo=UTC)
    step: timedelta = timedelta(milliseconds=7)

    def __call__(self) -> datetime:
        self.moment += self.step
        return self.moment
