"""A progress bar on a terminal: stage, bytes, rate and time left. Elsewhere nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from perdure.cli.options import CommonOptions
from perdure.protection.progress import Progress, quiet

__all__ = ["progress_bar"]


@contextlib.contextmanager
def progress_bar(options: CommonOptions) -> Iterator[Progress]:
    """Yield what a verb reports its progress to.

    The bar is drawn on standard error, and only when that is a terminal and ``--json`` was not given.
    """
    if options.json or not sys.stderr.isatty():
        yield quiet
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def report(stage: str, done: int, total: int, /) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total or None)
            bars.update(tasks[stage], advance=done, total=total or None)

        yield report
