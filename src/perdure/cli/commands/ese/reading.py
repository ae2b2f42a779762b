"""What commands that read inside a database say about it on standard error."""

from __future__ import annotations

from perdure.cli.output import remark
from perdure.ese.database import Database
from perdure.model.errors import Damaged

__all__ = ["closing_remarks", "opening_remarks"]


def opening_remarks(database: Database) -> None:
    """Say what limits the content of a database that is not clean."""
    if not database.header.clean:
        remark(
            f"{database.file} is in {database.header.state_text}: what is only in its logs is not shown, "
            "and what never committed may be"
        )
    if not (database.copies.primary_sound and database.copies.shadow_sound):
        remark(f"{database.file}: one copy of its header is damaged; the {database.copies.used} one counts")


def closing_remarks(database: Database) -> int:
    """Say which damage was met, and return the exit status."""
    for page in sorted(database.corrected):
        remark(f"{database.file}: page {page}: a flipped bit was corrected for reading; the file is unchanged")
    whole = database.copies.primary_sound and database.copies.shadow_sound and not database.corrected
    return 0 if whole else Damaged.exit_status
