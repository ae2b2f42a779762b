"""``perdure check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.cli.documents import plain
from perdure.cli.options import DEFAULT_OPTIONS, CommonOptions
from perdure.cli.output import print_json, print_lines
from perdure.cli.progress_bar import progress_bar
from perdure.cli.session import Session
from perdure.cli.wording import count, size

if TYPE_CHECKING:
    from perdure.protection.image_verbs import CheckReport

__all__ = ["check"]


def check(name: str, /, *, common: CommonOptions = DEFAULT_OPTIONS) -> int:
    """Compare the replica with the source block by block, and repair the replica.

    If they differ it makes a new recovery point that equals the source, and says what differed. Older recovery points
    stay as they are.

    For example:

        perdure check app

    Args:
        name: The data source.
    """
    from perdure.protection import image_verbs

    with Session(common) as session:
        protected = session.protected(name)
        with progress_bar(common) as progress:
            report = image_verbs.check(protected, progress)
    if common.json:
        print_json({"source": protected.source.name, **plain(report)})
    else:
        print_lines(_lines(report))
    return 0


def _lines(report: CheckReport) -> list[str]:
    if report.repaired_by is None:
        return [f"The replica equals the source ({size(report.read)} compared)."]
    what = f"{count(report.pages, 'page')}, " if report.pages else ""
    return [
        f"The replica differed from the source in {what}{size(report.bytes)} ({size(report.read)} compared).",
        *(f"  {file}: {size(length)} at offset {offset}" for file, offset, length in report.ranges),
        f"It was repaired: recovery point #{report.repaired_by.number} equals the source.",
    ]
