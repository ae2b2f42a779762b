"""Whether a file system has room for a temporary copy."""

from __future__ import annotations

import shutil
from pathlib import Path

from perdure.model.errors import Refused

__all__ = ["refuse_without_room"]


def refuse_without_room(directory: Path, size: int, what: str, hint: str) -> None:
    """Refuse work that would fill a file system.

    Args:
        directory: Where the copy would go.
        size: Its bytes; an eighth more is asked for.
        what: What needs it, as the beginning of a sentence.
        hint: What to do.

    Raises:
        Refused: There is less room than that.
    """
    free = shutil.disk_usage(directory).free
    if free < size + size // 8:
        raise Refused(
            f"{what} takes a temporary copy of {size:,} bytes, and {directory} has {free:,} free",
            code="no-room",
            hint=hint,
        )
