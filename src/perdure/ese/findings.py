"""What verification finds: damage, things to know, and where they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "Severity", "damage_in", "worst_of"]


class Severity(Enum):
    """How bad a finding is, the worst last."""

    NOTE = "note"
    UNVERIFIED = "unverified"
    DAMAGE = "damage"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that verification found.

    Args:
        code: Stable identifier in ``kebab-case``.
        file: Name of the file.
        place: Where in the file: ``page 17``, ``segment 3, record 5,3,28``; empty for the file as a whole.
        what: What is the matter, and what it means, in words.
        severity: Damage makes verification fail, and what could not be verified keeps it from being complete.
    """

    code: str
    file: str
    place: str
    what: str
    severity: Severity = Severity.DAMAGE

    def __str__(self) -> str:
        return f"{self.file}: {self.place}: {self.what}" if self.place else f"{self.file}: {self.what}"


def damage_in(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that are damage."""
    return [finding for finding in findings if finding.severity is Severity.DAMAGE]


def worst_of(findings: Iterable[Finding]) -> Severity:
    """The worst of findings; a note if there are none."""
    return max((finding.severity for finding in findings), default=Severity.NOTE, key=list(Severity).index)
