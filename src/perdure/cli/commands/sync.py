"""``perdure sync``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.cli.documents import plain
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.progress_bar import progress_bar
from perdure.cli.sentences import about_point
from perdure.cli.session import Session
from perdure.cli.wording import count, size

if TYPE_CHECKING:
    from perdure.protection.image_verbs import SyncResult

__all__ = ["sync"]


def sync(name: str, /, *, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Ship what was written since the last time.

    For a database it ships the transaction log; for a folder it makes a recovery point.

    For example:

        perdure sync app

    Args:
        name: The data source.
    """
    from perdure.protection.image_verbs import synchronize

    with Session(common) as session:
        protected = session.protected(name)
        with progress_bar(common) as progress:
            result = synchronize(protected, progress)
    if common.json:
        print_json({"source": protected.source.name, **plain(result)})
    else:
        print_lines(_lines(result))
    return 0


def _lines(result: SyncResult) -> list[str]:
    lines = []
    if result.point is not None:
        lines += about_point(result.point)
        if result.last is not None:
            lines.append(f"Why it was made: {result.cause}")
    if result.last is not None:
        shipped = f"{count(result.commits, 'transaction')} ({size(result.bytes)})"
        lines.append(f"Shipped {shipped}; durable up to position {result.last}.")
    return lines or ["Nothing was written since the last time; everything is durable."]
