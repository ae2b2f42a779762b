"""What the steps of a healing share: where content comes from, the lease, and what was healed so far."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from perdure.repository.leases import WorkLease
from perdure.repository.pool import Pool

__all__ = ["Healed", "HealingRun", "Origin"]

Progress = Callable[[int], None]


class Origin(Protocol):
    """A place where good content may be."""

    @property
    def name(self) -> str:
        """What people call it, after ``from``."""
        ...

    def contents(self, wanted: Collection[bytes], points: Sequence[tuple[str, int]]) -> Iterator[tuple[bytes, bytes]]:
        """Chunk ids with what may be their content; the caller checks it.

        Args:
            wanted: Ids of chunks.
            points: Points that name them, as source id and number.
        """
        ...


@dataclass(frozen=True, slots=True)
class Healed:
    """Something that was healed: an object's name, its kind as in :class:`Damage`, and how."""

    object: str
    kind: str
    how: str


@dataclass(slots=True)
class HealingRun:
    """One healing so far.

    Args:
        pool: The pool.
        origins: Where content may be, in the order in which they are asked.
        lease: Keeps collections and other healings away.
        progress: Told of bytes dealt with.
        healed: What is sound again.
        written: Bytes of content written.
        condemned: Packs condemned.
        look_at: Names of objects that are to be read again.
    """

    pool: Pool
    origins: Sequence[Origin]
    lease: WorkLease
    progress: Progress
    healed: list[Healed] = field(default_factory=list)
    written: int = 0
    condemned: int = 0
    look_at: set[str] = field(default_factory=set)

    def note(self, name: str, kind: str, how: str) -> None:
        """Note that something is healed."""
        self.healed.append(Healed(name, kind, how))
        self.look_at.add(name)
