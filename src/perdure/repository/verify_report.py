"""What a verification checked and what it found."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.repository.damage import Damage

__all__ = ["VerifyReport"]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked and what was found.

    Args:
        objects: Objects checked.
        chunks: Chunks read, or with ``data`` off listed in footers that were read.
        bytes: Bytes of what was checked.
        points: Recovery points that were followed.
        damage: What is damaged, also what earlier runs found by reading objects that this one did not read.
        read: Packs and log segments that this run read whole.
        to_read: Packs and log segments there are.
        oldest_ns: Of those not damaged the longest time ago that one was read whole, nanoseconds since 1970 UTC;
            0 if one never was.
        notes: What a person should know.
    """

    objects: int
    chunks: int
    bytes: int
    points: int
    damage: tuple[Damage, ...]
    read: int = 0
    to_read: int = 0
    oldest_ns: int = 0
    notes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        return not self.damage
