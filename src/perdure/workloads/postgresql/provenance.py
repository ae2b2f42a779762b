"""What a recovered directory says of where it came from: comments in its ``postgresql.auto.conf``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from perdure.workloads.postgresql.listing import Listing

__all__ = ["Provenance", "provenance_lines", "read_provenance"]

_LINE = re.compile(r"^# perdure (programs|superuser): (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a directory came from.

    Args:
        major: Version of PostgreSQL.
        programs: The directory of the original server's programs; empty if it was not known.
        superuser: The cluster's first role.
    """

    major: int
    programs: str
    superuser: str


def provenance_lines(listing: Listing) -> str:
    """Comments that :func:`read_provenance` reads."""
    return f"# perdure programs: {listing.bin}\n# perdure superuser: {listing.superuser or 'postgres'}\n"


def read_provenance(directory: Path) -> Provenance:
    """Read it back; without the comments the usual is assumed."""
    text = (directory / "postgresql.auto.conf").read_text(encoding="utf-8", errors="replace")
    found = dict(_LINE.findall(text))
    major = int((directory / "PG_VERSION").read_text(encoding="ascii").split(".")[0])
    return Provenance(major, found.get("programs", ""), found.get("superuser", "postgres"))
