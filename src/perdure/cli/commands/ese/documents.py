"""Values of the ESE library as JSON, as text, and files that have to be there."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

from perdure.ese.columns import Undecoded
from perdure.ese.findings import Finding, Severity
from perdure.ese.structures import LogPosition, LogTime, Signature
from perdure.model.errors import Damaged, NotFound, Partial, SourceUnusable

__all__ = ["document", "exit_status", "finding_lines", "readable", "text"]


def document(value: object) -> Any:
    """A value as JSON has it: log positions and times as text, bytes as hexadecimal digits, unset times as null."""
    if isinstance(value, LogTime):
        return str(value) or None
    if isinstance(value, LogPosition):
        return str(value)
    if isinstance(value, Signature):
        return {"text": str(value) or None, "bytes": value.raw.hex()}
    if isinstance(value, Undecoded):
        return {"undecoded": value.reason, "bytes": value.content.hex()}
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: document(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): document(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [document(item) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, (UUID, Path)):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def text(value: object) -> str:
    """A value on one line for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (bytes, bytearray)):
        return value.hex() or "empty"
    if isinstance(value, Undecoded):
        return f"not decoded: {value.reason} ({len(value.content)} bytes)"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(text, value))
    return str(value).replace("\r", "\\r").replace("\n", "\\n")


def exit_status(worst: Severity) -> int:
    """0 only if everything was verified."""
    if worst is Severity.DAMAGE:
        return Damaged.exit_status
    return Partial.exit_status if worst is Severity.UNVERIFIED else 0


def finding_lines(findings: tuple[Finding, ...]) -> Iterator[str]:
    """Findings in words, the worst first."""
    heads = {Severity.DAMAGE: "DAMAGE", Severity.UNVERIFIED: "Not verified", Severity.NOTE: "Note"}
    for severity, head in heads.items():
        yield from (f"{head}: {finding}" for finding in findings if finding.severity is severity)


@contextlib.contextmanager
def readable(*paths: Path) -> Iterator[None]:
    """Check that files are there, and turn what the operating system says while they are read into an error for people.

    Raises:
        NotFound: One is not there.
        SourceUnusable: One cannot be read.
    """
    for path in paths:
        if not path.exists():
            raise NotFound(f"{path} does not exist", code="file-not-found", hint="check the path")
    try:
        yield
    except OSError as error:
        raise SourceUnusable(
            f"{error.filename or paths[0]} cannot be read: {error.strerror or error}",
            code="source-unreadable",
            hint="check the permissions and the disk",
        ) from error
